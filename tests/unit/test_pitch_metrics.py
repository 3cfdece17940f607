"""Tests of the measures of F0 contours and of codebooks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.metrics.pitch import PitchErrorStats, pitch_errors
from spiritlm_plugin.metrics.usage import unit_usage


def contours(generator, frames):
    """Return F0, voicing, true F0 and true voicing of one item."""
    f0 = 50 + 300 * torch.rand(2, frames, generator=generator)
    voiced = torch.rand(2, frames, generator=generator) < 0.6
    return f0[0], voiced[0], f0[1], voiced[1]


def padded(items, fill):
    longest = max(len(item[0]) for item in items)
    out = []
    for tensors in zip(*items):
        batch = torch.full((len(items), longest), fill).to(tensors[0].dtype)
        for row, tensor in zip(batch, tensors):
            row[: len(tensor)] = tensor
        out.append(batch)
    return out, torch.tensor([len(item[0]) for item in items])


def by_hand(items):
    """Compute the errors a frame at a time."""
    frames = wrong = gross = both = 0
    hertz, cents = [], []
    for f0, voiced, true, true_voiced in items:
        for a, va, b, vb in zip(
            f0.tolist(), voiced.tolist(), true.tolist(), true_voiced.tolist()
        ):
            frames += 1
            wrong += va != vb
            if va and vb:
                both += 1
                gross += abs(a - b) > 0.2 * b
                hertz.append(a - b)
                cents.append(1200 * math.log2(a / b))
    if not both:
        hertz = cents = [math.nan]
    return {
        "f0_frame_error": (wrong + gross) / frames,
        "voicing_decision_error": wrong / frames,
        "gross_pitch_error": gross / both if both else math.nan,
        "rmse_hz": float(np.sqrt(np.mean(np.square(hertz)))),
        "rmse_cents": float(np.sqrt(np.mean(np.square(cents)))),
    }


@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(10, 40), min_size=1, max_size=4),
    fill=st.sampled_from([0.0, 1.0, math.nan]),
)
def test_errors(seed, lengths, fill):
    generator = torch.Generator().manual_seed(seed)
    items = [contours(generator, n) for n in lengths]
    expected = by_hand(items)
    stats = PitchErrorStats()
    for start in range(0, len(items), 2):
        some = items[start : start + 2]
        batch, batch_lengths = padded(some, fill)
        stats.append([f"{start}"] * len(some), *batch, batch_lengths)
    assert stats.summarize() == pytest.approx(expected, rel=1e-5, nan_ok=True)
    assert stats.summarize("f0_frame_error") == stats.summary["f0_frame_error"]


def test_f0_matters_only_where_both_are_voiced():
    f0 = torch.tensor([[100.0, -5.0, 0.0, math.nan]])
    voiced = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    true = torch.tensor([[100.0, 200.0, 0.0, 100.0]])
    true_voiced = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    errors = pitch_errors(f0, voiced, true, true_voiced, torch.tensor([4]))
    assert errors.tolist() == [[4, 2, 1, 0, 0, 0]]


def test_an_octave_is_1200_cents():
    true = torch.full((1, 5), 110.0)
    stats = PitchErrorStats()
    stats.append(["a"], 2 * true, true, true, true, torch.tensor([5]))
    summary = stats.summarize()
    assert summary["rmse_cents"] == pytest.approx(1200)
    assert summary["rmse_hz"] == pytest.approx(110)
    assert summary["gross_pitch_error"] == summary["f0_frame_error"] == 1


def test_twenty_percent_is_not_gross():
    true = torch.tensor([[100.0, 100.0]])
    f0 = torch.tensor([[120.0, 121.0]])
    errors = pitch_errors(f0, true, true, true, torch.tensor([2]))
    assert errors[0, 3] == 1


def test_nothing_voiced():
    stats = PitchErrorStats()
    zeros = torch.zeros(1, 3)
    stats.append(["a"], zeros, zeros, zeros, zeros, torch.tensor([3]))
    summary = stats.summarize()
    assert summary["f0_frame_error"] == 0
    assert math.isnan(summary["gross_pitch_error"])


def test_shapes_that_differ():
    with pytest.raises(ValueError, match="one shape.*cut them"):
        pitch_errors(
            torch.zeros(1, 3),
            torch.zeros(1, 3),
            torch.zeros(1, 4),
            torch.zeros(1, 4),
            torch.tensor([3]),
        )


def test_usage():
    assert unit_usage(torch.arange(8), 8)["perplexity"] == pytest.approx(8)
    usage = unit_usage(torch.tensor([[5, 5], [5, 5]]), 8)
    assert usage == {"used_units": 1, "perplexity": 1}
    # 1.5 bits
    usage = unit_usage(torch.tensor([0, 0, 1, 2]), 8)
    assert usage["perplexity"] == pytest.approx(2**1.5)


@pytest.mark.parametrize("units", [[], [-1], [8]])
def test_units_outside_the_codebook(units):
    with pytest.raises(ValueError, match=r"\[0, 8\)"):
        unit_usage(torch.tensor(units, dtype=torch.long), 8)
