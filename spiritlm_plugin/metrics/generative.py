"""Generative measures of texts, or of transcripts of generated speech.

Perplexity to a language model of text says how much like language they are, and
repetition within and among them how poor: a model that repeats itself has a low
perplexity, so neither is read without the other.

Source: Lakhotia et al., "On Generative Spoken Language Modeling from Raw Audio",
TACL 2021; as GenPPL and auto-BLEU of bigrams in Hassid et al., "Textually
Pretrained Speech Language Models", 2023, and Maimon et al., "Slamming: Training a
Speech Language Model on One GPU in a Day", 2025.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from os.path import commonprefix
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from spiritlm_plugin.dataio.batching import sized_batches
from spiritlm_plugin.metrics.intervals import ratio_interval
from spiritlm_plugin.metrics.recognition import normalize_transcript

# Common words, of which any tokenizer of English texts knows one.
_PLAIN = "this is a good thing and the day was long"


class Surprise(NamedTuple):
    """How unexpected a text is.

    Arguments
    ---------
    nats : float
        Negative log-likelihood, summed over its tokens.
    tokens : int
        So many are counted.
    """

    nats: float
    tokens: int


class PerplexityJudge:
    """A language model of text that says how unexpected texts are.

    A text stands behind the model's token for the beginning, where it has one;
    otherwise its first token is not counted. Of a text longer than the model's
    context the first tokens are judged, as many as fit.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        Any causal language model.
    tokenizer : transformers tokenizer
        Its.
    batch_size : int
        Texts at a time.

    Raises
    ------
    ValueError
        If the tokenizer knows no word of a plain sentence: of a folder without
        a tokenizer's files transformers makes an empty one.

    Example
    -------
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from spiritlm_plugin.metrics.sentiment_classifiers import word_tokenizer
    >>> tokenizer = word_tokenizer(["this is a good day"], 16)
    >>> model = LlamaForCausalLM(LlamaConfig(
    ...     vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8,
    ...     num_hidden_layers=1, num_attention_heads=1,
    ... ))
    >>> judge = PerplexityJudge(model, tokenizer)
    >>> text, nothing = judge(["a good day", ""])
    >>> text.tokens, nothing
    (2, None)
    """

    def __init__(self, model: Any, tokenizer: Any, batch_size: int = 16):
        known = set(tokenizer(_PLAIN)["input_ids"])
        if not known - {*tokenizer.all_special_ids}:
            raise ValueError(
                f"the judge's tokenizer knows no word of {_PLAIN!r}; name a "
                "folder or a model of the Hub that has its tokenizer"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.context = getattr(
            model.config, "max_position_embeddings", tokenizer.model_max_length
        )

    @torch.inference_mode()
    def __call__(
        self, texts: Sequence[str], contexts: Sequence[str] | None = None
    ) -> list[Surprise | None]:
        """Return how unexpected each text is.

        Arguments
        ---------
        texts : sequence of str
            Such as transcripts.
        contexts : sequence of str, optional
            What stands before each, with a space between; it is not counted.

        Returns
        -------
        list of Surprise
            None for a text without words, or where its context leaves no room.

        Raises
        ------
        ValueError
            If the sequences differ in length.
        """
        before = [""] * len(texts) if contexts is None else contexts
        if len(before) != len(texts):
            raise ValueError(
                f"{len(texts)} texts and {len(before)} contexts: give one for "
                "each"
            )
        found: list[Surprise | None] = [None] * len(texts)
        items = [self._encode(text, past) for text, past in zip(texts, before)]
        said = [i for i, (ids, first) in enumerate(items) if first < len(ids)]
        lengths = [len(items[i][0]) for i in said]
        for chosen in sized_batches(lengths, self.batch_size):
            places = [said[i] for i in chosen]
            judged = self._judge([items[i] for i in places])
            for i, surprise in zip(places, judged):
                found[i] = surprise
        return found

    def _encode(self, text: str, context: str) -> tuple[list[int], int]:
        """Return tokens, and the first that is counted."""
        text, context = text.strip(), context.strip()
        if not text:
            return [], 0
        bos = self.tokenizer.bos_token_id
        start = [] if bos is None else [bos]
        both = self._ids(f"{context} {text}" if context else text)
        past = len(commonprefix([both, self._ids(context)])) if context else 0
        ids = (start + both)[: self.context]
        return ids, max(len(start) + past, 1)

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _judge(self, items: Sequence[tuple[list[int], int]]) -> list[Surprise]:
        device = self.model.device
        rows = [torch.tensor(ids, device=device) for ids, _ in items]
        ids = pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        firsts = torch.tensor([first for _, first in items], device=device)
        places = torch.arange(ids.shape[1], device=device)
        mask = places < lengths[:, None]
        logits: Tensor = self.model(ids, attention_mask=mask.long()).logits
        losses = cross_entropy(
            logits[:, :-1].float().transpose(1, 2), ids[:, 1:], reduction="none"
        )
        counted = (mask & (places >= firsts[:, None]))[:, 1:]
        sums = (losses * counted).double().sum(1).tolist()
        if not all(map(math.isfinite, sums)):
            raise ValueError(
                "the judge finds texts as likely as what is no number: its "
                "weights are damaged, name another one"
            )
        return [Surprise(*pair) for pair in zip(sums, counted.sum(1).tolist())]


def load_judge(
    source: str | Path,
    device: str | torch.device = "cpu",
    batch_size: int = 16,
    dtype: str = "auto",
) -> PerplexityJudge:
    """Load a causal language model of transformers as a judge.

    Arguments
    ---------
    source : str or Path
        A folder, or a name on the Hub.
    device : str or torch.device
        To run on.
    batch_size : int
        Texts at a time.
    dtype : str
        Of the weights; ``"auto"`` is as they are.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        As of `PerplexityJudge`.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    safe = {"trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(str(source), **safe)
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(source), dtype=dtype, **safe
    )
    return PerplexityJudge(model.to(device), tokenizer, batch_size)


def perplexity_figures(
    surprises: Iterable[Surprise | None],
    groups: Iterable[Hashable] | None = None,
    name: str = "perplexity",
) -> dict[str, Any]:
    """Return the perplexity of texts, for reports.

    Arguments
    ---------
    surprises : iterable of Surprise
        Of `PerplexityJudge`; None is left out.
    groups : iterable, optional
        Such as speakers; as of `ratio_interval`.
    name : str
        Of the figure.

    Returns
    -------
    dict
        Under the name the perplexity over all tokens, as ``..._interval`` the
        ends of its 95% interval, and as ``..._mean`` the mean over texts of
        each one's own, which papers report, too, and few odd texts decide.
        Nothing of no texts.

    Example
    -------
    >>> figures = perplexity_figures([Surprise(math.log(4), 2),
    ...                               Surprise(math.log(8), 1)])
    >>> round(figures["perplexity"], 3), round(figures["perplexity_mean"], 3)
    (3.175, 5.0)
    """
    surprises = list(surprises)
    names = range(len(surprises)) if groups is None else groups
    known = [(s, g) for s, g in zip(surprises, names) if s is not None]
    if not known:
        return {}
    nats = [surprise.nats for surprise, _ in known]
    tokens = [surprise.tokens for surprise, _ in known]
    interval = ratio_interval(nats, tokens, [group for _, group in known])
    each = [_exp(n / t) for n, t in zip(nats, tokens)]
    return {
        name: _exp(math.fsum(nats) / sum(tokens)),
        f"{name}_interval": interval and [_exp(end) for end in interval],
        f"{name}_mean": math.fsum(each) / len(each),
    }


def words_of(text: str) -> list[str]:
    """Return the words of a text as repetition is counted: no case, no marks.

    The recognizer of Lakhotia et al. writes neither.

    Example
    -------
    >>> words_of("It's late -- it's LATE!")
    ["it's", 'late', "it's", 'late']
    """
    return normalize_transcript(text).split()


def auto_bleu(text: str, n: int = 2) -> float | None:
    """Return the share of a text's n-grams that stand elsewhere in it, too.

    Source: Lakhotia et al., 2021, section 4: of all n-grams of an utterance,
    those that remain among the others when they are taken out.

    Arguments
    ---------
    text : str
        Read by `words_of`.
    n : int
        Words of an n-gram; 2 in what is published since.

    Returns
    -------
    float or None
        From 0 to 1; None of fewer than ``n`` words.

    Example
    -------
    >>> auto_bleu("the old man and the old boat")
    0.3333333333333333
    """
    counts = Counter(_ngrams(words_of(text), n))
    if not counts:
        return None
    repeated = sum(count for count in counts.values() if count > 1)
    return repeated / counts.total()


def self_bleu(texts: Iterable[str], n: int = 2) -> float | None:
    """Return how like each other texts are: the mean BLEU of each to all others.

    Source: Zhu et al., "Texygen: A Benchmarking Platform for Text Generation
    Models", 2018; BLEU with equal weights of 1- to n-grams, not smoothed.

    Arguments
    ---------
    texts : iterable of str
        Read by `words_of`; those of fewer than ``n`` words are left out.
    n : int
        Words of the longest n-grams.

    Returns
    -------
    float or None
        From 0 to 1; None of fewer than two texts.

    Example
    -------
    >>> self_bleu(["the old man", "the old man", "a boat"])
    0.6666666666666666
    """
    sentences = [words for text in texts if len(words := words_of(text)) >= n]
    if len(sentences) < 2:
        return None
    precisions = [_precisions(sentences, size) for size in range(1, n + 1)]
    lengths = Counter(map(len, sentences))
    scores = []
    for words, shares in zip(sentences, zip(*precisions)):
        if min(shares) > 0:
            mean = math.fsum(map(math.log, shares)) / n
            scores.append(_brevity(len(words), lengths) * _exp(mean))
    return math.fsum(scores) / len(sentences)


def vert(self_score: float | None, auto_score: float | None) -> float | None:
    """Return the geometric mean of self- and auto-BLEU: low is diverse.

    Source: VERT of Lakhotia et al., 2021.

    Example
    -------
    >>> vert(0.4, 0.1)
    0.2
    """
    if self_score is None or auto_score is None:
        return None
    return math.sqrt(self_score * auto_score)


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(n))))


def _precisions(sentences: Sequence[list[str]], n: int) -> list[float]:
    """Return the share of each sentence's n-grams that another one has.

    An n-gram counts so often at most as in the other one that has it most.
    """
    counted = [Counter(_ngrams(words, n)) for words in sentences]
    # Whose count is highest, and the next highest.
    most: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for i, counts in enumerate(counted):
        for ngram, count in counts.items():
            owner, first, second = most.get(ngram, (i, 0, 0))
            if count > first:
                most[ngram] = i, count, first
            elif count > second:
                most[ngram] = owner, first, count
    shares = []
    for i, counts in enumerate(counted):
        hits = 0
        for ngram, count in counts.items():
            owner, first, second = most[ngram]
            hits += min(count, second if owner == i else first)
        shares.append(hits / counts.total())
    return shares


def _brevity(length: int, lengths: Counter[int]) -> float:
    """Return BLEU's penalty of a sentence that is shorter than all others."""
    others = lengths - Counter([length])
    closest = min(others, key=lambda other: (abs(other - length), other))
    return min(1.0, _exp(1 - closest / length))


def _exp(nats: float) -> float:
    """Return e to a power, infinity where there is no such number."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
