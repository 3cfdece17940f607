"""Measure what a language model understands of TinySpeech.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER --model MODEL

Compares a word with a non-word, a sentence with one that has a mistake, and the
ending of a story with one that does not fit, by log-likelihood: in speech (S), in
text (T), and for stories speech after text (T2S) and text after speech (S2T).
Writes predictions.jsonl, summary.json and report.md. Runs under torchrun, and
goes on where it was stopped.
"""

from spiritlm_plugin.evaluation.comprehension import evaluate
from spiritlm_plugin.evaluation.comprehension_groups import (
    ComprehensionSettings,
)
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, ComprehensionSettings)
    evaluate(hparams, run_opts)


if __name__ == "__main__":
    run(main)
