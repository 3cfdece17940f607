"""Tests of ``spiritlm_plugin.dataio.audio``: files as they come."""

import io
import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_plugin.dataio.audio import reading as audio
from spiritlm_plugin.dataio.audio.cropping import read_piece
from spiritlm_plugin.dataio.audio.reading import (
    audio_seconds,
    read_audio,
    read_windows,
)

RATES = [8000, 11025, 12345, 16000, 16001, 22050, 24000, 44100, 44101, 48000]


@pytest.fixture
def short_windows(monkeypatch):
    """Cut into windows of 1 s instead of 100 s."""
    monkeypatch.setattr(audio, "WINDOW_SECONDS", 1)


def noise(length, *channels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((length, *channels), generator=generator) * 1.8 - 0.9


def resampled(samples, rate):
    """Resample a whole recording; the end is a sample longer or zero."""
    wav = torch.from_numpy(soxr.resample(samples.numpy(), rate, 16000))
    missing = -(-len(samples) * 16000 // rate) - len(wav)
    assert missing in (0, 1)
    return torch.nn.functional.pad(wav, (0, missing))


def check_windows(windows, samples, rate):
    """Compare windows of 1 s with what the whole recording gives."""
    whole = resampled(samples, rate)
    assert [len(w) for w in windows[:-1]] == [16000] * (len(windows) - 1)
    assert 0 < len(windows[-1]) <= 16000
    assert sum(map(len, windows)) == len(whole)
    assert torch.equal(torch.cat(windows), whole)


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
    assert torch.equal(torch.cat(windows), resampled(content, 8000))
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
        (torch.zeros(2000), 7, "got 7; 1000 to 768000 Hz can be read"),
        (torch.zeros(2000), 2**40, "got 1099511627776; 1000 to 768000"),
        (torch.zeros(0, 2), 16000, "the waveform is empty"),
        (torch.zeros(2, 0), 16000, "the waveform is empty"),
        (np.array(["a"] * 2000), 16000, "scale .*U1; use"),
        (np.array([None] * 2000), 16000, "scale .*object; use"),
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


def encoded(samples, file_format="WAV", rate=16000, **options):
    file = io.BytesIO()
    soundfile.write(file, samples.numpy(), rate, format=file_format, **options)
    return bytearray(file.getvalue())


def patched(content, place, field):
    return content[:place] + field + content[place + len(field) :]


def frame_size(head):
    """Return the bytes of an MPEG-2 frame of layer III, by its header."""
    kbits = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    rate = (22050, 24000, 16000)[head[2] >> 2 & 3]
    return 72_000 * kbits[head[2] >> 4] // rate + (head[2] >> 1 & 1)


def without_tag(mp3):
    """Leave out the frame of the tag, which a pipe cannot hold."""
    assert b"Xing" in mp3[:200] or b"Info" in mp3[:200]
    return mp3[frame_size(mp3) :]


def as_streamed(file_format, samples, size):
    """Return a file whose header leaves the length open."""
    content = encoded(samples, file_format)
    if file_format == "FLAC":
        assert content[:4] == b"fLaC"
        kept = bytes([content[21] & 0xF0])
        return patched(content, 21, kept + bytes(4))
    if file_format == "AU":
        return patched(content, 8, size[:4])
    if file_format == "RF64":
        return patched(content, content.index(b"ds64") + 16, size)
    wide = {"CAF": 8, "W64": 8}.get(file_format, 4)
    name = content.index(b"SSND" if file_format == "AIFF" else b"data")
    skipped = 16 if file_format == "W64" else 4
    return patched(content, name + skipped, size[:wide])


ZEROS, ONES = bytes(8), b"\xff" * 8


@pytest.mark.parametrize("size", [ZEROS, ONES, b"\0\xf0\xff\x7f" * 2])
@pytest.mark.parametrize("file_format", ["WAV", "WAVEX"])
def test_wav_streams(file_format, size):
    samples = noise(70_000)
    expected = read_audio(encoded(samples, file_format))
    streamed = as_streamed(file_format, samples, size)
    for content in (streamed, patched(streamed, 4, size[:4])):
        assert torch.equal(read_audio(content), expected)
        assert audio_seconds(content) == 70_000 / 16000


@pytest.mark.parametrize("size", [ZEROS, ONES])
@pytest.mark.parametrize(
    "file_format", ["FLAC", "AU", "CAF", "W64", "RF64", "AIFF"]
)
def test_streams(caplog, tmp_path, file_format, size):
    samples = noise(70_000)
    streamed = as_streamed(file_format, samples, size)
    expected = read_audio(encoded(samples, file_format))
    path = tmp_path / "a"
    path.write_bytes(streamed)
    for content in (streamed, path):
        assert torch.equal(read_audio(content)[:70_000], expected)
        assert audio_seconds(content) == pytest.approx(70_000 / 16000, abs=0.1)
        piece = read_piece(path, 30_000, 5000)
        assert torch.equal(piece, expected[30_000:35_000])
    assert not caplog.records


def test_wav_without_samples_before_its_tags():
    content = encoded(noise(0)) + b"LIST\x0a\0\0\0INFOISFTab"
    with pytest.raises(ValueError, match="bytes is empty"):
        read_audio(content)


@pytest.mark.parametrize("mode", ["VARIABLE", "AVERAGE", "CONSTANT"])
def test_mp3_without_a_tag(caplog, mode, tmp_path):
    # Quiet at first: the first frames are shorter than the others.
    samples = torch.cat([noise(90_000) / 1000, noise(90_000)])
    options = {"bitrate_mode": mode, "compression_level": 0.3}
    tagged = encoded(samples, "MP3", **options)
    content = without_tag(tagged)
    expected = read_audio(tagged)
    assert len(expected) == 180_000 == audio_seconds(tagged) * 16000
    read = read_audio(content)
    assert audio_seconds(content) == len(read) / 16000
    assert len(read) % 576 == 0 and len(read) < 180_000 + 3 * 576
    # A tag tells the delay of encoder and decoder, which is then cut off.
    assert torch.equal(read[1105 : 1105 + 180_000], expected)
    path = tmp_path / "a.mp3"
    path.write_bytes(content + b"TAG" + bytes(125))
    assert torch.equal(read_audio(path), read)
    assert torch.equal(read_piece(path, 50_000, 7000), read[50_000:57_000])
    assert not caplog.records


def test_mp3_whose_tag_is_behind_an_image():
    samples = torch.cat([noise(50_000) / 1000, noise(50_000)])
    tagged = encoded(samples, "MP3", bitrate_mode="VARIABLE")
    size = bytes([0, 1, 0, 0])  # 2**14, seven bits a byte
    image = b"Xing\0\0\0\1\0\0\0\5" + bytes(2**14 - 12)
    image = b"ID3\x04\0\0" + size + image
    content = image + tagged
    assert audio_seconds(content) == 100_000 / 16000
    assert torch.equal(read_audio(content), read_audio(tagged))
    content = image + without_tag(tagged)
    assert torch.equal(read_audio(content), read_audio(without_tag(tagged)))


def test_mp3_whose_last_frame_is_not_heard(caplog):
    for samples in range(9000, 10_200, 100):
        read = read_audio(encoded(noise(samples), "MP3", 44_100))
        assert len(read) == -(-samples * 16000 // 44_100)
    assert not caplog.records


@pytest.mark.parametrize(
    "file_format",
    ["WAV", "AIFF", "AU", "W64", "RF64", "CAF", "FLAC", "MP3", "NIST", "SVX"],
)
def test_files_that_are_cut_off(caplog, tmp_path, file_format):
    samples = noise(80_000)
    whole = encoded(samples, file_format)
    if file_format == "CAF":
        whole = whole[: whole.index(b"data") + 16 + 160_000]
    path = tmp_path / "a"
    path.write_bytes(whole[: len(whole) // 2])
    expected = read_audio(whole)
    assert not caplog.records
    read = read_audio(path)
    [record] = caplog.records
    assert f"{path} is shorter than the 5.0" in record.message
    assert f"cut off; {len(read) / 16000:.3f} s are used" in record.message
    assert 30_000 < len(read) < 42_000
    assert torch.equal(read, expected[: len(read)])
    assert audio_seconds(path) == len(read) / 16000
    assert torch.equal(read_piece(path, 20_000, 999), read[20_000:20_999])
    assert not read_piece(path, 60_000, 999).any()


def test_flac_of_unknown_length_that_is_damaged(caplog):
    content = as_streamed("FLAC", noise(80_000), ZEROS)
    read = read_audio(content[: len(content) // 2])
    assert 30_000 < len(read) < 42_000
    assert "bytes cannot be decoded further (" in caplog.text
    assert f"; {len(read) / 16000:.3f} s are used" in caplog.text


@pytest.mark.parametrize(
    ("file_format", "subtype"),
    [
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("VOC", "PCM_16"),
        ("MAT4", "PCM_16"),
    ],
)
def test_files_without_their_end(caplog, file_format, subtype):
    content = encoded(noise(80_000), file_format, subtype=subtype)
    expected = read_audio(content)
    assert not caplog.records
    read = read_audio(content[: len(content) // 2])
    assert 20_000 < len(read) < 45_000
    assert torch.equal(read, expected[: len(read)])
    assert (
        f"lacks a part: it is damaged or cut off; {len(read) / 16000:.3f} s"
        in caplog.text
    )


def test_ogg_without_a_page(caplog):
    content = encoded(noise(80_000), "OGG")
    pages = content.split(b"OggS")
    assert len(pages) > 5
    read = read_audio(b"OggS".join(pages[:3] + pages[4:]))
    assert 20_000 < len(read) < 80_000
    assert "it is damaged or cut off" in caplog.text


@pytest.mark.parametrize("file_format", ["MP3", "OGG", "FLAC"])
def test_recordings_one_behind_the_other(caplog, file_format):
    content = encoded(noise(40_000), file_format)
    second = without_tag(content) if file_format == "MP3" else content
    for joined in (content * 2, content + second):
        assert len(read_audio(joined)) == 40_000
        assert "holds another recording behind the first" in caplog.text
        assert "; 2.500 s are used" in caplog.text
        caplog.clear()
    read_audio(content)
    assert not caplog.records


@pytest.mark.parametrize("name", ["a.RAW", "a.wav", "a.mp3", "a", "a.vox"])
@pytest.mark.parametrize("file_format", ["WAV", "MP3", "OGG", "FLAC", "AU"])
def test_names_that_lie(tmp_path, name, file_format):
    content = encoded(noise(20_000), file_format)
    path = tmp_path / name
    path.write_bytes(content)
    assert torch.equal(read_audio(path), read_audio(content))
    assert audio_seconds(path) == audio_seconds(content)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe(tmp_path):
    content = encoded(noise(20_000), "FLAC")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[content])
    writer.start()
    read = read_audio(pipe)
    writer.join()
    assert torch.equal(read, read_audio(content))


@pytest.mark.parametrize("rate", [1, 7, 999, 768_001, 2**31 - 1])
def test_absurd_rates_of_files(tmp_path, rate):
    path = tmp_path / "a.wav"
    path.write_bytes(
        patched(encoded(noise(2000)), 24, rate.to_bytes(4, "little"))
    )
    message = f"{path} says that it has {rate} samples .* 1000 to 768000 Hz"
    for function in (read_audio, audio_seconds):
        with pytest.raises(ValueError, match=message):
            function(path)


def test_channels_that_cancel(caplog):
    samples = noise(30_000)
    opposite = torch.stack([samples, -0.98 * samples], 1)
    read_audio(encoded(opposite, subtype="FLOAT"))
    assert "channels of the file of 2" in caplog.text
    assert "cancel each other" in caplog.text
    caplog.clear()
    read_audio(opposite)
    assert "channels of the waveform cancel" in caplog.text
    caplog.clear()
    for content in (
        noise(30_000, 2),
        noise(30_000, 9),
        torch.stack([samples, 0 * samples], 1),
        torch.zeros(30_000, 2),
    ):
        read_audio(content)
    assert not caplog.records


class Decoder:
    """As torchcodec's, which ``datasets`` gives for an audio column."""

    def __init__(self, data, sample_rate, error=None):
        self.samples = SimpleNamespace(data=data, sample_rate=sample_rate)
        self.error = error

    def get_all_samples(self):
        if self.error:
            raise RuntimeError(self.error)
        return self.samples


def test_items_of_datasets(tmp_path):
    samples = noise(22_050, 2)
    content = encoded(samples, rate=22_050, subtype="FLOAT")
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    expected = read_audio(path)
    for item in (
        {"array": samples.numpy(), "sampling_rate": 22_050, "path": None},
        {"array": samples.tolist(), "sampling_rate": 22_050},
        {"array": samples, "sampling_rate": 22_050},
        {"bytes": bytes(content), "path": "elsewhere.wav"},
        {"bytes": bytes(content), "path": None},
        {"bytes": None, "path": str(path)},
        {"path": path},
        Decoder(samples.T, 22_050),
    ):
        assert torch.equal(read_audio(item), expected)


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"array": [0.0] * 2000},
        {"array": None, "sampling_rate": 16000},
        {"bytes": None, "path": None},
        {"bytes": "text"},
    ],
)
def test_dicts_that_are_no_recordings(item):
    with pytest.raises(ValueError, match='a dict holds "array".* got {'):
        read_audio(item)


def test_what_is_no_recording():
    for content in (None, 3, [0.0] * 2000, object()):
        with pytest.raises(TypeError, match="a recording is a path, .* got"):
            read_audio(content)
    with pytest.raises(ValueError, match="of a Decoder .no stream.; it may"):
        read_audio(Decoder(None, None, "no stream"))
    with pytest.raises(ValueError, match="positive number of Hz, got 'a'"):
        read_audio({"array": np.zeros(2000), "sampling_rate": "a"})
    with pytest.raises(ValueError, match='"array" is no array of samp'):
        read_audio({"array": [[1.0], [1.0, 2.0]], "sampling_rate": 16000})


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


def test_damage_in_the_middle(caplog, tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(50000).numpy(), 16000)
    expected = read_audio(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    path.write_bytes(content)
    read = read_audio(path)
    assert 16_000 < len(read) <= 50_000
    assert torch.equal(read[:16_000], expected[:16_000])
    assert f"{path} is shorter than the 3.125 s that it states" in caplog.text


def test_damage_from_the_first_sample(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(50000).numpy(), 16000)
    path.write_bytes(path.read_bytes()[:90] + bytes(3000))
    with pytest.raises(ValueError, match=f"{path} is damaged .*repair or"):
        read_audio(path)
