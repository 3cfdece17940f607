"""How long each unit lasts, from the units alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spiritlm_plugin.lobes.masking import zero_padding


class DurationPredictor(nn.Module):
    """Two convolutions that predict log(frames + 1) of each unit.

    Arguments
    ---------
    input_dim, hidden_dim : int
        Widths.
    dropout : float
        In training.

    Example
    -------
    >>> DurationPredictor(8, 16)(torch.randn(2, 5, 8)).shape
    torch.Size([2, 5])
    """

    def __init__(self, input_dim: int, hidden_dim: int, dropout: float = 0.5):
        super().__init__()
        self.conv1 = nn.Conv1d(input_dim, hidden_dim, 3, padding=1)
        self.norm1 = nn.LayerNorm(hidden_dim)
        self.conv2 = nn.Conv1d(hidden_dim, hidden_dim, 3, padding=1)
        self.norm2 = nn.LayerNorm(hidden_dim)
        self.output = nn.Linear(hidden_dim, 1)
        self.dropout = nn.Dropout(dropout)
        # Units on either side that a unit's duration depends on.
        self.context = 2

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return log durations, (batch, units), of (batch, units, dim)."""
        for conv, norm in (
            (self.conv1, self.norm1),
            (self.conv2, self.norm2),
        ):
            x = conv(zero_padding(x.transpose(1, 2), mask)).relu()
            x = self.dropout(norm(x.transpose(1, 2)))
        return self.output(x).squeeze(-1)

    @torch.no_grad()
    def calibrate(self, log_durations: Tensor, frames: Tensor) -> float:
        """Shift all predictions, so that speech is as long as it was.

        What is trained on log durations predicts their geometric mean, which
        is too short: what it says aloud is too fast.

        Arguments
        ---------
        log_durations : Tensor
            What is predicted now, shape (units,).
        frames : Tensor
            How long these units are, shape (units,).

        Returns
        -------
        float
            What was added to each log(frames + 1), at most 1 either way.

        Example
        -------
        >>> predictor = DurationPredictor(8, 16)
        >>> predicted = torch.linspace(0.0, 1.5, 100)
        >>> shift = predictor.calibrate(predicted, torch.full((100,), 2))
        >>> int(whole_frames(predicted + shift).sum())
        200
        """
        low, high, total = -1.0, 1.0, int(frames.sum())
        for _ in range(24):
            shift = (low + high) / 2
            if int(whole_frames(log_durations + shift).sum()) < total:
                low = shift
            else:
                high = shift
        self.output.bias.add_(high)
        return high


def whole_frames(log_durations: Tensor) -> Tensor:
    """Return the frames, at least 1, that log(frames + 1) stands for.

    Example
    -------
    >>> whole_frames(torch.tensor([0.0, 1.0, 1.5]))
    tensor([1, 2, 3])
    """
    return (log_durations.exp() - 1).round().clamp(min=1).long()
