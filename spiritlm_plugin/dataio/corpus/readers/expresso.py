"""Expresso, cut into utterances at 16 kHz."""

from __future__ import annotations

import io
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from torch import Tensor
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.containers import AudioFile
from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.checkpoints import require_files
from spiritlm_plugin.dataio.corpus.preparation import Record
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.utils.files import read_lines, safe_file_name, write_bytes

logger = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")
SENTIMENTS = {
    "happy": "positive",
    "amused": "positive",
    "sad": "negative",
    "angry": "negative",
    "default": "neutral",
    "neutral": "neutral",
}

# Of the pieces that longform readings and conversations are cut into: the
# longest, the shortest, and the longest pause inside; seconds.
MAX_SECONDS = 20.0
MIN_SECONDS = 0.5
MAX_PAUSE = 0.5

_AUDIO = "audio_48khz"
_VAD = "VAD_segments.txt"
_TEXTS = "read_transcriptions.txt"
_CHANNEL = re.compile(r"[\s/_.:-]+ch(?:annel)?[\s_]?([12])(?!\w)")
_NUMBER = re.compile(r"(\d+(?:\.\d*)?)\s*s?(?![\w.])")
# Around emphasized words, as in "I *never* said so"; a lone one is left.
_EMPHASIS = re.compile(r"\*+([^*\s](?:[^*]*[^*\s])?)\*+")
_RANGE = re.compile(r"\(\s*(\d*\.?\d*)\s*s?\s*,\s*(\d*\.?\d*)\s*s?\s*\)")


class Recording(NamedTuple):
    """A file of the corpus; conversations have two speakers."""

    path: Path
    kind: str
    speakers: tuple[str, ...]
    styles: tuple[str, ...]


class Span(NamedTuple):
    """A stretch of a recording, in seconds, of one channel or of all."""

    start: float
    end: float
    channel: int | None = None


class Task(NamedTuple):
    """What a split has of a recording, and what is known of it."""

    name: str
    recording: Recording
    ranges: list[Span]
    segments: list[Span]
    text: str | None


class Expresso(NamedTuple):
    """What the lists of the corpus say."""

    recordings: dict[str, Recording]
    splits: dict[str, dict[str, list[Span]]]
    segments: dict[str, list[Span]]
    texts: dict[str, str]


def open_expresso(data_folder: str | Path) -> Expresso:
    """Read the lists of the corpus, which hold all splits.

    Arguments
    ---------
    data_folder : path
        Expresso, unpacked.

    Raises
    ------
    FileNotFoundError
        If the corpus lacks a file.
    ValueError
        If a list cannot be read, or splits share audio.
    """
    data_folder = Path(data_folder)
    lists = {split: f"splits/{split}.txt" for split in SPLITS}
    require_files(data_folder, [_AUDIO, _VAD, _TEXTS, *lists.values()])
    recordings = find_recordings(data_folder / _AUDIO)
    segments = read_segments(data_folder / _VAD)
    texts = _read_texts(data_folder / _TEXTS)
    splits = {s: read_split(data_folder / path) for s, path in lists.items()}
    check_disjoint(splits)
    for split, names in splits.items():
        for name in sorted(names.keys() - recordings.keys()):
            logger.warning("%s: %s is left out: no recording", split, name)
    return Expresso(recordings, splits, segments, texts)


def read_expresso(
    corpus: Expresso,
    split: str,
    save_folder: str | Path,
    jobs: int | None = None,
) -> Iterator[Record]:
    """Cut the recordings of a split into utterances at 16 kHz, and yield them.

    Read sentences stay whole. Longform readings and conversations are cut
    where there are pauses, conversations for each speaker's channel. What is
    there already is not written again.

    Arguments
    ---------
    corpus : Expresso
        From `open_expresso`.
    split : str
        ``"train"``, ``"dev"`` or ``"test"``.
    save_folder : path
        Of the manifests; the utterances go to ``wav`` in it.
    jobs : int or None
        Threads; None for one per core.

    Yields
    ------
    Record
        With wav, duration, speaker, style and kind, and perhaps sentiment, text
        and the place of an utterance in its recording. Recordings that cannot be used are reported.

    Raises
    ------
    ValueError
        If the split has no utterance.
    """
    tasks = [
        Task(
            name,
            corpus.recordings[name],
            ranges,
            corpus.segments.get(name, []),
            corpus.texts.get(name),
        )
        for name, ranges in corpus.splits[split].items()
        if name in corpus.recordings
    ]
    folder, is_empty = Path(save_folder), True
    with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        for items in tqdm(
            pool.map(lambda task: cut_recording(task, folder), tasks),
            total=len(tasks),
            desc=f"cutting {split}",
            unit="file",
        ):
            yield from items.items()
            is_empty = is_empty and not items
    if is_empty:
        raise ValueError(
            f"splits/{split}.txt names no recording that can be used; its "
            f"lines should be names of files in {_AUDIO}"
        )


def find_recordings(folder: Path) -> dict[str, Recording]:
    """Return the recordings by name; where they lie says what they are."""
    recordings: dict[str, Recording] = {}
    speakers: tuple[str, ...]
    styles: tuple[str, ...]
    for path in sorted(folder.rglob("*.wav")):
        match path.relative_to(folder).parts:
            case "read", speaker, style, ("base" | "longform") as part, _:
                kind = "read" if part == "base" else part
                speakers, styles = (speaker,), (style,)
            case "conversational" as kind, pair, style, _ if "-" in pair:
                first, _, second = style.partition("-")
                speakers = tuple(pair.split("-", 1))
                styles = first, second or first
            case _:
                logger.warning("%s is left out: unknown place", path)
                continue
        known = recordings.setdefault(
            path.stem, Recording(path, kind, speakers, styles)
        )
        if known.path != path:
            logger.warning(
                "%s is left out: %s has the same name", path, known.path
            )
    return recordings


def _lines(path: Path) -> Iterator[tuple[str, str, int | None, str]]:
    """Yield the place of each line, its recording, channel and the rest."""
    for number, line in enumerate(read_lines(path), 1):
        line = line.partition("#")[0]
        channel = _CHANNEL.search(line)
        if channel is not None:
            line = f"{line[: channel.start()]} {line[channel.end() :]}"
        name, *rest = line.split(maxsplit=1) or [""]
        if name:
            yield (
                f"{path}, line {number}",
                _stem(name),
                int(channel[1]) - 1 if channel else None,
                "".join(rest).strip(),
            )


def _stem(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".wav")


def read_split(path: Path) -> dict[str, list[Span]]:
    """Read a split: a name a line, and ranges where it has only a part."""
    spans: dict[str, list[Span]] = {}
    for where, name, channel, rest in _lines(path):
        ranges = _RANGE.findall(rest)
        if _RANGE.sub("", rest).strip(" \t,;"):
            raise ValueError(
                f"{where}: cannot read {rest!r} as ranges such as (,60.0s); "
                "correct the line"
            )
        for start, end in ranges or [("", "")]:
            span = Span(float(start or 0), float(end or math.inf), channel)
            if not span.start < span.end:
                raise ValueError(f"{where}: no time is in {rest!r}")
            spans.setdefault(name, []).append(span)
    return spans


def read_segments(path: Path) -> dict[str, list[Span]]:
    """Read where there is speech: pairs of seconds, in brackets or not.

    Lines that cannot be read are reported.
    """
    segments: dict[str, list[Span]] = {}
    for where, name, channel, rest in _lines(path):
        times = [float(number) for number in _NUMBER.findall(rest)]
        pairs = list(zip(times[::2], times[1::2]))
        unread = _NUMBER.sub("", rest).strip("()[]{},;:- \t")
        if unread or len(times) % 2 or any(a >= b for a, b in pairs):
            logger.warning("%s: cannot read %.60r as times", where, rest)
            continue
        spans = segments.setdefault(name, [])
        spans += [Span(start, end, channel) for start, end in pairs]
    return segments


def _read_texts(path: Path) -> dict[str, str]:
    pairs = (line.split(maxsplit=1) for line in read_lines(path))
    return {_stem(p[0]): _plain(p[1]) for p in pairs if len(p) == 2}


def _plain(text: str) -> str:
    """Return a text without marks of emphasis."""
    return _EMPHASIS.sub(r"\1", text).strip()


def check_disjoint(splits: dict[str, dict[str, list[Span]]]) -> None:
    """Raise if audio is twice in the splits."""
    owners: dict[str, list[tuple[Span, str]]] = {}
    for split, recordings in splits.items():
        for name, spans in recordings.items():
            for span in spans:
                for other, owner in owners.get(name, []):
                    apart = {span.channel, other.channel} == {0, 1}
                    inside = span.start < other.end and other.start < span.end
                    if inside and not apart:
                        raise ValueError(
                            f"{name} is in {owner} from {other.start} to "
                            f"{other.end} s and in {split} from {span.start} "
                            f"to {span.end} s; correct splits/{split}.txt"
                        )
                owners.setdefault(name, []).append((span, split))


def cut_recording(task: Task, folder: Path) -> dict[str, dict]:
    """Write the utterances of a recording; return the manifest's entries.

    A recording that cannot be used is reported and has none.
    """
    try:
        with AudioFile(task.recording.path) as file:
            items = dict(_cut(file, task, folder))
    except ValueError as error:
        logger.warning("%s is left out: %s", task.name, error)
        return {}
    if not items:
        logger.warning("%s is left out: no speech in its ranges", task.name)
    return items


def _cut(
    file: AudioFile, task: Task, folder: Path
) -> Iterator[tuple[str, dict]]:
    recording = task.recording
    duration = file.count() / file.rate
    segments = task.segments
    if recording.kind == "read":
        segments = [Span(0.0, duration)]
    elif recording.kind == "conversational":
        if file.channels != 2:
            raise ValueError(f"it has {file.channels} channel(s), not 2")
        segments = [_assign(file, segment) for segment in segments]
    for channel, speaker in enumerate(recording.speakers):
        style = recording.styles[channel]
        segments_here = [s for s in segments if s.channel in (None, channel)]
        ranges = [r for r in task.ranges if r.channel in (None, channel)]
        whole = recording.kind == "read" and any(
            r.start <= 0 and r.end >= duration for r in ranges
        )
        pieces = find_pieces(segments_here, ranges, duration)
        pieces = [(0.0, duration)] if whole else pieces
        for position, (start, end) in enumerate(pieces):
            times = f"{1000 * start:07.0f}_{1000 * end:07.0f}"
            name = task.name if whole else f"{task.name}_{speaker}_{times}"
            place = "/".join(map(safe_file_name, (speaker, style, name)))
            wav = f"wav/{place}.wav"
            if not (folder / wav).exists():
                block = _read(file, start, end)
                if recording.kind == "conversational":
                    block = block[:, channel]
                _write(read_audio(block, file.rate), folder / wav)
            item = {
                "wav": f"{{data_root}}/{wav}",
                "duration": round(soundfile.info(folder / wav).duration, 4),
                "speaker": speaker,
                "style": style,
                "kind": recording.kind,
            }
            if not whole:
                # What is in another range does not follow.
                item["group"] = f"{task.name}_{speaker}"
                item["position"] = position + sum(
                    r.start <= start for r in ranges
                )
            if style in SENTIMENTS:
                item["sentiment"] = SENTIMENTS[style]
            if whole and task.text:
                item["text"] = task.text
            yield name, item


def _assign(file: AudioFile, segment: Span) -> Span:
    """Give a segment of no known channel to the louder one."""
    if segment.channel is not None:
        return segment
    block = _read(file, segment.start, segment.end)
    channel = int((block**2).sum(0).argmax())
    return segment._replace(channel=channel)


def _read(file: AudioFile, start: float, end: float) -> np.ndarray:
    first, last = (round(time * file.rate) for time in (start, end))
    file.seek(first)
    block = file.read(last - first)
    # A time may be rounded behind the last sample.
    if len(block) < last - first - 1:
        raise ValueError(f"it ends before {end} s: it is cut short")
    return block


def _write(samples: Tensor, path: Path) -> None:
    """Write 16 bit wav, which appears when it is complete."""
    content = io.BytesIO()
    soundfile.write(content, samples.numpy(), SAMPLE_RATE, format="WAV")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content.getvalue())


def find_pieces(
    segments: Iterable[Span], ranges: Iterable[Span], duration: float
) -> list[tuple[float, float]]:
    """Return starts and ends of the utterances of a speaker.

    What lies in a range is joined over pauses of up to half a second to
    pieces of up to 20 s. A longer segment is cut into equal parts. Pieces
    under half a second are dropped.
    """
    pieces = []
    for low, high, _ in sorted(ranges, key=lambda r: r.start):
        high = min(high, duration)
        joined: list[list[float]] = []
        for start, end, _ in sorted(segments, key=lambda s: s.start):
            start, end = max(start, low), min(end, high)
            count = math.ceil((end - start) / MAX_SECONDS)
            for part in range(count):
                first = start + (end - start) * part / count
                last = start + (end - start) * (part + 1) / count
                _join(joined, first, last)
        pieces += [(a, b) for a, b in joined if b - a >= MIN_SECONDS]
    return pieces


def _join(pieces: list[list[float]], start: float, end: float) -> None:
    """Add a segment to the last piece, or as a new one."""
    if pieces and (
        start - pieces[-1][1] <= MAX_PAUSE
        and end - pieces[-1][0] <= MAX_SECONDS
    ):
        pieces[-1][1] = max(pieces[-1][1], end)
        return
    if pieces:
        start = max(start, pieces[-1][1])
    if start < end:
        pieces.append([start, end])
