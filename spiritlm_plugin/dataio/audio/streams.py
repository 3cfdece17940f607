"""Streams of MPEG, FLAC and Ogg: what they lack, and what is behind them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from spiritlm_plugin.dataio.audio.headers import read_at

# The marker of FLAC, and its first block of 34 bytes.
_FLAC_START = b"fLaC\0\0\0\x22"
# Bytes that two frames of layer III have at most.
_MOST_FRAMES = 2 * 1441
# Of a page of Ogg: how it begins, its flags, what its checksum needs.
_OGG_PAGE = b"OggS\0"
_OGG_FIRST = 2
_OGG_LAST = 4
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_INVERTED = 0xFFFFFFFF
# Bytes that are looked through at once.
_BLOCK = 2**16
# Bytes at the head of an MPEG stream in which its tag stands.
_MPEG_HEAD = 4096


def states_mpeg_length(file: BinaryIO, place: int = 0) -> bool:
    r"""Tell whether an MPEG stream says in a tag how long it is.

    Without one, decoders guess from the first frames, wrongly where the bit
    rate varies.

    Source: the Xing header, which LAME writes too.

    Arguments
    ---------
    file : binary file
        Seekable.
    place : int
        Where the stream starts, in bytes.

    Example
    -------
    >>> import io
    >>> states_mpeg_length(io.BytesIO(b"\xff\xfb\x90\x00" + bytes(5000)))
    False
    """
    head = read_at(file, place, _MPEG_HEAD)
    while head[:3] == b"ID3" and len(head) >= 10:
        size = 0
        for byte in head[6:10]:
            size = size << 7 | byte & 0x7F
        place += 10 + size
        head = read_at(file, place, _MPEG_HEAD)
    for tag in (b"Xing", b"Info"):
        start = head.find(tag)
        if 0 <= start <= len(head) - 12:
            flags, frames = struct.unpack_from(">II", head, start + 4)
            return bool(flags & 1 and frames)
    return False


def is_mpeg_start(file: BinaryIO, place: int) -> bool:
    r"""Tell whether another MPEG stream starts at a place.

    A frame or two behind the last sample are the end of the same stream.

    Example
    -------
    >>> import io
    >>> is_mpeg_start(io.BytesIO(b"\xff\xfb\x90\x00" + bytes(5000)), 0)
    True
    """
    head = read_at(file, place, _MOST_FRAMES)
    is_frame = len(head) > 3 and head[0] == 0xFF and head[1] >= 0xE0
    if not is_frame and head[:3] != b"ID3":
        return False
    return len(head) == _MOST_FRAMES or states_mpeg_length(file, place)


def holds_two_flacs(file: BinaryIO) -> bool:
    r"""Tell whether a FLAC file holds a second one.

    Example
    -------
    >>> import io
    >>> holds_two_flacs(io.BytesIO((b"fLaC\0\0\0\x22" + bytes(34)) * 2))
    True
    """
    first = _find(file, _FLAC_START, 0)
    return first is not None and _find(file, _FLAC_START, first + 1) is not None


def ogg_pages(file: BinaryIO) -> tuple[bool, bool]:
    r"""Tell whether an Ogg stream has all its pages, and another behind it.

    Source: RFC 3533, the header of a page.

    Arguments
    ---------
    file : binary file
        Seekable.

    Returns
    -------
    is_whole : bool
        Whether no page from the first to the last is missing or damaged.
    holds_more : bool
        Whether another stream begins behind it.

    Example
    -------
    >>> import io
    >>> ogg_pages(io.BytesIO(b"OggS\0\2" + bytes(30)))
    (False, False)
    """
    stream = None
    found = stated = 0
    for flags, number, sequence in _whole_ogg_pages(file):
        if stated and flags & _OGG_FIRST:
            return found == stated, True
        stream = number if stream is None else stream
        found += number == stream
        if number == stream and flags & _OGG_LAST:
            stated = sequence + 1
    return found == stated > 0, False


def _whole_ogg_pages(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Yield flags, number of stream and place in it of undamaged pages."""
    place = _find(file, _OGG_PAGE, 0)
    while place is not None:
        head = read_at(file, place, 27)
        sizes = file.read(head[26]) if len(head) == 27 else b""
        page = head + sizes + file.read(sum(sizes))
        if _ogg_checksum(page) == page[22:26]:
            yield page[5], *struct.unpack_from("<II", page, 14)
            place = _find(file, _OGG_PAGE, place + len(page))
        else:
            place = _find(file, _OGG_PAGE, place + 1)


def _ogg_checksum(page: bytes) -> bytes:
    """Return what a page states if it is undamaged, 4 bytes."""
    page = page[:22] + bytes(4) + page[26:]
    # It is that of zip with the bits the other way round, and no inversion.
    checksum = zlib.crc32(page.translate(_REVERSED), _INVERTED) ^ _INVERTED
    return int(f"{checksum:032b}"[::-1], 2).to_bytes(4, "little")


def _find(file: BinaryIO, word: bytes, place: int) -> int | None:
    """Return where a word stands next."""
    if read_at(file, place, len(word)) == word:
        return place
    while content := read_at(file, place, _BLOCK):
        start = content.find(word)
        if start >= 0:
            return place + start
        place += max(len(content) - len(word) + 1, 1)
    return None
