"""Report what is heard of the units of Expresso: the paper's Table 9.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER \
    --model MODEL --recognizer WHISPER

or, of parts that the recipes have trained,

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER \
    --phonetic PART --pitch PART --style PART \
    --base PART --expressive PART --recognizer WHISPER

Resynthesizes a test set from its units with each vocoder and compares the
sound with the original: intelligibility to an independent recognizer, style to
a classifier of original recordings, F0, spectrum and units. Writes
predictions.jsonl, summary.json, report.md, f0.png and some recordings (wavs/).
Runs under torchrun, and goes on where it was stopped.
"""

from spiritlm_plugin.evaluation.resynthesis import (
    ResynthesisSettings,
    evaluate,
)
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, ResynthesisSettings)
    evaluate(hparams, run_opts)


if __name__ == "__main__":
    run(main)
