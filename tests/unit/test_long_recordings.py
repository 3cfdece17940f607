"""Times of recordings that are tokenized in several windows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import HubertConfig, HubertModel

from spiritlm_plugin.dataio.audio import reading
from spiritlm_plugin.dataio.stream.utterances import DocumentError, Utterance
from spiritlm_plugin.dataio.units.frames import unit_frames
from spiritlm_plugin.dataio.units.units import (
    MIN_SAMPLES,
    PHONETIC_RATE,
    PITCH_RATE,
    SAMPLE_RATE,
    STYLE_RATE,
    WINDOW_SECONDS,
    WINDOW_UNITS,
    Kind,
    SpeechUnits,
    unit_starts,
    units_before,
)
from spiritlm_plugin.evaluation.alignment import boundaries
from spiritlm_plugin.evaluation.plots import unit_spans
from spiritlm_plugin.lobes.mfcc import MFCC
from spiritlm_plugin.lobes.phonetic import (
    LinearQuantizer,
    PhoneticTokenizer,
)
from spiritlm_plugin.lobes.pitch import PitchQuantizer, PitchTokenizer
from spiritlm_plugin.lobes.speech_encoder import SpeechEncoder
from spiritlm_plugin.lobes.speech_tokenizer import (
    SpeechTokenizer,
    join_windows,
)
from spiritlm_plugin.lobes.style import StyleTokenizer
from spiritlm_plugin.lobes.vocoder import UnitVocoder
from spiritlm_plugin.metrics.modality_alignment import speech_token_words
from spiritlm_plugin.metrics.units import frame_labels

WINDOW = WINDOW_SECONDS * SAMPLE_RATE
STREAMS = {
    "phonetic": PHONETIC_RATE,
    "pitch": PITCH_RATE,
    "style": STYLE_RATE,
}
RATES = st.sampled_from(list(WINDOW_UNITS))
# The convolutions of the released tokenizers, and how many frames of theirs
# make a unit.
FIRST, LAST = [10, 3, 3, 3, 3], [2, 2]
SMALL = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 1,
}
HUBERT = {
    **SMALL,
    "conv_dim": [4] * 8,
    "conv_kernel": [*FIRST, 2, 2, 2],
    "conv_stride": [5, *[2] * 7],
}
WAV2VEC2 = {
    **SMALL,
    "conv_dim": [4] * 7,
    "conv_kernel": [*FIRST, *LAST],
    "conv_stride": [5, *[2] * 6],
    "classifier_proj_size": 8,
}


def hubert_frames(samples):
    """Phonetic units of a window, as a convolution counts them."""
    return (samples - 720) // 640 + 1


def unit_counts(samples):
    """Return the units of each stream of a recording, window by window."""
    counts = dict.fromkeys(STREAMS, 0)
    for begin in range(0, samples, WINDOW):
        window = min(samples - begin, WINDOW)
        if window >= MIN_SAMPLES:
            counts["phonetic"] += hubert_frames(window)
            counts["pitch"] += (window // 80 + 1) // 16
            counts["style"] += -(-((window - 400) // 320 + 1) // 50)
    return counts


def recording(seconds):
    """Return units that all differ, as a tokenizer gives so many."""
    counts = unit_counts(round(seconds * SAMPLE_RATE))
    return SpeechUnits(*(torch.arange(n) for n in counts.values()))


def streams_of(units):
    return [getattr(units, name).tolist() for name in STREAMS]


LONG = recording(600.0)


def test_windows_are_those_of_reading():
    assert reading.WINDOW_SECONDS == WINDOW_SECONDS
    samples = torch.zeros(2 * WINDOW + 1)
    windows = [len(window) for window in reading.read_windows(samples)]
    assert windows == [WINDOW, WINDOW, 1]


def test_tokenizers_give_so_many_units_a_window():
    window = torch.tensor([WINDOW])
    released = SpeechEncoder(HubertModel(HubertConfig(**HUBERT)))
    assert released.output_lengths(window).item() == 2499
    assert MFCC().output_lengths(window).item() == 2499
    # A HuBERT with a hop of 320 samples, of which two frames are averaged.
    half = {k: v[:-1] for k, v in HUBERT.items() if k.startswith("conv")}
    twice = SpeechEncoder(HubertModel(HubertConfig(**SMALL, **half)))
    assert twice.output_lengths(window).item() // 2 == 2499
    assert WINDOW_UNITS == {
        STREAMS[name]: count for name, count in unit_counts(WINDOW).items()
    }


@pytest.fixture(scope="module")
def tokenizer():
    """A small tokenizer, whose F0 is how loud a recording is."""

    def loudness(wavs, lengths):
        frames = lengths // 80 + 1
        padded = torch.nn.functional.pad(wavs.abs(), (0, 80))
        f0 = 200 * padded[:, : wavs.shape[1] // 80 * 80 + 80]
        f0 = f0.unflatten(1, (-1, 80)).mean(2)
        inside = torch.arange(f0.shape[1]) < frames[:, None]
        return f0 * inside, inside.float(), frames

    torch.manual_seed(0)
    pitch = PitchQuantizer(16, width=4, output_width=4)
    pitch.codebook.normal_()
    return SpeechTokenizer(
        PhoneticTokenizer(HUBERT, LinearQuantizer(8, 40, (8, 8))),
        PitchTokenizer(loudness, pitch),
        StyleTokenizer(WAV2VEC2, units=10),
    ).eval()


@pytest.mark.parametrize("rest", [0.02, 0.08, 20.0])
def test_units_of_a_window_are_where_it_begins(tokenizer, rest):
    generator = torch.Generator().manual_seed(1)
    samples = round((WINDOW_SECONDS + rest) * SAMPLE_RATE)
    wav = torch.randn(samples, generator=generator) / 9
    with torch.inference_mode():
        [whole] = tokenizer([wav])
        windows = [
            tokenizer([window])[0]
            for window in wav.split(WINDOW)
            if len(window) >= MIN_SAMPLES
        ]
    counts = unit_counts(samples)
    assert {k: len(getattr(whole, k)) for k in STREAMS} == counts
    starts = range(0, samples // SAMPLE_RATE, WINDOW_SECONDS)
    for begin, alone in zip(starts, windows):
        part = whole.cut(begin, min(begin + 100, samples / SAMPLE_RATE))
        assert streams_of(part) == streams_of(alone)


@given(RATES, st.integers(0, 80_000))
def test_times_and_numbers_are_inverse(rate, number):
    start = float(unit_starts(number, rate))
    assert int(units_before(start, rate)) == number
    later = start + 0.5 / rate
    assert int(units_before(later, rate)) == number + 1
    units = WINDOW_UNITS[rate]
    expected = 100 * (number // units) + number % units / rate
    assert start == pytest.approx(expected, abs=1e-9)


@given(RATES, st.lists(st.floats(0, 900), min_size=1))
def test_numbers_are_counted(rate, times):
    starts = unit_starts(np.arange(25_000), rate)
    counted = [(starts < time - 1e-6).sum() for time in times]
    assert units_before(np.array(times), rate).tolist() == counted
    assert [int(units_before(time, rate)) for time in times] == counted


@given(st.integers(MIN_SAMPLES, 3000 * SAMPLE_RATE))
def test_durations_are_right_within_a_frame(samples):
    units = SpeechUnits(range(unit_counts(samples)["phonetic"]))
    missing = samples / SAMPLE_RATE - units.duration
    # A frame sees 5 ms of the next one; a short rest has no units at all.
    dropped = 0 < samples % WINDOW < MIN_SAMPLES
    assert -1e-9 < missing < (0.08 if dropped else 0.045)


def test_an_hour_ends_after_an_hour():
    assert recording(3600).duration == pytest.approx(3600)


@given(st.lists(st.floats(0, 600), max_size=8))
def test_cuts_between_words_partition_a_long_recording(times):
    times = sorted(times)
    parts = [LONG.cut(a, b) for a, b in zip([0, *times], [*times, None])]
    joined = torch.cat([part.phonetic for part in parts])
    assert torch.equal(joined, LONG.phonetic)
    assert sum(p.duration for p in parts) == pytest.approx(LONG.duration)


@given(st.integers(0, 5), st.floats(0, 99.9), st.floats(0, 30))
def test_a_cut_has_the_units_of_its_window(number, start, length):
    end = min(start + length, 99.95)
    start = min(start, end)
    windows = [
        SpeechUnits(
            *(
                torch.arange(i * count, (i + 1) * count)
                for count in WINDOW_UNITS.values()
            )
        )
        for i in range(6)
    ]
    assert join_windows(windows) == LONG
    begin = number * 100.0
    part = LONG.cut(begin + start, begin + end)
    alone = windows[number].cut(start, end)
    assert streams_of(part) == streams_of(alone)
    for rate in WINDOW_UNITS:
        assert part.starts(rate) == pytest.approx(alone.starts(rate), abs=1e-6)


@given(st.floats(0, 600), st.floats(0, 120), st.floats(0, 120))
def test_a_cut_of_a_cut_is_a_cut(start, inner, length):
    part = LONG.cut(start)
    inner = min(inner, part.duration)
    both = part.cut(inner, inner + length)
    once = LONG.cut(start + inner, start + inner + length)
    assert streams_of(both) == streams_of(once)
    assert both.start == pytest.approx(once.start)


@given(st.floats(0, 590), st.floats(0, 20))
def test_tokens_of_a_cut_are_ordered_as_in_the_whole(start, length):
    part = LONG.cut(start, start + length)
    kept = [set(stream) for stream in streams_of(part)]
    stream = LONG.merge()
    order = [Kind.PHONETIC, Kind.PITCH, Kind.STYLE]
    whole = [
        (kind, value)
        for kind, value in zip(stream.kinds.tolist(), stream.values.tolist())
        if value in kept[order.index(kind)]
    ]
    # What is in force comes in front, style before pitch.
    tokens = part.merge()
    found = [*zip(tokens.kinds.tolist(), tokens.values.tolist())]
    front = []
    for kind, rate in ((Kind.STYLE, 1.0), (Kind.PITCH, 12.5)):
        before = [t for t in whole if t[0] == kind][:1]
        if before and unit_starts(before[0][1], rate) <= start:
            front += before
    assert found == front + [token for token in whole if token not in front]


@pytest.mark.parametrize("start", [-0.1, float("nan"), float("inf")])
def test_units_do_not_begin_before_their_recording(start):
    with pytest.raises(ValueError, match="start must"):
        SpeechUnits([1], start=start)


def words_until(seconds, count=900):
    times = np.linspace(0, seconds, count + 1)
    return [(f"w{i}", *times[i : i + 2].tolist()) for i in range(count)]


def test_words_reach_to_the_end_of_ten_minutes():
    words = words_until(600.0)
    names, times = [w for w, _, _ in words], [t for _, *t in words]
    starts = Utterance(LONG, "", names, times).starts()
    assert len(starts) == 900
    with pytest.raises(DocumentError, match="words end at 600.50 s"):
        Utterance(LONG, "", names, [*times[:-1], (599.9, 600.5)]).starts()
    item = {"duration": 600.0, "words": words}
    assert boundaries(item) == [*starts, None]
    # Each token is of the word in which its unit begins.
    found = speech_token_words(LONG, [*starts, None])
    kinds = LONG.merge().kinds
    for kind, rate in zip(Kind, (1.0, 12.5, 25.0)):
        begun = unit_starts(np.arange(len(LONG.starts(rate))), rate)
        expected = [sum(s <= t + 1e-6 for s in starts) - 1 for t in begun[-99:]]
        assert found[kinds == int(kind)][-99:].tolist() == expected


def test_labels_of_frames_stay_with_them():
    segments = [["a", 0.0, 100.0], ["b", 100.0, 399.9], ["c", 399.9, 600.0]]
    labels = frame_labels(segments, len(LONG))
    # The middle of a frame is 22.5 ms behind its start.
    middles = LONG.starts(PHONETIC_RATE) + 0.0225
    expected = ["a" if t < 100 else "b" if t < 399.9 else "c" for t in middles]
    assert labels == expected


def test_pitch_and_style_stay_with_their_phonetic_units():
    frames = unit_frames(LONG)
    times = LONG.starts(PHONETIC_RATE)
    assert (
        frames["pitch"].tolist() == (times * 12.5 + 1e-6).astype(int).tolist()
    )
    assert frames["style"].tolist() == (times + 1e-6).astype(int).tolist()
    part = LONG.cut(299.77, 300.5)
    frames = unit_frames(part)
    first = int(part.phonetic[0])
    for name, stream in unit_frames(LONG).items():
        expected = stream[first : first + len(part)]
        assert torch.equal(frames[name], expected)


def test_a_cut_is_spoken_as_it_lies_in_the_recording():
    torch.manual_seed(0)
    generator = {
        "channels": 32,
        "upsample_rates": [5, 4, 4, 4, 2],
        "upsample_kernels": [11, 8, 8, 8, 4],
    }
    sizes = {"pitch_units": 7500, "style_units": 600}
    vocoder = UnitVocoder(14_994, 4, [], generator, **sizes).eval()
    part = LONG.cut(299.77, 300.5)
    frames = {k: v[None] for k, v in unit_frames(part).items()}
    with torch.inference_mode():
        [wav] = vocoder.synthesize([part], [None])
        [[expected], _] = vocoder(frames, torch.tensor([len(part)]))
    assert len(wav) == 640 * len(part)
    torch.testing.assert_close(wav, expected, atol=1e-5, rtol=1e-5)


def test_spans_of_units_are_where_they_sound():
    stream = torch.zeros(2 * 2499, dtype=torch.int64)
    stream[2499:] = 1
    spans = unit_spans(stream, PHONETIC_RATE)
    assert spans == [(0.0, 100.0, 0), (100.0, 200.0, 1)]
