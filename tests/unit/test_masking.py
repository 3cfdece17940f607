"""Tests of ``spiritlm_plugin.lobes.masking``."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spiritlm_plugin.lobes.masking import (
    Padding,
    frame_mask,
    standardize,
    zero_padding,
)
from spiritlm_plugin.lobes.pitch import _group_norm

lengths_of = st.lists(st.integers(1, 12), min_size=1, max_size=4)


@given(lengths_of, st.integers(0, 3))
def test_mask_marks_the_items_own_frames(lengths, more):
    frames = max(lengths) + more
    mask = frame_mask(torch.tensor(lengths), frames)
    expected = [[i < n for i in range(frames)] for n in lengths]
    if all(map(all, expected)):
        assert mask is None
    else:
        assert mask.tolist() == expected


@given(lengths_of, st.integers(0, 3))
def test_zero_padding(lengths, more):
    frames = max(lengths) + more
    x = torch.rand(len(lengths), 2, frames) + 1
    y = zero_padding(x, frame_mask(torch.tensor(lengths), frames))
    for before, after, n in zip(x, y, lengths):
        assert torch.equal(after[:, :n], before[:, :n])
        assert not after[:, n:].any()


@given(lengths_of, st.integers(0, 3), st.sampled_from([1, 4]))
def test_padding_in_place(lengths, more, rate):
    x = torch.rand(len(lengths), 2, 1, rate * (max(lengths) + more)) + 1
    padding = Padding(torch.tensor(lengths)).stretched(rate)
    found = []
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            found.append(x.clone())
            assert padding.zero_(found[-1]) is found[-1]
    assert torch.equal(*found)
    for before, after, n in zip(x, found[0], lengths):
        assert torch.equal(after[..., : rate * n], before[..., : rate * n])
        assert not after[..., rate * n :].any()


@pytest.mark.parametrize("shape", [(), (3,), (3, 2)])
@given(lengths_of, st.integers(0, 3), st.sampled_from([0.0, 1e-5, 0.3]))
def test_standardize(shape, lengths, more, eps):
    # What is behind an item is much larger than what is in it.
    x = torch.randn(len(lengths), *shape, max(lengths) + more).double()
    for row, n in zip(x, lengths):
        row[..., n:] = 1e6
    y = standardize(x, torch.tensor(lengths), eps)
    for before, after, n in zip(x, y, lengths):
        own = before[..., :n]
        mean = own.mean(-1, keepdim=True)
        variance = own.var(-1, correction=0, keepdim=True)
        if n > 1 or eps:
            expected = (own - mean) / (variance + eps).sqrt()
            torch.testing.assert_close(after[..., :n], expected)
            assert not after[..., n:].any()


@given(lengths_of, st.integers(0, 3))
def test_group_norm(lengths, more):
    norm = nn.GroupNorm(2, 6).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(len(lengths), 6, max(lengths) + more).double()
    for row, n in zip(x, lengths):
        row[:, n:] = 1e6
    y = _group_norm(x, torch.tensor(lengths), norm)
    for before, after, n in zip(x, y, lengths):
        torch.testing.assert_close(after[:, :n], norm(before[None, :, :n])[0])
