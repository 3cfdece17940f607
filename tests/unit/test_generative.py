"""Perplexity by another route, and repetition counted by hand."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.metrics.generative import (
    PerplexityJudge,
    Surprise,
    auto_bleu,
    load_judge,
    perplexity_figures,
    self_bleu,
    vert,
    words_of,
)
from tests.unit.judges import (
    language_model,
    save_language_model,
    word_tokens,
)

TEXTS = [
    "the old man walked",
    "boats lie in the harbour and it rained again",
    "a",
    "he said that she was there all day long",
]
CONTEXTS = ["this is", "many small", "a good", "it was the old"]
texts = st.lists(
    st.lists(st.sampled_from("abc"), max_size=6).map(" ".join), max_size=6
)


def by_hand(model, ids, first):
    """One text alone: minus the logarithm of each token's share."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    nats = 0.0
    for i in range(first, len(ids)):
        shares = logits[i - 1].exp()
        nats -= math.log(shares[ids[i]] / shares.sum())
    return nats, len(ids) - first


@pytest.mark.parametrize("bos", ["<s>", None])
@pytest.mark.parametrize("contexts", [None, CONTEXTS])
def test_from_logits_by_another_route(bos, contexts):
    tokenizer = word_tokens(bos)
    model = language_model(tokenizer)
    found = PerplexityJudge(model, tokenizer, 3)(TEXTS, contexts)
    vocabulary = tokenizer.get_vocab()
    for i, text in enumerate(TEXTS):
        before = contexts[i].split() if contexts else []
        start = [vocabulary[bos]] if bos else []
        ids = start + [vocabulary[w] for w in [*before, *text.split()]]
        first = len(start) + len(before)
        if not first:
            first = 1
        if first == len(ids):
            assert found[i] is None
            continue
        nats, tokens = by_hand(model, ids, first)
        assert found[i].tokens == tokens
        assert found[i].nats == pytest.approx(nats, rel=1e-5)


def test_a_text_alone_is_judged_as_in_a_batch():
    tokenizer = word_tokens("<s>")
    judge = PerplexityJudge(language_model(tokenizer), tokenizer)
    together = judge(TEXTS, CONTEXTS)
    for text, context, found in zip(TEXTS, CONTEXTS, together):
        [alone] = judge([text], [context])
        assert alone.tokens == found.tokens
        assert alone.nats == pytest.approx(found.nats, rel=1e-5)


def test_nothing_is_said():
    tokenizer = word_tokens("<s>")
    judge = PerplexityJudge(language_model(tokenizer), tokenizer)
    assert judge(["", " \n"]) == [None, None]
    assert judge([]) == []


def test_texts_longer_than_the_context():
    tokenizer = word_tokens("<s>")
    judge = PerplexityJudge(language_model(tokenizer, context=8), tokenizer)
    words = "boats lie in the harbour and it rained again".split()
    whole, cut = judge([" ".join(words), " ".join(words[:7])])
    assert whole.tokens == 7 and whole.nats == pytest.approx(cut.nats)
    assert judge(["the day"], [" ".join(words)]) == [None]


def test_a_judge_of_a_folder(tmp_path):
    judge = load_judge(save_language_model(tmp_path))
    tokenizer = word_tokens("<s>")
    same = PerplexityJudge(language_model(tokenizer), tokenizer)
    assert judge(TEXTS) == same(TEXTS)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises((OSError, ValueError)):
        load_judge(tmp_path)


def test_judges_that_cannot_judge():
    tokenizer = word_tokens("<s>")
    judge = PerplexityJudge(language_model(tokenizer), tokenizer)
    with pytest.raises(ValueError, match="2 texts and 1 contexts"):
        judge(["a", "a"], ["a"])
    with pytest.raises(ValueError, match="knows no word"):
        tokenizer._tokenizer.model = type(tokenizer._tokenizer.model)(
            {"<pad>": 0, "<unk>": 1, "<s>": 2}, "<unk>"
        )
        PerplexityJudge(judge.model, tokenizer)


def test_perplexity_by_hand():
    surprises = [Surprise(6.0, 3), None, Surprise(4.0, 1)]
    found = perplexity_figures(surprises, ["ann", "ann", "bob"], "GenPPL")
    assert found["GenPPL"] == pytest.approx(math.exp(10 / 4))
    assert found["GenPPL_mean"] == pytest.approx(
        (math.exp(2) + math.exp(4)) / 2
    )
    # Of two speakers, little is known; no token has less than 0 nats.
    high = 2.5 + 12.7062 * math.sqrt(2 * (1.5**2 + 1.5**2)) / 4
    assert found["GenPPL_interval"] == pytest.approx(
        [1.0, math.exp(high)], rel=1e-3
    )
    far = perplexity_figures([Surprise(8000.0, 10)])
    assert far["perplexity"] == math.inf
    alone = perplexity_figures(surprises, ["ann"] * 3)
    assert alone["perplexity_interval"] is None
    assert perplexity_figures([None]) == {}


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("", 2, None),
        ("boats", 2, None),
        ("boats lie", 2, 0),
        ("boats, boats; Boats!", 2, 1),  # boats boats, twice
        ("a b a b a", 2, 1),  # ab ba ab ba
        ("a b c a b", 2, 0.5),  # ab bc ca ab
        ("a b c a b d a b", 2, 3 / 7),  # ab bc ca ab bd da ab
        ("a b c a b", 1, 0.8),  # all but c
        ("a b c a b c", 3, 0.5),  # abc bca cab abc
    ],
)
def test_auto_bleu_by_hand(text, n, expected):
    assert auto_bleu(text, n) == expected


@given(st.lists(st.sampled_from("abc"), max_size=12), st.integers(1, 3))
def test_auto_bleu_by_looking_elsewhere(words, n):
    ngrams = [words[i : i + n] for i in range(len(words) - n + 1)]
    if not ngrams:
        assert auto_bleu(" ".join(words), n) is None
        return
    hits = sum(g in ngrams[:i] + ngrams[i + 1 :] for i, g in enumerate(ngrams))
    assert auto_bleu(" ".join(words), n) == hits / len(ngrams)


def bleu(words, others, n):
    """BLEU of a sentence, as Papineni et al. define it."""
    logs = 0.0
    for size in range(1, n + 1):
        counts, *references = (
            Counter(tuple(s[i : i + size]) for i in range(len(s) - size + 1))
            for s in [words, *others]
        )
        hits = sum(
            min(count, max(r[gram] for r in references))
            for gram, count in counts.items()
        )
        if not hits:
            return 0.0
        logs += math.log(hits / sum(counts.values())) / n
    lengths = [len(other) for other in others]
    closest = min(lengths, key=lambda r: (abs(r - len(words)), r))
    return min(1.0, math.exp(1 - closest / len(words))) * math.exp(logs)


@given(texts, st.integers(1, 3))
def test_self_bleu_text_by_text(texts, n):
    sentences = [s for s in map(str.split, texts) if len(s) >= n]
    if len(sentences) < 2:
        assert self_bleu(texts, n) is None
        return
    scores = [
        bleu(words, sentences[:i] + sentences[i + 1 :], n)
        for i, words in enumerate(sentences)
    ]
    assert self_bleu(texts, n) == pytest.approx(sum(scores) / len(scores))


def test_diversity():
    assert self_bleu(["a b c"] * 3) == 1
    assert self_bleu(["a b", "c d", "e f"]) == 0
    assert vert(1.0, 0.25) == 0.5
    assert vert(None, 0.25) is None and vert(0.5, None) is None


def test_words_are_those_of_any_script():
    assert words_of("Ça va? — “Ça” va!") == ["ça", "va", "ça", "va"]
