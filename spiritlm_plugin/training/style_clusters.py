"""Clusters of style features, averaged over each second: style units."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spiritlm_plugin.dataio.audio.recordings import map_recordings
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.lobes.style import StyleTokenizer
from spiritlm_plugin.metrics.usage import unit_usage
from spiritlm_plugin.utils.configuration import Settings

Items = Mapping[str, Mapping[str, Any]]
Features = dict[str, np.ndarray]
# By speaker, None for all of them, and style.
Means = dict[tuple[str | None, str], np.ndarray]


class ClusterSettings(Settings):
    """What the clustering reads."""

    manifest_folder: str
    features_folder: str
    label_splits: list[str]
    speaker_independent: bool
    kmeans: Any


class StyleClusters:
    """Clusters that are fitted to the first split, and tell those of others.

    Arguments
    ---------
    hparams : ClusterSettings
        The recipe's.
    tokenizer : StyleTokenizer
        Whose features they are, where it is to run.
    """

    def __init__(self, hparams: ClusterSettings, tokenizer: StyleTokenizer):
        self.folder = Path(hparams["manifest_folder"])
        self.tokenizer = tokenizer
        self.kmeans = hparams["kmeans"]
        self.speaker_independent = hparams["speaker_independent"]
        self.spread: float | None = None
        self._means: Means = {}

    def label(self, split: str) -> tuple[dict[str, list[int]], dict[str, Any]]:
        """Return the cluster of each second of a split, and figures of it."""
        items = load_manifest(self.folder / split, ["style", "speaker"])
        device = next(self.tokenizer.parameters()).device
        features = {
            name: rows.numpy()
            for name, rows in map_recordings(
                self.tokenizer.features, items, device, progress=split
            )
        }
        if self.speaker_independent:
            features = take_off_speakers(features, items, self._means)
        rows = np.concatenate(list(features.values()))
        if self.spread is None:
            self.kmeans.fit(rows)
        labels = {
            name: self.kmeans.predict(row).tolist()
            for name, row in features.items()
        }
        distances = self.kmeans.transform(rows).min(1) ** 2
        if self.spread is None:
            self.spread = float(distances.mean())
        units = torch.tensor([unit for row in labels.values() for unit in row])
        explained = float(1 - distances.mean() / rows.var(0).sum())
        return labels, {
            "seconds": len(units),
            "explained_variance": explained,
            **unit_usage(units, self.kmeans.n_clusters),
        }

    def nearest(self) -> StyleTokenizer:
        """Return a tokenizer, on the CPU, that chooses the nearest cluster."""
        centres = torch.from_numpy(self.kmeans.cluster_centers_).float()
        assert self.spread is not None  # there are centres
        return nearest_cluster(self.tokenizer.cpu(), centres, self.spread)


def take_off_speakers(
    features: Features, items: Items, means: Means
) -> Features:
    """Bring each speaker's mean in each style to that of all speakers.

    Adds the means of new speakers, and of all as None, to ``means``.
    """
    groups: dict[tuple[str, str], list[np.ndarray]] = {}
    for name, rows in features.items():
        key = items[name]["speaker"], items[name]["style"]
        groups.setdefault(key, []).append(rows)
    for key, parts in groups.items():
        means.setdefault(key, np.concatenate(parts).mean(0))
    for style in {style for _, style in groups}:
        of_all = [mean for (_, other), mean in means.items() if other == style]
        means.setdefault((None, style), np.mean(of_all, 0))
    return {
        name: rows
        - means[items[name]["speaker"], items[name]["style"]]
        + means[None, items[name]["style"]]
        for name, rows in features.items()
    }


def nearest_cluster(
    tokenizer: StyleTokenizer, centres: Tensor, spread: float
) -> StyleTokenizer:
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
