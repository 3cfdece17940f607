"""Networks on the device and in the precision that a run asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from speechbrain.utils.distributed import infer_device
from torch import nn

_PRECISIONS = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class Placed:
    """A network without gradients, which goes to its device when it is used.

    It can be sent to other machines.

    Arguments
    ---------
    network : nn.Module or callable
        Takes what it is given to its own device; or a function that makes it,
        which is sent in its place: networks with parametrizations, such as
        HuBERT, cannot be.
    device : str, optional
        None is the GPU of the process, where there is one.
    precision : str
        "fp32", "bf16" or "fp16", of `torch.autocast`.

    Raises
    ------
    ValueError
        If the precision is another.

    Example
    -------
    >>> double = Placed(torch.nn.Linear(2, 2), "cpu", "bf16")
    >>> double(torch.ones(2)).dtype
    torch.bfloat16
    """

    def __init__(
        self,
        network: nn.Module | Callable[[], nn.Module],
        device: str | None = None,
        precision: str = "fp32",
    ):
        if precision not in _PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(_PRECISIONS)}, got "
                f"{precision!r}"
            )
        self._make = None if isinstance(network, nn.Module) else network
        self._network = network if isinstance(network, nn.Module) else None
        self.device = device
        self.dtype = _PRECISIONS[precision]
        self._place: torch.device | None = None

    @property
    def network(self) -> nn.Module:
        """The network; it is made when it is asked for."""
        if self._network is None:
            assert self._make is not None  # there is one or the other
            self._network = self._make()
        return self._network

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to another process."""
        network = self._network if self._make is None else None
        return vars(self) | {"_network": network, "_place": None}

    @torch.inference_mode()
    def __call__(self, *arguments: Any) -> Any:
        """Return what the network gives."""
        if self._place is None:
            self._place = torch.device(self.device or infer_device())
            self.network.to(self._place)
        lower = self.dtype != torch.float32
        with torch.autocast(self._place.type, self.dtype, enabled=lower):
            return self.network(*arguments)
