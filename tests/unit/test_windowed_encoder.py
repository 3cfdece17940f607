"""Tests of encoders that hear long audio in windows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.corpus.unit_store import fingerprints
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.lobes.phonetic import (
    KMeansQuantizer,
    LinearQuantizer,
    PhoneticTokenizer,
)
from spiritlm_plugin.lobes.speech_tokenizer import SpeechTokenizer
from spiritlm_plugin.lobes.style import StyleTokenizer
from spiritlm_plugin.lobes.windowed_encoder import (
    checked_window,
    divide,
    encode_in_windows,
)

WINDOW = 3.0
SMALL = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 1,
    "conv_dim": [4] * 7,
}
# Frames of 320 samples that see 400: in a window, and in half of what two share.
SIZE, HALF = 149, 12


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def make_phonetic(window_seconds=WINDOW):
    torch.manual_seed(0)
    quantizer = LinearQuantizer(8, 40, (8, 8))
    return PhoneticTokenizer(
        SMALL, quantizer, True, pool=2, window_seconds=window_seconds
    ).eval()


def make_style(window_seconds=WINDOW):
    torch.manual_seed(0)
    config = SMALL | {"classifier_proj_size": 8}
    return StyleTokenizer(config, 10, window_seconds=window_seconds).eval()


@pytest.fixture(scope="module")
def encoder():
    return make_phonetic().encoder


def noise(seconds, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(round(seconds * SAMPLE_RATE), generator=generator) / 9


def encode(encoder, *wavs, seconds=WINDOW):
    """Return the features of recordings that are encoded together."""
    lengths = torch.tensor([len(wav) for wav in wavs], device=wavs[0].device)
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    features, counts = encode_in_windows(encoder, padded, lengths, seconds)
    assert torch.equal(counts, encoder.output_lengths(lengths))
    return [row[:count] for row, count in zip(features, counts)]


@given(st.integers(1, 300), st.integers(2, 50), st.data())
def test_windows_share_out_all_frames(frames, size, data):
    overlap = data.draw(st.integers(0, size // 2))
    windows = divide(frames, size, overlap)
    owned = [frame for _, a, b in windows for frame in range(a, b)]
    assert owned == list(range(frames))
    assert windows[0][0] == 0
    assert max(windows[-1][0] + size, size) == max(frames, size)
    for start, first, end in windows:
        assert start <= first < end <= start + size
        # There is context on both sides but at the ends of the recording.
        assert start in (0, first) or first - start >= overlap // 2
        assert end == frames or start + size - end >= overlap // 2


@given(st.integers(60, 300), st.integers(1, 300))
def test_windows_do_not_depend_on_what_follows(frames, more):
    before, after = (divide(n, 50, 6) for n in (frames, frames + more))
    assert before[:-1] == after[: len(before) - 1]


def test_features_of_a_window_are_those_of_its_audio(encoder):
    wav = noise(7.0)
    [features] = encode(encoder, wav)
    # The last window ends with the recording.
    starts, seams = (0, 125, 200), (SIZE - HALF, 125 + SIZE - HALF)
    assert [start for start, _, _ in divide(349, SIZE, 2 * HALF)] == list(
        starts
    )
    edges = (0, *seams, 349)
    for start, first, end in zip(starts, edges, edges[1:]):
        samples = wav[start * 320 : (start + SIZE - 1) * 320 + 400]
        [alone], _ = encoder(samples[None], torch.tensor([len(samples)]))
        assert torch.equal(
            features[first:end], alone[first - start :][: end - first]
        )


def test_what_follows_changes_nothing_in_front_of_it(encoder):
    wav = noise(9.0)
    changed = wav.clone()
    changed[7 * SAMPLE_RATE :] *= -3
    one, other = (encode(encoder, w)[0] for w in (wav, changed))
    last = 125 + SIZE - HALF  # of the last window that ends before 7 s
    assert torch.equal(one[:last], other[:last])
    assert not torch.allclose(one[last:], other[last:])


@pytest.mark.parametrize("more", [0, 319])
def test_recordings_of_up_to_a_window_are_as_they_were(encoder, more):
    samples = round(WINDOW * SAMPLE_RATE) - 320 + 80 + more
    wavs = [noise(9)[:n] for n in (samples, samples - 5000)]
    assert encoder.output_lengths(torch.tensor(samples)) == SIZE
    for mine, plain in zip(
        encode(encoder, *wavs), encode(encoder, *wavs, seconds=None)
    ):
        assert torch.equal(mine, plain)


def test_others_in_a_batch_change_nothing(encoder):
    wavs = [noise(s, seed=i) for i, s in enumerate((3.01, 8.1, 1.3, 2.997))]
    for together, wav in zip(encode(encoder, *wavs), wavs):
        assert torch.equal(together, encode(encoder, wav)[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_windows_are_one_batch_on_a_gpu(encoder):
    wavs = [noise(s, seed=i) for i, s in enumerate((3.01, 8.1, 1.3, 2.997))]
    expected = encode(encoder, *wavs)
    calls = []
    try:
        encoder.cuda().register_forward_hook(lambda *_: calls.append(1))
        found = encode(encoder, *(wav.cuda() for wav in wavs))
    finally:
        encoder.cpu()
    assert len(calls) == 1
    for one, other in zip(found, expected):
        torch.testing.assert_close(one.cpu(), other, atol=1e-3, rtol=1e-3)


def test_tokenizers_give_as_many_units_in_windows():
    wav, lengths = noise(7.3)[None], torch.tensor([round(7.3 * SAMPLE_RATE)])
    for make in (make_phonetic, make_style):
        units, counts = make()(wav, lengths)
        plain, plain_counts = make(None)(wav, lengths)
        assert units.shape == plain.shape
        assert torch.equal(counts, plain_counts)


def test_style_is_pooled_over_seams():
    style = make_style()
    wav = noise(7.3)
    features, lengths = style.features(wav[None], torch.tensor([len(wav)]))
    [frames] = encode(style.encoder, wav)
    assert lengths.tolist() == [8]
    third = style.projector(frames[100:150].mean(0))
    torch.testing.assert_close(features[0, 2], third, atol=1e-5, rtol=1e-5)


def test_gradients_reach_across_windows():
    style = make_style()
    wav = noise(7.3)[None].requires_grad_()
    with torch.enable_grad():
        logits, _ = style.logits(wav, torch.tensor([wav.shape[1]]))
        logits.square().sum().backward()
    seconds = wav.grad[0].split(SAMPLE_RATE)
    assert all(part.abs().max() > 0 for part in seconds)


def test_windows_are_told_by_fingerprints_and_arguments():
    parts = [
        fingerprints(SpeechTokenizer(make_phonetic(w), style=make_style(w)))
        for w in (None, WINDOW, 4.0)
    ]
    for stream in ("phonetic", "style"):
        assert len({part[stream] for part in parts}) == 3
    again = StyleTokenizer(**make_style().arguments)
    assert again.window_seconds == WINDOW


@pytest.mark.parametrize(
    ("seconds", "error", "message"),
    [
        (0.9, ValueError, "at least 1, twice what windows share, got 0.9"),
        (float("nan"), ValueError, "window_seconds"),
        ("26", TypeError, "window_seconds must be a number, got '26'"),
        (True, TypeError, "window_seconds must be a number"),
    ],
)
def test_wrong_windows_are_refused(seconds, error, message):
    for make in (make_phonetic, make_style):
        with pytest.raises(error, match=message):
            make(seconds)
    assert checked_window(np.float64(26)) == 26.0


def test_cepstra_have_no_windows():
    quantizer = KMeansQuantizer(39, 5)
    with pytest.raises(ValueError, match="leave out window_seconds=26"):
        PhoneticTokenizer(None, quantizer, window_seconds=26)
