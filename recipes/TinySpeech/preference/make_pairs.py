"""Let a model answer prompts of TinySpeech several times, and judge it.

    cd recipes/TinySpeech/preference
    python make_pairs.py hparams/pairs.yaml --data_folder ARCHIVE \
        --model MODEL --speech_classifier FOLDER --text_classifier FOLDER

What is asked, and who judges, stands in the YAML file. Writes to the output folder
pairs of a better and a worse answer (train.jsonl, valid.jsonl), all answers with
their scores (predictions.jsonl), report.md and summary.json. Runs under torchrun,
and goes on where it was stopped.
"""

from spiritlm_plugin.evaluation.preferences import PairSettings, make_pairs
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, PairSettings)
    make_pairs(hparams, run_opts)


if __name__ == "__main__":
    run(main)
