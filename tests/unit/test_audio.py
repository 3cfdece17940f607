"""Tests of ``spiritlm_plugin.dataio.audio.reading``."""

import io

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_plugin.dataio.audio import reading as audio
from spiritlm_plugin.dataio.audio.reading import (
    audio_seconds,
    read_audio,
    read_windows,
)

RATES = [8000, 11025, 12345, 16000, 22050, 24000, 32000, 44100, 48000]


@pytest.fixture
def short_windows(monkeypatch):
    """Cut into windows of 1 s instead of 100 s."""
    monkeypatch.setattr(audio, "WINDOW_SECONDS", 1)


def noise(length, *channels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((length, *channels), generator=generator) * 1.8 - 0.9


def resampled(samples, rate):
    return torchaudio.functional.resample(samples, rate, 16000)


def check_windows(windows, samples, rate):
    """Compare windows of 1 s with what the whole recording gives."""
    whole = resampled(samples, rate)
    assert [len(w) for w in windows[:-1]] == [16000] * (len(windows) - 1)
    assert 0 < len(windows[-1]) <= 16000
    assert sum(map(len, windows)) == len(whole)
    assert len(whole) == -(-len(samples) * 16000 // rate)
    torch.testing.assert_close(torch.cat(windows), whole, atol=2e-6, rtol=0)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("extra", [-1, 0, 1, 5, 40, 0.5])
@pytest.mark.usefixtures("short_windows")
def test_windows_are_those_of_the_whole(rate, extra):
    extra = int(extra * rate) if isinstance(extra, float) else extra
    samples = noise(2 * rate + extra)
    check_windows(list(read_windows(samples, rate)), samples, rate)


@settings(max_examples=50)
@given(st.sampled_from(RATES), st.floats(0.1, 4), st.integers(0, 9))
@pytest.mark.usefixtures("short_windows")
def test_windows_of_any_length(rate, seconds, seed):
    samples = noise(int(seconds * rate), seed=seed)
    check_windows(list(read_windows(samples, rate)), samples, rate)


def test_windows_last_100_seconds():
    content = noise(800_003)
    windows = list(read_windows(content, 8000))
    assert [len(w) for w in windows] == [1_600_000, 6]
    torch.testing.assert_close(
        torch.cat(windows), resampled(content, 8000), atol=2e-6, rtol=0
    )
    windows = list(read_windows(np.zeros(3_200_000, dtype=np.int16)))
    assert [len(w) for w in windows] == [1_600_000] * 2


@pytest.mark.parametrize(
    ("subtype", "suffix", "error"),
    [
        ("PCM_U8", "wav", 2**-7),
        ("PCM_16", "wav", 2**-15),
        ("PCM_24", "wav", 2**-23),
        ("PCM_32", "wav", 2**-24),
        ("FLOAT", "wav", 0),
        ("PCM_16", "flac", 2**-15),
        ("PCM_24", "flac", 2**-23),
    ],
)
@pytest.mark.usefixtures("short_windows")
def test_files(tmp_path, subtype, suffix, error):
    path = tmp_path / f"a.{suffix}"
    for rate, channels in ((16000, 1), (44100, 2)):
        samples = noise(2 * rate + 77, channels)
        soundfile.write(path, samples.numpy(), rate, subtype)
        expected = resampled(samples.mean(1), rate)
        for content in (path, str(path), path.read_bytes()):
            read = read_audio(content)
            assert read.dtype == torch.float32
            torch.testing.assert_close(
                read, expected, atol=2 * error + 2e-6, rtol=0
            )
        assert audio_seconds(path) == (2 * rate + 77) / rate
        # The rate is the file's own.
        assert torch.equal(read_audio(path, sample_rate=8000), read)
        memory = bytearray(path.read_bytes())
        assert torch.equal(read_audio(memory), read)


@pytest.mark.parametrize(("suffix", "rate"), [("ogg", 44100), ("mp3", 24000)])
def test_lossy_files(tmp_path, suffix, rate):
    time = torch.arange(rate) / rate
    samples = 0.5 * torch.sin(2 * torch.pi * 440 * time)
    soundfile.write(tmp_path / f"a.{suffix}", samples.numpy(), rate)
    read = read_audio(tmp_path / f"a.{suffix}")
    assert len(read) == 16000
    expected = resampled(samples, rate)
    error = (read - expected)[2000:-2000].abs().max()
    assert error < 0.05


@pytest.mark.parametrize(
    ("dtype", "quantize"),
    [
        (np.float16, lambda x: x),
        (np.float32, lambda x: x),
        (np.float64, lambda x: x),
        (np.uint8, lambda x: x * 128 + 128),
        (np.int8, lambda x: x * 128),
        (np.int16, lambda x: x * 32768),
        (np.int32, lambda x: x.astype(np.float64) * 2147483648),
    ],
)
def test_arrays_of_every_type(dtype, quantize):
    samples = noise(1280).numpy()
    content = quantize(samples).astype(dtype)
    step = {np.uint8: 2**-7, np.int8: 2**-7, np.float16: 2**-10}.get(
        dtype, 2**-15
    )
    for given_content in (content, torch.from_numpy(content)):
        read = read_audio(given_content)
        assert read.dtype == torch.float32
        np.testing.assert_allclose(read, samples, atol=step)


def test_channels_are_averaged():
    samples = noise(2000, 3)
    expected = samples.mean(1)
    for content in (samples, samples.T, samples.numpy(), samples.T.numpy()):
        torch.testing.assert_close(read_audio(content), expected)
    one = read_audio(samples[:, :1])
    assert torch.equal(one, samples[:, 0])
    assert torch.equal(read_audio(samples[:, :1].T), one)


def test_tensors_with_gradient_and_strides():
    samples = noise(2560)
    samples.requires_grad_()
    read = read_audio(samples[::2])
    assert not read.requires_grad
    assert torch.equal(read, samples.detach()[::2])


@pytest.mark.parametrize(
    ("content", "rate", "message"),
    [
        (torch.zeros(0), 16000, "the waveform is empty: it holds no samples"),
        (torch.zeros(1279), 16000, "too short: 1279 .* at least 1280"),
        (torch.zeros(639), 8000, "too short: 1278 samples at 16 kHz"),
        (torch.zeros(2, 2, 9), 16000, r"\(time, channels\).* got \(2, 2, 9\)"),
        (torch.tensor(1.0), 16000, r"got \(\)"),
        (torch.zeros(2000).long(), 16000, "scale .*int64; use int16"),
        (np.zeros(2000, dtype=bool), 16000, "scale .*bool; use"),
        (torch.zeros(2000).cfloat(), 16000, "scale .*complex64; use"),
        (torch.full((2000,), 3000.0), 16000, "as large as 3000; scale floats"),
        (torch.zeros(2000), 0, "positive number of Hz, got 0"),
        (torch.zeros(2000), -8000, "got -8000"),
        (torch.zeros(2000), 16000.0, "got 16000.0"),
        (torch.zeros(2000), None, "got None"),
    ],
)
def test_what_is_not_audio(content, rate, message):
    with pytest.raises(ValueError, match=message):
        read_audio(content, rate)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_not_finite(value, tmp_path, short_windows):
    samples = noise(40000)
    samples[32160] = value
    with pytest.raises(ValueError, match=f"{value} at 2.010 s; remove"):
        read_audio(samples)
    path = tmp_path / "a.wav"
    soundfile.write(path, samples.numpy(), 16000, "FLOAT")
    with pytest.raises(ValueError, match="2.010 s") as error:
        read_audio(path)
    assert str(path) in str(error.value)
    with pytest.raises(ValueError, match="at .* s; remove NaN"):
        read_audio(samples, 24000)


def test_the_shortest_that_is_taken():
    assert len(read_audio(torch.zeros(1280))) == 1280
    assert len(read_audio(torch.zeros(640), 8000)) == 1280


def test_short_end_of_a_long_recording(short_windows):
    lengths = [len(w) for w in read_windows(torch.zeros(16001))]
    assert lengths == [16000, 1]


def wav_bytes(length=2000):
    file = io.BytesIO()
    soundfile.write(file, noise(length).numpy(), 16000, format="WAV")
    return file.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\0" * 5000, wav_bytes()[:30]]
)
def test_damaged_files(tmp_path, content):
    message = "cannot read .* damaged.* convert it to wav or flac"
    with pytest.raises(ValueError, match=message) as error:
        read_audio(content)
    assert f"the file of {len(content)} bytes" in str(error.value)
    for name in ("a.wav", "a.raw", "a"):
        path = tmp_path / name
        path.write_bytes(content)
        for function in (read_audio, audio_seconds):
            with pytest.raises(ValueError, match=message) as error:
                function(path)
            assert str(path) in str(error.value)


def test_files_that_are_none(tmp_path):
    for function in (read_audio, audio_seconds):
        with pytest.raises(FileNotFoundError, match="no such audio file: .*b"):
            function(tmp_path / "b.wav")
        with pytest.raises(ValueError, match="cannot read"):
            function(tmp_path)


def test_file_without_samples(tmp_path):
    with pytest.raises(ValueError, match="file of .* bytes is empty"):
        read_audio(wav_bytes(0))


def test_damage_in_the_middle(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(50000).numpy(), 16000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    try:
        read = read_audio(content)
    except ValueError as error:
        assert "damaged" in str(error) and "convert" in str(error)
    else:  # libsndfile conceals the frame
        assert read.isfinite().all()
