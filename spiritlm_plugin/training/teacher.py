"""Utterances and the units that a teacher gives them, to train others on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from speechbrain import Brain

from spiritlm_plugin.dataio.checkpoints import digest_values
from spiritlm_plugin.dataio.corpus.manifests import open_source
from spiritlm_plugin.dataio.corpus.mapping import Items
from spiritlm_plugin.dataio.corpus.stores import load_corpus
from spiritlm_plugin.dataio.corpus.unit_store import (
    fingerprints,
    tokenize_corpus,
)
from spiritlm_plugin.dataio.units.units import WINDOW_SECONDS
from spiritlm_plugin.integrations.parts import load_tokenizer
from spiritlm_plugin.training.trainer import LoaderSettings
from spiritlm_plugin.utils.placing import Placed

# Utterances of a split, with --debug.
_DEBUG_UTTERANCES = 16


class TeacherSettings(LoaderSettings):
    """What all that learns from a teacher's units reads."""

    manifest_folder: str
    teacher: str
    units_folder: str | None
    shortest_seconds: float
    opt_class: Any


def teacher_units(
    hparams: TeacherSettings, brain: Brain, split: str
) -> datasets.Dataset:
    """Return the utterances of a split with the teacher's phonetic units.

    The units are made the first time and kept in the output folder. Under
    ``torchrun`` each process makes a share of them.

    Arguments
    ---------
    hparams : TeacherSettings
        ``manifest_folder``, ``output_folder``, ``teacher``, the folder of a
        phonetic part, and ``shortest_seconds``: shorter utterances are left
        out. ``units_folder`` holds units that are there already, such as
        those of `transfer_units`.
    brain : speechbrain.Brain
        Says the device, and whether a debug run wants few utterances.
    split : str
        Of the manifest.

    Returns
    -------
    datasets.Dataset
        As from `load_corpus`.

    Raises
    ------
    ValueError
        If no utterance is long enough and short enough.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> from spiritlm_plugin.dataio.corpus.manifests import write_manifest
    >>> from spiritlm_plugin.integrations.parts import save_part
    >>> from spiritlm_plugin.lobes.phonetic import (
    ...     KMeansQuantizer, PhoneticTokenizer
    ... )
    >>> quantizer = {"input_dim": 39, "units": 5}
    >>> tokenizer = PhoneticTokenizer(None, KMeansQuantizer(**quantizer))
    >>> teacher = save_part(
    ...     tmp / "teacher", {"hubert": None, "quantizer": quantizer}, tokenizer
    ... )
    >>> items = {"a": {"wav": recording, "duration": 2.4}}
    >>> write_manifest(items, tmp / "train.json")
    >>> hparams = {"manifest_folder": tmp, "output_folder": tmp,
    ...            "teacher": teacher, "units_folder": None,
    ...            "shortest_seconds": 0.2}
    >>> brain = SimpleNamespace(device="cpu", debug=False)
    >>> corpus = teacher_units(hparams, brain, "train")
    >>> corpus[0]["utterance"], len(corpus[0]["phonetic_units"])
    ('a', 59)
    """
    most = _DEBUG_UTTERANCES if brain.debug else None
    if hparams["units_folder"] is not None:
        corpus = load_corpus(Path(hparams["units_folder"]) / split)
        durations = np.array(corpus.with_format("numpy")["duration"])
        return corpus.select(_fitting(durations, hparams, split)[:most])
    source = _Chosen(hparams, split, most)
    folder = Path(hparams["output_folder"]) / "teacher_units"
    if brain.debug:
        folder = folder / "debug"
    tokenizer = load_tokenizer(hparams["teacher"])
    part = fingerprints(tokenizer)
    placed = Placed(tokenizer, brain.device)
    tokenize_corpus(source, folder / split, placed, part)
    return load_corpus(folder / split, part)


class _Chosen:
    """What the utterances of a split are whose units are learned from."""

    def __init__(self, hparams: TeacherSettings, split: str, most: int | None):
        self._source = open_source(Path(hparams["manifest_folder"]) / split)
        durations = self._source.durations
        self._rows = _fitting(durations, hparams, split)[:most]
        self.durations = durations[self._rows]
        self.seconds = float(self.durations.sum())
        rows = hashlib.sha256(self._rows.tobytes()).hexdigest()
        self.digest = digest_values([self._source.digest, rows])

    def items(self, start: int, stop: int) -> Items:
        """Return the recordings of some utterances."""
        rows = self._rows[start:stop]
        found = self._source.items(rows[0], rows[-1] + 1)
        names = list(found)
        return {
            name: {k: found[name][k] for k in ("wav", "duration")}
            for name in (names[row] for row in rows - rows[0])
        }


def _fitting(
    durations: np.ndarray, hparams: TeacherSettings, split: str
) -> np.ndarray:
    """Return the rows of utterances that are neither too short nor too long."""
    shortest = hparams["shortest_seconds"]
    # Longer ones are tokenized in windows, off the clock of the whole.
    fitting = (shortest <= durations) & (durations <= WINDOW_SECONDS)
    rows = np.flatnonzero(fitting)
    if not len(rows):
        raise ValueError(
            f"no utterance of {split} is between {shortest} and "
            f"{WINDOW_SECONDS} s long"
        )
    return rows
