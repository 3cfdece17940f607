"""Networks on the device and in the precision that a run asks for."""

from __future__ import annotations

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

    Until then it can be sent to other machines.

    Arguments
    ---------
    network : nn.Module
        Takes what it is given to its own device.
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
        network: nn.Module,
        device: str | None = None,
        precision: str = "fp32",
    ):
        if precision not in _PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(_PRECISIONS)}, got "
                f"{precision!r}"
            )
        self.network = network
        self.device = device
        self.dtype = _PRECISIONS[precision]
        self._place: torch.device | None = None

    @torch.inference_mode()
    def __call__(self, *arguments: Any) -> Any:
        """Return what the network gives."""
        if self._place is None:
            self._place = torch.device(self.device or infer_device())
            self.network.to(self._place)
        lower = self.dtype != torch.float32
        with torch.autocast(self._place.type, self.dtype, enabled=lower):
            return self.network(*arguments)
