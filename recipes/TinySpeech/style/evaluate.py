"""Measure what style units of TinySpeech tell: the style, and not the speaker.

    cd recipes/TinySpeech/style
    python evaluate.py hparams/evaluate.yaml --manifest_folder DIR

Units of the training split are counted; from these counts style and speaker
of the test splits are told, for a second by the likeliest style of its unit,
for an utterance by naive Bayes over its units. Writes report.json, report.txt,
confusion.png and styles.json, the units of each style, to the output folder.
"""

from pathlib import Path

from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.evaluation.style import (
    TRAITS,
    StyleSettings,
    Teller,
    Units,
    draw_confusion,
    figures_of,
    load_split,
    report,
    write_units,
)
from spiritlm_plugin.integrations.parts import load_part
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, StyleSettings)
    device = run_opts.get("device") or infer_device()
    tokenizer = load_part("style", hparams["style_folder"]).to(device)
    train, *splits = (
        Units(tokenizer, load_split(hparams, split), device, split)
        for split in ["train", *hparams["test_splits"]]
    )
    tellers = {trait: Teller(train, trait) for trait in TRAITS}
    tested = dict(zip(hparams["test_splits"], splits))
    figures = {
        split: figures_of(hparams, tokenizer, tellers, units, device)
        for split, units in tested.items()
    }
    folder = Path(hparams["output_folder"])
    report(folder, figures)
    write_units(folder, train)
    draw_confusion(tellers["style"], tested, folder / "confusion.png")


if __name__ == "__main__":
    run(main)
