"""Cross-entropy of a projection, without all of its logits at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Logits at a time: 64 MB of float32.
_LOGITS = 2**24
# The label where nothing is to be predicted.
_NOTHING = -100


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
        needs = ctx.needs_input_grad[:3]
        liger = _liger(hidden.device.type)
        score = _in_parts if liger is None else partial(_by_liger, liger)
        losses, hits, sums = score(hidden, weight, bias, labels, weights, needs)
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


@cache
def _liger(device: str) -> Callable[..., Any] | None:
    """Return Liger's kernels, if they are there and know weights of tokens."""
    if device != "cuda":
        return None
    try:
        from liger_kernel.ops import fused_linear_cross_entropy as liger
    except ModuleNotFoundError:
        return None
    forward = liger.fused_linear_cross_entropy_forward
    knows = "token_grad_output" in signature(forward).parameters
    return forward if knows else None


def _by_liger(
    liger: Callable[..., Any],
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    weights: Tensor,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Return losses, hits and gradients of the weighted loss."""
    losses, _, _, likeliest, *sums = liger(
        hidden,
        weight,
        labels.where(labels >= 0, _NOTHING),
        bias=bias,
        ignore_index=_NOTHING,
        reduction="none",
        accum_dtype=torch.float32,
        return_predicted_tokens=True,
        token_grad_output=weights,
        compute_gradients=any(needs),
        weight_requires_grad=needs[1],
    )
    hits = (likeliest == labels) & (labels >= 0)
    found = [s if wanted else None for s, wanted in zip(sums, needs)]
    return losses, hits, found


def _in_parts(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    weights: Tensor,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Return the same, without kernels."""
    sums: list[Tensor | None] = [
        torch.empty_like(hidden) if needs[0] else None,
        torch.zeros_like(weight, dtype=torch.float32) if needs[1] else None,
        torch.zeros_like(bias, dtype=torch.float32)
        if bias is not None and needs[2]
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
    return losses, hits, sums


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
    twice. On a CUDA device Liger's kernels do it, if `liger_kernel` (0.8.5 or
    newer) is installed. These were compared in Triton's interpreter, and are
    untested on a GPU.

    Source: Hsu et al., "Liger Kernel", 2024, section 3.2.

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
