"""Attention in packed rows, at the price of their documents.

A mask over whole rows computes everything and then hides most of it, since rows are
many times as long as most documents. Here documents of like length make batches, in
which causal attention needs no mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The attention's name in the configuration of a model.
BY_DOCUMENT = "sdpa_by_document"
# Padded documents have as many tokens as this, times 1, 1.5, 2, 3, 4, 6, 8, ...;
# but what fills a row, a document a token, stays one token.
_SHORTEST = 32


@dataclass
class Documents:
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
    >>> documents.shapes, documents.places
    ([(1, 1), (2, 32)], tensor([ 1,  2,  3, 33, 34,  0]))
    """

    tokens: Tensor
    places: Tensor
    padding: Tensor
    shapes: list[tuple[int, int]]

    @classmethod
    @torch.compiler.disable
    def of(cls, positions: Tensor) -> Documents:
        """Return the documents of rows.

        Arguments
        ---------
        positions : Tensor
            Of each token in its document, as of `pack`, shape (rows, size).
        """
        device, positions = positions.device, positions.cpu()
        begins = torch.ones_like(positions, dtype=torch.bool)
        begins[:, 1:] = positions[:, 1:] != positions[:, :-1] + 1
        starts = begins.flatten().nonzero().squeeze(1)
        lengths = starts.diff(append=torch.tensor([positions.numel()]))
        sizes = _sizes(positions.shape[1])
        classes = torch.bucketize(lengths, torch.tensor(sizes))
        tokens, real, shapes = [], [], []
        for number in classes.unique().tolist():
            chosen = classes == number
            steps = torch.arange(sizes[number])
            inside = steps < lengths[chosen, None]
            tokens.append((starts[chosen, None] + steps).where(inside, 0))
            real.append(inside)
            shapes.append(tuple(inside.shape))
        tokens, real = (
            torch.cat([x.flatten() for x in parts]) for parts in (tokens, real)
        )
        places = torch.empty(positions.numel(), dtype=torch.long)
        places[tokens[real]] = real.nonzero().squeeze(1)
        indices = (tokens, places, (~real).nonzero().squeeze(1))
        return cls(*(x.to(device) for x in indices), shapes)


def _sizes(longest: int) -> list[int]:
    sizes = [1]
    for power in count():
        for size in (2 << power, 3 << power):
            sizes.append(_SHORTEST // 2 * size)
            if sizes[-1] >= longest:
                return sizes


class _Take(torch.autograd.Function):
    """Rows by index, of which each is taken once or for padding.

    So gradients are taken as well, by the way back, and nothing is added up.
    """

    @staticmethod
    def forward(ctx, rows, index, back, padding):
        ctx.save_for_backward(back, padding)
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx, gradients):
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
    tokens, places = documents.tokens, documents.places
    counts = [number * size for number, size in documents.shapes]
    batches = [
        _Take.apply(
            states.transpose(1, 2).flatten(0, 1), tokens, places, None
        ).split(counts)
        for states in (query, key, value)
    ]
    attended = [
        F.scaled_dot_product_attention(
            *(states.unflatten(0, shape).transpose(1, 2) for states in batch),
            dropout_p=dropout,
            is_causal=True,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        for shape, *batch in zip(documents.shapes, *batches)
    ]
    found = torch.cat([x.transpose(1, 2).flatten(0, 1) for x in attended])
    found = _Take.apply(found, places, tokens, documents.padding)
    return found.unflatten(0, (len(query), -1))


def attend_by_document(model: nn.Module) -> None:
    """Let a model attend by `Documents`, where it is called with ``documents``.

    Called without, or in layers that see no more than a window, it is what it
    was. A model that does not attend by `scaled_dot_product_attention`, or
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
    ):
        attend = partial(_attend, sdpa_attention_forward)
        AttentionInterface.register(BY_DOCUMENT, attend)
        AttentionMaskInterface.register(BY_DOCUMENT, sdpa_mask)
        model.set_attn_implementation(BY_DOCUMENT)


def _attend(by_mask, layer, *states_and_mask, documents=None, **options):
    """Attend as transformers asks for it, by the mask without documents."""
    if documents is None or options.get("sliding_window") is not None:
        return by_mask(layer, *states_and_mask, **options)
    *states, _ = states_and_mask
    dropout, scaling = options.get("dropout", 0.0), options.get("scaling")
    return document_attention(*states, documents, dropout, scaling), None
