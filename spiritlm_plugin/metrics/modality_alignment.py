"""How alike a language model's features of a word are in speech and in text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from spiritlm_plugin.dataio.units.units import (
    PHONETIC_RATE,
    PITCH_RATE,
    STYLE_RATE,
    Kind,
    SpeechUnits,
)

# A unit that begins with a word, to so many digits of a second, is the word's;
# as in `SpeechUnits.cut`.
_DIGITS = 6
# What torch calls them.
_REDUCTIONS = {"mean": "mean", "max": "amax"}


@dataclass(frozen=True)
class WordSimilarity:
    """Cosine similarities of an utterance, summed over its words.

    Arguments
    ---------
    matching : sequence of float
        In each layer, of the speech and the text of the same word.
    other : sequence of float
        In each layer, of the speech of a word and the text of other words of
        the utterance, their mean for each word.
    words : int
        So many were compared.
    """

    matching: Sequence[float]
    other: Sequence[float]
    words: int


def speech_token_words(
    units: SpeechUnits, boundaries: Sequence[float | None]
) -> Tensor:
    """Return the word that each speech token of an utterance belongs to.

    It is the one in which the token's first frame starts.

    Arguments
    ---------
    units : SpeechUnits
        At full rate.
    boundaries : sequence of float
        Seconds, as of `Utterance.boundaries`: where each word starts, and the
        end of the utterance, None.

    Returns
    -------
    Tensor
        Number of the word of each token of ``units.merge()``, shape (tokens,).

    Raises
    ------
    ValueError
        If the units have no durations.

    Example
    -------
    >>> units = SpeechUnits([7] * 12 + [8] * 3 + [9] * 10)
    >>> speech_token_words(units, [0.0, 0.5, None])
    tensor([0, 0, 1])
    """
    if not units.full_rate:
        raise ValueError(
            "units read back from a merged stream have no durations, which "
            "tell the words apart; give units as they were tokenized"
        )
    starts = np.round(np.asarray(boundaries[:-1], np.float64), _DIGITS)
    kinds = units.merge().kinds
    words = torch.empty_like(kinds)
    for kind, stream, rate in (
        (Kind.STYLE, units.style, STYLE_RATE),
        (Kind.PITCH, units.pitch, PITCH_RATE),
        (Kind.PHONETIC, units.phonetic, PHONETIC_RATE),
    ):
        if stream is None:
            continue
        times = units.starts(rate).round(_DIGITS)
        # Tokens are the runs of a unit; but style is kept whole.
        if kind is not Kind.STYLE:
            lengths = stream.unique_consecutive(return_counts=True)[1]
            times = times[(lengths.cumsum(0) - lengths).numpy()]
        begun = np.searchsorted(starts, times, "right")
        words[kinds == int(kind)] = torch.from_numpy(begun) - 1
    return words


def text_token_words(
    words: Sequence[str], encode: Callable[[str], list[int]]
) -> Tensor:
    """Return the word that each token of a text belongs to.

    Arguments
    ---------
    words : sequence of str
        The text is these, with a space between them.
    encode : callable
        Returns the token ids of a text, as `Vocabulary.encode_text`.

    Returns
    -------
    Tensor
        Number of the word of each token of the text, shape (tokens,).

    Raises
    ------
    ValueError
        If a token reaches over the end of a word.

    Example
    -------
    >>> text_token_words(["the", "old", "cat"], example_text_tokenizer().encode)
    tensor([0, 0, 1, 1, 2, 2])
    """
    texts = list(accumulate(words, "{} {}".format))
    ids = encode(texts[-1])
    ends = []
    for word, text in zip(words, texts):
        begun = encode(text)
        if begun != ids[: len(begun)]:
            raise ValueError(
                f"a text token reaches over the end of the word {word!r} in "
                f"{texts[-1]!r:.200}; use a model whose tokenizer parts texts "
                "at their spaces"
            )
        ends.append(len(begun))
    lengths = torch.tensor(ends).diff(prepend=torch.tensor([0]))
    return torch.arange(len(words)).repeat_interleave(lengths)


def check_pooling(pooling: str) -> None:
    """Raise ValueError unless ``pooling`` names one.

    Example
    -------
    >>> check_pooling("min")
    Traceback (most recent call last):
        ...
    ValueError: pooling is one of mean, max, got 'min'
    """
    if pooling not in _REDUCTIONS:
        raise ValueError(
            f"pooling is one of {', '.join(_REDUCTIONS)}, got {pooling!r}"
        )


def pool_words(
    states: Tensor, places: Tensor, count: int, pooling: str = "mean"
) -> Tensor:
    """Return the mean or maximum of hidden states over each word's tokens.

    Arguments
    ---------
    states : Tensor
        Of a layer, shape (batch, tokens, size).
    places : Tensor
        Number of the word of each token, negative where it is of none, shape
        (batch, tokens).
    count : int
        Words of the longest utterance.
    pooling : str
        ``"mean"`` or ``"max"``.

    Returns
    -------
    Tensor
        Shape (batch, count, size); 0 for words without a token.

    Raises
    ------
    ValueError
        If the pooling is unknown.

    Example
    -------
    >>> states = torch.tensor([[[9.0, 9.0], [1.0, 4.0], [3.0, 2.0]]])
    >>> places = torch.tensor([[-1, 0, 0]])
    >>> pool_words(states, places, 2)
    tensor([[[2., 3.],
             [0., 0.]]])
    >>> pool_words(states, places, 1, "max")
    tensor([[[3., 4.]]])
    """
    check_pooling(pooling)
    batch, _, size = states.shape
    # Tokens of no word are pooled, too, behind the words.
    index = places.where(places >= 0, count)
    pooled = states.new_zeros(batch, count + 1, size).scatter_reduce(
        1,
        index.unsqueeze(-1).expand_as(states),
        states,
        _REDUCTIONS[pooling],
        include_self=False,
    )
    return pooled[:, :count]


def pair_weights(words: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much each pair of words weighs among the similarities.

    A word is compared with itself and, all together as much, with the other
    words of its utterance. Where the same word stands elsewhere in the
    utterance, this is no pair. What has no other word is not compared.

    Arguments
    ---------
    words : Tensor
        The same number for the same word, negative for what is not compared,
        shape (batch, words).

    Returns
    -------
    matching, other : Tensor
        Weights, float64, shape (batch, words, words).

    Example
    -------
    >>> matching, other = pair_weights(torch.tensor([[0, 1, 0, 2, -1]]))
    >>> matching[0].diagonal().tolist()
    [1.0, 1.0, 1.0, 1.0, 0.0]
    >>> other[0, 0].tolist()
    [0.0, 0.5, 0.0, 0.5, 0.0]
    """
    there = words >= 0
    pairs = words[:, :, None] != words[:, None]
    pairs &= there[:, :, None] & there[:, None]
    others = pairs.sum(-1)
    other = pairs.double() / others.clamp(min=1).unsqueeze(-1)
    return torch.diag_embed((others > 0).double()), other


def word_similarity(
    speech: Sequence[Tensor],
    text: Sequence[Tensor],
    speech_places: Tensor,
    text_places: Tensor,
    words: Sequence[Sequence[str]],
    pooling: str = "mean",
) -> list[WordSimilarity]:
    """Compare the features of words in speech and in text, layer by layer.

    A word's feature is the mean or the maximum over its tokens. The maximum
    grows with their number, so that words of similar length are alike in any
    model, also in one that knows no speech. A word that has no token in one of
    the two is not compared.

    Source: Nguyen et al., "SpiRit-LM", TACL 2025, figure 6.

    Arguments
    ---------
    speech, text : sequence of Tensor
        Hidden states of each layer, shape (batch, tokens, size).
    speech_places, text_places : Tensor
        Number of the word of each token, negative where it is of none, shape
        (batch, tokens).
    words : sequence of sequence of str
        Of each utterance.
    pooling : str
        As of `pool_words`.

    Returns
    -------
    list of WordSimilarity
        For each utterance.

    Raises
    ------
    ValueError
        If there are not as many layers of speech as of text, or the pooling
        is unknown.

    Example
    -------
    >>> states, places = torch.eye(3)[None], torch.tensor([[-1, 0, 1]])
    >>> word_similarity([states], [states], places, places, [["a", "cat"]])
    [WordSimilarity(matching=[2.0], other=[0.0], words=2)]
    """
    if len(speech) != len(text):
        raise ValueError(
            f"{len(speech)} layers of speech do not go with {len(text)} of "
            "text; both come from the same model"
        )
    numbers = _number(words).to(speech_places.device)
    count = numbers.shape[1]
    for places in (speech_places, text_places):
        numbers = numbers.where(_has_tokens(places, count), -1)
    weights = torch.stack(pair_weights(numbers))
    # One layer at a time: in float32 they are twice as large as the model's.
    sums = [
        _weighted_cosines(
            pool_words(spoken.float(), speech_places, count, pooling),
            pool_words(written.float(), text_places, count, pooling),
            weights,
        )
        for spoken, written in zip(speech, text)
    ]
    matching, other = torch.stack(sums, -1).tolist()
    compared = weights[0].sum((1, 2)).long().tolist()
    return [WordSimilarity(*row) for row in zip(matching, other, compared)]


def mean_similarity(
    utterances: Iterable[WordSimilarity],
) -> dict[str, list[float] | int]:
    """Return the similarities of all utterances; words count alike.

    Arguments
    ---------
    utterances : iterable of WordSimilarity
        Of the same model.

    Returns
    -------
    dict
        ``matching`` and ``other``, in each layer, and ``words``, how many
        were compared.

    Raises
    ------
    ValueError
        If there are none.

    Example
    -------
    >>> mean_similarity([
    ...     WordSimilarity([2.0, 1.0], [1.0, 0.0], 2),
    ...     WordSimilarity([1.0, 0.5], [0.5, 0.0], 1),
    ... ])
    {'matching': [1.0, 0.5], 'other': [0.5, 0.0], 'words': 3}
    """
    compared = [item for item in utterances if item.words]
    words = sum(item.words for item in compared)
    if not words:
        raise ValueError(
            "no word can be compared: none has speech tokens, text tokens and "
            "another word beside it; check the words' times"
        )

    def mean(sums: Iterable[Sequence[float]]) -> list[float]:
        return [math.fsum(layer) / words for layer in zip(*sums)]

    return {
        "matching": mean(item.matching for item in compared),
        "other": mean(item.other for item in compared),
        "words": words,
    }


def _has_tokens(places: Tensor, count: int) -> Tensor:
    """Return which words have a token, shape (batch, count)."""
    words = torch.arange(count, device=places.device)
    return (places.unsqueeze(-1) == words).any(1)


def _number(utterances: Sequence[Sequence[str]]) -> Tensor:
    """Return the same number for the same word, -1 behind the last."""
    numbers: dict[str, int] = {}
    rows = [
        torch.tensor([numbers.setdefault(w, len(numbers)) for w in words])
        for words in utterances
    ]
    return pad_sequence(rows, batch_first=True, padding_value=-1)


def _weighted_cosines(speech: Tensor, text: Tensor, weights: Tensor) -> Tensor:
    """Return sums over pairs of words, shape (weights, batch)."""
    # In float32 a GPU would round them to TF32, which SpeechBrain allows.
    speech, text = (normalize(x.double(), dim=-1) for x in (speech, text))
    return (speech @ text.mT * weights).sum((-2, -1))
