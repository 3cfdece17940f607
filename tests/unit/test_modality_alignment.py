"""Similarity of speech and text features of words."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.units.text_tokenizers import (
    HubText,
    SentencePieceText,
)
from spiritlm_plugin.dataio.units.units import Kind, SpeechUnits
from spiritlm_plugin.evaluation.alignment import compare
from spiritlm_plugin.metrics.modality_alignment import (
    WordSimilarity,
    mean_similarity,
    pair_weights,
    pool_words,
    speech_token_words,
    text_token_words,
    word_similarity,
)

SEEDS = st.integers(0, 2**31)
WORDS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=6)
TEXTS = st.lists(
    st.text("abcdetst'1.é", min_size=1, max_size=8), min_size=1, max_size=12
)


def test_speech_tokens_by_hand():
    """Two words, parted at 0.5 s: before frame 13, which starts at 0.52 s."""
    units = SpeechUnits(
        [7] * 10 + [8] * 5 + [7] * 15,
        pitch=[1] * 6 + [2] * 9,
        style=[5, 5],
    )
    assert units.merge().to_string() == "[St5][Pi1][Hu7][Hu8][Pi2][Hu7][St5]"
    # 8 begins with frame 10, in the first word, and lasts into the second; 2
    # begins at 0.48 s; the third run of phonetic units at 0.6 s.
    found = speech_token_words(units, [0.0, 0.5, None])
    assert found.tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_a_frame_at_a_boundary_is_of_the_word_behind_it():
    """Also where the boundary times the rate is rounded up."""
    units = SpeechUnits(range(50))
    for frame in range(1, 50):
        found = speech_token_words(units, [0.0, frame * 0.04, None])
        assert found.tolist() == [0] * frame + [1] * (50 - frame)


def test_words_without_a_token():
    units = SpeechUnits([1] * 5 + [2] * 20)
    found = speech_token_words(units, [0.0, 0.04, 0.1, 0.1, 0.9, None])
    assert found.tolist() == [0, 3]


def test_units_without_durations():
    with pytest.raises(ValueError, match="no durations"):
        speech_token_words(SpeechUnits([1, 2], full_rate=False), [0.0, None])


@given(
    st.lists(st.integers(0, 2), min_size=2, max_size=80),
    st.lists(st.integers(0, 80), max_size=6),
    st.booleans(),
)
def test_speech_tokens_are_those_of_a_cut(phonetic, frames, expressive):
    streams = [phonetic]
    if expressive:
        streams += [[0, 1] * (len(phonetic) // 4 + 1), [0] * 4]
    units = SpeechUnits(*streams)
    inner = sorted(f * 0.04 for f in frames if f <= len(phonetic))
    boundaries = [0.0, *inner, None]
    words = speech_token_words(units, boundaries)
    kinds = units.merge().kinds
    assert len(words) == len(kinds)
    found = words[kinds == int(Kind.PHONETIC)].tolist()
    expected, before = [], None
    for word, (start, end) in enumerate(zip(boundaries, boundaries[1:])):
        # A run that goes on has its token in the word before.
        for unit in units.cut(start, end).phonetic.tolist():
            expected += [word] if unit != before else []
            before = unit
    assert found == expected


@given(TEXTS)
@pytest.mark.parametrize("kind", ["sentencepiece", "byte-level"])
def test_text_tokens(kind, text_tokenizers, words):
    encode = text_tokenizers[kind].encode
    found = text_token_words(words, encode)
    ids = torch.tensor(encode(" ".join(words)))
    assert len(found) == len(ids)
    for i, word in enumerate(words):
        # A word's tokens are the same whatever is around it.
        alone = encode(word if i == 0 else f" {word}")
        assert ids[found == i].tolist() == alone


@pytest.fixture(scope="module")
def text_tokenizers(sentencepiece_model, hub_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(sentencepiece_model())
    return {
        "sentencepiece": SentencePieceText(path),
        "byte-level": HubText(hub_folder()),
    }


def test_text_tokens_across_words():
    def encode(text):
        return [len(word) for word in text.replace("of the", "of_the").split()]

    with pytest.raises(ValueError, match="the end of the word 'of' in 'all of"):
        text_token_words(["all", "of", "the", "day"], encode)


@given(
    SEEDS,
    st.integers(1, 12),
    st.integers(1, 5),
    st.sampled_from(["mean", "max"]),
)
def test_pooling_is_that_of_each_word(seed, tokens, count, pooling):
    random = torch.Generator().manual_seed(seed)
    states = torch.randn(2, tokens, 3, generator=random)
    places = torch.randint(-1, count, (2, tokens), generator=random)
    pooled = pool_words(states, places, count, pooling)
    for item in range(2):
        for word in range(count):
            own = states[item, places[item] == word]
            expected = torch.zeros(3)
            if len(own):
                expected = own.mean(0) if pooling == "mean" else own.amax(0)
            torch.testing.assert_close(pooled[item, word], expected)


@pytest.mark.parametrize("pooling, expected", [("mean", -2.5), ("max", -2.0)])
def test_pooling_takes_nothing_from_padding(pooling, expected):
    states = torch.tensor([[[math.nan], [-3.0], [-2.0]]])
    pooled = pool_words(states, torch.tensor([[-1, 0, 0]]), 1, pooling)
    assert pooled.tolist() == [[[expected]]]


def test_similarity_by_hand():
    """Three words, "a" twice: features in the plane, one token a word."""
    speech = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]]])
    text = torch.tensor([[[4.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    places = torch.tensor([[0, 1, 2]])
    [found] = word_similarity(
        [speech], [text], places, places, [["a", "cat", "a"]]
    )
    half = math.sqrt(0.5)
    assert found.words == 3
    assert found.matching == pytest.approx([1 + half + half])
    # a - cat: cos 45; cat - a, twice: cos 90 and 0, halved; a - cat: cos 0.
    assert found.other == pytest.approx([half + (0 + 1) / 2 + 1])


def test_words_that_are_not_compared():
    """One has no speech token, one no text token, one nothing beside it."""
    states = torch.ones(3, 4, 2)
    speech = torch.tensor([[0, 0, 2, 3], [0, 1, 1, 1], [0, 0, 0, 0]])
    text = torch.tensor([[0, 1, 2, 2], [0, 0, 0, 0], [0, 0, 0, 0]])
    words = [["a", "b", "c", "d"], ["a", "b"], ["a"]]
    found = word_similarity([states], [states], speech, text, words)
    assert [item.words for item in found] == [2, 0, 0]
    assert found[0].matching == found[0].other == pytest.approx([2.0])
    assert found[1].matching == found[1].other == [0.0]


@given(
    st.lists(WORDS, min_size=1, max_size=4),
    SEEDS,
    st.sampled_from(["mean", "max"]),
)
def test_properties(utterances, seed, pooling):
    random = torch.Generator().manual_seed(seed)
    size, longest = len(utterances), max(map(len, utterances))
    places = torch.randint(-1, longest, (2, size, 9), generator=random)
    counts = torch.tensor([len(words) for words in utterances])
    places = places.where(places < counts[:, None], -1)
    speech, text = torch.randn(2, 3, size, 9, 5, generator=random)
    found = word_similarity(speech, text, *places, utterances, pooling)
    assert len(found) == size
    for item in found:
        for total in (*item.matching, *item.other):
            assert abs(total) <= item.words + 1e-6
    # Speech that is as its text, but for its scale.
    own = places[1]
    same = word_similarity(3 * text, text, own, own, utterances, pooling)
    for item in same:
        assert item.matching == pytest.approx([item.words] * 3)
        assert max(item.other) <= item.words + 1e-6
    # Each alone, with padding of its own.
    for i, words in enumerate(utterances):
        [alone] = word_similarity(
            torch.cat([torch.full((3, 1, 2, 5), 99.0), speech[:, [i]]], 2),
            text[:, [i]],
            torch.cat([torch.full((1, 2), -1), places[0][[i]]], 1),
            places[1][[i]],
            [words],
            pooling,
        )
        assert alone.words == found[i].words
        assert alone.matching == pytest.approx(found[i].matching, abs=1e-5)
        assert alone.other == pytest.approx(found[i].other, abs=1e-5)


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_words_weigh_alike(utterances):
    numbers = torch.full((len(utterances), 6), -1)
    for row, words in zip(numbers, utterances):
        row[: len(words)] = torch.tensor([ord(w) for w in words])
    matching, other = pair_weights(numbers)
    assert (matching.sum(-1) - other.sum(-1)).abs().max() < 1e-12
    assert (other.diagonal(dim1=1, dim2=2) == 0).all()
    for weights, words in zip(matching, utterances):
        assert weights.sum() == (len(words) if len(set(words)) > 1 else 0)


def test_layers_do_not_fit():
    states, places = torch.ones(1, 2, 2), torch.tensor([[0, 1]])
    with pytest.raises(ValueError, match="2 layers of speech .* 1 of text"):
        word_similarity([states] * 2, [states], places, places, [["a", "b"]])


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="no word can be compared"):
        mean_similarity([WordSimilarity([], [], 0)])


def test_an_engine_without_hidden_states_is_refused():
    lm = SimpleNamespace(mods=SimpleNamespace(language_model=None))
    with pytest.raises(ValueError, match="load the model without engine"):
        compare(lm, {}, "mean")
