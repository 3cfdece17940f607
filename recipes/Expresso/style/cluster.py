"""Cluster the style features of Expresso, averaged over each second, to units.

    cd recipes/Expresso/style
    python cluster.py hparams/cluster.yaml --manifest_folder DIR

Writes to the output folder the units of each second of a split
(labels/<split>.json), a style part whose classifier chooses the nearest
cluster (style/), and report.json.
"""

import json
from pathlib import Path

from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.integrations.parts import load_part, save_part
from spiritlm_plugin.training.style_clusters import (
    ClusterSettings,
    StyleClusters,
)
from spiritlm_plugin.utils.files import write_file
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, ClusterSettings)
    device = run_opts.get("device") or infer_device()
    tokenizer = load_part("style", hparams["features_folder"]).to(device)
    clusters = StyleClusters(hparams, tokenizer)
    folder = Path(hparams["output_folder"])
    (folder / "labels").mkdir(exist_ok=True)
    report = {}
    for split in ["train", *hparams["label_splits"]]:
        labels, report[split] = clusters.label(split)
        write_file(folder / "labels" / f"{split}.json", json.dumps(labels))
    write_file(folder / "report.json", json.dumps(report))
    print(json.dumps(report, indent=2))
    clustered = clusters.nearest()
    save_part(folder / "style", clustered.arguments, clustered)


if __name__ == "__main__":
    run(main)
