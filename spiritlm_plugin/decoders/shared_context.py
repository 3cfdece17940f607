"""Log-likelihoods of continuations, many of which share a context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from inspect import signature
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from spiritlm_plugin.decoders.llama_steps import is_llama
from spiritlm_plugin.decoders.shared_prefix import Group, groups_of_prompts
from spiritlm_plugin.lobes.language_model import LanguageModel, pad_in_front
from spiritlm_plugin.utils.arguments import whole_number


@torch.inference_mode()
def shared_log_likelihood(
    lm: LanguageModel,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    batch_size: int = 16,
) -> Tensor:
    """Return the log-likelihood of each continuation in its context.

    The result is that of `LanguageModel.log_likelihood`; but a context that
    several continuations have goes through the model once, not once for each
    (once in each batch, where they do not fit into one), and what contexts of
    a Llama begin with in common, such as shots, once for all.

    Arguments
    ---------
    lm : LanguageModel
        The model.
    contexts, continuations : sequence of sequences of int
        Token ids; none may be empty.
    batch_size : int
        Continuations to run together.

    Returns
    -------
    Tensor
        Natural logarithms, summed over the tokens of a continuation, float32
        on the CPU, shape (items,).

    Raises
    ------
    ValueError
        If a context or a continuation is empty, an item is longer than the
        model's context, or the lists differ in length.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> sums = shared_log_likelihood(lm, [[1, 2]] * 2, [[3], [4, 5]])
    >>> torch.allclose(
    ...     sums, lm.log_likelihood([[1, 2]] * 2, [[3], [4, 5]]), atol=1e-4
    ... )
    True
    """
    shared = [[*context] for context in contexts]
    own = list(continuations)
    _check(lm, shared, own, batch_size)
    sums = torch.empty(len(own))
    groups = [Group(0, list(range(len(own))))]
    if is_llama(lm):
        groups = groups_of_prompts(shared)
    for length, members in groups:
        prefix = _Prefix(lm, shared[members[0]][:length])
        rest = [shared[i][length:] for i in members]
        targets = [own[i] for i in members]
        for batch in _batches(rest, targets, batch_size):
            sums[[members[i] for i in batch]] = _score(
                lm,
                [rest[i] for i in batch],
                [targets[i] for i in batch],
                prefix,
            )
    return sums


class _Prefix:
    """What contexts begin with, read once.

    Arguments
    ---------
    lm : LanguageModel
        The model.
    ids : list of int
        Also none.
    """

    def __init__(self, lm: LanguageModel, ids: list[int]):
        self.length = len(ids)
        self.config = lm.model.config
        self.cache = DynamicCache(config=self.config)
        if ids:
            lm.model(
                input_ids=torch.tensor([ids], device=lm.device),
                logits_to_keep=1,
                **{_cache_name(lm.model): self.cache},
            )

    def cache_of(self, rows: int) -> DynamicCache:
        """Return a cache that holds it in each of so many rows."""
        cache = DynamicCache(config=self.config)
        if self.length:
            layers = cast("list[DynamicLayer]", self.cache.layers)
            for number, layer in enumerate(layers):
                assert layer.keys is not None and layer.values is not None
                cache.update(
                    layer.keys.expand(rows, -1, -1, -1),
                    layer.values.expand(rows, -1, -1, -1),
                    number,
                )
        return cache


def _check(
    lm: LanguageModel,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    batch_size: int,
) -> None:
    if len(contexts) != len(continuations):
        raise ValueError(
            f"{len(contexts)} contexts and {len(continuations)} continuations: "
            "give one for each"
        )
    whole_number("batch_size", batch_size)
    for index, (context, continuation) in enumerate(
        zip(contexts, continuations)
    ):
        if not len(context) or not len(continuation):
            raise ValueError(
                f"item {index} has {len(context)} tokens of context and "
                f"{len(continuation)} of continuation; it needs one of each"
            )
        lm.check_lengths([[*context, *continuation]])


def _batches(
    contexts: Sequence[list[int]],
    continuations: Sequence[Sequence[int]],
    size: int,
) -> Iterator[list[int]]:
    """Yield items of similar length, those that share a context together."""
    order = sorted(
        range(len(contexts)),
        key=lambda i: (len(contexts[i]), contexts[i], len(continuations[i])),
    )
    batch: list[int] = []
    for _, same in groupby(order, key=lambda i: contexts[i]):
        group = list(same)
        if batch and len(batch) + len(group) > size:
            yield batch
            batch = []
        batch += group
        while len(batch) > size:
            yield batch[:size]
            batch = batch[size:]
    if batch:
        yield batch


def _score(
    lm: LanguageModel,
    contexts: Sequence[list[int]],
    continuations: Sequence[Sequence[int]],
    prefix: _Prefix,
) -> Tensor:
    """Score a batch: contexts first, then the continuations on top."""
    places: dict[tuple[int, ...], int] = {}
    rows = [places.setdefault(tuple(c), len(places)) for c in contexts]
    row = torch.tensor(rows, device=lm.device)
    ids, mask = pad_in_front([*places], lm.vocabulary.eos_id)
    mask = F.pad(mask.to(lm.device), (prefix.length, 0), value=True)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = prefix.cache_of(len(places))
    with_cache = {_cache_name(lm.model): cache}
    logits = lm.model(
        input_ids=ids.to(lm.device),
        attention_mask=mask,
        position_ids=positions[:, prefix.length :],
        logits_to_keep=1,
        **with_cache,
    ).logits[row]
    targets, is_target = _pad_behind(continuations)
    targets, is_target = targets.to(lm.device), is_target.to(lm.device)
    if targets.shape[1] > 1:
        cache.batch_select_indices(row)
        mask = mask[row]
        begins = mask.sum(1, keepdim=True)
        steps = torch.arange(targets.shape[1] - 1, device=lm.device)
        following = lm.model(
            input_ids=targets[:, :-1],
            attention_mask=torch.cat([mask, is_target[:, :-1]], 1),
            position_ids=begins + steps,
            **with_cache,
        ).logits
        logits = torch.cat([logits, following], 1)
    scores = logits.float().log_softmax(-1)
    scores = scores.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return scores.masked_fill(~is_target, 0.0).sum(1).cpu()


def _cache_name(model: nn.Module) -> str:
    """Return what a model calls its cache: transformers has renamed it."""
    names = signature(model.forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def _pad_behind(items: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Batch token ids of unequal length, and where there are any."""
    sequences = [torch.tensor(list(item)) for item in items]
    lengths = torch.tensor([len(item) for item in items])
    ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]
