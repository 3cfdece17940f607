"""How long the recordings of a corpus are."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import audio_seconds

logger = logging.getLogger(__name__)

_THREADS = 16


def read_durations(
    paths: Iterable[Path], progress: str | None = None
) -> dict[Path, float]:
    """Return the seconds of recordings; those that cannot be read are reported.

    Arguments
    ---------
    paths : iterable of Path
        Of the recordings.
    progress : str, optional
        Shown beside a progress bar.

    Returns
    -------
    dict of Path to float
        In the order of the paths, without what cannot be read.

    Example
    -------
    >>> from pathlib import Path
    >>> list(read_durations([Path(recording), tmp / "missing.wav"]).values())
    [2.3999375]
    """
    paths = list(paths)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = tqdm(
            pool.map(_seconds, paths),
            total=len(paths),
            desc=progress,
            unit="file",
            disable=progress is None,
        )
        return {p: s for p, s in zip(paths, found) if s is not None}


def _seconds(path: Path) -> float | None:
    try:
        return audio_seconds(path)
    except (OSError, ValueError) as error:
        logger.warning("%s is left out: %s", path.name, error)
        return None
