"""Measures of how well one F0 contour follows another."""

from __future__ import annotations

from typing import overload

import torch
from speechbrain.utils.metric_stats import MetricStats
from torch import Tensor

from spiritlm_plugin.lobes.masking import frame_mask

# A voiced frame is grossly wrong beyond this share of the true F0.
_GROSS = 0.2
_COUNTS = ("frames", "voicing", "both", "gross", "hz", "cents")


def pitch_errors(
    f0: Tensor,
    voiced: Tensor,
    target_f0: Tensor,
    target_voiced: Tensor,
    lengths: Tensor,
) -> Tensor:
    """Count the errors of F0 contours.

    Arguments
    ---------
    f0, target_f0 : Tensor
        In Hz, shape (batch, frames); read only where both are voiced.
    voiced, target_voiced : Tensor
        Not 0 where voiced, shape (batch, frames).
    lengths : Tensor
        Frames of each item, shape (batch,).

    Returns
    -------
    Tensor
        Of float64, shape (batch, 6): frames; frames with the wrong voicing;
        frames voiced in both; those of them that are off by more than 20 %;
        their summed squared error in Hz, and in cents.

    Raises
    ------
    ValueError
        If the shapes differ.

    Example
    -------
    >>> f0, true = torch.tensor([[100.0, 150.0, 9.0]]), torch.full((1, 3), 100)
    >>> voiced = torch.tensor([[True, True, False]])
    >>> errors = pitch_errors(
    ...     f0, voiced, true, torch.ones(1, 3), torch.tensor([3])
    ... )
    >>> errors[0, :5].tolist()
    [3.0, 1.0, 2.0, 1.0, 2500.0]
    """
    shapes = [f0.shape, voiced.shape, target_f0.shape, target_voiced.shape]
    if len(set(shapes)) != 1:
        raise ValueError(
            "contours and their voicing must have one shape, got "
            f"{[tuple(shape) for shape in shapes]}; cut them to the same frames"
        )
    mask = frame_mask(lengths, f0.shape[1])
    inside = torch.ones_like(voiced, dtype=torch.bool) if mask is None else mask
    voiced, target_voiced = voiced != 0, target_voiced != 0
    both = voiced & target_voiced & inside
    # Where there is nothing to compare, any equal positive values do.
    f0 = torch.where(both, f0, 1.0).double()
    target_f0 = torch.where(both, target_f0, 1.0).double()
    hz = f0 - target_f0
    cents = 1200 * (f0.clamp(min=1e-3) / target_f0).log2()
    figures = (
        inside,
        (voiced != target_voiced) & inside,
        both,
        hz.abs() > _GROSS * target_f0,
        hz.square(),
        cents.square(),
    )
    return torch.stack([figure.double().sum(1) for figure in figures], 1)


class PitchErrorStats(MetricStats):
    """Errors of F0 contours, pooled over all frames.

    Source: Chu and Alwan, "Reducing F0 frame error of F0 tracking algorithms
    under noisy conditions with an unvoiced/voiced classification frontend",
    ICASSP 2009.

    Example
    -------
    >>> stats = PitchErrorStats()
    >>> true = torch.tensor([[100.0, 200.0, 0.0, 0.0]])
    >>> stats.append(["a"], true * 1.5, true, true, true, torch.tensor([4]))
    >>> stats.summarize("f0_frame_error")
    0.5
    >>> stats.append(["b"], true, true, true, true, torch.tensor([4]))
    >>> stats.summarize()["gross_pitch_error"]
    0.5
    """

    def __init__(self) -> None:
        super().__init__(metric=pitch_errors)

    def append(
        self,
        ids: list[str],
        f0: Tensor,
        voiced: Tensor,
        target_f0: Tensor,
        target_voiced: Tensor,
        lengths: Tensor,
    ) -> None:
        """Add a batch; the arguments are those of `pitch_errors`."""
        errors = pitch_errors(f0, voiced, target_f0, target_voiced, lengths)
        self.ids.extend(ids)
        self.scores.extend(errors.tolist())

    @overload
    def summarize(self, field: None = None) -> dict[str, float]: ...

    @overload
    def summarize(self, field: str) -> float: ...

    def summarize(self, field: str | None = None) -> dict[str, float] | float:
        """Return the errors, or one of them.

        Returns
        -------
        dict
            ``f0_frame_error``: share of all frames with wrong voicing or
            grossly wrong F0; ``voicing_decision_error``: share of all frames
            with wrong voicing; ``gross_pitch_error``: share of the frames
            voiced in both that are off by more than 20 %; ``rmse_hz`` and
            ``rmse_cents`` over the frames voiced in both. NaN where there are
            no frames.
        """
        sums = torch.tensor(self.scores, dtype=torch.float64).view(
            -1, len(_COUNTS)
        )
        frames, voicing, both, gross, hz, cents = sums.sum(0)
        errors = {
            "f0_frame_error": (voicing + gross) / frames,
            "voicing_decision_error": voicing / frames,
            "gross_pitch_error": gross / both,
            "rmse_hz": (hz / both).sqrt(),
            "rmse_cents": (cents / both).sqrt(),
        }
        self.summary = {name: float(value) for name, value in errors.items()}
        return self.summary if field is None else self.summary[field]
