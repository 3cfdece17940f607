"""What the headers of audio files say about their length.

A program that writes to a pipe cannot go back to the header, and leaves 0 or
the largest number where the length should stand; a download that broke off is
shorter than its header says. Decoders take these lengths in different ways, so
they are looked up here.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

# W64 writes a chunk's name as a GUID.
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")
_NIST_COUNTS = re.compile(
    rb"^(?:sample_count|channel_count|sample_n_bytes) -\S+ (\d+)", re.MULTILINE
)
# Chunks in front of the samples; more are not looked through.
_MOST_CHUNKS = 1000


@dataclass(frozen=True)
class _Layout:
    """Of a container of chunks: where they start, how a size is written."""

    start: int
    data: tuple[bytes, ...]
    size: str
    align: int = 2
    # Whether a size counts the chunk's name and the size itself.
    is_whole: bool = False


_LAYOUTS = {
    b"RIFF": _Layout(12, (b"data",), "<I"),
    b"RIFX": _Layout(12, (b"data",), ">I"),
    b"RF64": _Layout(12, (b"data",), "<I"),
    b"FORM": _Layout(12, (b"SSND", b"BODY"), ">I"),
    b"caff": _Layout(8, (b"data",), ">Q", align=1),
    _W64_RIFF: _Layout(40, (_W64_DATA,), "<Q", align=8, is_whole=True),
}


@dataclass(frozen=True)
class DataSize:
    """How many bytes of samples a header states, and how many there are.

    Arguments
    ---------
    stated : int
        In bytes, as the header has it.
    available : int
        Bytes from the samples' start to the file's end.
    place : int
        Where in the file the stated size is written.
    field : bytes
        What is written there if the header states what is available.
    is_unknown : bool
        Whether the header leaves the size open, as streams do.
    """

    stated: int
    available: int
    place: int
    field: bytes
    is_unknown: bool

    @property
    def is_wrong(self) -> bool:
        """Whether the header states what is not there."""
        return self.is_unknown or self.stated > self.available


def find_data_size(file: BinaryIO) -> DataSize | None:
    """Find the size of the samples in WAV, AIFF, AU, CAF, W64, RF64, SVX, NIST.

    Arguments
    ---------
    file : binary file
        Seekable.

    Returns
    -------
    DataSize or None
        None of other formats, and where there are no samples.

    Example
    -------
    >>> with open(recording, "rb") as file:
    ...     size = find_data_size(file)
    >>> size.stated, size.available, size.is_wrong
    (76798, 76798, False)
    """
    head = read_at(file, 0, 40)
    length = file.seek(0, os.SEEK_END)
    if head[:4] in (b".snd", b"dns.") and len(head) >= 12:
        order = ">" if head[:4] == b".snd" else "<"
        start, stated = struct.unpack_from(f"{order}II", head, 4)
        return _data_size(stated, length - start, 8, f"{order}I")
    if head[:8] == b"NIST_1A\n":
        return _nist_size(read_at(file, 0, 1024), length)
    layout = _LAYOUTS.get(head[:4]) or _LAYOUTS.get(head[:16])
    if layout is None:
        return None
    long_size = None
    for name, start, stated in _chunks(file, layout, layout.start, length):
        if name == b"ds64" and head[:4] == b"RF64" and start + 16 <= length:
            long_size = start + 8
        if name in layout.data:
            return _chunk_size(file, layout, start, stated, length, long_size)
    return None


def _nist_size(head: bytes, length: int) -> DataSize | None:
    """Find how many bytes a SPHERE header states; nothing is written there."""
    start = re.match(rb"NIST_1A\n *(\d+)\n", head)
    counts = _NIST_COUNTS.findall(head)
    if start is None or len(counts) != 3:
        return None
    available = length - int(start[1])
    stated = math.prod(map(int, counts))
    if available <= 0:
        return None
    return DataSize(stated, available, 0, b"", is_unknown=False)


def _chunk_size(
    file: BinaryIO,
    layout: _Layout,
    start: int,
    stated: int,
    length: int,
    long_size: int | None,
) -> DataSize | None:
    available = length - start
    if long_size is not None:
        [stated] = struct.unpack("<Q", read_at(file, long_size, 8))
        return _data_size(stated, available, long_size, "<Q")
    if stated == 0 and _are_chunks(file, layout, start, length):
        return None
    place = start - struct.calcsize(layout.size)
    extra = len(layout.data[0]) + start - place if layout.is_whole else 0
    return _data_size(stated, available, place, layout.size, extra)


def _data_size(
    stated: int, available: int, place: int, form: str, extra: int = 0
) -> DataSize | None:
    if available <= 0:
        return None
    largest = 256 ** struct.calcsize(form) - 1
    field = struct.pack(form, min(available + extra, largest))
    # Some write the largest signed size, less their header.
    is_open = stated > available and stated > largest // 2 - 2**16
    return DataSize(stated, available, place, field, is_open or stated <= 0)


def _chunks(
    file: BinaryIO, layout: _Layout, place: int, length: int
) -> Iterator[tuple[bytes, int, int]]:
    """Yield names, starts and stated sizes of chunks, in bytes."""
    names = len(layout.data[0])
    head = names + struct.calcsize(layout.size)
    for _ in range(_MOST_CHUNKS):
        if place + head > length:
            return
        content = read_at(file, place, head)
        [size] = struct.unpack(layout.size, content[names:])
        size -= head if layout.is_whole else 0
        yield content[:names], place + head, size
        place += head + -(-max(size, 0) // layout.align) * layout.align


def _are_chunks(
    file: BinaryIO, layout: _Layout, place: int, length: int
) -> bool:
    """Tell whether chunks fill the file from here, rather than samples."""
    end = place
    for name, start, size in _chunks(file, layout, place, length):
        if not name[:4].isascii() or not name[:4].decode().isprintable():
            return False
        end = start + size
    return end >= length - 1 and end <= length


def read_at(file: BinaryIO, place: int, size: int) -> bytes:
    """Return the bytes of a file at a place.

    Example
    -------
    >>> with open(recording, "rb") as file:
    ...     read_at(file, 8, 4)
    b'WAVE'
    """
    file.seek(place)
    return file.read(size)
