"""Utterances and the units that a teacher gives them, to train others on."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import torch
from speechbrain import Brain
from speechbrain.utils.distributed import ddp_barrier

from spiritlm_plugin.dataio.audio.reading import WINDOW_SECONDS
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.corpus.unit_store import (
    fingerprints,
    load_corpus,
    tokenize_corpus,
)
from spiritlm_plugin.integrations.parts import load_tokenizer
from spiritlm_plugin.training.trainer import LoaderSettings

# Utterances of a split, with --debug.
_DEBUG_UTTERANCES = 16


class TeacherSettings(LoaderSettings):
    """What all that learns from a teacher's units reads."""

    manifest_folder: str
    teacher: str
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
        out.
    brain : speechbrain.Brain
        Says the device, and whether a debug run wants few utterances.
    split : str
        Name of the manifest.

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
    ...            "teacher": teacher, "shortest_seconds": 0.2}
    >>> brain = SimpleNamespace(device="cpu", debug=False)
    >>> corpus = teacher_units(hparams, brain, "train")
    >>> corpus[0]["utterance"], len(corpus[0]["phonetic_units"])
    ('a', 59)
    """
    items = load_manifest(Path(hparams["manifest_folder"]) / f"{split}.json")
    items = {
        name: {k: item[k] for k in ("wav", "duration")}
        for name, item in items.items()
        # Longer ones are tokenized in windows, off the clock of the whole.
        if hparams["shortest_seconds"] <= item["duration"] <= WINDOW_SECONDS
    }
    folder = Path(hparams["output_folder"]) / "teacher_units"
    if brain.debug:
        items = dict(islice(items.items(), _DEBUG_UTTERANCES))
        folder = folder / "debug"
    if not items:
        raise ValueError(
            f"no utterance of {split}.json is between "
            f"{hparams['shortest_seconds']} and {WINDOW_SECONDS} s long"
        )
    tokenizer = load_tokenizer(hparams["teacher"]).to(brain.device)
    part = fingerprints(tokenizer)
    with torch.inference_mode():
        tokenize_corpus(
            items,
            folder / split,
            tokenizer,
            part,
            rank=int(os.environ.get("RANK", 0)),
            world_size=int(os.environ.get("WORLD_SIZE", 1)),
        )
    ddp_barrier()
    return load_corpus(folder / split, part)
