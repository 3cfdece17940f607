"""Measure whether a language model keeps the sentiment of prompts (STSP).

python evaluate.py hparams/evaluate.yaml --data_folder ARCHIVE --model MODEL

Lets the model continue texts and voices in text and in speech, behind no shots
and behind some, in several runs; classifiers of sentiment judge what it says.
Writes predictions.jsonl, the benchmark's predictions (predictions/), some
recordings (wavs/), summary.json, report.md and shots.png. Runs under torchrun,
and goes on where it was stopped.
"""

from spiritlm_plugin.evaluation.sentiment import evaluate
from spiritlm_plugin.evaluation.sentiment_benchmark import (
    SentimentSettings,
    settle,
)
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, SentimentSettings)
    evaluate(settle(hparams, arguments), run_opts)


if __name__ == "__main__":
    run(main)
