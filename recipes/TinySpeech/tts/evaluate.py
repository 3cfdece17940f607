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

from functools import partial

import torch
from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.evaluation.loop import (
    load_items,
    load_model,
    load_shots,
    predict,
    settings_of,
)
from spiritlm_plugin.evaluation.tts import (
    Reading,
    TTSSettings,
    find_stop,
    report,
)
from spiritlm_plugin.utils.recipes import load_recipe, run


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments, TTSSettings)
    items = load_items(hparams, ["text"])
    shots = load_shots(hparams, items)
    stop = find_stop(hparams)
    lm = load_model(hparams, run_opts)
    lm.speaker_id(hparams["speaker"])  # if there is none, say so now
    settings = settings_of(hparams, run_opts, lm, items, shots)
    settings["stop"] = stop
    device = str(run_opts["device"] or infer_device())
    make = partial(Reading, hparams, lm, items, shots, stop, device)
    rows = predict(hparams, settings, items, make)
    if rows is not None:
        report(hparams, rows, shots)


if __name__ == "__main__":
    run(main)
