"""Direct preference optimization: how much a model prefers the better answers."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

# Logits at a time: 64 MB of float32.
_LOGITS = 2**24


def preference_loss(log_ratios: Tensor, beta: float) -> Tensor:
    """Return the loss of pairs of answers.

    Source: Rafailov et al., "Direct Preference Optimization: Your Language
    Model is Secretly a Reward Model", NeurIPS 2023, equation 7.

    Arguments
    ---------
    log_ratios : Tensor
        Log-likelihood of answers, summed over their tokens, less that by the
        model that training started from: of the chosen and of the rejected
        ones, in nats, shape (2, pairs).
    beta : float
        How fast the loss falls as the ratios differ; the more, the less the
        model moves.

    Returns
    -------
    Tensor
        Of each pair, shape (pairs,).

    Example
    -------
    >>> preference_loss(torch.tensor([[0.0, 9.0], [0.0, -9.0]]), beta=0.5)
    tensor([6.9315e-01, 1.2340e-04])
    """
    chosen, rejected = log_ratios
    return -F.logsigmoid(beta * (chosen - rejected))


def answer_log_likelihoods(
    hidden: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    labels: Tensor,
) -> Tensor:
    """Return the log-likelihood of each row's labels, with a gradient.

    Logits are made for some tokens at a time, those of answers alone, and once
    more for their gradients: memory does not grow with tokens times
    vocabulary.

    Arguments
    ---------
    hidden : Tensor
        Last hidden states, shape (rows, tokens, width); or without a weight
        logits, shape (rows, tokens, vocabulary).
    weight, bias : Tensor, optional
        Of the projection to logits, shapes (vocabulary, width) and
        (vocabulary,).
    labels : Tensor
        What follows each token, negative where it does not count, shape
        (rows, tokens).

    Returns
    -------
    Tensor
        In nats, summed over the tokens of a row, float32, shape (rows,).

    Example
    -------
    >>> logits = torch.tensor([[[0.0, 0.0], [5.0, 0.0]]])
    >>> answer_log_likelihoods(logits, None, None, torch.tensor([[1, -100]]))
    tensor([-0.6931])
    """
    rows, places = (labels >= 0).nonzero(as_tuple=True)
    states, targets = hidden[rows, places], labels[rows, places]
    if weight is None:
        found = _token_log_likelihoods(None, bias, states, targets)
    else:
        size = max(_LOGITS // len(weight), 1)
        score = partial(_token_log_likelihoods, weight, bias)
        parts = [
            checkpoint(score, *part, use_reentrant=False)
            for part in zip(states.split(size), targets.split(size))
        ]
        found = torch.cat(parts)
    return found.new_zeros(len(labels)).index_add(0, rows, found)


def _token_log_likelihoods(
    weight: Tensor | None, bias: Tensor | None, states: Tensor, targets: Tensor
) -> Tensor:
    logits = states if weight is None else F.linear(states, weight, bias)
    return -F.cross_entropy(logits.float(), targets, reduction="none")
