"""Streams: what comes bit by bit is what comes at once."""

from __future__ import annotations

import copy
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_plugin.dataio.units.segments import Speech, Text
from spiritlm_plugin.dataio.units.units import (
    Kind,
    SpeechStream,
    SpeechUnits,
)
from spiritlm_plugin.decoders import continuous
from spiritlm_plugin.decoders.constrained import Decoded
from spiritlm_plugin.decoders.continuous import Piece
from spiritlm_plugin.inference import spiritlm
from spiritlm_plugin.lobes.speech_tokenizer import join_windows
from spiritlm_plugin.lobes.streaming_tokenizer import StreamingTokenizer
from spiritlm_plugin.lobes.streaming_vocoder import (
    StreamingVocoder,
    audible_context,
)

few = settings(max_examples=10, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def expressive(load, checkpoints):
    return load(checkpoints, "expressive")


@pytest.fixture(scope="module")
def base(load, checkpoints):
    return load(checkpoints, "base")


@pytest.fixture(scope="module")
def units(expressive, recording):
    return expressive.encode_file(recording)


def said(pieces, prompt=0):
    """Return text, units, waveform and reason of a prompt's pieces."""
    own = [piece for piece in pieces if piece.prompt == prompt]
    assert [p.kind == "end" for p in own] == [*[False] * (len(own) - 1), True]
    units = [p.units for p in own if p.units is not None]
    wavs = [p.wav for p in own if p.wav is not None]
    return (
        "".join(p.text for p in own),
        SpeechStream.concatenate([SpeechStream([], []), *units]),
        torch.cat([torch.zeros(0), *wavs]),
        own[-1].end_reason,
    )


def check_same(pieces, generation, prompt=0):
    """Compare pieces with what `generate` returns."""
    text, stream, wav, reason = said(pieces, prompt)
    spoken = [s.stream for s in generation if isinstance(s, Speech)]
    assert text == generation.text
    assert stream == SpeechStream.concatenate([SpeechStream([], []), *spoken])
    whole = torch.zeros(0) if generation.wav is None else generation.wav
    assert wav.dtype == torch.float32
    torch.testing.assert_close(wav, whole, atol=1e-4, rtol=0)
    assert reason == generation.end_reason


def cuts(draw, length):
    """Return pairs of neighbouring bounds of any cutting."""
    inner = draw(st.lists(st.integers(0, length), max_size=8))
    return [*pairwise([0, *sorted(inner), length])]


@pytest.mark.parametrize("output", ["any", "speech", "text"])
@pytest.mark.parametrize("limit", [None, 1.0])
def test_a_batch_streams_what_it_generates(expressive, units, output, limit):
    prompts = [
        [Text("the cat")],
        [Text("a"), Speech(units.cut(0, 1.0))],
        [Speech(units.cut(0, 0.5))],
    ]
    options = {
        "max_new_tokens": 40,
        "seed": 3,
        "speaker": 0,
        "max_seconds": limit,
        "min_speech_units": 2,
        "batch_size": 2,
        "stop": False,
    }
    pieces = list(expressive.generate_stream(prompts, output, **options))
    for i, one in enumerate(expressive.generate(prompts, output, **options)):
        check_same(pieces, one, i)


class Given:
    """An engine whose outputs are given."""

    def __init__(self, lm, ids):
        self.vocabulary, self.context = lm.vocabulary, lm.context
        self.ids = ids

    def decode(self, prompts, output, **options):
        """Return the output, whole."""
        return [Decoded(torch.tensor(self.ids), "max_new_tokens")]


@few
@given(data=st.data())
def test_any_tokens_in_any_pieces(request, units, data):
    name = data.draw(st.sampled_from(["base", "expressive"]))
    lm = copy.copy(request.getfixturevalue(name))
    kinds = lm.vocabulary.kinds
    # Speech is likelier than by the number of its tokens.
    choices = [
        (kinds == kind).nonzero().flatten().tolist()
        for kind in kinds.unique().tolist()
        if kind > -3
    ]
    runs = data.draw(
        st.lists(
            st.sampled_from(choices).flatmap(
                lambda ids: st.lists(st.sampled_from(ids), max_size=25)
            ),
            max_size=6,
        )
    )
    ids = [index for run in runs for index in run]
    prompt = [Text("a")]
    if data.draw(st.booleans()):
        prompt.append(Speech(units if lm.expressive else units.base()))
    options = {
        "speaker": 0,
        "seed": 0,
        "max_seconds": data.draw(st.sampled_from([None, 0.2, 0.5, 1.0])),
        "min_speech_units": data.draw(st.integers(0, 4)),
    }
    bounds = cuts(data.draw, len(ids))
    lm._engine = Given(lm, ids)
    whole = lm.generate(prompt, **options)

    def pieces(*args, **kwargs):
        for start, end in bounds:
            yield Piece(0, ids[start:end], None)
        yield Piece(0, [], "max_new_tokens")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spiritlm, "new_tokens", pieces)
        check_same(list(lm.generate_stream(prompt, **options)), whole)


def test_engines_without_steps_stream_whole_outputs(base):
    lm = copy.copy(base)
    lm._engine = Given(lm, lm.vocabulary.encode_text("the cat sat"))
    pieces = list(lm.generate_stream([Text("a")]))
    assert [piece.kind for piece in pieces] == ["text", "end"]
    check_same(pieces, lm.generate([Text("a")]))


def test_no_piece_of_text_has_half_a_character(base):
    text = "日本 caffè 😀!"
    ids = base.vocabulary.encode_text(text)
    assert len(ids) > len(text)
    lm = copy.copy(base)
    lm._engine = Given(lm, [])
    tokens = [*(Piece(0, [i], None) for i in ids), Piece(0, [], "context_full")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spiritlm, "new_tokens", lambda *a, **k: iter(tokens))
        pieces = list(lm.generate_stream([Text("a")]))
    assert not any("\ufffd" in piece.text for piece in pieces)
    assert "".join(piece.text for piece in pieces) == text
    assert len(pieces) > 5


def test_units_come_before_they_are_heard(expressive, units):
    pieces = list(
        expressive.generate_stream(
            [Speech(units)], "speech", max_new_tokens=100, seed=1, stop=False
        )
    )
    kinds = ["units" if p.wav is None else "wav" for p in pieces[:-1]]
    assert kinds[0] == "units" and kinds.count("wav") > 2
    assert "units" in kinds[kinds.index("wav") :]
    quiet = expressive.generate_stream(
        [Speech(units)], "speech", max_new_tokens=9, seed=1, vocode=False
    )
    assert all(piece.wav is None for piece in quiet)


def test_without_a_speaker_it_is_told_once(expressive, units, monkeypatch):
    told = []
    vocoder = expressive.mods.vocoder
    monkeypatch.setattr(
        vocoder, "speaker_of", lambda phonetic: told.append(phonetic) or 1
    )
    pieces = expressive.generate_stream(
        [Speech(units)], "speech", max_new_tokens=60, seed=1, stop=False
    )
    wav = said(list(pieces))[2]
    assert len(told) == 1
    monkeypatch.undo()
    named = expressive.generate(
        [Speech(units)], "speech", 60, seed=1, stop=False, speaker=1
    )
    torch.testing.assert_close(wav, named.wav, atol=1e-4, rtol=0)
    # From all of the prompt's speech, and what the output begins with.
    context = units.merge().count(Kind.PHONETIC)
    assert context < len(told[0])


def test_closing_gives_the_memory_back(expressive, units, monkeypatch):
    made = []

    class Watched(continuous.RowCache):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(weakref.ref(self))

    monkeypatch.setattr(continuous, "RowCache", Watched)
    stream = expressive.generate_stream([[Speech(units)]] * 2, "speech", seed=1)
    next(stream)
    [cache] = made
    assert cache() is not None
    stream.close()
    assert cache() is None
    assert next(stream, None) is None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"output": "song"}, "output must be"),
        ({"temperature": -1}, "temperature"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"speaker": "nobody"}, "unknown speaker"),
        ({"prompts": []}, None),
        ({"prompts": [Text("")]}, "empty"),
    ],
)
def test_arguments_are_checked_at_once(expressive, options, match):
    options = {"prompts": [Text("a")], **options}
    if match is None:
        assert list(expressive.generate_stream(**options)) == []
        return
    with pytest.raises(ValueError, match=match):
        expressive.generate_stream(**options)


@few
@given(data=st.data())
def test_any_pieces_of_units_sound_as_all_of_them(expressive, units, data):
    form = data.draw(st.sampled_from(["stream", "merged", "timed"]))
    stream = units.merge()
    whole = {
        "stream": stream,
        "merged": stream.split(),
        "timed": data.draw(st.sampled_from([units, units.cut(0.3)])),
    }[form]
    if form == "stream":
        bounds = cuts(data.draw, len(stream))
        pieces = [stream[a:b] for a, b in bounds]
    else:
        names = ("phonetic", "pitch", "style")
        bounds = [cuts(data.draw, len(getattr(whole, n))) for n in names]
        if form == "merged":
            bounds = [bounds[0]] * 3
        count = max(map(len, bounds))
        pieces = [
            SpeechUnits(
                *(
                    getattr(whole, n)[slice(*b[i])] if i < len(b) else []
                    for n, b in zip(names, bounds)
                ),
                full_rate=whole.full_rate,
                start=whole.start,
            )
            for i in range(count)
        ]
    chunks = list(expressive.decode_stream(iter(pieces), speaker=1))
    wavs, _ = expressive.decode_batch([whole], speaker=1)
    torch.testing.assert_close(torch.cat(chunks), wavs[0], atol=1e-4, rtol=0)


def test_blanks_and_missing_styles_are_as_in_a_batch(expressive):
    blank = expressive.mods.vocoder.blank
    phonetic = [blank, blank, 3, blank, 4, blank] * 9
    for style in (None, [], [7, 8, 9]):
        units = SpeechUnits(phonetic, [5, 6] * 14, style)
        pieces = [
            SpeechUnits(phonetic[:1], [5], style and []),
            SpeechUnits(phonetic[1:], ([5, 6] * 14)[1:], style),
        ]
        wavs, _ = expressive.decode_batch([units], speaker=0, seed=4)
        chunks = list(expressive.decode_stream(pieces, 0, seed=4))
        torch.testing.assert_close(
            torch.cat(chunks), wavs[0], atol=1e-4, rtol=0
        )
    only = [SpeechUnits([blank] * 9, [5] * 5)]
    assert list(expressive.decode_stream(only)) == []
    assert list(expressive.decode_stream([])) == []


@pytest.mark.parametrize(
    ("pieces", "error", "match"),
    [
        (
            [SpeechUnits([1], [1], [1]), SpeechStream([2], [1])],
            ValueError,
            "one form",
        ),
        (
            [
                SpeechUnits([1], [1], [1]),
                SpeechUnits([1], [1], [1], full_rate=False),
            ],
            ValueError,
            "one form",
        ),
        (
            [SpeechUnits([1], [1], [1]), SpeechUnits([1], [1])],
            ValueError,
            "style",
        ),
        ([SpeechUnits([1])], ValueError, "no pitch"),
        ([SpeechUnits([1], [], [1])], ValueError, "no pitch"),
        ([SpeechStream([2], [1])], ValueError, "no pitch"),
        ([SpeechUnits([9999], [1], [1])], ValueError, "out of range"),
        (["a.wav"], TypeError, "got str"),
        ([Speech("a.wav")], ValueError, "recording"),
    ],
)
def test_units_that_cannot_be_said_are_named(expressive, pieces, error, match):
    with pytest.raises(error, match=match):
        list(expressive.decode_stream(pieces))


def test_a_stream_remembers_what_can_be_heard(expressive):
    vocoder = expressive.mods.vocoder
    stream = StreamingVocoder(vocoder, speaker=0)
    units = SpeechUnits([3, 4] * 50, [5] * 50, [6] * 4)
    kept = []
    for _ in range(6):
        samples = sum(map(len, stream.push(units)))
        kept.append(len(stream.frames["phonetic"]))
        assert samples < 200 * vocoder.hop
    assert max(kept) <= 2 * stream.context + 64 + 100
    assert len(stream.source.waiting["pitch"]) <= 52
    with pytest.raises(ValueError, match="finished"):
        list(stream.finish())
        stream.push(units)


def test_what_is_heard_is_less_than_what_is_seen(expressive):
    vocoder = expressive.mods.vocoder
    heard = audible_context(vocoder)
    assert 0 < heard <= vocoder.generator.context
    frames = {
        "phonetic": torch.arange(90) % 40,
        "pitch": torch.arange(90) % 7,
        "style": torch.arange(90) % 5,
    }
    whole = vocoder.waveform(frames, 0, 0)
    for context, same in ((heard, True), (max(heard - 8, 0), False)):
        part = {n: s[: 40 + context] for n, s in frames.items()}
        change = vocoder.waveform(part, 0, 0)[: 40 * vocoder.hop]
        difference = (change - whole[: len(change)]).abs().max()
        assert (float(difference) <= 1e-4) is same


def joined(parts):
    """Return all units of a stream."""
    return join_windows(list(parts))


@few
@given(data=st.data())
def test_any_chunks_of_audio_give_the_same_units(expressive, data):
    rate = data.draw(st.sampled_from([16000, 24000]))
    latency = data.draw(st.sampled_from([None, 0.3]))
    samples = np.random.default_rng(0).normal(0, 0.1, int(rate * 1.5))
    wav = samples.astype(np.float32)
    bounds = cuts(data.draw, len(wav))
    chunks = (wav[a:b] for a, b in bounds)
    found = joined(expressive.encode_stream(chunks, rate, latency))
    assert found == joined(expressive.encode_stream([wav], rate, latency))
    [whole] = expressive.encode_batch([wav], sample_rate=rate)
    assert len(found) == len(whole)
    assert len(found.pitch) == len(whole.pitch)
    assert len(found.style) == len(whole.style)
    if latency is None:
        assert found == whole


@pytest.fixture(scope="module")
def windowed(expressive):
    """Return a tokenizer that hears windows of 1.5 s, and 6.3 s of noise."""
    tokenizer = copy.deepcopy(expressive.mods.tokenizer)
    tokenizer.phonetic.window_seconds = tokenizer.style.window_seconds = 1.5
    wav = torch.randn(100_800, generator=torch.Generator().manual_seed(0)) / 9
    return tokenizer, wav


def test_windows_give_units_before_the_end(windowed):
    tokenizer, wav = windowed
    stream = StreamingTokenizer(tokenizer)
    with torch.inference_mode():
        parts = [u for chunk in wav.split(8000) for u in stream.push(chunk)]
        early = joined(parts)
        parts += stream.finish()
        [whole] = tokenizer([wav])
    assert joined(parts) == whole
    # All but what the last windows may change; pitch waits for the end.
    assert len(early) > 4 * 25 and len(early.style) == 5
    assert not len(early.pitch)


def test_a_block_of_100_s_ends_as_it_does_in_a_file(base):
    wav = torch.randn(101 * 16000, generator=torch.Generator().manual_seed(0))
    chunks = (wav / 9).split(160_000)
    found = list(base.encode_stream(chunks, latency_seconds=50.0))
    assert len(joined(found)) == 2499 + 24
    [whole] = base.encode_batch([wav / 9])
    assert joined(base.encode_stream(chunks, latency_seconds=None)) == whole


def test_latency_is_kept(expressive):
    stream = StreamingTokenizer(expressive.mods.tokenizer, 0.5)
    wav = torch.randn(32_000, generator=torch.Generator().manual_seed(0)) / 9
    count = 0
    with torch.inference_mode():
        for heard, chunk in enumerate(wav.split(1600), 1):
            count += sum(map(len, stream.push(chunk)))
            assert count / 25 >= heard / 10 - 2 * 0.5
            assert count / 25 <= heard / 10 - 0.5 or not count


@pytest.mark.parametrize(
    ("chunks", "options", "error", "match"),
    [
        ([torch.zeros(9)], {"latency_seconds": 0}, ValueError, "at least 0.1"),
        ([torch.zeros(9)], {"latency_seconds": "x"}, TypeError, "latency"),
        ([torch.zeros(9)], {"sample_rate": 0}, ValueError, "sample_rate"),
        ([torch.zeros(2, 9)], {}, ValueError, "one channel"),
        (["a.wav"], {}, TypeError, "got str"),
        ([torch.full((9,), torch.nan)], {}, ValueError, "nan"),
        ([torch.zeros(9)], {}, ValueError, "at least 1280"),
        ([], {}, ValueError, "at least 1280"),
    ],
)
def test_audio_that_cannot_be_used_is_named(
    expressive, chunks, options, error, match
):
    with pytest.raises(error, match=match):
        list(expressive.encode_stream(chunks, **options))
