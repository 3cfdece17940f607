"""Attention in packed rows, at the price of their documents.

A mask over whole rows computes everything and then hides most of it, since rows are
many times as long as most documents. On a GPU, in half precision, one kernel takes
documents of any length. Elsewhere documents of like length make batches, in which
causal attention needs no mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn

from spiritlm_plugin.lobes.ragged_transformer import has_kernel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The attention's name in the configuration of a model.
BY_DOCUMENT = "sdpa_by_document"
# Padded documents have as many tokens as this, times 1, 1.5, 2, 3, 4, 6, 8, ...,
# no more than a row; but what fills a row, a document a token, stays one token.
_SHORTEST = 32
# On a CPU, gradients of documents shorter than this are two to three times as slow in
# bfloat16 as in float32; tests/benchmarks/benchmark_attention.py.
_SHORT = 192
# Models whose layers learn a mask of their own, beside that of documents.
_OWN_MASKS = {"doge"}


@dataclass
class Documents:
    """Where the documents of packed rows begin and end.

    Arguments
    ---------
    lengths : Tensor
        Of the documents in order, on the CPU, int64, shape (documents,).
    longest : int
        Tokens of a row, and so of a document at most.
    device : torch.device
        Where attention is computed.

    Example
    -------
    >>> documents = Documents.of(torch.tensor([[0, 1, 2, 0, 1, 0]]))
    >>> documents.lengths, documents.bounds
    (tensor([3, 2, 1]), tensor([0, 3, 5, 6], dtype=torch.int32))
    """

    lengths: Tensor
    longest: int
    device: torch.device

    @classmethod
    @torch.compiler.disable
    def of(
        cls, positions: Tensor, device: torch.device | None = None
    ) -> Documents:
        """Return the documents of rows.

        Arguments
        ---------
        positions : Tensor
            Of each token in its document, as of `pack`, shape (rows, size);
            on the CPU, or they are fetched.
        device : torch.device, optional
            By default that of the positions.
        """
        device = device or positions.device
        positions = positions.cpu()
        begins = torch.ones_like(positions, dtype=torch.bool)
        begins[:, 1:] = positions[:, 1:] != positions[:, :-1] + 1
        starts = begins.flatten().nonzero().squeeze(1)
        lengths = starts.diff(append=torch.tensor([positions.numel()]))
        return cls(lengths, positions.shape[1], device)

    @cached_property
    def bounds(self) -> Tensor:
        """Where documents begin and the last one ends, on the device, int32."""
        bounds = F.pad(self.lengths.cumsum(0), (1, 0))
        return bounds.int().to(self.device, non_blocking=True)

    @cached_property
    def batches(self) -> DocumentBatches:
        """Batches of documents of like length."""
        return DocumentBatches.of(self)


@dataclass
class DocumentBatches:
    """Where the tokens of packed rows are in batches of documents.

    Arguments
    ---------
    tokens : Tensor
        Of each place in the batches its token, counted through all rows; any
        token where there is padding. Shape (places,).
    places : Tensor
        Of each token its place, shape (rows * size,).
    padding : Tensor
        The places of padding.
    shapes : list of tuple of int
        Of the batches, in the order of the places: documents, and tokens of
        each.

    Example
    -------
    >>> documents = Documents.of(torch.tensor([[0, 1, 2, 0, 1, 0]]))
    >>> batches = documents.batches
    >>> batches.shapes, batches.places
    ([(1, 1), (2, 6)], tensor([1, 2, 3, 7, 8, 0]))
    """

    tokens: Tensor
    places: Tensor
    padding: Tensor
    shapes: list[tuple[int, int]]

    @classmethod
    def of(cls, documents: Documents) -> DocumentBatches:
        """Return the batches of documents."""
        lengths = documents.lengths
        starts = lengths.cumsum(0) - lengths
        sizes = _sizes(documents.longest)
        classes = torch.bucketize(lengths, torch.tensor(sizes))
        found, masks = [], []
        for number in classes.unique().tolist():
            chosen = classes == number
            steps = torch.arange(min(sizes[number], documents.longest))
            inside = steps < lengths[chosen, None]
            found.append((starts[chosen, None] + steps).where(inside, 0))
            masks.append(inside)
        tokens, real = (
            torch.cat([x.flatten() for x in parts]) for parts in (found, masks)
        )
        places = torch.empty(int(lengths.sum()), dtype=torch.long)
        places[tokens[real]] = real.nonzero().squeeze(1)
        padding = (~real).nonzero().squeeze(1)
        device = documents.device
        return cls(
            tokens.to(device),
            places.to(device),
            padding.to(device),
            [(len(mask), mask.shape[1]) for mask in masks],
        )

    def take(self, states: Tensor) -> list[Tensor]:
        """Return batches of documents, of what packed rows hold.

        Arguments
        ---------
        states : Tensor
            Of each token something, shape (rows, size, ...).

        Returns
        -------
        list of Tensor
            Shapes (documents, tokens, ...).
        """
        found = _Take.apply(
            states.flatten(0, 1), self.tokens, self.places, None
        )
        counts = [number * size for number, size in self.shapes]
        return [
            part.unflatten(0, shape)
            for part, shape in zip(found.split(counts), self.shapes)
        ]

    def give_back(self, batches: Sequence[Tensor], rows: int) -> Tensor:
        """Return packed rows, of what batches of their documents hold.

        Arguments
        ---------
        batches : sequence of Tensor
            As of `take`.
        rows : int
            How many there are.

        Example
        -------
        >>> batches = Documents.of(torch.tensor([[0, 1, 2, 0, 1, 0]])).batches
        >>> ids = torch.tensor([[5, 6, 7, 8, 9, 4]])
        >>> torch.equal(batches.give_back(batches.take(ids), rows=1), ids)
        True
        """
        found = torch.cat([batch.flatten(0, 1) for batch in batches])
        found = _Take.apply(found, self.places, self.tokens, self.padding)
        return found.unflatten(0, (rows, -1))


def _sizes(longest: int) -> list[int]:
    steps = (step << power for power in count() for step in (2, 3))
    sizes = [1, _SHORTEST // 2 * next(steps)]
    while sizes[-1] < longest:
        sizes.append(_SHORTEST // 2 * next(steps))
    return sizes


class _Take(torch.autograd.Function):
    """Rows by index, of which each is taken once or for padding.

    So gradients are taken as well, by the way back, and nothing is added up.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        index: Tensor,
        back: Tensor,
        padding: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(back, padding)
        return rows.index_select(0, index)

    @staticmethod
    def backward(
        ctx: Any, gradients: Tensor
    ) -> tuple[Tensor, None, None, None]:
        back, padding = ctx.saved_tensors
        gradients = gradients.index_select(0, back)
        if padding is not None:
            gradients.index_fill_(0, padding, 0)
        return gradients, None, None, None


@torch.compiler.disable  # shapes change with every batch
def document_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    documents: Documents,
    dropout: float = 0.0,
    scaling: float | None = None,
) -> Tensor:
    """Return what causal attention inside documents sees.

    Arguments
    ---------
    query, key, value : Tensor
        Shape (rows, heads, size, channels); keys and values may have fewer
        heads.
    documents : Documents
        Of the rows.
    dropout : float
        Share of the attention weights that are dropped.
    scaling : float, optional
        Of the products; by default one over the root of the channels.

    Returns
    -------
    Tensor
        Shape (rows, size, heads, channels).

    Example
    -------
    >>> query, key, value = torch.randn(3, 1, 2, 5, 4)
    >>> documents = Documents.of(torch.tensor([[0, 1, 0, 1, 2]]))
    >>> found = document_attention(query, key, value, documents)
    >>> torch.equal(found[:, 2], value[:, :, 2])  # it sees itself alone
    True
    """
    dtype = _half_precision(query)
    if dtype is not None and not dropout:
        return _attend_in_one(
            [states.to(dtype) for states in (query, key, value)],
            documents,
            scaling,
        )
    return _attend_in_batches(
        query, key, value, documents.batches, dropout, scaling
    )


def _half_precision(query: Tensor) -> torch.dtype | None:
    """Return the dtype in which the kernel takes a query, if it does."""
    dtype = _computed_in(query)
    return dtype if has_kernel(query.device, dtype, query.shape[-1]) else None


def _computed_in(query: Tensor) -> torch.dtype:
    """Return the dtype in which attention would see a query."""
    kind = query.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return query.dtype


def _attend_in_one(
    states: Sequence[Tensor], documents: Documents, scaling: float | None
) -> Tensor:
    rows, _, size, _ = states[0].shape
    query, key, value = (x.transpose(1, 2).flatten(0, 1) for x in states)
    bounds = documents.bounds
    found = varlen_attn(
        query,
        key,
        value,
        bounds,
        bounds,
        documents.longest,
        documents.longest,
        scale=scaling,
        window_size=(-1, 0),  # causal
    )
    assert isinstance(found, Tensor)  # and nothing else that was not asked for
    return found.unflatten(0, (rows, size))


def _attend_in_batches(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    documents: DocumentBatches,
    dropout: float,
    scaling: float | None,
) -> Tensor:
    batches = [
        documents.take(states.transpose(1, 2)) for states in (query, key, value)
    ]
    attended = []
    for batch in zip(*batches):
        q, k, v = (x.transpose(1, 2) for x in batch)
        attend = partial(
            F.scaled_dot_product_attention,
            dropout_p=dropout,
            is_causal=True,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        if _is_slow(q):
            with torch.autocast("cpu", enabled=False):
                x = attend(q.float(), k.float(), v.float())
            x = x.to(_computed_in(q))
        else:
            x = attend(q, k, v)
        attended.append(x.transpose(1, 2))
    return documents.give_back(attended, len(query))


def _is_slow(query: Tensor) -> bool:
    """Return whether float32 is faster for documents of this length."""
    on_cpu = query.device.type == "cpu"
    in_half = _computed_in(query).itemsize == 2
    short = query.shape[2] < _SHORT
    return on_cpu and in_half and short and query.requires_grad


def attend_by_document(model: PreTrainedModel) -> None:
    """Let a model attend by `Documents`, where it is called with ``documents``.

    Called without, or in layers that see no more than a window or a chunk, it
    is what it was. A model that does not attend by `scaled_dot_product_attention`, or
    whose attention cannot be changed, stays as it is.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        Any causal LM.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    if (
        model.config._attn_implementation == "sdpa"
        and model._supports_attention_backend
        and model.config.model_type not in _OWN_MASKS
    ):
        attend = partial(_attend, sdpa_attention_forward)
        AttentionInterface.register(BY_DOCUMENT, attend)
        AttentionMaskInterface.register(BY_DOCUMENT, sdpa_mask)
        model.set_attn_implementation(BY_DOCUMENT)


def _attend(
    by_mask: Callable[..., tuple[Tensor, Tensor | None]],
    layer: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    documents: Documents | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend as transformers asks for it, by the mask without documents."""
    windowed = options.get("sliding_window") is not None
    if documents is None or windowed or not _sees_all(layer):
        return by_mask(layer, query, key, value, attention_mask, **options)
    dropout, scaling = options.get("dropout", 0.0), options.get("scaling")
    attended = document_attention(
        query, key, value, documents, dropout, scaling
    )
    return attended, None


def _sees_all(layer: Any) -> bool:
    """Return whether a layer's attention is cut by documents alone."""
    kinds = getattr(getattr(layer, "config", None), "layer_types", None)
    return not kinds or kinds[layer.layer_idx] == "full_attention"
