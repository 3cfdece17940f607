"""Let a model answer prompts of LibriSpeech several times, and judge it.

    cd recipes/LibriSpeech/preference
    python make_pairs.py hparams/continuations.yaml --manifest_folder FOLDER \
        --model MODEL --text_model TEXT_MODEL --recognizer WHISPER
    python make_pairs.py hparams/readings.yaml --manifest_folder FOLDER \
        --model MODEL --recognizer WHISPER

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
