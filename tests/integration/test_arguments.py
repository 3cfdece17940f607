"""Prompts, options and units that cannot be used are named."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spiritlm_plugin import Speech, SpeechUnits, SpiritLM, Text
from spiritlm_plugin.inference.continuation import Continuer
from spiritlm_plugin.inference.few_shot import Reader
from tests.integration.helpers import shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "music"}, "text, speech, .*any, got 'music'"),
        ({"speaker": 4}, "unknown speaker 4; known: 0.*3"),
        ({"speaker": -1}, "unknown speaker -1"),
        ({"speaker": "nobody"}, "'nobody'; known: .*ex01"),
        ({"temperature": -0.1}, "temperature.*-0.1"),
        ({"top_p": 0}, "top_p.*0"),
        ({"top_p": 1.1}, "top_p.*1.1"),
        ({"max_new_tokens": 0}, "max_new_tokens.*0"),
        ({"max_seconds": 0}, "max_seconds.*0"),
        ({"batch_size": 0}, "batch_size.*0"),
        ({"seed": [1, 2]}, "2 seeds for 1"),
        ({"seed": 2**64}, "seed must be below 2.*64, got 18446744073709551616"),
        ({"seed": -(2**63) - 1}, "seed must be >= "),
        ({"temperature": math.nan}, "temperature must be finite, got nan"),
        ({"temperature": math.inf}, "temperature must be finite, got inf"),
        ({"temperature": 1e31}, "temperature.*1e.31"),
        ({"temperature": 10**400}, "temperature must be finite"),
        ({"top_p": math.nan}, "top_p must be finite"),
        ({"max_seconds": math.inf}, "max_seconds must be finite"),
        ({"max_seconds": 1e300}, "max_seconds.*1e.300"),
        ({"min_speech_units": -1}, "min_speech_units must be >= 0, got -1"),
        ({"num_beams": 10_000, "temperature": 0}, "num_beams.*256, got 10000"),
        ({"num_beams": 2}, "num_beams=2 .*temperature=0"),
        ({"speaker": True}, "speaker.*True"),
        ({"speaker": [1]}, r"unknown speaker \[1\]"),
    ],
)
def test_options_that_cannot_be_used(base, options, message):
    with pytest.raises(ValueError, match=message):
        base.generate([Text("a")], **{"output": "text", **options})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", "0.8"),
        ("temperature", True),
        ("temperature", np.array([0.8])),
        ("top_p", None),
        ("max_new_tokens", 5.0),
        ("max_new_tokens", True),
        ("batch_size", "8"),
        ("num_beams", None),
        ("min_speech_units", 1.5),
        ("max_seconds", "1"),
        ("seed", 1.5),
        ("seed", "12"),
        ("seed", [None]),
        ("stop", "no"),
        ("vocode", None),
    ],
)
def test_options_of_another_type(base, option, value):
    with pytest.raises(TypeError, match=option):
        base.generate([Text("a")], **{"output": "text", option: value})


@pytest.mark.parametrize(
    ("units", "options", "message"),
    [
        ([SpeechUnits([501], [1], [1])], {}, "phonetic unit 501.*500"),
        ([SpeechUnits([1], [64], [1])], {}, "pitch unit 64.*64"),
        ([SpeechUnits([1], [1], [100])], {}, "style unit 100.*100"),
        ([SpeechUnits([1])], {}, "no pitch"),
        ([SpeechUnits([1], [1], [1])], {"speaker": "x"}, "unknown speaker 'x'"),
        ([SpeechUnits([1], [1], [1])], {"speaker": [1, 2]}, "2 speakers for 1"),
        ([SpeechUnits([1], [1], [1])], {"global_style": 1}, "global style 1"),
    ],
)
def test_units_that_cannot_be_spoken(expressive, units, options, message):
    with pytest.raises(ValueError, match=message):
        expressive.decode_batch(units, **options)


def test_scored_lists_must_match(base):
    with pytest.raises(ValueError, match="1 prompts and 2 continuations"):
        base.log_likelihood([[Text("a")]], [[Text("b")], [Text("c")]])
    with pytest.raises(ValueError, match="empty"):
        base.log_likelihood([Text("a")], [Text("")])
    with pytest.raises(ValueError, match="context of 2048"):
        base.log_likelihood([Text("a")], [Text("b" * 3000)])


def test_numpy_numbers_are_numbers(base):
    options = {"max_new_tokens": 5, "output": "speech", "stop": False}
    expected = base.generate([Text("a")], seed=3, speaker=1, **options)
    output = base.generate(
        [Text("a")], seed=np.int64(3), speaker=np.int64(1), **options
    )
    assert torch.equal(output.wav, expected.wav)


def test_all_numpy_numbers(base):
    options = {"output": "text", "seed": 3, "vocode": False}
    expected = base.generate(
        [Text("a")], max_new_tokens=5, temperature=0.5, top_p=1, **options
    )
    output = base.generate(
        [Text("a")],
        max_new_tokens=np.int16(5),
        temperature=np.float32(0.5),
        top_p=torch.tensor(1.0),
        batch_size=np.array(2),
        stop=np.bool_(True),
        **options,
    )
    assert shown(output) == shown(expected)


@pytest.mark.parametrize("output", ["text", "speech"])
def test_no_more_is_drawn_than_the_context_has_room_for(base, output):
    options = {"output": output, "stop": False, "seed": 1, "vocode": False}
    prompt = [Text("a" * 1900)]
    room = base.context - len(base.vocabulary.encode(prompt, output))
    assert 9 < room < 200
    full = base.generate(prompt, max_new_tokens=10**30, **options)
    assert shown(full) == shown(
        base.generate(prompt, max_new_tokens=room, **options)
    )


def test_what_is_almost_cold_is_cold(base):
    options = {"output": "text", "max_new_tokens": 9}
    expected = base.generate([Text("a")], temperature=0, **options)
    for temperature in (1e-320, 1e-31, 1e-29):
        output = base.generate([Text("a")], temperature=temperature, **options)
        assert shown(output) == shown(expected)
    hot = base.generate([Text("a")], temperature=1e30, **options)
    assert base.generate([Text("a")], top_p=1e-300, **options)
    assert len(hot.text) > 0


def test_of_nothing_comes_nothing(base, expressive):
    shots = [(SpeechUnits([1, 2]), "a cat")]
    assert (
        base.generate([]) == base.generate(()) == base.generate(iter([])) == []
    )
    assert base.encode_batch([]) == []
    assert base.transcribe_batch([], shots=shots) == []
    assert base.classify([], ["a", "b"], shots) == []
    for wavs, wav_lens in (
        base.synthesize([], shots, stop=SpeechUnits([7])),
        expressive.decode_batch([]),
    ):
        assert wavs.shape == (0, 0) and wav_lens.shape == (0,)
    sums, counts = base.log_likelihood([], [])
    assert sums.shape == counts.shape == (0,)
    with pytest.raises(ValueError, match="output must be one of"):
        base.generate([], "music")
    with pytest.raises(ValueError, match="temperature"):
        base.transcribe_batch([], shots=shots, temperature=-1)


def test_whatever_has_items_is_a_list(base):
    shots = [(SpeechUnits([1, 2]), "a cat"), (SpeechUnits([3]), "a dog")]
    options = {"stop": SpeechUnits([7]), "max_new_tokens": 9}
    texts = ["the cat", "the old man"]
    expected, _ = base.synthesize(texts, shots, **options)
    for make in (
        iter,
        np.array,
        tuple,
        lambda items: dict.fromkeys(items).keys(),
    ):
        wavs, _ = base.synthesize(make(texts), iter(shots), **options)
        assert torch.equal(wavs, expected)
    recordings = [SpeechUnits([5]), SpeechUnits([6, 7])]
    expected = base.transcribe_batch(recordings, shots=shots, max_new_tokens=9)
    found = base.transcribe_batch(
        iter(recordings), shots=iter(shots), max_new_tokens=9
    )
    assert found == expected
    labels = ["a cat", "a dog"]
    expected = base.classify(recordings, labels, shots)
    assert expected == base.classify(
        (units for units in recordings), np.array(labels), map(list, shots)
    )
    prompts = [[Text("a")], [Text("b")]]
    sums, _ = base.log_likelihood(prompts, prompts[::-1])
    again, _ = base.log_likelihood(map(iter, prompts), reversed(prompts))
    assert torch.equal(sums, again)
    assert len(base.generate(iter(prompts), "text", max_new_tokens=2)) == 2
    wavs, _ = base.decode_batch(iter(recordings), speaker=np.array([1, 2]))
    expected, _ = base.decode_batch(recordings, speaker=[1, 2])
    assert torch.equal(wavs, expected)


SHOTS = [(SpeechUnits([1, 2]), "a cat")]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda lm: lm.synthesize("a cat", SHOTS), TypeError, "texts.*'a cat'"),
        (
            lambda lm: lm.synthesize(["a", None], SHOTS),
            TypeError,
            r"texts\[1\] must be a text, got None",
        ),
        (
            lambda lm: lm.classify([SpeechUnits([1])], "ab", SHOTS),
            TypeError,
            "labels must be a list of texts, got 'ab'",
        ),
        (
            lambda lm: lm.classify([SpeechUnits([1])], ["a", 2], SHOTS),
            TypeError,
            r"labels\[1\]",
        ),
        (
            lambda lm: lm.decode_batch([], global_style=10**30),
            ValueError,
            "unknown global style",
        ),
        (
            lambda lm: Reader(lm, candidates=10**9),
            ValueError,
            "candidates must be at most 256",
        ),
        (
            lambda lm: lm.transcribe_batch("a.wav", shots=SHOTS),
            TypeError,
            "wavs must be a list",
        ),
        (
            lambda lm: lm.transcribe_batch([], shots=("a.wav", "a cat")),
            ValueError,
            "shot 0 must be a pair, got 'a.wav'",
        ),
        (
            lambda lm: lm.transcribe_batch([], shots=[*SHOTS, "ab"]),
            ValueError,
            "shot 1 must be a pair, got 'ab'",
        ),
        (
            lambda lm: lm.transcribe_batch([], shots=[*SHOTS, (3, "a")]),
            ValueError,
            "shot 1 cannot be used: a speech segment holds .* got int",
        ),
        (
            lambda lm: lm.transcribe_batch([], shots=[(*SHOTS[0][::-1],)]),
            ValueError,
            "shot 0 cannot be used: a text segment holds a str, got SpeechUn",
        ),
        (
            lambda lm: lm.transcribe_batch([], shots={"a.wav": "a cat"}),
            TypeError,
            "shots must be a list of pairs, got {'a.wav'",
        ),
        (
            lambda lm: lm.transcribe_batch([], shots=SHOTS, context=0),
            ValueError,
            "context must be >= 1, got 0",
        ),
        (
            lambda lm: Continuer(lm, [(Text("a"), "b")], "text", 9),
            ValueError,
            "shot 0 cannot be used: not a prompt segment: 'b'",
        ),
        (
            lambda lm: lm.log_likelihood(
                [Text("a")], [Speech(SpeechUnits([]))]
            ),
            ValueError,
            "continuation 0 is empty",
        ),
        (
            lambda lm: lm.decode_batch([SpeechUnits([1])], global_style="a"),
            ValueError,
            "unknown global style 'a'",
        ),
        (
            lambda lm: lm.decode_batch([SpeechUnits([1])], global_style=1.0),
            TypeError,
            "global_style",
        ),
        (
            lambda lm: lm.encode_batch(torch.zeros(2, 1600), ["a", "b"]),
            TypeError,
            "wav_lens holds a relative length",
        ),
        (
            lambda lm: lm.encode_batch(torch.zeros(1, 1600), [math.nan]),
            ValueError,
            "wav_lens holds a relative length",
        ),
    ],
)
def test_arguments_of_another_form(base, call, error, message):
    with pytest.raises(error, match=message):
        call(base)


def test_one_file_is_no_batch(base, recording):
    with pytest.raises(TypeError, match="encode_file"):
        base.encode_batch(str(recording))


def test_a_batch_may_be_an_array(base, samples):
    wavs = np.stack([samples, samples[::-1]])
    assert base.encode_batch(wavs) == base.encode_batch(list(wavs))


def test_references_in_a_path_are_refused(tmp_path):
    with pytest.raises(ValueError, match="rename the folder"):
        SpiritLM.from_hparams(tmp_path / "<model>")


def test_empty_streams_are_missing_streams(expressive):
    with pytest.raises(ValueError, match="have no pitch"):
        expressive.decode_batch([SpeechUnits([1, 2], pitch=[], style=[3])])
    without = SpeechUnits([1, 2], pitch=[4])
    empty = SpeechUnits([1, 2], pitch=[4], style=[])
    wavs, _ = expressive.decode_batch([without], seed=5)
    assert torch.equal(wavs, expressive.decode_batch([empty], seed=5)[0])
