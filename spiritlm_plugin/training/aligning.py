"""Word times of a corpus that has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechbrain.utils.distributed import run_on_main

from spiritlm_plugin.dataio.corpus.alignment import align_corpus
from spiritlm_plugin.dataio.corpus.manifests import open_source
from spiritlm_plugin.dataio.corpus.merging import merge_shards
from spiritlm_plugin.lobes.ctc_aligner import CTCAligner
from spiritlm_plugin.utils.configuration import Settings
from spiritlm_plugin.utils.engines import Engine


class AligningSettings(Settings):
    """What aligning reads."""

    manifest_folder: str
    splits: list[str]
    aligner: str
    engine: Engine
    shard_seconds: float
    batch_seconds: float
    file_bytes: int
    workers: int


def align_splits(
    hparams: AligningSettings, run_opts: Mapping[str, Any]
) -> None:
    """Give the utterances of all splits word times.

    Processes or a cluster share the work. Where all shards of a split are
    there, they are merged.

    Arguments
    ---------
    hparams : AligningSettings
        The recipe's.
    run_opts : dict
        ``device`` and ``precision`` of the recognizer.

    Raises
    ------
    ValueError
        If the output would lie over the manifests.
    """
    manifests = Path(hparams["manifest_folder"])
    output = Path(hparams["output_folder"])
    if output.resolve() == manifests.resolve():
        raise ValueError(
            f"{output} is the folder of the manifests themselves, which would "
            "be lost; name another output_folder"
        )
    aligner = CTCAligner(hparams["aligner"])
    for split in hparams["splits"]:
        align_corpus(
            open_source(manifests / split),
            output / split,
            aligner,
            root=manifests,
            shard_seconds=hparams["shard_seconds"],
            batch_seconds=hparams["batch_seconds"],
            workers=hparams["workers"],
            engine=hparams["engine"],
            device=run_opts["device"],
            precision=run_opts["precision"],
        )
        if hparams["file_bytes"]:
            merge = [output / split, hparams["file_bytes"]]
            run_on_main(merge_shards, args=merge)
