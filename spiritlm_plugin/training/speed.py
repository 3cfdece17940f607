"""How fast a training is, and what it waits for."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

# Products and sums a second in bfloat16, without sparsity, as their makers say;
# the first name that is in the device's.
_PEAKS = {
    "H200": 989.4e12,
    "H100 PCIe": 756e12,
    "H100": 989.4e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165.2e12,
    "V100": 125e12,
}


class Speedometer:
    """Measures a training while it runs.

    Arguments
    ---------
    device : torch.device or str
        Where it runs.

    Example
    -------
    >>> speed = Speedometer("cpu")
    >>> batches = list(speed.watch([1, 2, 3]))
    >>> speed.count(tokens=1000, operations=1e9)
    >>> sorted(speed.read())
    ['memory_GB', 'tokens_per_second', 'waiting']
    """

    def __init__(self, device: torch.device | str):
        self.device = torch.device(device)
        self.reset()

    def reset(self) -> None:
        """Begin to measure."""
        self._start = time.perf_counter()
        self._waited = self._operations = 0.0
        self._counts: dict[str, float] = {}

    def watch(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield batches, and measure how long they take to come."""
        iterator = iter(batches)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - asked
            yield batch

    def count(self, operations: float = 0.0, **counts: float) -> None:
        """Count what a batch holds, such as tokens, on this process.

        Arguments
        ---------
        operations : float
            Products and sums that it takes, both directions.
        **counts : float
            By what they are called.
        """
        self._operations += operations
        for name, value in counts.items():
            self._counts[name] = self._counts.get(name, 0.0) + value

    def read(self) -> dict[str, float]:
        """Return the figures since the last time, and begin again.

        Returns
        -------
        dict
            What was counted a second, of all processes if they count alike;
            ``waiting``, the share of time that this process waited for data;
            ``memory_GB``, the most that was held; and ``mfu``, the share of
            the device's peak in bfloat16 that the operations are, of devices
            whose peak is known.
        """
        seconds = time.perf_counter() - self._start
        processes = dist.get_world_size() if dist.is_initialized() else 1
        figures = {
            f"{name}_per_second": processes * count / seconds
            for name, count in self._counts.items()
        }
        peak = _peak(self.device)
        if peak and self._operations:
            figures["mfu"] = self._operations / seconds / peak
        figures["waiting"] = self._waited / seconds
        figures["memory_GB"] = _memory(self.device) / 1e9
        self.reset()
        return figures


def _peak(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for n, peak in _PEAKS.items() if n in name), None)


def _memory(device: torch.device) -> float:
    """Return the most bytes that were held, and begin again on a GPU."""
    if device.type == "cuda":
        held = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return held
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def operations_of(model: nn.Module) -> tuple[float, float]:
    """Return the products and sums of a decoder, in both directions.

    Source: Chowdhery et al., "PaLM", 2022, appendix B; attention counted over
    what tokens do attend to.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        The decoder.

    Returns
    -------
    of_token : float
        For each token, by the weights.
    of_pair : float
        For each token that a token attends to, itself among them.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "base").mods.language_model
    >>> of_token, of_pair = operations_of(lm.model)
    >>> of_token > of_pair > 0
    True
    """
    looked_up = model.get_input_embeddings().weight  # type: ignore[operator]
    head = model.get_output_embeddings().weight  # type: ignore[operator]
    weights = sum(w.numel() for w in model.parameters())
    if looked_up is not head:
        weights -= looked_up.numel()
    whole: Any = model.config
    config = whole.get_text_config()
    return 6 * weights, 12 * config.num_hidden_layers * config.hidden_size
