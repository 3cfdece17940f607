"""Measure how well a language model transcribes the speech of TinySpeech.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER --model MODEL

Shows the model some utterances with their transcripts, or asks behind [ASR] a
model that was trained on it (--trained_asr true --shots 0), and counts the words
that it gets wrong. Writes predictions.jsonl, wer.txt (alignments), summary.json,
report.md and wer.png. Runs under torchrun, and goes on where it was stopped.
"""

from spiritlm_plugin.evaluation.asr import ASRSettings, evaluate
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, ASRSettings)
    evaluate(hparams, run_opts)


if __name__ == "__main__":
    run(main)
