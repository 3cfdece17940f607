"""Long recordings, cut into utterances where a detector hears speech.

The detector is Silero VAD (github.com/snakers4/silero-vad), whose model is part
of the package ``silero-vad``.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import soundfile
import torch
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.containers import AudioFile
from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.preparation import Record
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.utils.files import (
    DiskFullError,
    naming_full_disk,
    safe_file_name,
    write_bytes,
    write_file,
)

logger = logging.getLogger(__name__)

# In the folder of a recording's utterances: where they are in it.
_LIST = "pieces.json"
# Raise it when recordings are cut in another way.
_VERSION = 1

Span = tuple[float, float]


class Cutting(NamedTuple):
    """How recordings are cut; seconds, but for `threshold`.

    Speech is joined over pauses of up to `max_pause` to utterances of up to
    `max_seconds`; those under `min_seconds` are dropped. The other three are
    the detector's: how likely speech must be, how long a silence, and what is
    kept before and behind speech.
    """

    max_seconds: float = 30.0
    min_seconds: float = 1.0
    max_pause: float = 1.0
    threshold: float = 0.5
    min_silence: float = 0.1
    padding: float = 0.03


def cut_by_voice(
    records: Iterable[Record],
    save_folder: str | Path,
    cutting: Cutting | None = None,
    jobs: int = 1,
) -> Iterator[Record]:
    """Cut long recordings into utterances, and yield these.

    They are written to ``cut`` as FLAC, sample for sample what the recording
    has. Of a recording that has been cut already, nothing is read.

    Arguments
    ---------
    records : iterable of Record
        Long recordings without texts.
    save_folder : path
        Of the manifests.
    cutting : Cutting, optional
        How they are cut.
    jobs : int
        Processes, which share out the recordings. A recording of an hour
        takes 450 MB.

    Yields
    ------
    Record
        As that of the long one, with ``_<start>_<end>`` in milliseconds added
        to its id, which is their group. Recordings that cannot be used are reported.

    Raises
    ------
    ImportError
        If the detector is not installed.
    ValueError
        If `cutting` leaves no length for an utterance.

    Example
    -------
    >>> records = [("a", {"wav": recording, "speaker": "anna"})]
    >>> list(cut_by_voice(records, tmp))
    [('a_0000066_0002400', {'wav': '{data_root}/cut/a/0000066_0002400.flac',
                            'speaker': 'anna', 'duration': 2.3339,
                            'group': 'a', 'position': 0})]
    """
    cutting = cutting or Cutting()
    if not 0 < cutting.min_seconds < cutting.max_seconds:
        raise ValueError(
            f"min_seconds {cutting.min_seconds} and max_seconds "
            f"{cutting.max_seconds} leave no length for an utterance; name "
            "0 < min_seconds < max_seconds"
        )
    for package in ("silero_vad", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                f"cutting by voice activity needs {package}: pip install "
                "'spiritlm_plugin[vad]'"
            )
    records = list(records)
    cut = partial(_cut, folder=Path(save_folder), cutting=cutting)
    results = tqdm(
        _map(cut, records, jobs),
        total=len(records),
        desc="cutting",
        unit="recording",
    )
    for (name, _), pieces in zip(records, results):
        if isinstance(pieces, str):
            logger.warning("%s is left out: %s", name, pieces)
        else:
            yield from pieces


def _map(function: Any, items: Sequence[Any], jobs: int) -> Iterator[Any]:
    if jobs == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        jobs, context, torch.set_num_threads, (1,)
    ) as pool:
        yield from pool.map(function, items)


def _cut(record: Record, folder: Path, cutting: Cutting) -> list[Record] | str:
    """Return the utterances of a recording, or why it has none."""
    name, item = record
    place = Path("cut", *map(safe_file_name, name.split("/")))
    try:
        pieces = _find_pieces(Path(item["wav"]), folder / place, cutting)
    except DiskFullError:
        raise
    except (OSError, ValueError) as error:
        return str(error)
    return [
        (
            f"{name}_{file.removesuffix('.flac')}",
            {
                **item,
                "wav": f"{{data_root}}/{place.as_posix()}/{file}",
                "duration": duration,
                "group": name,
                "position": position,
            },
        )
        for position, (file, duration) in enumerate(pieces)
    ] or "no speech is heard in it"


def _find_pieces(
    wav: Path, folder: Path, cutting: Cutting
) -> list[tuple[str, float]]:
    """Return files and seconds of the utterances, which are then there."""
    status = wav.stat()
    stamp = [_VERSION, status.st_size, status.st_mtime_ns, *cutting]
    listing = folder / _LIST
    known = _read_list(listing)
    if known.get("stamp") == stamp:
        pieces = known["pieces"]
        if all((folder / file).is_file() for file, _ in pieces):
            return pieces
    samples = read_audio(wav)
    spans = join_spans(_detect(samples, cutting), cutting)
    with naming_full_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with AudioFile(wav) as file:
        pieces = [_write(file, span, folder) for span in spans]
    write_file(listing, json.dumps({"stamp": stamp, "pieces": pieces}))
    return pieces


def _read_list(path: Path) -> dict[str, Any]:
    """Return what an earlier run has noted, if it can be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


@cache
def _detector() -> Any:
    threads = torch.get_num_threads()
    import silero_vad

    torch.set_num_threads(threads)  # which the package sets to one
    return silero_vad.load_silero_vad(sequence=True)


def _detect(samples: torch.Tensor, cutting: Cutting) -> list[Span]:
    detector = _detector()
    import silero_vad

    found = silero_vad.get_speech_timestamps_sequence(
        samples.numpy(),
        detector,
        threshold=cutting.threshold,
        sampling_rate=SAMPLE_RATE,
        max_speech_duration_s=cutting.max_seconds,
        min_silence_duration_ms=round(1000 * cutting.min_silence),
        speech_pad_ms=round(1000 * cutting.padding),
    )
    return [(s["start"] / SAMPLE_RATE, s["end"] / SAMPLE_RATE) for s in found]


def join_spans(spans: Iterable[Span], cutting: Cutting) -> list[Span]:
    """Join speech over short pauses, as long as it does not get too long.

    Example
    -------
    >>> spans = [(0.0, 1.0), (1.5, 3.0), (5.0, 9.0), (9.1, 14.0), (20.0, 20.5)]
    >>> join_spans(spans, Cutting(max_seconds=8.0))
    [(0.0, 3.0), (5.0, 9.0), (9.1, 14.0)]
    """
    joined: list[Span] = []
    for start, end in spans:
        if joined:
            first, last = joined[-1]
            if (
                start - last <= cutting.max_pause
                and end - first <= cutting.max_seconds
            ):
                joined[-1] = first, end
                continue
        joined.append((start, end))
    return [(a, b) for a, b in joined if b - a >= cutting.min_seconds]


def _write(file: AudioFile, span: Span, folder: Path) -> tuple[str, float]:
    """Write an utterance, which appears when it is complete."""
    first, last = (round(time * file.rate) for time in span)
    file.seek(first)
    samples = file.read(last - first)
    if not len(samples):
        raise ValueError(f"it ends before {span[0]} s: it is cut short")
    subtype = "PCM_16" if file.subtype == "PCM_16" else "PCM_24"
    content = io.BytesIO()
    # float32 holds samples of up to 24 bits as they are.
    soundfile.write(content, samples, file.rate, format="FLAC", subtype=subtype)
    name = "_".join(f"{1000 * time:07.0f}" for time in span) + ".flac"
    write_bytes(folder / name, content.getvalue())
    return name, round(len(samples) / file.rate, 4)
