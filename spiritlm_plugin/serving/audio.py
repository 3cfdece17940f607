"""Recordings that come in a request, and those that go out."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Iterator

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from spiritlm_plugin.dataio.audio.containers import AudioFile
from spiritlm_plugin.dataio.audio.reading import read_windows
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE

# Of OpenAI's raw samples.
PCM_RATE = 24000
MEDIA_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "pcm": "audio/pcm",
}
# As libsndfile names them.
_FILES = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
}
# Of MP3 that begins before its end is known: at another rate than one that is
# the same throughout, 80 kbit/s, its bytes do not tell a reader its length.
# (Without a level soundfile does not read the mode.)
_STREAMED = {"mp3": {"compression_level": 0.5, "bitrate_mode": "CONSTANT"}}
# Of a WAV file whose length is not known when it begins.
_OPEN_LENGTH = b"\xff\xff\xff\xff"


def read_upload(content: bytes, most_seconds: float) -> Tensor:
    """Return a recording that somebody sent, at 16 kHz.

    Arguments
    ---------
    content : bytes
        A file in any format of libsndfile.
    most_seconds : float
        That it may last. A file that says it is longer is not decoded; one
        that says nothing, or too little, is read no further.

    Raises
    ------
    ValueError
        If it is longer, or as of `read_audio`.

    Example
    -------
    >>> content = open(recording, "rb").read()
    >>> len(read_upload(content, 60))
    38399
    >>> read_upload(content, 1)
    Traceback (most recent call last):
        ...
    ValueError: the recording lasts more than 1 s, which is the limit here
    """
    too_long = ValueError(
        f"the recording lasts more than {most_seconds:g} s, which is the "
        "limit here"
    )
    with AudioFile(content) as file:
        if file.frames is not None and file.frames > most_seconds * file.rate:
            raise too_long
    windows: list[Tensor] = []
    left = most_seconds * SAMPLE_RATE
    for window in read_windows(content):
        left -= len(window)
        if left < 0:
            raise too_long
        windows.append(window)
    return torch.cat(windows)


def decode_base64(data: str) -> bytes:
    """Return the bytes that a request holds as letters.

    Raises
    ------
    ValueError
        If they are none, as where an address or a path is given.

    Example
    -------
    >>> decode_base64("aGk=")
    b'hi'
    """
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            "data is no base64: give the bytes of the recording, not its "
            "address or path"
        ) from error


def samples_of(wav: Tensor) -> np.ndarray:
    """Return samples in [-1, 1] as integers of 16 bits.

    Example
    -------
    >>> samples_of(torch.tensor([0.5, -2.0])).tolist()
    [16384, -32767]
    """
    scaled = wav.detach().float().clamp(-1, 1) * 32767
    return scaled.round().to(torch.int16).cpu().numpy()


def encode(wav: Tensor, form: str) -> bytes:
    """Return a recording as the content of a file.

    Arguments
    ---------
    wav : Tensor
        16 kHz samples, shape (time,).
    form : str
        One of `MEDIA_TYPES`.

    Example
    -------
    >>> soundfile.info(io.BytesIO(encode(torch.zeros(1600), "flac"))).frames
    1600
    """
    if form == "pcm":
        return b"".join(encode_chunks([wav], form))
    kind, subtype = _FILES[form]
    file = io.BytesIO()
    soundfile.write(
        file, samples_of(wav), SAMPLE_RATE, format=kind, subtype=subtype
    )
    return file.getvalue()


class ChunkEncoder:
    """A recording as the content of a file, as it comes.

    Arguments
    ---------
    form : str
        One of `MEDIA_TYPES`. FLAC, whose header tells the length, comes at
        the end.

    Example
    -------
    >>> encoder = ChunkEncoder("pcm")
    >>> parts = [encoder.push(torch.zeros(1600)), encoder.finish()]
    >>> sum(map(len, parts))
    4800
    """

    def __init__(self, form: str):
        self.form = form
        self._kept: list[Tensor] = []
        self._push: Callable[[np.ndarray], bytes]
        self._close: Callable[[], bytes]
        if form == "pcm":
            resampler = soxr.ResampleStream(
                SAMPLE_RATE, PCM_RATE, 1, dtype="int16"
            )
            self._push = lambda x: _little(resampler.resample_chunk(x))
            nothing = np.zeros(0, np.int16)
            self._close = lambda: _little(
                resampler.resample_chunk(nothing, last=True)
            )
        elif form == "wav":
            self._head = _wav_header()
            self._push = lambda x: self._begun() + _little(x)
            self._close = self._begun
        elif form in ("mp3", "opus"):
            self._sink = _Sink(without_first=form == "mp3")
            kind, subtype = _FILES[form]
            file = soundfile.SoundFile(
                self._sink,
                "w",
                SAMPLE_RATE,
                1,
                subtype,
                format=kind,
                **_STREAMED.get(form, {}),
            )
            self._push = lambda x: self._written(lambda: file.write(x))
            self._close = lambda: self._written(file.close)

    def push(self, wav: Tensor) -> bytes:
        """Take the next samples, and return what can be sent."""
        if self.form == "flac":
            self._kept.append(wav)
            return b""
        return self._push(samples_of(wav))

    def finish(self) -> bytes:
        """Return what is left."""
        if self.form == "flac":
            return encode(torch.cat([torch.zeros(0), *self._kept]), "flac")
        return self._close()

    def _begun(self) -> bytes:
        head, self._head = self._head, b""
        return head

    def _written(self, write: Callable[[], object]) -> bytes:
        write()
        return self._sink.take()


def encode_chunks(wavs: list[Tensor], form: str) -> Iterator[bytes]:
    """Yield the content of a file, chunk by chunk.

    Example
    -------
    >>> len(b"".join(encode_chunks([torch.zeros(1600)] * 2, "wav")))
    6444
    """
    encoder = ChunkEncoder(form)
    for wav in wavs:
        yield encoder.push(wav)
    yield encoder.finish()


class _Sink(io.RawIOBase):
    """Takes what an encoder writes; what is written again is left out.

    The first thing that LAME writes is a frame with the length, which it does
    not know then.
    """

    def __init__(self, without_first: bool) -> None:
        self._new = bytearray()
        self._leave_out = without_first
        self._position = 0
        self._length = 0

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = (0, self._position, self._length)[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: object) -> int:
        return 0

    def write(self, content: object) -> int:
        data = bytes(content)  # type: ignore[call-overload]
        new = self._position + len(data) - self._length
        if new > 0:
            if not self._leave_out:
                self._new += data[-new:]
            self._leave_out = False
            self._length += new
        self._position += len(data)
        return len(data)

    def take(self) -> bytes:
        """Return what is new."""
        new = bytes(self._new)
        self._new.clear()
        return new


def _little(samples: np.ndarray) -> bytes:
    return samples.astype("<i2").tobytes()


def _wav_header() -> bytes:
    """Return the header of a WAV file of any length."""
    rate, width = SAMPLE_RATE, 2
    numbers = np.array([rate, rate * width], "<u4").tobytes()
    return b"".join(
        [
            b"RIFF"
            + _OPEN_LENGTH
            + b"WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00",
            numbers + bytes([width, 0, 8 * width, 0]),
            b"data" + _OPEN_LENGTH,
        ]
    )
