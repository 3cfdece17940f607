"""Linear maps and convolutions whose weights oneDNN has laid out once.

The libraries that PyTorch multiplies by lay a matrix out for the processor each
time that they meet it. Here that is done once, which saves up to a quarter of the
time of inference on a CPU; the arithmetic is the same. A convolution reads its
windows as the rows of a matrix. All of PyTorch's internal operations that this
takes are in this file; where they are not there, or where weights live on another
device, the plain forms run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ONEDNN = torch.ops.mkldnn
_INTEGERS = torch.ops.onednn
# About as many rows as there will be; with others it costs little more.
_ROWS = 512
_MOST = 127  # of an integer of 8 bits
_MIDDLE = 128  # of one without a sign; with signs there is no quick product
_LEAST = 1e-20  # of a scale, which is divided by


@cache
def can_pack(dtype: torch.dtype = torch.float32) -> bool:
    """Return whether weights can be packed here, and multiply right.

    That depends on the processor and on the build of PyTorch alone.

    Example
    -------
    >>> isinstance(can_pack(), bool)
    True
    """
    if not torch.backends.mkldnn.is_available():
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return False
    if dtype == torch.float32:
        return _multiplies(dtype)
    # Elsewhere bfloat16 is emulated.
    return dtype == torch.bfloat16 and has_bfloat16() and _multiplies(dtype)


def has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16."""
    try:
        return bool(_ONEDNN._is_mkldnn_bf16_supported())
    except AttributeError:
        return False


def _multiplies(dtype: torch.dtype) -> bool:
    """Return whether packed weights give what plain ones do."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(*shape, generator=generator)
        for shape in ((5, 8), (3, 8), (3,))
    )
    with torch.autocast("cpu", enabled=False):
        expected = F.gelu(F.linear(x, weight, bias))
        x, weight, bias = (part.to(dtype) for part in (x, weight, bias))
        try:
            packed = _pack(weight)
            found = _multiply(x, packed, bias, gelu=True)
            returned = packed.to_dense()
        except (AttributeError, NotImplementedError, RuntimeError):
            return False
    atol = 1e-5 if dtype == torch.float32 else 0.1
    right = torch.allclose(found.float(), expected, atol=atol)
    return right and torch.equal(returned, weight)


def _pack(weight: Tensor) -> Tensor:
    return _ONEDNN._reorder_linear_weight(weight.contiguous(), _ROWS)


def _multiply(
    x: Tensor, packed: Tensor, bias: Tensor | None, gelu: bool
) -> Tensor:
    """Return x times a packed matrix, or the exact GELU of it."""
    name, algorithm = ("gelu", "none") if gelu else ("none", "")
    return _ONEDNN._linear_pointwise(x, packed, bias, name, [], algorithm)


@cache
def can_quantize() -> bool:
    """Return whether the processor multiplies integers of 8 bits, exactly.

    Without such an instruction sums of products may saturate.

    Example
    -------
    >>> isinstance(can_quantize(), bool)
    True
    """
    generator = torch.Generator().manual_seed(0)
    x, matrix = (
        torch.randint(-_MOST, _MOST + 1, shape, generator=generator)
        for shape in ((40, 64), (32, 64))
    )
    matrix[:, 0], x[:, :2] = _MOST, torch.tensor([_MOST, -_MOST])
    try:
        if not torch.cpu._is_vnni_supported():
            return False
        # Scales of 1, so that nothing is rounded.
        found = _Integers.of(matrix).multiply(x.float(), None, False)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return torch.equal(found.long(), x @ matrix.T)


class _Integers(NamedTuple):
    """Weights of 8 bits, laid out by oneDNN, with a scale for each output.

    What they multiply is brought to 8 bits row by row, between the row's least
    and largest number, so that no row depends on the others.
    """

    weight: Tensor
    scales: Tensor  # (out,)
    zeros: Tensor  # (out,)
    sums: Tensor  # of what the weights stand for, (out,)

    @classmethod
    def of(cls, matrix: Tensor) -> _Integers:
        matrix = matrix.float()
        scales = matrix.abs().amax(1).clamp(min=_LEAST) / _MOST
        integers = (matrix / scales[:, None]).round_().to(torch.int8)
        sums = integers.sum(1) * scales
        weight = _INTEGERS.qlinear_prepack(
            integers.contiguous(), [_ROWS, matrix.shape[1]]
        )
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        return cls(weight, scales, zeros, sums)

    def multiply(self, x: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
        rows = x.float()
        least, largest = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
        steps = ((largest - least) / (2 * _MOST)).clamp(min=_LEAST)
        middle = (largest + least) / 2
        y: Tensor = _INTEGERS.qlinear_pointwise(
            _to_bytes(rows, middle, 1 / steps),
            1.0,
            _MIDDLE,
            *self[:3],
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        shift = middle * self.sums
        if bias is not None:
            shift += bias
        y = torch.addcmul(shift, y, steps, out=y)
        return (torch.ops.aten.gelu_(y) if gelu else y).to(x.dtype)


def _to_bytes(x: Tensor, middle: Tensor, scale: Tensor) -> Tensor:
    """Return numbers from -127 to 127, rounded, with 128 added."""
    # What is cut off is rounded by a half more.
    return torch.addcmul(_MIDDLE + 0.5 - middle * scale, x, scale).byte()


class PackedLinear(nn.Module):
    """A linear map for inference, with weights that are packed on a CPU.

    It is saved, loaded, copied and moved as `torch.nn.Linear` is. Packed
    weights are not parameters; where a gradient is wanted they are laid out
    plainly again, for good.

    Arguments
    ---------
    weight : Tensor
        Shape (out, in).
    bias : Tensor or None
        Shape (out,).

    Example
    -------
    >>> linear = nn.Linear(3, 4).requires_grad_(False)
    >>> packed = PackedLinear(linear.weight, linear.bias)
    >>> x = torch.randn(2, 5, 3)
    >>> torch.allclose(packed(x), linear(x), atol=1e-6)
    True
    >>> torch.equal(packed.state_dict()["weight"], linear.weight)
    True
    """

    bias: nn.Parameter | None

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        if bias is not None:
            bias = nn.Parameter(bias.detach(), requires_grad=False)
        self.register_parameter("bias", bias)
        self._matrix = self._laid_out(weight.detach())
        self._others: dict[torch.dtype, tuple[Tensor, Tensor | None]] = {}
        self._integers: _Integers | None = None
        self.eval()

    @classmethod
    def replace_all(cls, module: nn.Module) -> None:
        """Replace every linear map below a module."""
        for parent in list(module.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear:
                    setattr(parent, name, cls(child.weight, child.bias))

    def quantize(self) -> None:
        """Multiply in 8 bits from now on, where that can be done.

        The weights that are saved stay what they are.
        """
        if can_quantize() and self._matrix.is_mkldnn:
            self._integers = _Integers.of(self.matrix)

    @property
    def quantized(self) -> bool:
        """Whether it multiplies in 8 bits."""
        return self._integers is not None

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """Return what the map makes of (..., in), in the type of its input.

        Arguments
        ---------
        x : Tensor
            Of float32 or bfloat16, shape (..., in).
        gelu : bool
            Whether to return the GELU of that.

        Returns
        -------
        Tensor
            Shape (..., out).
        """
        if x.requires_grad:
            self._matrix, self._integers = self.matrix, None
        if not self._matrix.is_mkldnn:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            y = F.linear(x, self._matrix.to(x.dtype), bias)
            return F.gelu(y) if gelu else y
        if self._integers is not None:
            y = self._integers.multiply(
                x.reshape(-1, self.in_features), self.bias, gelu
            )
            return y.view(*x.shape[:-1], self.out_features)
        if x.dtype == self._matrix.dtype:
            return _multiply(x, self._matrix, self.bias, gelu)
        if x.dtype not in self._others:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            self._others[x.dtype] = _pack(self.matrix.to(x.dtype)), bias
        return _multiply(x, *self._others[x.dtype], gelu)

    @property
    def matrix(self) -> Tensor:
        """The weights, laid out plainly, shape (out, in)."""
        matrix = self._matrix
        return matrix.to_dense() if matrix.is_mkldnn else matrix

    @property
    def weight(self) -> Tensor:
        """The weights in the shape in which they are saved."""
        return self._to_saved(self.matrix)

    def _to_saved(self, matrix: Tensor) -> Tensor:
        return matrix

    def _from_saved(self, weight: Tensor) -> Tensor:
        return weight

    @staticmethod
    def _laid_out(matrix: Tensor) -> Tensor:
        if matrix.device.type == "cpu" and can_pack(matrix.dtype):
            return _pack(matrix)
        return matrix

    def _set(self, matrix: Tensor) -> None:
        """Take other weights, in the form of those that there are."""
        quantized = self._integers is not None
        self._matrix, self._integers = self._laid_out(matrix), None
        if quantized:
            self.quantize()

    def _forget(self) -> None:
        """Forget what is made of weights and biases."""
        self._others.clear()

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> PackedLinear:
        self._forget()
        self._set(fn(self.matrix))
        return super()._apply(fn, recurse)

    def _save_to_state_dict(
        self, destination: Any, prefix: str, keep_vars: bool
    ) -> None:
        destination[prefix + "weight"] = self.weight.contiguous()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        self._forget()
        name = prefix + "weight"
        weight = state_dict.pop(name, None)
        own = self.weight
        if weight is None:
            missing_keys.append(name)
        elif weight.shape != own.shape:
            error_msgs.append(
                f"size mismatch for {name}: {tuple(weight.shape)}, not "
                f"{tuple(own.shape)}"
            )
        else:
            matrix = self._from_saved(weight.to(own))
            self._set(matrix.clone())
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )

    def __getstate__(self) -> dict[str, Any]:
        # Packed tensors can be neither pickled nor copied.
        return {
            **self.__dict__,
            "_matrix": self.matrix,
            "_others": {},
            "_integers": self.quantized,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        quantized = state.pop("_integers")
        super().__setstate__(state)
        self._integers = None
        self._matrix = self._laid_out(self._matrix)
        if quantized:
            self.quantize()


class PackedConv1d(PackedLinear):
    """A convolution for inference: a linear map of the windows that it reads.

    Arguments
    ---------
    conv : torch.nn.Conv1d
        Without padding, dilation or groups.

    Raises
    ------
    ValueError
        If it has them.

    Example
    -------
    >>> conv = nn.Conv1d(3, 4, 5, stride=2).requires_grad_(False)
    >>> x = torch.randn(11, 3)
    >>> y = PackedConv1d(conv)(x)
    >>> torch.allclose(y, conv(x.T).T, atol=1e-6)
    True
    """

    def __init__(self, conv: nn.Conv1d):
        if (conv.padding, conv.dilation, conv.groups) != ((0,), (1,), 1):
            raise ValueError(
                f"{conv} has padding, dilation or groups; only a convolution "
                "without them can be packed"
            )
        self._channels = conv.in_channels
        self.kernel_size, self.stride = conv.kernel_size, conv.stride
        self.padding, self.dilation, self.groups = (0,), (1,), 1
        super().__init__(self._from_saved(conv.weight), conv.bias)

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        """Return what the convolution makes of one item.

        Arguments
        ---------
        x : Tensor
            Of float32 or bfloat16, shape (frames, channels).
        gelu : bool
            Whether to return the GELU of that.

        Returns
        -------
        Tensor
            Shape (frames, channels).
        """
        [kernel], [stride] = self.kernel_size, self.stride
        frames = (len(x) - kernel) // stride + 1
        size = (frames, self.in_features)
        strides = (stride * self._channels, 1)
        windows = x.contiguous().as_strided(size, strides)
        return super().forward(windows, gelu)

    def _to_saved(self, matrix: Tensor) -> Tensor:
        shape = (self.out_features, -1, self._channels)
        return matrix.view(shape).transpose(1, 2)

    def _from_saved(self, weight: Tensor) -> Tensor:
        return weight.transpose(1, 2).flatten(1)
