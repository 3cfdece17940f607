"""Packed convolutions compute what plain ones do, wherever they run."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from spiritlm_plugin.lobes import packed_convolution
from spiritlm_plugin.lobes.channels_last import to_channels_last
from spiritlm_plugin.lobes.hifigan import HifiGanGenerator
from spiritlm_plugin.lobes.masking import Padding
from spiritlm_plugin.lobes.packed_convolution import PackedConvolution

SLOPE = 0.1


@pytest.fixture(params=["packed", "plain"])
def form(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(
            packed_convolution, "_operators_work", lambda dtype: False
        )
    return request.param


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def convolution(kernel=3, dilation=1):
    padding = (kernel - 1) * dilation // 2
    conv = PackedConvolution(4, 6, kernel, dilation, padding)
    with torch.no_grad():
        conv.weight.copy_(noise(*conv.weight.shape))
    return conv


def expected(conv, x):
    weight, bias = conv.weight[:, :, 0], conv.bias
    padding, dilation = conv.padding[1], conv.dilation[1]
    return F.conv1d(x[:, :, 0], weight, bias, 1, padding, dilation)[:, :, None]


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (7, 5)])
@pytest.mark.parametrize("length", [1, 50])
def test_three_ways_to_run(form, kernel, dilation, length):
    conv = convolution(kernel, dilation)
    x = to_channels_last(noise(2, 4, length, seed=1))
    total = to_channels_last(noise(2, 6, length, seed=2))
    lengths = torch.tensor([length, 1])
    mask = (torch.arange(length) < lengths[:, None])[:, None, None]
    y = expected(conv, x).detach()
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(conv(x), y)
            torch.testing.assert_close(
                conv.activated(x, SLOPE, Padding(lengths)),
                F.leaky_relu(y, SLOPE) * mask,
            )
            added = conv.add_to(total.clone(), x)
            torch.testing.assert_close(added, total + y)


@torch.no_grad()
def test_new_weights_are_followed():
    conv = convolution()
    x = to_channels_last(noise(1, 4, 20))
    state = {name: 2 * value for name, value in conv.state_dict().items()}
    changes = (
        lambda: conv.weight.mul_(2),
        lambda: conv.bias.add_(1),
        lambda: conv.load_state_dict(state),
        lambda: setattr(conv.weight, "data", conv.weight / 3),
        lambda: setattr(conv, "weight", torch.nn.Parameter(conv.weight / 2)),
    )
    for change in changes:
        conv(x)
        change()
        torch.testing.assert_close(conv(x), expected(conv, x))


def test_weights_made_in_inference_mode():
    with torch.inference_mode():
        conv = convolution()
        x = to_channels_last(noise(1, 4, 20))
        torch.testing.assert_close(conv(x), expected(conv, x))
        state = {name: 2 * value for name, value in conv.state_dict().items()}
        conv.load_state_dict(state)
        torch.testing.assert_close(conv(x), expected(conv, x))


def frozen_generator():
    """A generator as SpeechBrain's interfaces have it, its weights buffers."""
    torch.manual_seed(0)
    generator = HifiGanGenerator(
        4,
        channels=32,
        upsample_rates=[5, 4, 4, 4, 2],
        upsample_kernels=[11, 8, 8, 8, 4],
    )
    generator.requires_grad_(False).eval().prepare_for_inference()
    return generator


@torch.no_grad()
def test_new_weights_of_a_frozen_generator_are_followed():
    generator, other = frozen_generator(), frozen_generator()
    x, lengths = noise(1, 4, 20), torch.tensor([20])
    before = generator(x, lengths)
    for change in (
        lambda g: g.input.load_state_dict(
            {"weight": 0 * g.input.weight}, strict=False
        ),
        lambda g: g.input.weight.copy_(noise(*g.input.weight.shape)),
    ):
        change(generator)
        change(other)
        for module in other.modules():
            if isinstance(module, PackedConvolution):
                module._laid_out.clear()
        found = generator(x, lengths)
        assert not torch.equal(found, before)
        assert torch.equal(found, other(x, lengths))


def test_a_frozen_generator_is_laid_out():
    for module in frozen_generator().modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            assert module.weight.is_contiguous(
                memory_format=torch.channels_last
            )


@torch.no_grad()
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda conv: pickle.loads(pickle.dumps(conv))]
)
def test_copies_share_nothing(copied):
    conv = convolution()
    x = to_channels_last(noise(1, 4, 20))
    y = conv(x)
    other = copied(conv)
    conv.weight.zero_()
    torch.testing.assert_close(other(x), y)


@torch.no_grad()
def test_bfloat16_by_autocast(form):
    conv = convolution()
    x = to_channels_last(noise(1, 4, 20))
    y = expected(conv, x)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv(x), conv.add_to(torch.zeros_like(y).bfloat16(), x)
    for values in found:
        assert values.dtype == torch.bfloat16
        torch.testing.assert_close(values.float(), y, atol=0.05, rtol=0.02)


@torch.no_grad()
def test_a_weight_norm_is_not_packed():
    conv = weight_norm(convolution())
    x = to_channels_last(noise(1, 4, 20))
    y = conv(x)
    conv.parametrizations.weight.original0.mul_(3)
    bias = conv.bias[:, None, None]
    torch.testing.assert_close(conv(x) - bias, 3 * (y - bias))


@pytest.mark.parametrize("missing", ["operators", "results"])
def test_operators_that_do_not_work_are_not_used(monkeypatch, missing):
    probe = packed_convolution._operators_work.__wrapped__
    if missing == "operators":
        monkeypatch.setattr(packed_convolution, "_OPERATORS", object())
    else:
        monkeypatch.setattr(
            packed_convolution, "_convolve", lambda x, *args: x.clone()
        )
    assert not probe(torch.float32)


def test_the_probe_leaves_random_numbers_alone():
    state = torch.get_rng_state()
    packed_convolution._operators_work.__wrapped__(torch.float32)
    assert torch.equal(torch.get_rng_state(), state)


@torch.inference_mode()
def test_a_generator_in_bfloat16():
    generator = HifiGanGenerator(8, 32, [4, 2], [8, 4], [3, 7], [[1, 3]] * 2)
    for index, weights in enumerate(generator.parameters()):
        weights.copy_(weights + 0.05 * noise(*weights.shape, seed=index))
    generator.prepare_for_inference()
    x = noise(8, 30)
    exact = generator.synthesize(x)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = generator.synthesize(x)
    assert reduced.dtype == torch.float32
    assert 0 < (reduced - exact).std() < 0.03 * exact.std()


@pytest.mark.parametrize("frames", [1, 3, 9, 17, 33])
def test_lengths_that_are_rounded_change_nothing(frames):
    generator = HifiGanGenerator(8, 32, [4, 2], [8, 4], [3, 7], [[1, 3]] * 2)
    generator.prepare_for_inference()
    x = noise(2, 8, frames)
    lengths = torch.tensor([frames, max(frames - 2, 1)])
    expected = generator(x, lengths).detach()  # with gradients: as it is
    with torch.inference_mode():
        found = generator(x, lengths)
    assert found.shape == (2, 1, frames * 8)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
