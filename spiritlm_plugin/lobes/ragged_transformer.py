"""The transformer of HuBERT and wav2vec 2.0 over items of any length.

For inference. All frames of all items are the rows of one matrix, so padding costs
nothing and changes nothing. Attention sees items one by one; on a GPU, in half
precision, one kernel takes them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers.activations import GELUActivation

from spiritlm_plugin.lobes.packed_linear import PackedLinear

# What FlashAttention runs on: GPUs from Ampere on, heads of so many channels.
_KERNEL_SINCE = (8, 0)
_MOST_CHANNELS = 256

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def has_kernel(device: torch.device, dtype: torch.dtype, channels: int) -> bool:
    """Return whether one kernel takes items of any length.

    Arguments
    ---------
    device : torch.device
    dtype : torch.dtype
        Of queries, keys and values.
    channels : int
        Of a head.

    Example
    -------
    >>> has_kernel(torch.device("cpu"), torch.bfloat16, 64)
    False
    """
    return (
        device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and channels % 8 == 0
        and channels <= _MOST_CHANNELS
        and torch.cuda.get_device_capability(device) >= _KERNEL_SINCE
    )


def attend_in_turn(lengths: Sequence[int]) -> Attention:
    """Return attention inside items, of which each is computed by itself.

    Arguments
    ---------
    lengths : sequence of int
        Rows of each item.

    Example
    -------
    >>> query, key, value = torch.randn(3, 5, 2, 4)  # rows, heads, channels
    >>> attend = attend_in_turn([4, 1])
    >>> torch.equal(attend(query, key, value)[4], value[4])
    True
    """

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        items = zip(*(x.split(list(lengths)) for x in (query, key, value)))
        found = [
            F.scaled_dot_product_attention(
                *(x.transpose(0, 1).unsqueeze(0) for x in item)
            )
            for item in items
        ]
        return torch.cat([x.squeeze(0).transpose(0, 1) for x in found])

    return attend


def attend_at_once(lengths: Tensor, longest: int) -> Attention:
    """Return attention inside items by one kernel; see `has_kernel`.

    Arguments
    ---------
    lengths : Tensor
        Rows of each item, on the GPU, shape (batch,).
    longest : int
        No less than the longest of them.
    """
    bounds = F.pad(lengths.cumsum(0), (1, 0)).int()

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        found = varlen_attn(query, key, value, bounds, bounds, longest, longest)
        assert isinstance(found, Tensor)  # and nothing that was not asked for
        return found

    return attend


def run_layers(
    layers: Iterable[Any],
    rows: Tensor,
    attend: Attention,
    dtype: torch.dtype,
) -> Tensor:
    """Return what post-norm layers make of rows.

    Arguments
    ---------
    layers : iterable of nn.Module
        Of transformers' HuBERT or wav2vec 2.0.
    rows : Tensor
        Of float32, shape (rows, hidden).
    attend : callable
        As of `attend_in_turn`.
    dtype : torch.dtype
        Of products and attention. What is added up along the layers stays in
        float32.

    Returns
    -------
    Tensor
        Of float32, shape (rows, hidden).
    """
    for layer in layers:
        attention, feed = layer.attention, layer.feed_forward
        x = rows.to(dtype)
        heads = (len(x), attention.num_heads, attention.head_dim)
        query, key, value = (
            project(x).view(heads)
            for project in (
                attention.q_proj,
                attention.k_proj,
                attention.v_proj,
            )
        )
        x = attention.out_proj(attend(query, key, value).flatten(1))
        rows = layer.layer_norm(rows + x)
        x = run_activated(
            feed.intermediate_dense, feed.intermediate_act_fn, rows.to(dtype)
        )
        rows = layer.final_layer_norm(rows + feed.output_dense(x))
    return rows


def run_activated(
    linear: nn.Module, activation: nn.Module, x: Tensor
) -> Tensor:
    """Return an activation of what a linear map gives, in one where it can be.

    Example
    -------
    >>> x, linear = torch.ones(1, 1), nn.Linear(1, 1).requires_grad_(False)
    >>> packed = PackedLinear(linear.weight, linear.bias)
    >>> gelu = GELUActivation()
    >>> one, other = (run_activated(f, gelu, x) for f in (linear, packed))
    >>> torch.allclose(one, other, atol=1e-6)
    True
    """
    if isinstance(linear, PackedLinear):
        if type(activation) is GELUActivation:
            return linear(x, gelu=True)
    return activation(linear(x))
