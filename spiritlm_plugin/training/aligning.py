"""Word times of a corpus that has none."""

from __future__ import annotations

from pathlib import Path

from spiritlm_plugin.dataio.corpus.alignment import align_manifest
from spiritlm_plugin.lobes.ctc_aligner import CTCAligner
from spiritlm_plugin.utils.configuration import Settings


class AligningSettings(Settings):
    """What aligning reads."""

    manifest_folder: str
    splits: list[str]
    aligner: str
    shard_utterances: int
    batch_seconds: float
    workers: int


def align_splits(hparams: AligningSettings, aligner: CTCAligner) -> None:
    """Give the utterances of all splits word times; processes share the work.

    Arguments
    ---------
    hparams : AligningSettings
        The recipe's.
    aligner : CTCAligner
        On its device.
    """
    for split in hparams["splits"]:
        align_manifest(
            Path(hparams["manifest_folder"]) / f"{split}.json",
            hparams["output_folder"],
            aligner,
            shard_utterances=hparams["shard_utterances"],
            batch_seconds=hparams["batch_seconds"],
            workers=hparams["workers"],
        )
