"""Cross-entropy of a projection, without all of its logits at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Logits at a time: 64 MB of float32.
_LOGITS = 2**24


class Scores(NamedTuple):
    """What is known of the tokens that were to be predicted.

    Arguments
    ---------
    loss : Tensor
        Weighted and summed over tokens, with a gradient; shape ().
    losses : Tensor
        Of each token in nats, 0 where nothing is predicted; float32, shape
        (tokens,).
    hits : Tensor
        Whether the token is the likeliest; shape (tokens,).
    """

    loss: Tensor
    losses: Tensor
    hits: Tensor


class _LinearCrossEntropy(torch.autograd.Function):
    """Makes gradients where it makes logits, and keeps neither of these."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        needs_hidden, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        sums: list[Tensor | None] = [
            torch.empty_like(hidden) if needs_hidden else None,
            torch.zeros_like(weight, dtype=torch.float32)
            if needs_weight
            else None,
            torch.zeros_like(bias, dtype=torch.float32)
            if bias is not None and needs_bias
            else None,
        ]
        losses = hidden.new_empty(len(hidden), dtype=torch.float32)
        hits = hidden.new_empty(len(hidden), dtype=torch.bool)
        size = max(_LOGITS // len(weight), 1)
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            _score(
                *(hidden[part], weight, bias, labels[part], weights[part]),
                *(losses[part], hits[part]),
                None if sums[0] is None else sums[0][part],
                *sums[1:],
            )
        ctx.sums = [
            None if found is None or kind is None else found.to(kind.dtype)
            for found, kind in zip(sums, (hidden, weight, bias))
        ]
        ctx.mark_non_differentiable(losses, hits)
        return (losses * weights).sum(), losses, hits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [s if s is None else s.mul_(gradients[0]) for s in ctx.sums]
        return (*scaled, None, None)


def _score(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    weights: Tensor,
    losses: Tensor,
    hits: Tensor,
    of_hidden: Tensor | None,
    of_weight: Tensor | None,
    of_bias: Tensor | None,
) -> None:
    """Fill in the losses and hits of some tokens, and add up gradients."""
    logits = F.linear(hidden, weight, bias).float()
    predicted = labels >= 0
    places = labels.clamp(min=0)[:, None]
    hits.copy_(logits.argmax(-1) == labels)
    total = logits.logsumexp(-1)
    right = logits.gather(-1, places).squeeze(-1)
    losses.copy_((total - right) * predicted)
    if of_hidden is None and of_weight is None:
        return
    # Of the logits: probabilities, less one where the right token is.
    slopes = logits.sub_(total[:, None]).exp_()
    slopes.scatter_add_(-1, places, slopes.new_full(places.shape, -1.0))
    slopes *= (weights * predicted)[:, None]
    if of_bias is not None:
        of_bias += slopes.sum(0)
    slopes = slopes.to(hidden.dtype)
    if of_hidden is not None:
        of_hidden.copy_(slopes @ weight)
    if of_weight is not None:
        if slopes.dtype == of_weight.dtype:
            of_weight.addmm_(slopes.T, hidden)
        else:
            of_weight += slopes.T @ hidden


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    weights: Tensor,
) -> Scores:
    """Return the cross-entropy of ``hidden @ weight.T + bias``.

    Logits are made for some tokens at a time, and their gradients right then:
    memory does not grow with tokens times vocabulary, and nothing is computed
    twice.

    Source: Hsu et al., "Liger Kernel", 2024, section 3.2, without its kernels.

    Arguments
    ---------
    hidden : Tensor
        Last hidden states, shape (tokens, width).
    weight, bias : Tensor
        Of the projection, shapes (vocabulary, width) and (vocabulary,); or no
        bias.
    labels : Tensor
        What is to be predicted, negative where nothing is; shape (tokens,).
    weights : Tensor
        Of each token in the loss, float32, shape (tokens,).

    Example
    -------
    >>> hidden, weight = torch.eye(2), torch.tensor([[5.0, 0.0], [0.0, 5.0]])
    >>> scores = linear_cross_entropy(
    ...     hidden, weight, None, torch.tensor([0, -100]), torch.ones(2)
    ... )
    >>> round(float(scores.loss), 4), scores.hits.tolist()
    (0.0067, [True, False])
    """
    return Scores(
        *_LinearCrossEntropy.apply(hidden, weight, bias, labels, weights)
    )


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Scores:
    """Return the same of logits that are there.

    Arguments
    ---------
    logits : Tensor
        Shape (tokens, vocabulary).
    labels, weights : Tensor
        As of `linear_cross_entropy`.

    Example
    -------
    >>> scores = cross_entropy(
    ...     torch.tensor([[5.0, 0.0]]), torch.tensor([0]), torch.ones(1)
    ... )
    >>> round(float(scores.loss), 4), scores.hits.tolist()
    (0.0067, [True])
    """
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    with torch.no_grad():
        hits = logits.argmax(-1) == labels
    return Scores((losses * weights).sum(), losses.detach(), hits)
