"""Audio files as they are: told by their content, read to their end."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np
import soundfile

from spiritlm_plugin.dataio.audio.headers import find_data_size
from spiritlm_plugin.dataio.audio.resampling import HIGHEST_RATE, LOWEST_RATE
from spiritlm_plugin.dataio.audio.streams import (
    holds_two_flacs,
    is_mpeg_start,
    ogg_pages,
    states_mpeg_length,
)

logger = logging.getLogger(__name__)

# Numbers that are read at once.
_BLOCK = 2**20
# Of streams, libsndfile says 2**63 - 1 frames.
_NO_LENGTH = 2**62
# A length in bytes that is beyond any file.
_FAR = 2**40
# An ID3 tag stands in the last bytes of a file.
_ID3_BYTES = 128


class AudioFile:
    """An audio file in any format of libsndfile, read from start to end.

    The format is that of the content, whatever the name says. Lengths that a
    header leaves open or states wrongly do not matter: what is there is read,
    and a recording that is shorter than stated, or damaged, is logged.

    Arguments
    ---------
    content : path or bytes
        The file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read as audio, or has a rate that no recording of
        speech has.

    Example
    -------
    >>> with AudioFile(recording) as file:
    ...     file.rate, file.frames, [len(block) for block in file.blocks()]
    (16000, 38399, [38399])
    """

    def __init__(self, content: str | os.PathLike | bytes | bytearray):
        self.name = _name(content)
        self._file = _open(content)
        try:
            self._open_sound()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._sound.close()
        self._file.close()

    @property
    def rate(self) -> int:
        """Samples a second, as the file says."""
        return self._sound.samplerate

    @property
    def channels(self) -> int:
        """How many there are, as the file says."""
        return self._sound.channels

    @property
    def subtype(self) -> str:
        """How samples are written, as libsndfile calls it (``PCM_16``)."""
        return self._sound.subtype

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield what is there, float32 of shape (samples, channels).

        Raises
        ------
        ValueError
            If the file is damaged and nothing could be read.
        """
        found = 0
        size = _BLOCK // self._sound.channels
        if self.frames is not None:
            size = min(size, self.frames + 1)  # To see what follows.
        while len(block := self.read(max(size, 1))):
            found += len(block)
            yield block
        self._check_length(found)

    def read(self, frames: int) -> np.ndarray:
        """Return the next samples, float32 of shape (samples, channels).

        There are fewer than ``frames`` at the end, and where the file is
        damaged.
        """
        # What libsndfile has not come to stays NaN.
        block = np.full((frames, self._sound.channels), np.nan, np.float32)
        try:
            return self._sound.read(frames, out=block)
        except soundfile.LibsndfileError as error:
            self._damage = error.error_string
            missing = np.isnan(block[:, 0])
            return block[: missing.argmax()] if missing.any() else block

    def seek(self, frame: int) -> None:
        """Go to a sample, or to the end if there are fewer."""
        if self.frames is not None:
            # Otherwise it lies behind the damage.
            with suppress(soundfile.LibsndfileError):
                self._sound.seek(min(frame, self.frames))
                return
        self._reopen()
        while frame > 0 and (read := len(self.read(min(frame, _BLOCK)))):
            frame -= read

    def count(self) -> int:
        """Return how many samples there are, from the start.

        The file is read where its header does not say, or says too much. What
        is missing of one that is cut off is logged.
        """
        if self.frames is not None:
            self.seek(max(self.frames - 1, 0))
            if len(self.read(1)):
                if self._stated_share > 1:
                    self._check_length(self.frames)
                return self.frames
            self._reopen()
        return sum(map(len, self.blocks()))

    def _reopen(self) -> None:
        self._sound.close()
        self._open_sound()

    def _open_sound(self) -> None:
        self._damage = ""
        self._stated_share = 1.0
        self._view = _View(self._file)
        self._size = size = find_data_size(self._file)
        if size is not None and size.is_wrong:
            self._view = _View(self._file, size.place, size.field)
            if not size.is_unknown:
                self._stated_share = size.stated / size.available
        self._sound: Any = self._decoder(self._view)
        self.frames: int | None = self._sound.frames
        if self._sound.format == "MP3" and not states_mpeg_length(self._file):
            self._sound.close()
            self._view = _View(self._file, length=_FAR)
            self._sound = self._decoder(self._view)
            self.frames = None
        elif self.frames >= _NO_LENGTH:
            self.frames = None
        if not LOWEST_RATE <= self.rate <= HIGHEST_RATE:
            self._sound.close()
            raise ValueError(
                f"{self.name} says that it has {self.rate} samples a second; "
                f"recordings of {LOWEST_RATE} to {HIGHEST_RATE} Hz can be read"
            )

    def _decoder(self, view: _View) -> soundfile.SoundFile:
        try:
            return _Decoder(view)
        except soundfile.LibsndfileError as error:
            raise ValueError(
                f"cannot read {self.name} as audio ({error.error_string}); it "
                "may be empty, damaged, without a header, or in a format that "
                "libsndfile does not know: convert it to wav or flac"
            ) from error

    def _check_length(self, found: int) -> None:
        """Say what is missing."""
        if self._damage and not found:
            raise ValueError(
                f"{self.name} is damaged ({self._damage}), nothing of it can "
                "be read; repair or convert it"
            )
        stated = (self.frames or 0) * self._stated_share
        fault = ""
        if found < stated:
            fault = (
                f"is shorter than the {stated / self.rate:.3f} s that it "
                "states: it is damaged or cut off"
            )
        elif self._holds_more():
            fault = (
                "holds another recording behind the first: join them by "
                "converting it to wav"
            )
        elif self._damage:
            fault = f"cannot be decoded further ({self._damage})"
        elif self._lacks_a_part():
            fault = "lacks a part: it is damaged or cut off"
        if fault:
            logger.warning(
                "%s %s; %.3f s are used", self.name, fault, found / self.rate
            )

    def _holds_more(self) -> bool:
        """Tell whether recordings were written one behind the other."""
        if self._sound.format == "OGG":
            return ogg_pages(self._file)[1]
        if self._sound.format == "MP3":
            return is_mpeg_start(self._file, self._view.tell())
        return bool(self._damage) and holds_two_flacs(self._file)

    def _lacks_a_part(self) -> bool:
        if self._sound.format == "OGG":
            return not ogg_pages(self._file)[0]
        log = self._sound.extra_info
        return self._size is None and "truncated" in log


class _Decoder(soundfile.SoundFile):
    """Reads forwards: does not go by the frames that a header states."""

    def seekable(self) -> bool:
        return False


class _View(io.RawIOBase):
    """A file with other bytes at one place, or said to be longer.

    libsndfile guesses the length of an MPEG stream by the file's, and stops
    there; from a file that seems endless it reads what comes.

    It has no name, by which soundfile would tell the format.
    """

    def __init__(
        self,
        file: BinaryIO,
        place: int = 0,
        field: bytes = b"",
        length: int | None = None,
    ):
        self._file = file
        self._place = place
        self._field = field
        self._position = 0
        self._length = length or file.seek(0, os.SEEK_END)
        self._is_endless = length is not None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = (0, self._position, self._length)[whence]
        # Damaged files lead in front of themselves.
        if start + offset >= 0:
            self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        content = self._read(len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def _read(self, size: int) -> bytes:
        start = self._position
        if self._is_endless and start >= self._length - _ID3_BYTES:
            return bytes(min(size, max(self._length - start, 0)))
        if start >= self._length:
            return b""
        self._file.seek(start)
        content = bytearray(self._file.read(size))
        for i, byte in enumerate(self._field, self._place - start):
            if 0 <= i < len(content):
                content[i] = byte
        return bytes(content)


def _name(content: Any) -> str:
    if isinstance(content, (bytes, bytearray)):
        return f"the file of {len(content)} bytes"
    return os.fspath(content)


def _open(content: Any) -> BinaryIO:
    if isinstance(content, (bytes, bytearray)):
        return io.BytesIO(content)
    if not os.path.exists(content):
        raise FileNotFoundError(f"no such audio file: {_name(content)}")
    if os.path.isdir(content):
        raise ValueError(f"cannot read {_name(content)}: it is a folder")
    file = open(content, "rb")
    if file.seekable():
        return file
    with file:  # A pipe.
        return io.BytesIO(file.read())
