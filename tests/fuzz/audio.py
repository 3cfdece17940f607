"""Recordings: every container, valid and damaged, through all that reads them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from spiritlm_plugin import SpiritLM
from spiritlm_plugin.dataio.audio.reading import audio_seconds, read_audio
from tests.fuzz.harness import (
    Case,
    SilentLoss,
    WrongResult,
    is_named,
    logged_warnings,
)

_RATES = [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000]
_ODD_RATES = [1000, 4001, 7919, 12345, 15999, 16001, 44101, 99991, 192_000]
_BAD_RATES = [0, 1, 7, 999, 768_001, 10**7, 2**31 - 1, 2**32 - 1]
_SUFFIXES = [".wav", ".RAW", ".mp3", ".flac", ".vox", ".gsm", ".txt", ".au", ""]
# Subtypes that hold 16 bits exactly.
_EXACT = {
    *("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"),
    *("DPCM_16", "ALAC_16"),
}
# But not where libsndfile 1.2.2 writes other samples, or whole blocks.
_INEXACT = {("PAF", "PCM_24"), ("SDS", "PCM_16"), ("SDS", "PCM_24")}
# Samples that a lossy codec adds or leaves at the ends, at most.
_CODEC_FRAME = 3000
# Their headers, or their ends, say how long they are.
_STATED = {
    *("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF"),
    *("FLAC", "OGG", "MP3", "NIST", "SVX", "VOC", "MAT4"),
}
# The resource fork of SD2 is another file; RAW is `_headerless`.
_FORMATS = sorted(set(soundfile.available_formats()) - {"RAW", "SD2"})
# Those that people have come more often.
_OFTEN = [*_FORMATS, *["WAV", "FLAC", "MP3", "OGG", "AIFF", "CAF"] * 2]
_ZEROS, _ONES, _HALF = bytes(8), b"\xff" * 8, b"\x7f" + b"\xff" * 7


@dataclass
class Recording:
    """A file, and what is known of the sound in it.

    ``same`` files give the units of the plain WAV; ``near`` ones its length.
    Of a ``part`` it must be said that it is less; ``any`` result is right of
    the others, but ``none`` of what is no recording.
    """

    content: bytes
    file_format: str
    subtype: str
    rate: int
    wav: bytes
    rule: str
    path: Path | None = None

    @property
    def seconds(self) -> float:
        """Of the sound that was written."""
        return soundfile.info(io.BytesIO(self.wav)).duration


def _sound(rng: np.random.Generator, rate: int, channels: int) -> np.ndarray:
    """Draw tones in noise, on the grid of 16 bits, (samples, channels)."""
    samples = int(rng.uniform(0.15, 0.5) * rate)
    time = np.arange(samples)[:, None] / rate
    tones = np.sin(2 * np.pi * rng.uniform(80, 900, channels) * time)
    noise = rng.normal(size=(samples, channels))
    loudness = rng.uniform(0.02, 1) ** 2
    whole = loudness * (0.3 * tones + 0.1 * noise).clip(-0.99, 0.99)
    return np.round(whole * 2**15) / 2**15


def _encode(
    samples: np.ndarray,
    rate: int,
    file_format: str,
    subtype: str,
    **options: Any,
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, None, file_format, **options)
    return file.getvalue()


def _write(rng: np.random.Generator, formats: list[str] = _OFTEN) -> Recording:
    """Draw a valid file; not all that is drawn can be written."""
    while True:
        file_format = str(rng.choice(formats))
        subtype = str(
            rng.choice(sorted(soundfile.available_subtypes(file_format)))
        )
        rates = _RATES if rng.random() < 0.7 else _ODD_RATES
        rate = int(rng.choice(rates))
        channels = int(rng.choice([1, 1, 1, 2, 2, 3, 6, 8]))
        samples = _sound(rng, rate, channels)
        options = {}
        if file_format == "MP3":
            modes = ["VARIABLE", "AVERAGE", "CONSTANT"]
            options["bitrate_mode"] = str(rng.choice(modes))
            options["compression_level"] = round(float(rng.random()), 2)
        try:
            content = _encode(samples, rate, file_format, subtype, **options)
            # Some formats round the rate or leave out channels.
            info = soundfile.info(io.BytesIO(content))
        except (soundfile.LibsndfileError, ValueError):
            continue
        if (info.samplerate, info.channels) == (rate, channels):
            wav = _encode(samples, rate, "WAV", "FLOAT")
            is_exact = (file_format, subtype) not in _INEXACT
            rule = "same" if is_exact and subtype in _EXACT else "near"
            return Recording(content, file_format, subtype, rate, wav, rule)


def _patch(content: bytes, place: int, field: bytes) -> bytes:
    return content[:place] + field + content[place + len(field) :]


def _mpeg_frame_size(head: bytes) -> int:
    """Return the bytes of a frame of layer III, by its header."""
    kbits = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    if is_mpeg_1 := head[1] >> 3 & 3 == 3:
        kbits = (
            0,
            32,
            40,
            48,
            56,
            64,
            80,
            96,
            112,
            128,
            160,
            192,
            224,
            256,
            320,
        )
    rates = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000)}
    rate = rates.get(head[1] >> 3 & 3, (11025, 12000, 8000))[head[2] >> 2 & 3]
    size = (144_000 if is_mpeg_1 else 72_000) * kbits[head[2] >> 4] // rate
    return size + (head[2] >> 1 & 1)


def _valid(rng: np.random.Generator) -> Recording:
    return _write(rng)


def _streamed(rng: np.random.Generator) -> Recording:
    """Leave the length open, as who writes to a pipe."""
    streams = ["WAV", "WAVEX", "RF64", "W64", "AU", "CAF", *["FLAC", "MP3"] * 3]
    made = _write(rng, streams)
    content = made.content
    size = (_ZEROS, _ONES, _HALF)[rng.integers(3)]
    if made.file_format == "FLAC":
        content = _patch(content, 21, bytes([content[21] & 0xF0]) + bytes(4))
    elif made.file_format == "MP3":
        if b"Xing" in content[:200] or b"Info" in content[:200]:
            content = content[_mpeg_frame_size(content) :]
    elif made.file_format == "AU":
        content = _patch(content, 8, size[:4])
    elif made.file_format == "RF64":
        content = _patch(content, content.index(b"ds64") + 16, size)
    elif made.file_format == "W64":
        size = size if size != _HALF else size[::-1]
        content = _patch(content, content.index(b"data\xf3") + 16, size)
    elif made.file_format == "CAF":
        content = _patch(content, content.index(b"data") + 4, size)
    else:
        size = size if size != _HALF else size[::-1]
        content = _patch(
            content, content.rindex(b"data", 0, 200) + 4, size[-4:]
        )
    # What stands behind the samples is read as samples.
    exact = made.rule == "same" and made.file_format not in ("CAF", "W64")
    return replace(made, content=content, rule="same" if exact else "near")


def _cut_off(rng: np.random.Generator) -> Recording:
    made = _write(rng)
    end = int(rng.integers(0, len(made.content)))
    rule = "part" if made.file_format in _STATED else "any"
    return replace(made, content=made.content[:end], rule=rule)


def _flipped(rng: np.random.Generator) -> Recording:
    made = _write(rng)
    content = bytearray(made.content)
    for place in rng.integers(0, len(content), rng.integers(1, 30)):
        content[place] ^= 1 << int(rng.integers(8))
    return replace(made, content=bytes(content), rule="any")


def _hole(rng: np.random.Generator) -> Recording:
    """Overwrite a stretch behind the header."""
    made = _write(rng)
    start = int(
        rng.integers(min(600, len(made.content)), len(made.content) + 1)
    )
    size = int(rng.integers(1, 3000))
    fill = bytes(size) if rng.random() < 0.5 else rng.bytes(size)
    content = made.content[:start] + fill + made.content[start + size :]
    rule = "part" if made.file_format in _STATED - {"CAF", "AIFF"} else "any"
    return replace(made, content=content[: len(made.content)], rule=rule)


def _lying_header(rng: np.random.Generator) -> Recording:
    made = _write(rng)
    content = made.content
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(4, min(120, len(content))))
        values = [_ZEROS, _ONES, _HALF, b"\x80" + bytes(7), rng.bytes(8)]
        field = values[rng.integers(5)][: rng.choice([1, 2, 4, 8])]
        content = _patch(content, place, field)
    return replace(made, content=content, rule="any")


def _bad_rate(rng: np.random.Generator) -> Recording:
    made = _write(rng, ["WAV", "AU"])
    rate = int(rng.choice(_BAD_RATES))
    if made.file_format == "WAV":
        place = made.content.index(b"fmt ") + 12
        content = _patch(made.content, place, rate.to_bytes(4, "little"))
    else:
        content = _patch(made.content, 16, rate.to_bytes(4, "big"))
    return replace(made, content=content, rule="none")


def _appended(rng: np.random.Generator) -> Recording:
    made = _write(rng, sorted(_STATED))
    junk = rng.bytes(int(rng.integers(1, 5000)))
    if rng.random() < 0.5:
        junk = bytes(len(junk))
    return replace(made, content=made.content + junk, rule="part")


def _joined(rng: np.random.Generator) -> Recording:
    """One recording behind the other, which a reader may stop before."""
    made = _write(rng, ["OGG", "MP3", "FLAC"])
    samples, rate = soundfile.read(io.BytesIO(made.wav), always_2d=True)
    wav = _encode(np.concatenate([samples, samples]), rate, "WAV", "FLOAT")
    return replace(made, content=made.content * 2, wav=wav, rule="part")


def _nothing(rng: np.random.Generator) -> Recording:
    """No recording: text, other files' heads, zeros, random bytes, nothing."""
    size = int(rng.integers(0, 20_000))
    random = rng.bytes(size)
    heads = [b"", b"", b"PK\x03\x04", b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n", b"{"]
    bodies = [random, bytes(size), b"no sound at all\n" * (size // 16), b""]
    content = heads[rng.integers(6)] + bodies[rng.integers(4)]
    if content[:1] in (b"\xff", b"I"):  # It may be taken for an MPEG stream.
        content = b"\0" + content[1:]
    return Recording(content, "no audio", "", 16000, b"", "none")


def _headerless(rng: np.random.Generator) -> Recording:
    samples = _sound(rng, 16000, 1)
    content = b"\0\0" + _encode(samples, 16000, "RAW", "PCM_16")
    return Recording(content, "RAW", "PCM_16", 16000, b"", "none")


_KINDS: dict[str, tuple[Callable[[np.random.Generator], Recording], float]] = {
    "valid": (_valid, 0.3),
    "streamed": (_streamed, 0.14),
    "cut off": (_cut_off, 0.14),
    "flipped": (_flipped, 0.1),
    "hole": (_hole, 0.08),
    "lying header": (_lying_header, 0.1),
    "bad rate": (_bad_rate, 0.02),
    "appended": (_appended, 0.04),
    "joined": (_joined, 0.03),
    "nothing": (_nothing, 0.03),
    "headerless": (_headerless, 0.02),
}


def prepare() -> SpiritLM:
    """Load the model that ships with the package."""
    torch.set_num_threads(1)
    return SpiritLM.from_hparams("tinyspeech")


def make_case(rng: np.random.Generator, folder: Path) -> Case:
    """Draw a file, under a name that may lie."""
    shares = [share for _, share in _KINDS.values()]
    kind = str(rng.choice(list(_KINDS), p=shares))
    made = _KINDS[kind][0](rng)
    suffix = f".{made.file_format.lower()}"
    if rng.random() < 0.4:
        suffix = str(rng.choice(_SUFFIXES))
    made.path = folder / f"recording{suffix}"
    made.path.write_bytes(made.content)
    return Case(
        f"{kind}, {made.file_format}",
        made,
        (str(made.path), f"the file of {len(made.content)} bytes"),
        made.rule in ("same", "near"),
    )


def run_case(case: Case, lm: SpiritLM) -> None:
    """Read a file in all ways; compare with what is known of it."""
    made = case.content
    ways: list[Callable[[], Any]] = [
        lambda: lm.encode_file(made.path),
        lambda: lm.encode_file(made.content),
        lambda: lm.encode_batch([made.path, made.content])[0],
        lambda: lm.transcribe_file(made.path, max_new_tokens=2),
    ]
    with logged_warnings() as warnings:
        results = [_attempt(way) for way in ways]
    errors = [result for result in results if isinstance(result, Exception)]
    for error in errors:
        if len(errors) < len(ways) or not is_named(error, case.names):
            raise error
    if errors:
        audio_seconds_or_error(made)
        raise errors[0]
    units, *others, text = results
    if any(other != units for other in others) or not isinstance(text, str):
        raise WrongResult(f"ways do not agree: {results}")
    _compare(made, units, lm, warnings)


def _attempt(way: Callable[[], Any]) -> Any:
    try:
        return way()
    except Exception as error:
        return error


def audio_seconds_or_error(made: Recording) -> None:
    """Ask for the duration, which a file that is read in no way may have."""
    error = _attempt(lambda: audio_seconds(made.path))
    if isinstance(error, Exception) and not is_named(error, (str(made.path),)):
        raise error


def _compare(
    made: Recording, units: Any, lm: SpiritLM, warnings: list[str]
) -> None:
    read = read_audio(made.path)
    if made.rule == "none":
        raise WrongResult(f"{len(read)} samples of what is no recording")
    seconds = len(read) / 16000
    frame = _CODEC_FRAME / made.rate if made.subtype not in _EXACT else 2e-3
    if made.rule in ("same", "near"):
        if warnings:
            raise WrongResult(f"a false alarm: {warnings[0]}")
        if abs(audio_seconds(made.path) - seconds) > 1e-3:
            raise WrongResult(f"{audio_seconds(made.path)} s for {seconds} s")
        if seconds > made.seconds + frame + 0.3:
            raise WrongResult(f"{seconds} s of {made.seconds} s")
    if made.rule != "any" and seconds < made.seconds - frame and not warnings:
        raise SilentLoss(f"{seconds} s of {made.seconds} s")
    if made.rule == "same" and units != lm.encode_file(made.wav):
        raise WrongResult("other units than those of the plain WAV")
