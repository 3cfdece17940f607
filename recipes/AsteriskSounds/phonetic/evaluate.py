"""Compare phonetic parts on a person's voice: what units say, how steadily.

    python evaluate.py hparams/evaluate.yaml --manifest_folder DIR \
        --parts '{MFCC: DIR, linear: DIR}'

Writes report.json, report.md and a picture of what is said while a unit
sounds, units_<split>.png. The report says of each augmentation whether the
training of a part had it, as the YAML beside the part has it.
"""

from pathlib import Path

import torch

from spiritlm_plugin.evaluation.phonetic import (
    PhoneticSettings,
    draw_units,
    evaluate,
    load_split,
    report,
    seen_in_training,
    versions_of,
)
from spiritlm_plugin.integrations.parts import load_tokenizer
from spiritlm_plugin.utils.recipes import load_recipe, run


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments, PhoneticSettings)
    device = run_opts["device"] or "cpu"
    tokenizers = {
        name: load_tokenizer(part).to(device)
        for name, part in hparams["parts"].items()
    }
    seen = {part: seen_in_training(hparams, part) for part in tokenizers}
    folder, figures = Path(hparams["output_folder"]), {}
    for split in hparams["splits"]:
        items, key = load_split(hparams, split, run_opts["debug"])
        versions = versions_of(hparams, items)
        figures[split], matrices = {}, {}
        for part, tokenizer in tokenizers.items():
            figures[split][part], labels, matrices[part] = evaluate(
                tokenizer, versions, items, key, seen[part]
            )
        draw_units(matrices, labels, folder / f"units_{split}.png")
    report(folder, figures)


if __name__ == "__main__":
    run(main)
