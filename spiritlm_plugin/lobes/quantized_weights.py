"""Linear maps with weights of 16, 8 or 4 bits, for inference.

On a CPU one token at a time is bound by the bytes of the weights, which 8 bits
make four times fewer than float32. The products are PyTorch's own there, those
of torchao on CUDA.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from spiritlm_plugin.lobes.packed_linear import PackedLinear, can_pack
from spiritlm_plugin.utils.arguments import shown

FORMS = ("bf16", "int8", "int4")
# Weights of a row of 4 bits that share a scale and a zero.
GROUP = 32
# Rows of a weight that the product of 4 bits takes at a time.
_INT4_ROWS = 16
_TINY = 1e-30


class HalfLinear(PackedLinear):
    """A linear map of bfloat16, laid out once where the processor has it.

    Arguments
    ---------
    weight : Tensor
        Is rounded; shape (out, in).
    bias : Tensor, optional
        Is rounded; shape (out,).

    Example
    -------
    >>> linear = torch.nn.Linear(64, 32)
    >>> x = torch.randn(2, 64).bfloat16()
    >>> half = HalfLinear(linear.weight, linear.bias)
    >>> torch.allclose(half(x), linear.bfloat16()(x), atol=0.01)
    True
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        bias = None if bias is None else bias.bfloat16()
        super().__init__(weight.bfloat16(), bias)
        self._parts: dict[tuple[int, ...], HalfLinear] = {}

    def take(self, outputs: Tensor) -> HalfLinear:
        """Return the map to some outputs; it is kept for the next time.

        Example
        -------
        >>> half = HalfLinear(torch.randn(32, 64))
        >>> x = torch.randn(1, 64).bfloat16()
        >>> few = half.take(torch.tensor([9, 3]))
        >>> torch.allclose(few(x), half(x)[:, [9, 3]], rtol=0.01)
        True
        """
        key = tuple(outputs.tolist())
        if key not in self._parts:
            bias = None if self.bias is None else self.bias[outputs]
            self._parts[key] = HalfLinear(self.matrix[outputs], bias)
        return self._parts[key]

    def _forget(self) -> None:
        self._parts.clear()
        super()._forget()


class Int8Linear(nn.Module):
    """A linear map of 8-bit weights and 8-bit inputs, on a CPU.

    Weights have a scale for each output, inputs one for each row, so that a
    row's outputs do not depend on what else is in the batch.

    Arguments
    ---------
    weight : Tensor
        Is rounded; shape (out, in).
    bias : Tensor, optional
        Shape (out,).

    Raises
    ------
    ValueError
        If this build of PyTorch has no such product, or gets it wrong.

    Example
    -------
    >>> linear = torch.nn.Linear(64, 32)
    >>> x = torch.randn(2, 64)
    >>> quantized = Int8Linear(linear.weight, linear.bias)
    >>> torch.allclose(quantized(x), linear(x), atol=0.05)
    True
    """

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        self.levels = _int8_levels()
        if not self.levels:
            raise ValueError(
                "int8: this build of PyTorch has no products of 8-bit weights "
                "for this processor (FBGEMM's, x86); give bf16, or leave "
                "quantize out"
            )
        self.columns = weight.shape[1]
        self._parts: dict[tuple[int, ...], Int8Linear] = {}
        self.packed = _packed_int8(weight.detach())
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs, (..., out), for inputs, (..., in), in their type."""
        rows = x.float().reshape(-1, self.columns)
        steps = rows.abs().amax(-1, keepdim=True) / self.levels
        steps.clamp_(min=_TINY)
        inputs = rows * steps.reciprocal()
        y = _int8_product(inputs, self.levels, self.packed).mul_(steps)
        if self.bias is not None:
            y.add_(self.bias)
        return y.view(*x.shape[:-1], y.shape[-1]).to(x.dtype)

    def take(self, outputs: Tensor) -> Int8Linear:
        """Return the map to some outputs; it is kept for the next time.

        Example
        -------
        >>> quantized = Int8Linear(torch.randn(32, 64))
        >>> few, x = quantized.take(torch.tensor([9, 3])), torch.randn(1, 64)
        >>> torch.allclose(few(x), quantized(x)[:, [9, 3]], rtol=1e-4)
        True
        """
        key = tuple(outputs.tolist())
        if key not in self._parts:
            weight, _ = torch.ops.quantized.linear_unpack(self.packed)
            scales = weight.q_per_channel_scales()[outputs].float()
            taken = weight.int_repr()[outputs].float() * scales[:, None]
            bias = None if self.bias is None else self.bias[outputs]
            self._parts[key] = Int8Linear(taken, bias)
        return self._parts[key]

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        # What is packed is no tensor; a model is told by its weights.
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight, _ = torch.ops.quantized.linear_unpack(self.packed)
        destination[f"{prefix}weight"] = weight.int_repr()
        destination[f"{prefix}scales"] = weight.q_per_channel_scales()


class Int4Linear(nn.Module):
    """A linear map of 4-bit weights and bfloat16 inputs, on a CPU.

    Groups of 32 weights of a row share a scale and a zero.

    Arguments
    ---------
    weight : Tensor
        Is rounded; shape (out, in), see `fits_int4`.
    bias : Tensor, optional
        Shape (out,).

    Raises
    ------
    ValueError
        If this build of PyTorch has no such product, or gets it wrong.

    Example
    -------
    >>> linear = torch.nn.Linear(64, 32)
    >>> x = torch.randn(2, 64)
    >>> quantized = Int4Linear(linear.weight, linear.bias)
    >>> torch.allclose(quantized(x), linear(x), atol=0.3)
    True
    """

    packed: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        if not _has_int4():
            raise ValueError(
                "int4: this build of PyTorch has no products of 4-bit weights "
                "for this processor; give int8"
            )
        packed, scales = _packed_int4(weight.detach())
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs, (..., out), for inputs, (..., in), in their type."""
        rows = x.reshape(-1, x.shape[-1]).bfloat16().contiguous()
        # A model that is cast takes its buffers with it.
        y = _int4_product(rows, self.packed, self.scales.bfloat16())
        y = y.view(*x.shape[:-1], y.shape[-1])
        return (y if self.bias is None else y + self.bias).to(x.dtype)


def fits_int4(linear: nn.Linear) -> bool:
    """Tell whether the product of 4-bit weights takes a map of this size.

    Example
    -------
    >>> fits_int4(nn.Linear(64, 32)), fits_int4(nn.Linear(64, 33))
    (True, False)
    """
    columns, rows = linear.in_features, linear.out_features
    return columns % GROUP == 0 and rows % _INT4_ROWS == 0


def quantize_linear_maps(
    model: nn.Module, form: str, head: nn.Module | None = None
) -> None:
    """Keep the weights of a model's linear maps in fewer bits, in place.

    Embeddings, norms and convolutions stay as they are, but for bfloat16.

    Arguments
    ---------
    model : nn.Module
        For inference alone from now on; on a CPU or on CUDA.
    form : str
        ``"bf16"``, of any model, and of all of its weights; ``"int8"``; or
        ``"int4"``, which leaves the head and maps of sizes that do not fit
        with 8 bits.
    head : nn.Module, optional
        The projection to logits. An embedding that is tied to it keeps its
        own weights. On CUDA it stays as it is.

    Raises
    ------
    ValueError
        If there is no such form, the model has no linear maps besides its
        head, or its processor, PyTorch or type of weights no such products.
    ImportError
        If the model is on CUDA and torchao is not installed.

    Example
    -------
    >>> model = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
    >>> quantize_linear_maps(model, "int8")
    >>> type(model[0]).__name__
    'Int8Linear'
    """
    if form not in FORMS:
        raise ValueError(
            f"quantize must be {' or '.join(FORMS)}, got {shown(form)}"
        )
    if form == "bf16":
        _halve(model)
        return
    # Of their own class: others have weights of other kinds.
    maps = {n: m for n, m in model.named_modules() if type(m) is nn.Linear}
    if not any(module is not head for module in maps.values()):
        raise ValueError(
            f"{type(model).__name__} has no linear maps (torch.nn.Linear) "
            "whose weights could be quantized; leave quantize out"
        )
    short = {
        name
        for name, module in maps.items()
        if form == "int4" and module is not head and fits_int4(module)
    }
    device = next(iter(maps.values())).weight.device.type
    if device == "cuda":
        body = {name for name, module in maps.items() if module is not head}
        _quantize_by_torchao(model, body - short, short)
        return
    if device != "cpu":
        raise ValueError(
            f"weights on {device} cannot be quantized; give device cpu or "
            "cuda, or leave quantize out"
        )
    for name, module in maps.items():
        kind = Int4Linear if name in short else Int8Linear
        model.set_submodule(name, kind(module.weight, module.bias))


def _halve(model: nn.Module) -> None:
    """Keep all weights in bfloat16, and lay those of linear maps out once."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # which would have maps laid out again
        # Not buffers: rotary embeddings are computed from some in float32.
        if parameter.is_floating_point():
            parameter.data = parameter.data.bfloat16()
    for name, module in list(model.named_modules()):
        if type(module) is not nn.Linear:
            continue
        if module.weight.device.type == "cpu" and can_pack(torch.bfloat16):
            model.set_submodule(name, HalfLinear(module.weight, module.bias))


def _quantize_by_torchao(
    model: nn.Module, long: set[str], short: set[str]
) -> None:
    """Keep the weights of maps of these names in 8 and in 4 bits."""
    try:
        torchao = import_module("torchao.quantization")
    except ModuleNotFoundError as error:
        raise ImportError(
            "weights are quantized on CUDA by torchao: pip install "
            '"spiritlm_plugin[quantize]"'
        ) from error
    for name in short:
        kind = model.get_submodule(name).weight.dtype
        if kind != torch.bfloat16:
            raise ValueError(
                f"int4 on CUDA needs weights in bfloat16, {name} is of {kind}; "
                'load the language model with dtype "bfloat16", or give int8'
            )
    torchao.quantize_(
        model,
        torchao.Int8WeightOnlyConfig(),
        filter_fn=lambda _, name: name in long,
    )
    if short:
        four = torchao.Int4WeightOnlyConfig(
            group_size=GROUP, int4_packing_format="tile_packed_to_4d"
        )
        torchao.quantize_(model, four, filter_fn=lambda _, name: name in short)
    for name in long | short:
        model.get_submodule(name).register_state_dict_post_hook(_flatten)


def _flatten(
    module: nn.Module, state: dict[str, Any], prefix: str, _: Any
) -> None:
    """Give a weight of torchao as the plain tensors that it consists of."""
    weight = state.pop(f"{prefix}weight")
    for name in weight.__tensor_flatten__()[0]:
        state[f"{prefix}weight.{name}"] = getattr(weight, name)


@contextmanager
def _fbgemm() -> Iterator[None]:
    """Have weights packed for FBGEMM, whatever the caller packs for."""
    own = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        yield
    finally:
        torch.backends.quantized.engine = own


def _packed_int8(weight: Tensor) -> Any:
    """Return what `_int8_product` takes, of (out, in)."""
    weight = weight.float()
    scales = weight.abs().amax(1).clamp(min=_TINY) / 127
    zeros = torch.zeros_like(scales, dtype=torch.int64)
    rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    with _fbgemm():
        return torch.ops.quantized.linear_prepack(rounded, None)


def _int8_product(x: Tensor, levels: int, packed: Any) -> Tensor:
    """Multiply rows, rounded to integers up to so many, by 8-bit weights."""
    return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
        x, 1.0, levels + 1, packed
    )


@cache
def _int8_levels() -> int:
    """Return steps from 0 to the largest input; 0 where there is no product.

    Processors without VNNI add pairs of products in 16 bits, which half as
    many steps do not overflow.
    """
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return 0
    ones = torch.ones(_INT4_ROWS, 4 * GROUP)
    try:
        packed = _packed_int8(ones)
        for levels in (127, 63):
            y = _int8_product(levels * ones[:1], levels, packed)
            if torch.allclose(y, levels * ones.sum(1)):
                return levels
    except (AttributeError, RuntimeError):
        pass  # other builds may lack one of them
    return 0


def _packed_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `_int4_product` takes, of (out, in)."""
    groups = weight.float().unflatten(1, (-1, GROUP))
    least, most = groups.amin(-1), groups.amax(-1)
    steps = ((most - least) / 15).clamp(min=_TINY)
    numbers = ((groups - least[..., None]) / steps[..., None]).round()
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(
        numbers.clamp(0, 15).to(torch.int32).flatten(1), 1
    )
    # Zeros are the value of the number 8.
    scales = torch.stack([steps.T, (least + 8 * steps).T], -1)
    return packed, scales.bfloat16().contiguous()


def _int4_product(x: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
    """Multiply rows of bfloat16 by 4-bit weights."""
    return torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, GROUP, scales)


@cache
def _has_int4() -> bool:
    """Tell whether there is a product of 4-bit weights, and it is right."""
    columns = torch.arange(4 * GROUP) % 16
    rows = torch.arange(_INT4_ROWS)[:, None]
    weight = ((columns + rows) % 16 - 7.0) / 4
    x = torch.eye(4 * GROUP, dtype=torch.bfloat16)
    try:
        y = _int4_product(x, *_packed_int4(weight))
    except (AttributeError, RuntimeError):
        return False  # other builds may lack it
    return torch.allclose(y.float(), weight.T, atol=0.02)
