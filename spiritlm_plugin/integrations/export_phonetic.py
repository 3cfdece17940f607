"""Trained phonetic quantizers in the form of the released one."""

from __future__ import annotations

from pathlib import Path

import torch

from spiritlm_plugin.lobes.phonetic import LinearQuantizer
from spiritlm_plugin.utils.files import writing


def export_quantizer(path: str | Path, quantizer: LinearQuantizer) -> None:
    """Write a linear quantizer as the released ``L11_quantizer_500.pt``.

    Arguments
    ---------
    path : str or Path
        The file.
    quantizer : LinearQuantizer
        With the hidden widths of `LinearQuantizer.released_dims`, which the
        form does not state.

    Raises
    ------
    ValueError
        If it has other widths.

    Example
    -------
    >>> dims = LinearQuantizer.released_dims(16, 50)
    >>> export_quantizer(tmp / "quantizer.pt", LinearQuantizer(16, 50, dims))
    >>> torch.load(tmp / "quantizer.pt")["model_cfg"]
    {'vocab_size': 50, 'dim': 16, 'upstream_dim': 16}
    """
    layers, units = quantizer.layers, quantizer.units
    first, second = (layers[i].get_parameter("weight") for i in (0, 2))
    dim, dims = first.shape[1], (len(first), len(second))
    expected = LinearQuantizer.released_dims(dim, units)
    if dims != expected:
        raise ValueError(
            f"the released form implies hidden widths of {expected}, got "
            f"{dims}; train with those"
        )
    content = {
        "model_cfg": {"vocab_size": units, "dim": dim, "upstream_dim": dim},
        "model_weight": {k: v.cpu() for k, v in layers.state_dict().items()},
    }
    with writing(path) as partial:
        torch.save(content, partial)
