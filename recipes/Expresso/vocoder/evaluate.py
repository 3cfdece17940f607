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

import torch
from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.evaluation.loop import load_items, predict
from spiritlm_plugin.evaluation.resynthesis import (
    Resynthesis,
    ResynthesisSettings,
    find_voices,
    load_codecs,
    load_judge,
    load_style_items,
    report,
    settings_of,
)
from spiritlm_plugin.lobes.pitch import FCPE
from spiritlm_plugin.utils.recipes import load_recipe, run


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments, ResynthesisSettings)
    items = load_items(hparams, ["text"] if hparams["recognizer"] else [])
    style_items = load_style_items(hparams, items)
    codecs = load_codecs(hparams, run_opts)
    voices = {v: find_voices(hparams, c, items) for v, c in codecs.items()}
    settings = settings_of(hparams, run_opts, codecs, items, style_items)
    f0 = FCPE().to(run_opts["device"] or infer_device()).eval()

    def make():
        judge = load_judge(hparams["recognizer"], f0, style_items)
        return Resynthesis(hparams, codecs, voices, judge, items)

    rows = predict(hparams, settings, items, make)
    if rows is not None:
        report(hparams, rows, f0)


if __name__ == "__main__":
    run(main)
