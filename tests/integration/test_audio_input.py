"""Recordings as people have them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import soxr
import torch

from spiritlm_plugin import Speech, SpeechUnits, Text
from spiritlm_plugin.dataio.audio import reading as audio
from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.lobes import speech_tokenizer
from spiritlm_plugin.lobes.speech_tokenizer import join_windows
from tests.integration.helpers import RATE, greedily, shown


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (torch.zeros(1279), "1279 samples.*1280"),
        (torch.zeros(0), "empty"),
        (torch.tensor([0.0] * 1999 + [torch.nan]), r"nan at 0.125 s"),
        (torch.tensor([torch.inf] + [0.0] * 2000), r"inf at 0.000 s"),
        (torch.full((2000,), 3000.0), "3000.*int16"),
        (torch.zeros(2000, dtype=torch.int64), "int64.*int16"),
        (torch.zeros(2, 2, 2000), r"\(2, 2, 2000\)"),
    ],
)
def test_samples_that_cannot_be_used(base, wav, message):
    with pytest.raises(ValueError, match=message):
        base.encode_batch([torch.zeros(2000), wav])


@pytest.mark.parametrize(
    ("wav_lens", "message"),
    [([0.0, 1.0], r"\(0, 1\].*0\."), ([1.0], "each item"), ([1.5, 1], "1.5")],
)
def test_relative_lengths_that_cannot_be_used(base, wav_lens, message):
    with pytest.raises(ValueError, match=message):
        base.encode_batch(torch.zeros(2, 2000), torch.tensor(wav_lens))


def test_lists_have_no_relative_lengths(base):
    with pytest.raises(ValueError, match="padded tensor"):
        base.encode_batch([torch.zeros(2000)], torch.ones(1))


def test_files_that_cannot_be_read(base, recording, tmp_path):
    missing, empty, text, nothing, short = (
        tmp_path / f"{name}.wav"
        for name in ("missing", "empty", "text", "nothing", "short")
    )
    with pytest.raises(FileNotFoundError, match=str(missing)):
        base.encode_file(missing)
    empty.touch()
    text.write_text("not a recording" * 100)
    soundfile.write(nothing, np.zeros(0), RATE)
    soundfile.write(short, np.zeros(600), 8000)
    for file, message in (
        (empty, "empty"),
        (text, "convert"),
        (nothing, "no samples"),
        (short, "1200 samples.*1280"),
    ):
        with pytest.raises(ValueError, match=f"{file}.*{message}"):
            base.encode_file(file)
        with pytest.raises(ValueError, match=f"{file}.*{message}"):
            base.generate([Text("a"), Speech(file)], "text")
        with pytest.raises(ValueError, match=message):
            base.encode_file(file.read_bytes())


def test_what_is_there_of_a_damaged_file(base, samples, tmp_path, caplog):
    broken, flac = tmp_path / "broken.wav", io.BytesIO()
    soundfile.write(flac, samples, RATE, format="flac")
    broken.write_bytes(flac.getvalue()[:-9000])
    units = base.encode_file(broken)
    assert f"{broken} is shorter than the 2.400 s that it states" in caplog.text
    read = read_audio(broken)
    assert units == base.encode_batch([samples[: len(read)]])[0]
    assert 0.5 * len(samples) < len(read) < len(samples)


AUDIO_FORMS = {
    "str": lambda path, wav: str(path),
    "Path": lambda path, wav: path,
    "bytes": lambda path, wav: path.read_bytes(),
    "int16": lambda path, wav: (wav * 2**15).astype(np.int16),
    "int32": lambda path, wav: (wav * 2.0**31).astype(np.int32),
    "float32": lambda path, wav: wav,
    "float64": lambda path, wav: wav.astype(np.float64),
    "tensor": lambda path, wav: torch.from_numpy(wav),
    "int16 tensor": lambda path, wav: torch.from_numpy(wav * 2**15).short(),
    "one row": lambda path, wav: wav[None],
    "one column": lambda path, wav: wav[:, None],
    "dict of datasets": lambda path, wav: {"array": wav, "sampling_rate": RATE},
    "bytes of datasets": lambda path, wav: {
        "bytes": path.read_bytes(),
        "path": None,
    },
    "stereo": lambda path, wav: np.stack([1.5 * wav, 0.5 * wav], 1),
    "stereo rows": lambda path, wav: np.stack([0.5 * wav, 1.5 * wav]),
}


@pytest.mark.parametrize("form", AUDIO_FORMS)
def test_audio_in_all_forms(base, recording, samples, form):
    content = AUDIO_FORMS[form](recording, samples)
    assert torch.equal(read_audio(content), torch.from_numpy(samples))
    expected = base.encode_file(recording)
    assert base.encode_batch([content, samples[:5000]])[0] == expected


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pcm.wav", {"subtype": "PCM_16"}),
        ("float.wav", {"subtype": "FLOAT"}),
        ("24.wav", {"subtype": "PCM_24"}),
        ("a.flac", {}),
        ("a.au", {}),
    ],
)
def test_lossless_files_are_the_samples(
    base, recording, samples, tmp_path, name, options
):
    file = tmp_path / name
    soundfile.write(file, np.stack([samples, samples], 1), RATE, **options)
    assert torch.equal(read_audio(file), torch.from_numpy(samples))
    assert base.encode_file(file) == base.encode_file(recording)


def downsampled(wav, rate):
    """Resample a whole recording; the end is a sample longer or zero."""
    whole = torch.from_numpy(soxr.resample(wav.numpy(), rate, RATE))
    missing = -(-len(wav) * RATE // rate) - len(whole)
    return torch.nn.functional.pad(whole, (0, missing))


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 44101, 48000])
def test_sample_rates(base, samples, tmp_path, rate):
    wav = torch.from_numpy(soxr.resample(samples, RATE, rate))
    expected = downsampled(wav, rate)
    file = tmp_path / "a.wav"
    soundfile.write(file, wav.numpy(), rate, "FLOAT")
    for content in (file, wav, wav.numpy()):
        actual = read_audio(content, rate)
        assert abs(len(actual) - len(samples)) <= RATE / rate + 1
        assert torch.equal(actual, expected)
    units = base.encode_file(file)
    assert units == base.encode_batch([expected])[0]
    assert base.encode_batch([wav], sample_rate=rate) == [units]
    prompts = [[Speech(wav, sample_rate=rate)], [Speech(file)], [Speech(units)]]
    outputs = greedily(base, prompts, "text", max_new_tokens=5)
    assert shown(outputs[0]) == shown(outputs[1]) == shown(outputs[2])


@pytest.fixture(scope="session")
def long_wav(samples):
    """A recording of 102 s whose parts differ."""
    time = np.arange(102 * RATE) / RATE
    wav = np.resize(samples, len(time)) * (1 + np.sin(time / 9)) / 2
    noise = np.random.default_rng(0).normal(size=len(time)) / 300
    return torch.from_numpy((wav + noise).astype(np.float32))


def windowed(lm, wav, seconds=100) -> SpeechUnits:
    """Tokenize the windows of a recording alone."""
    windows = wav.split(seconds * RATE)
    return join_windows([lm.encode_batch([window])[0] for window in windows])


def test_long_recording_is_its_windows(base, long_wav, tmp_path):
    file, short = tmp_path / "long.wav", long_wav[:20000]
    soundfile.write(file, long_wav.numpy(), RATE, "FLOAT")
    units = base.encode_file(file)
    assert units == windowed(base, long_wav)
    assert units.duration == pytest.approx(102, abs=0.1)
    batch = base.encode_batch([long_wav, short])
    assert batch == [units, *base.encode_batch([short])]


def test_each_window_has_its_own_pitch_and_style(
    expressive, long_wav, tmp_path, monkeypatch
):
    # Shorter windows, as pitch takes its time.
    monkeypatch.setattr(audio, "WINDOW_SECONDS", 3)
    monkeypatch.setattr(speech_tokenizer, "WINDOW_SAMPLES", 3 * RATE)
    wav, file = long_wav[: 8 * RATE], tmp_path / "long.wav"
    soundfile.write(file, wav.numpy(), RATE, "FLOAT")
    units = expressive.encode_file(file)
    assert units == windowed(expressive, wav, seconds=3)
    assert expressive.encode_batch([wav]) == [units]
    monkeypatch.undo()
    assert expressive.encode_file(file) != units


def test_long_file_of_another_rate_is_its_windows(base, long_wav, tmp_path):
    rate, file = 22050, tmp_path / "long.wav"
    wav = torch.from_numpy(soxr.resample(long_wav.numpy(), RATE, rate))
    soundfile.write(file, wav.numpy(), rate, "FLOAT")
    actual = read_audio(file)
    assert torch.equal(actual, downsampled(wav, rate))
    assert base.encode_file(file) == windowed(base, actual)


def test_rest_of_less_than_80_ms_is_dropped(base, long_wav):
    wav = long_wav[: 100 * RATE + 1279]
    units = base.encode_batch([wav])[0]
    assert units == base.encode_batch([wav[: 100 * RATE]])[0]
    assert len(units) == 100 * 25 - 1
