"""What is said in each frame, as the units that a HuBERT predicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spiritlm_plugin.dataio.corpus.manifests import (
    load_manifest,
    open_source,
)
from spiritlm_plugin.dataio.corpus.mapping import Items, Work, map_shards
from spiritlm_plugin.dataio.corpus.shards import make_row
from spiritlm_plugin.dataio.corpus.stores import CorpusError
from spiritlm_plugin.dataio.units.units import (
    PHONETIC_HOP,
    SAMPLE_RATE,
    SpeechUnits,
)
from spiritlm_plugin.metrics.units import frame_labels

_SILENCE = "sil"
# Samples that a frame sees.
_FIELD = 720


def write_phone_units(
    manifest_folder: str | Path,
    folder: str | Path,
    splits: Sequence[str] = ("train", "valid"),
) -> list[str]:
    """Write the phone of each frame as its unit, a store for each split.

    Phones are the same whoever says them, which clusters of spectra are not.

    Source: Wang et al., "Supervision-Guided Codebooks for Masked Prediction
    in Speech Pre-training", Interspeech 2022.

    Arguments
    ---------
    manifest_folder : str or Path
        Of manifests with ``phones``.
    folder : str or Path
        To write to, for `teacher_units` as its ``units_folder``.
    splits : sequence of str
        Of the manifests; the phones are those of the first one.

    Returns
    -------
    list of str
        The phones, in the order of their numbers.

    Raises
    ------
    CorpusError
        If an utterance has no phones, or one that is not among them.

    Example
    -------
    >>> from spiritlm_plugin.dataio.corpus.manifests import write_manifest
    >>> from spiritlm_plugin.dataio.corpus.stores import load_corpus
    >>> phones = [["sil", 0.0, 0.1], ["a", 0.1, 2.4]]
    >>> item = {"wav": recording, "duration": 2.4, "phones": phones}
    >>> write_manifest({"x": item}, tmp / "train.json")
    >>> write_phone_units(tmp, tmp / "units", ["train"])
    ['a', 'sil']
    >>> load_corpus(tmp / "units" / "train")[0]["phonetic_units"][:4]
    tensor([1, 1, 0, 0])
    """
    items = load_manifest(Path(manifest_folder) / splits[0], ["phones"])
    said = {phone for item in items.values() for phone, *_ in item["phones"]}
    names = sorted(said | {_SILENCE})
    for split in splits:
        map_shards(
            open_source(Path(manifest_folder) / split),
            Path(folder) / split,
            partial(_make_work, names),
            {"phones": names},
        )
    return names


def _make_work(names: Sequence[str]) -> Work:
    numbers = {name: number for number, name in enumerate(names)}

    def work(items: Items) -> Iterator[dict[str, Any]]:
        for name, item in items.items():
            if not item.get("phones"):
                raise CorpusError(
                    f"{name} has no phones; align the corpus first"
                )
            samples = round(item["duration"] * SAMPLE_RATE)
            frames = max((samples - _FIELD) // PHONETIC_HOP + 1, 0)
            labels = frame_labels(item["phones"], frames, _SILENCE)
            strange = sorted({*labels} - {*names})
            if strange:
                raise CorpusError(
                    f"{name} has phones that training has not: "
                    f"{', '.join(strange)}"
                )
            units = [numbers[label] for label in labels]
            yield make_row(name, item, SpeechUnits(units))

    return work
