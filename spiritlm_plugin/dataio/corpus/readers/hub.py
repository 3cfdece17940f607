"""Audio datasets of the Hugging Face Hub, in any form that one has them.

Audio is never decoded here: a manifest names files, so the bytes of a dataset
are written out as they are.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import soundfile
from tqdm import tqdm

from spiritlm_plugin.dataio.corpus.preparation import Record
from spiritlm_plugin.dataio.corpus.readers.hub_splits import (
    DatasetSplit,
    Group,
    Hub,
    ParquetSplit,
)
from spiritlm_plugin.dataio.corpus.readers.tables import (
    SPEAKERS,
    TEXTS,
    check_split,
    choose_column,
    clean_text,
    place_of,
    read_place,
    timed_words,
)
from spiritlm_plugin.dataio.corpus.shards import TEXT_KEYS
from spiritlm_plugin.utils.files import safe_file_name, write_bytes

logger = logging.getLogger(__name__)

AUDIO = ("audio", "speech")
IDS = ("id", "audio_id", "utterance_id", "utt_id")
# Columns that a manifest keeps where they are there.
# What samples of a type are divided by.
_SCALES = {"float32": 1, "float64": 1, "int16": 2**15, "int32": 2**31}
KEPT = ("style", "emotion", "sentiment", "gender", "chapter_id", "book_id")
_SUFFIX = r"\.[A-Za-z0-9]{1,5}$"
# How files begin.
_CONTENTS = {
    b"RIFF": ".wav",
    b"RF64": ".wav",
    b"fLaC": ".flac",
    b"OggS": ".ogg",
    b"FORM": ".aiff",
    b"ID3": ".mp3",
    b"\xff\xf2": ".mp3",
    b"\xff\xf3": ".mp3",
    b"\xff\xfa": ".mp3",
    b"\xff\xfb": ".mp3",
}


class Columns(NamedTuple):
    """What columns are called; None for the first that is usual.

    `keep` names further ones that a manifest is to keep.
    """

    audio: str | None = None
    text: str | None = None
    id: str | None = None
    speaker: str | None = None
    keep: Sequence[str] = ()


def read_hub(
    hub: Hub,
    split: str,
    save_folder: str | Path | None,
    columns: Columns | None = None,
) -> Iterator[Record]:
    """Yield the rows of a split, and write their audio out.

    Audio is in a column as the bytes of a file, as a path, as a dict of both,
    or as a dict of ``array`` and ``sampling_rate``, which becomes WAV of
    floats. Files are written to ``audio/<split>``, in a folder for each group
    of rows; of a group that is there, the audio is not read again.

    Arguments
    ---------
    hub : Hub
        From `open_hub`.
    split : str
        One of its splits.
    save_folder : path or None
        Of the manifests; None to write nothing, whereupon ``wav`` says where
        in the dataset a recording is.
    columns : Columns, optional
        What the columns are called. Without a column of ids that differ, ids
        are the paths of the recordings, or else the numbers of the rows.

    Yields
    ------
    Record
        With wav and perhaps text, speaker, words, the columns ``group`` and
        ``position``, and kept columns. Rows
        without audio are reported.

    Raises
    ------
    ValueError
        If there is no such split or column, no audio in the column, or a file
        is damaged.

    Example
    -------
    >>> import pyarrow.parquet as pq
    >>> from spiritlm_plugin.dataio.corpus.readers.hub_splits import open_hub
    >>> audio = [{"bytes": Path(recording).read_bytes(), "path": "a.mp3"}]
    >>> table = pa.table({"audio": audio, "sentence": ["two boats"]})
    >>> pq.write_table(table, tmp / "test.parquet")
    >>> next(read_hub(open_hub(tmp), "test", tmp / "data"))
    ('a', {'wav': '{data_root}/audio/test/test-...-00000/a.wav',
           'text': 'two boats'})
    """
    check_split(split, list(hub.splits), hub.source)
    source = hub.splits[split]
    reader = _Reader(source, columns or Columns())
    first = 0
    progress = tqdm(
        total=source.count,
        desc=f"writing {split}",
        unit="row",
        disable=save_folder is None,
    )
    with progress:
        for group in source.groups(reader.columns, reader.audio):
            names = reader.names(group.rows, f"{split}-", first)
            wavs: Sequence[str | Path | None] = [
                f"{group.name}/{safe_file_name(name)}" for name in names
            ]
            if save_folder is not None:
                place = f"audio/{safe_file_name(split)}/{group.name}"
                found = _write(group, names, Path(save_folder, place))
                wavs = [_place(f, place, hub.source) for f in found]
            for name, wav, row in zip(names, wavs, group.rows.to_pylist()):
                if wav is None:
                    logger.warning("%s is left out: it has no audio", name)
                else:
                    yield name, {"wav": wav, **reader.entry(name, row)}
            first += len(names)
            progress.update(len(names))


class _Reader:
    """Knows the columns of a split."""

    def __init__(self, source: ParquetSplit | DatasetSplit, columns: Columns):
        schema = source.schema
        names = schema.names
        audio = choose_column(names, AUDIO, columns.audio)
        if audio is None:
            raise ValueError(
                "no column audio; name that of the recordings, of "
                f"{', '.join(sorted(names))} (--audio_column)"
            )
        self.audio = audio
        self.path = _path_column(audio, schema.field(audio).type)
        self.text = choose_column(names, TEXTS, columns.text)
        self.speaker = choose_column(names, SPEAKERS, columns.speaker)
        self.words = choose_column(names, ("words",))
        self.kept = [c for c in KEPT if c in names]
        self.kept += [c for c in columns.keep if choose_column(names, (), c)]
        self.place = [c for c in ("group", "position") if c in names]
        self.labels = _labels(schema)
        self.id = choose_column(names, (), columns.id)
        if self.id is None:
            candidates = [c for c in IDS if c in names]
            candidates += [self.path] if self.path else []
            self.id = next((c for c in candidates if _differ(source, c)), None)
        needed = [self.id, self.text, self.speaker, self.words]
        needed += [*self.kept, *self.place]
        self.columns = list(dict.fromkeys(filter(None, needed)))
        if not self.columns:  # a table without columns would have no rows
            self.columns = [names[0]] if names[0] != audio else [audio]
        logger.info(
            "audio from %s, text from %s, speaker from %s, ids from %s",
            *(audio, self.text, self.speaker, self.id or "the rows' numbers"),
        )

    def names(self, rows: pa.Table, prefix: str, first: int) -> list[str]:
        """Return the ids of rows."""
        found: list = [None] * len(rows)
        if self.id is not None:
            found = rows.column(self.id).to_pylist()
        if self.id is not None and self.id == self.path:
            found = [path and re.sub(_SUFFIX, "", path) for path in found]
        return [
            f"{prefix}{number:08d}" if name in (None, "") else str(name)
            for number, name in enumerate(found, first)
        ]

    def entry(self, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a manifest keeps of a row."""
        entry: dict[str, Any] = {}
        if self.text is not None and row[self.text] is not None:
            text = self._value(self.text, row)
            if isinstance(text, bool) or not isinstance(text, (str, int)):
                raise ValueError(
                    f"{name}: the column {self.text} holds {text!r:.40}, no "
                    "text; name another column (--text_column)"
                )
            entry["text"] = clean_text(text)
        if self.speaker is not None and row[self.speaker] is not None:
            entry["speaker"] = str(self._value(self.speaker, row))
        for column in self.kept:
            value = self._value(column, row)
            if value is None or value != value:  # NaN stands for nothing
                continue
            entry[column] = str(value) if column in TEXT_KEYS else value
        # As the ids of LibriSpeech are.
        if name.startswith(f"{entry.get('speaker')}-{row.get('chapter_id')}-"):
            entry |= place_of(name, "-")
        try:
            entry |= read_place({c: row[c] for c in self.place})
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if self.words is not None and row[self.words] and "text" in entry:
            try:
                entry["words"] = timed_words(row[self.words], entry["text"])
            except (ValueError, AttributeError) as error:
                logger.warning("%s has no word times: %s", name, error)
        return entry

    def _value(self, column: str, row: Mapping[str, Any]) -> Any:
        """Return a value as JSON has it, of a class its name."""
        value, names = row[column], self.labels.get(column, ())
        if isinstance(value, int) and 0 <= value < len(names):
            return names[value]
        if isinstance(value, (str, int, float, list, dict, bytes, type(None))):
            return value
        return str(value)


def _labels(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of classes, as `datasets` notes them."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = noted["info"]["features"].items()
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    return {
        column: feature["names"]
        for column, feature in features
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _path_column(column: str, kind: pa.DataType) -> str | None:
    """Return where the paths of recordings are, if there are any.

    Raises a ValueError if a column of this type holds no audio.
    """
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return None
    fields = (
        {field.name for field in kind} if pa.types.is_struct(kind) else set()
    )
    if "path" in fields:
        return f"{column}.path"
    if "bytes" in fields or {"array", "sampling_rate"} <= fields:
        return None
    raise ValueError(
        f"the column {column} holds {kind}, which is no audio: that is bytes, "
        "a path, or a dict of bytes and path or of array and sampling_rate; "
        "name another column (--audio_column)"
    )


def _differ(source: ParquetSplit | DatasetSplit, column: str) -> bool:
    """Tell whether all values of a column are there and differ."""
    values = source.column(column)
    if pa.types.is_string(values.type):
        values = pc.replace_substring_regex(values, _SUFFIX, "")
    return not values.null_count and len(pc.unique(values)) == len(values)


def _place(
    found: str | Path | None, place: str, source: Path
) -> str | Path | None:
    """Return what a manifest says of a file, or of a path in the dataset."""
    if not isinstance(found, Path):
        return found and f"{{data_root}}/{place}/{found}"
    beside = source / found
    return (beside if beside.is_file() else found).absolute()


def _write(
    group: Group, names: Sequence[str], folder: Path
) -> list[str | Path | None]:
    """Return the name of each row's file, which is then in the folder.

    A path is one that the dataset names, None a row without audio.
    """
    files = [safe_file_name(name) for name in names]
    there = _list(folder)
    if there.keys() >= set(files):
        return [there[file] for file in files]
    folder.mkdir(parents=True, exist_ok=True)
    found: list[str | Path | None] = []
    for file, scalar in zip(files, group.audio()):
        if file in there:
            found.append(there[file])
            continue
        try:
            content, path = _content(scalar)
        except ValueError as error:
            logger.warning("%s: %s", file, error)
            content = path = None
        if content is None:
            found.append(Path(PurePosixPath(path)) if path else None)
            continue
        there[file] = f"{file}{_suffix(content, path)}"
        write_bytes(folder / there[file], content)
        found.append(there[file])
    return found


def _list(folder: Path) -> dict[str, str]:
    """Return the complete files of a folder by their names without suffix."""
    names = os.listdir(folder) if folder.is_dir() else []
    complete = (name for name in names if not name.endswith(".partial"))
    return {name.rpartition(".")[0]: name for name in complete}


def _content(scalar: pa.Scalar) -> tuple[bytes | None, str | None]:
    """Return the bytes of a recording and its path, as far as they are there."""
    if not scalar.is_valid:
        return None, None
    if not pa.types.is_struct(scalar.type):
        value = scalar.as_py()
        return (None, value) if isinstance(value, str) else (value, None)
    parts = dict(scalar.items())
    path = parts["path"].as_py() if "path" in parts else None
    if "bytes" in parts and parts["bytes"].is_valid:
        return parts["bytes"].as_py(), path
    if "array" in parts and parts["array"].is_valid:
        samples = parts["array"].values.to_numpy(zero_copy_only=False)
        return _wav(samples, parts["sampling_rate"].as_py()), path
    return None, path


def _wav(samples: np.ndarray, rate: int) -> bytes:
    if not isinstance(rate, (int, float)) or not 1 <= rate == int(rate):
        raise ValueError(f"its sampling_rate is {rate!r}")
    scale = _SCALES.get(samples.dtype.name)
    if scale is None:
        raise ValueError(f"its array is of {samples.dtype}, no samples")
    content = io.BytesIO()
    samples = samples.astype(np.float32) / scale
    soundfile.write(content, samples, int(rate), format="WAV", subtype="FLOAT")
    return content.getvalue()


def _suffix(content: bytes, path: str | None) -> str:
    """Return the suffix that a file's content has, or else its name."""
    for start, suffix in _CONTENTS.items():
        if content.startswith(start):
            return suffix
    found = re.search(_SUFFIX, path or "")
    return found[0] if found else ".audio"
