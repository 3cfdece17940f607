"""Cluster style features, averaged over each second, to style units.

    cd recipes/TinySpeech/style
    python cluster.py hparams/cluster.yaml --manifest_folder DIR

Writes to the output folder the units of each second of a split
(labels/<split>.json), a style part whose classifier chooses the nearest
cluster (style/), and report.json.
"""

import json
import os
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.dataio.audio.recordings import map_recordings
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.integrations.parts import load_part, save_part
from spiritlm_plugin.lobes.style import StyleTokenizer
from spiritlm_plugin.metrics.usage import unit_usage
from spiritlm_plugin.utils.recipes import load_recipe, run


def take_off_speakers(features, items, means):
    """Bring each speaker's mean in each style to that of all speakers.

    Adds the means of new speakers, and of all as None, to ``means``.
    """
    groups = {}
    for name, rows in features.items():
        key = items[name]["speaker"], items[name]["style"]
        groups.setdefault(key, []).append(rows)
    for key, rows in groups.items():
        means.setdefault(key, np.concatenate(rows).mean(0))
    for style in {style for _, style in groups}:
        of_all = [mean for (_, other), mean in means.items() if other == style]
        means.setdefault((None, style), np.mean(of_all, 0))
    return {
        name: rows
        - means[items[name]["speaker"], items[name]["style"]]
        + means[None, items[name]["style"]]
        for name, rows in features.items()
    }


def nearest_cluster(tokenizer, centres, spread):
    """Return a tokenizer that scores how near each cluster is.

    A score is the squared distance, of which ``spread`` is the average, as in
    the log-likelihood of a Gaussian.
    """
    arguments = tokenizer.arguments | {"units": len(centres)}
    clustered = StyleTokenizer(**arguments)
    state = tokenizer.state_dict()
    state["classifier.weight"] = centres / spread
    state["classifier.bias"] = -centres.square().sum(1) / (2 * spread)
    clustered.load_state_dict(state)
    return clustered


def write_json(content, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    os.replace(partial, path)


def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    device = run_opts.get("device") or infer_device()
    tokenizer = load_part("style", hparams["features_folder"]).to(device)
    kmeans = hparams["kmeans"]
    folder = Path(hparams["output_folder"])
    means, report = {}, {}
    for split in ["train", *hparams["label_splits"]]:
        items = load_manifest(
            Path(hparams["manifest_folder"]) / f"{split}.json",
            needs=["style", "speaker"],
        )
        features = {
            name: rows.numpy()
            for name, rows in map_recordings(
                tokenizer.features, items, device, progress=split
            )
        }
        if hparams["speaker_independent"]:
            features = take_off_speakers(features, items, means)
        rows = np.concatenate(list(features.values()))
        if split == "train":
            kmeans.fit(rows)
        labels = {n: kmeans.predict(r).tolist() for n, r in features.items()}
        write_json(labels, folder / "labels" / f"{split}.json")
        distances = kmeans.transform(rows).min(1) ** 2
        if split == "train":
            spread = float(distances.mean())
        units = torch.tensor([unit for row in labels.values() for unit in row])
        report[split] = {
            "seconds": len(units),
            "explained_variance": float(
                1 - distances.mean() / rows.var(0).sum()
            ),
            **unit_usage(units, kmeans.n_clusters),
        }
    write_json(report, folder / "report.json")
    print(json.dumps(report, indent=2))
    centres = torch.from_numpy(kmeans.cluster_centers_).float()
    clustered = nearest_cluster(tokenizer.cpu(), centres, spread)
    save_part(folder / "style", clustered.arguments, clustered)


if __name__ == "__main__":
    run(main)
