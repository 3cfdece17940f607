"""Prompts, options and units that cannot be used are named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spiritlm_plugin import SpeechUnits, SpiritLM, Text


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
    ],
)
def test_options_that_cannot_be_used(base, options, message):
    with pytest.raises(ValueError, match=message):
        base.generate([Text("a")], **{"output": "text", **options})


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
        ([], {}, "empty"),
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
