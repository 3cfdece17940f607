"""Measure what a language model makes of the first seconds of utterances.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER \
    --model MODEL --recognizer WHISPER --judge LM --mos dnsmos \
    --speaker_encoder ECAPA --toxicity_classifier CLASSIFIER

Lets the model continue them in speech and in text, from speech and from text.
Those who judge are those that are named: a recognizer writes down what is said, a
language model tells how likely it is (GenPPL), a predictor of opinions how it
sounds, a speaker encoder whether the voice is kept, a classifier whether it is
toxic. The utterances themselves are judged beside. Writes predictions.jsonl,
summary.json, report.md, continuations.png and some recordings (wavs/). Runs under
torchrun, and goes on where it was stopped.
"""

from spiritlm_plugin.evaluation.continuation import (
    ContinuationSettings,
    evaluate,
)
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, ContinuationSettings)
    evaluate(hparams, run_opts)


if __name__ == "__main__":
    run(main)
