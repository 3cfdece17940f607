"""Tests of ``spiritlm_plugin.lobes.ctc_aligner``."""

import json
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
)
from transformers.modeling_outputs import CausalLMOutput

from spiritlm_plugin.lobes.ctc_aligner import (
    AlignmentError,
    CTCAligner,
    align_words,
)

CHARACTERS = {"A": 2, "B": 3, "C": 4, "'": 5}
SEPARATOR = 1
WORDS = st.lists(st.text("abc'", min_size=1, max_size=5), min_size=1)


def spell(words, generator):
    """Return scores that spell words, and when each begins and ends."""
    path, times = [0], []
    for number, word in enumerate(words):
        if number:
            path += [SEPARATOR] * int(
                torch.randint(1, 3, (), generator=generator)
            )
            path += [0] * int(torch.randint(0, 3, (), generator=generator))
        start = len(path)
        for place, character in enumerate(word):
            index = CHARACTERS[character.upper()]
            if place and path[-1] == index:
                path.append(0)
            path += [index] * int(torch.randint(1, 4, (), generator=generator))
        times.append((start, len(path)))
    path.append(0)
    scores = torch.full((len(path), 6), -20.0)
    scores[torch.arange(len(path)), torch.tensor(path)] = -0.01
    return scores, times


@given(WORDS, st.integers(0, 1000))
def test_words_are_where_they_are_spelled(words, seed):
    generator = torch.Generator().manual_seed(seed)
    scores, times = spell(words, generator)
    seconds = len(scores) / 50
    spans = align_words(scores, seconds, words, CHARACTERS, 0, SEPARATOR)
    assert [word for word, _, _ in spans] == words
    for (_, start, end), (first, last) in zip(spans, times):
        assert start == pytest.approx(first / 50, abs=1e-4)
        assert end == pytest.approx(last / 50, abs=1e-4)


def test_unknown_characters_are_passed_over():
    generator = torch.Generator().manual_seed(0)
    scores, times = spell(["ab", "ca"], generator)
    words = ["a-b", "[12]", "Çca"]
    spans = align_words(
        scores, len(scores) / 50, words, CHARACTERS, 0, SEPARATOR
    )
    assert [word for word, _, _ in spans] == words
    (_, first, end), between, (_, start, last) = spans
    assert [first, end] == pytest.approx([t / 50 for t in times[0]])
    assert [start, last] == pytest.approx([t / 50 for t in times[1]])
    assert between[1:] == (end, start)


@pytest.mark.parametrize(
    "words, message",
    [
        (["abcabcabc"] * 3, "29 characters are too many for its 0.20 s"),
        (["aaaaaa"], "6 characters are too many"),
        (["12", "?"], "knows no character"),
        ([], "knows no character"),
    ],
)
def test_what_cannot_be_aligned_is_refused(words, message):
    scores = torch.zeros(10, 6).log_softmax(-1)
    with pytest.raises(AlignmentError, match=message):
        align_words(scores, 0.2, words, CHARACTERS, 0, SEPARATOR)


@pytest.fixture(scope="module", params=["group", "layer"])
def folder(request, tmp_path_factory):
    """A recognizer with random weights, as the Hub's are laid out."""
    folder = tmp_path_factory.mktemp("ctc")
    tokens = [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        "|",
        *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'",
    ]
    vocabulary = folder / "vocabulary.json"
    vocabulary.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    Wav2Vec2CTCTokenizer(str(vocabulary)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(
        return_attention_mask=request.param == "layer"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm=request.param,
        pad_token_id=0,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    return folder


def test_times_of_long_recordings_are_exact(folder, monkeypatch):
    aligner = CTCAligner(folder)
    # Frame i of the recognizer begins at i / 50 s, in ten minutes as well.
    frames, words = 29_999, {"a": 5, "b": 14_990, "it's": 29_940}
    scores = torch.full((1, frames, len(aligner.characters) + 5), -20.0)
    scores[..., aligner.blank] = 0.0
    for word, first in words.items():
        for place, character in enumerate(word.upper()):
            index = aligner.characters[character]
            scores[0, first + place, index] = 20.0
        scores[0, first + len(word), aligner.separator] = 20.0
    monkeypatch.setattr(
        aligner.model,
        "forward",
        lambda wavs, attention_mask: CausalLMOutput(logits=scores),
    )
    [spans] = aligner([torch.zeros(600 * 16000)], [[*words]])
    assert spans == [
        (word, first / 50, (first + len(word)) / 50)
        for word, first in words.items()
    ]


def test_recordings_of_a_batch_are_aligned(folder):
    aligner = CTCAligner(folder)
    assert len(aligner.characters) == 27
    generator = torch.Generator().manual_seed(0)
    wavs = [torch.randn(n, generator=generator) for n in (24000, 9000, 16000)]
    texts = [["the", "old", "[Hu3]", "man"], ["a" * 90], ["it's"]]
    spans, error, alone = aligner(wavs, texts)
    assert [word for word, _, _ in spans] == texts[0]
    times = [t for _, start, end in spans for t in (start, end)]
    assert times == sorted(times) and 0 <= times[0] and times[-1] <= 1.5
    assert isinstance(error, AlignmentError)
    assert aligner(wavs[2:], texts[2:])[0][0][0] == alone[0][0]


def test_another_process_loads_it_again(folder):
    aligner = CTCAligner(folder)
    sent = pickle.loads(pickle.dumps(aligner))
    assert sent.characters == aligner.characters
    expected = aligner.state_dict()
    for name, weight in sent.state_dict().items():
        assert torch.equal(weight, expected[name])
