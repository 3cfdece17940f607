"""Measure how well a language model reads the texts of TinySpeech aloud.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER \
    --model MODEL --recognizer WHISPER

Shows the model some transcripts with their utterances, each ended by the word
"stop", or asks behind [TTS] a model that was trained on it (--trained_tts true
--shots 0). What it says is judged by an independent recognizer, and so is the
corpus' own audio. Writes predictions.jsonl, wer.txt (alignments), summary.json,
report.md, durations.png and some recordings (wavs/). Runs under torchrun, and
goes on where it was stopped.
"""

from spiritlm_plugin.evaluation.tts import TTSSettings, evaluate
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, TTSSettings)
    evaluate(hparams, run_opts)


if __name__ == "__main__":
    run(main)
