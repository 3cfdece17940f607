"""Measure whether a language model finds the right ending of a story likelier.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER --model MODEL

Compares the stories of spoken StoryCloze and topic-StoryCloze, with the right
ending and the other one, by log-likelihood: in speech (S), in text (T), speech after
text (T2S) and text after speech (S2T).
Writes predictions.jsonl, summary.json and report.md. Runs under torchrun, and
goes on where it was stopped.
"""

from spiritlm_plugin.evaluation.comprehension import evaluate
from spiritlm_plugin.evaluation.comprehension_groups import StorySettings
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, StorySettings)
    evaluate(hparams, run_opts)


if __name__ == "__main__":
    run(main)
