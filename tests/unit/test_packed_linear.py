"""Speech encoders as they run for inference: packed, quantized, without padding."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from transformers import HubertConfig, HubertModel, Wav2Vec2Config
from transformers import Wav2Vec2Model as Wav2Vec2

from spiritlm_plugin.dataio.checkpoints import digest_weights
from spiritlm_plugin.lobes import packed_linear, speech_encoder
from spiritlm_plugin.lobes.packed_linear import (
    PackedConv1d,
    PackedLinear,
    can_pack,
    can_quantize,
)
from spiritlm_plugin.lobes.ragged_transformer import attend_in_turn
from spiritlm_plugin.lobes.spectral_convolution import SpectralConv1d
from spiritlm_plugin.lobes.speech_encoder import SpeechEncoder

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
packs = pytest.mark.skipif(not can_pack(), reason="nothing is packed here")
quantizes = pytest.mark.skipif(
    not can_quantize(), reason="no products of 8 bits here"
)


def new_encoder(kind=HubertModel, config=HubertConfig, **options):
    model = kind(config(**SIZES, **options))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3, generator=generator)
    return SpeechEncoder(model.eval(), 1e-5)


@pytest.fixture(scope="module")
def wavs():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([9000, 400, 5123, 1280])
    return torch.randn(4, 9000, generator=generator), lengths


@pytest.fixture(scope="module")
def expected(wavs):
    with torch.no_grad():
        return new_encoder()(*wavs)


def prepared(**options):
    encoder = new_encoder(**options)
    encoder.prepare_for_inference()
    return encoder


def assert_alike(found, expected, share=0.0, **tolerance):
    """Compare the frames that items have, by norm where there is a share."""
    (features, lengths), (others, counts) = found, expected
    assert torch.equal(lengths, counts)
    for row, other, n in zip(features, others, lengths):
        row, other = row[:n].float(), other[:n].float()
        if share:
            assert 0 < (row - other).norm() < share * other.norm()
        else:
            torch.testing.assert_close(row, other, **tolerance)


# Linear maps and convolutions


@packs
@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 3),
    st.booleans(),
)
def test_a_packed_convolution(more, inputs, outputs, kernel, stride, gelu):
    conv = nn.Conv1d(inputs, outputs, kernel, stride).requires_grad_(False)
    x = torch.randn(kernel + more, inputs)
    expected = conv(x.T).T
    if gelu:
        expected = F.gelu(expected)
    found = PackedConv1d(conv)(x, gelu)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    packed = PackedConv1d(conv)
    assert torch.equal(packed.state_dict()["weight"], conv.weight)


def test_a_convolution_that_cannot_be_packed():
    with pytest.raises(ValueError, match="padding, dilation or groups"):
        PackedConv1d(nn.Conv1d(4, 4, 3, padding=1))
    with pytest.raises(ValueError, match="by spectra"):
        SpectralConv1d.share(nn.Conv1d(4, 4, 3, stride=2, padding=1))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=3),
    st.integers(1, 9),
    st.booleans(),
)
def test_a_convolution_by_spectra(lengths, kernel, bias):
    conv = nn.Conv1d(4, 6, kernel, padding=kernel // 2, groups=2, bias=bias)
    items = [torch.randn(n, 4) for n in lengths]
    with torch.no_grad():
        found = SpectralConv1d.share(conv).convolve(items)
        for item, x in zip(items, found):
            expected = conv(item.T).T[: len(item)]
            torch.testing.assert_close(x, expected, atol=1e-5, rtol=1e-4)


@packs
def test_a_packed_map_is_kept_and_moved_as_a_plain_one():
    linear = nn.Linear(6, 5).requires_grad_(False)
    packed = PackedLinear(linear.weight, linear.bias)
    assert packed._matrix.is_mkldnn
    x = torch.randn(3, 2, 6)
    expected = linear(x)
    for same in (
        copy.deepcopy(packed),
        pickle.loads(pickle.dumps(packed)),
        copy.deepcopy(packed).double().float(),
    ):
        assert same._matrix.is_mkldnn
        assert torch.equal(same.weight, linear.weight)
        torch.testing.assert_close(same(x), expected)
    double = copy.deepcopy(packed).double()
    torch.testing.assert_close(double(x.double()).float(), expected)
    other = nn.Linear(6, 5).requires_grad_(False)
    packed.load_state_dict(other.state_dict())
    torch.testing.assert_close(packed(x), other(x))
    near = packed(x.bfloat16())
    packed.load_state_dict({"bias": other.bias + 9}, strict=False)
    torch.testing.assert_close(
        packed(x.bfloat16()) - near, torch.full_like(near, 9), atol=0.1, rtol=0
    )
    with pytest.raises(RuntimeError, match="Missing.*weight"):
        packed.load_state_dict({"bias": other.bias})
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        packed.load_state_dict({**other.state_dict(), "weight": x})


@quantizes
@given(st.integers(1, 9), st.integers(1, 70), st.booleans())
def test_a_map_of_8_bits_sees_rows_one_by_one(rows, width, bias):
    generator = torch.Generator().manual_seed(rows + width)
    linear = nn.Linear(width, 7, bias=bias).requires_grad_(False)
    packed = PackedLinear(linear.weight, linear.bias)
    packed.quantize()
    x = torch.randn(rows, width, generator=generator)
    x = x + 5 * torch.arange(rows)[:, None]
    x[-1] = 0
    found, expected = packed(x), linear(x)
    # Half a step of each number on either side.
    numbers = x.abs().amax(1) / 127 + (x.amax(1) - x.amin(1)) / 254
    most = width * linear.weight.abs().max() * numbers
    error = (found - expected).abs().amax(1)
    assert (error <= 0.55 * most + 1e-5).all()
    for row, y in zip(x, found):
        assert torch.equal(packed(row[None])[0], y)
    for same in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert torch.equal(same(x), found)


# Encoders


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2"])
def test_weights_that_are_prepared_are_saved_as_they_were(kind):
    kinds = {"hubert": [], "wav2vec2": [Wav2Vec2, Wav2Vec2Config]}
    encoder, plain = (new_encoder(*kinds[kind]) for _ in range(2))
    encoder.prepare_for_inference()
    conv = plain.model.encoder.pos_conv_embed.conv
    conv.to(torch.float64)
    nn.utils.parametrize.remove_parametrizations(conv, "weight")
    conv.to(torch.float32)
    assert digest_weights(encoder) == digest_weights(plain)
    encoder.prepare_for_inference()  # again, as a second interface does
    assert digest_weights(encoder) == digest_weights(plain)


@packs
def test_weights_are_held_once():
    encoder = prepared()
    held = sum(weight.numel() for weight in encoder.parameters())
    saved = sum(weight.numel() for weight in encoder.state_dict().values())
    assert held < saved / 2


def test_gradients_reach_waveforms_as_if_nothing_were_prepared(wavs):
    samples, lengths = wavs[0].clone().requires_grad_(), wavs[1]
    gradients = []
    for encoder in (prepared(), new_encoder()):
        features, _ = encoder(samples, lengths)
        loss = features[0].square().mean()
        gradients.append(torch.autograd.grad(loss, samples)[0])
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-3)


def test_without_packed_weights_all_is_the_same(monkeypatch, wavs, expected):
    monkeypatch.setattr(speech_encoder, "can_pack", lambda *_: False)
    encoder = prepared()
    assert not encoder._packed(torch.float32)
    assert_alike(encoder(*wavs), expected, atol=2e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="VNNI"):
        encoder.quantize("int8")


@packs
def test_weights_that_are_loaded_later_count(wavs, expected):
    encoder = prepared()
    state = copy.deepcopy(encoder.state_dict())
    for weight in encoder.parameters():
        weight.data.zero_()
    encoder.load_state_dict({k: v * 0 for k, v in state.items()})
    assert not encoder(*wavs)[0].any()
    encoder.load_state_dict(state)
    assert_alike(encoder(*wavs), expected, atol=2e-4, rtol=1e-3)


@pytest.mark.skipif(
    not can_pack(torch.bfloat16), reason="no bfloat16 products here"
)
def test_bfloat16_is_near_and_exact_in_batches(wavs, expected):
    encoder = prepared()
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(*wavs)
        assert_alike(found, expected, share=0.1)
        for wav, n, row, count in zip(*wavs, *found):
            alone, _ = encoder(wav[None, :n], n[None])
            torch.testing.assert_close(
                alone[0], row[:count], atol=0.05, rtol=0.05
            )


@quantizes
def test_8_bits_are_near_and_exact_in_batches(wavs, expected):
    encoder = prepared()
    encoder.quantize("int8")
    short = [layer.conv.quantized for layer in encoder._layers[1:]]
    assert short == [True] * 2 + [False] * 4
    found = encoder(*wavs)
    assert_alike(found, expected, share=0.2)
    assert digest_weights(encoder) == digest_weights(prepared())
    with torch.autocast("cpu", torch.bfloat16):
        again, _ = encoder(*wavs)
    if can_pack(torch.bfloat16):  # what is not of 8 bits runs in it anyway
        assert torch.equal(again, found[0])
    for wav, n, row, count in zip(*wavs, *found):
        alone, _ = encoder(wav[None, :n], n[None])
        torch.testing.assert_close(alone[0], row[:count], atol=0.02, rtol=0.02)


def test_what_cannot_be_quantized():
    with pytest.raises(ValueError, match="no form 'int3'; it has int8"):
        prepared().quantize("int3")
    encoder = prepared()
    encoder(torch.randn(1, 4000, requires_grad=True), torch.tensor([4000]))
    if can_quantize():
        with pytest.raises(RuntimeError, match="load it again"):
            encoder.quantize("int8")
    with pytest.raises(RuntimeError, match="prepare_for_inference"):
        new_encoder().quantize("int8")


def test_nothing_is_packed_without_the_operations(monkeypatch):
    packed_linear.can_pack.cache_clear()
    monkeypatch.setattr(packed_linear, "_ONEDNN", None)
    assert not packed_linear.can_pack()
    packed_linear.can_pack.cache_clear()


@pytest.mark.parametrize("missing", ["operations", "results"])
def test_nothing_is_quantized_by_what_does_not_work(monkeypatch, missing):
    if missing == "operations":
        monkeypatch.setattr(packed_linear, "_INTEGERS", None)
    else:
        monkeypatch.setattr(packed_linear, "_MIDDLE", 127)
        monkeypatch.setattr(
            packed_linear, "_to_bytes", lambda x, middle, scale: x.byte()
        )
    assert not packed_linear.can_quantize.__wrapped__()


# Without padding


def test_attention_sees_items_one_by_one():
    lengths = torch.tensor([5, 1, 3])
    query, key, value = torch.randn(3, 9, 2, 4)
    items = torch.arange(3).repeat_interleave(lengths)
    expected = F.scaled_dot_product_attention(
        *(x.transpose(0, 1) for x in (query, key, value)),
        attn_mask=items[:, None] == items,
    )
    found = attend_in_turn(lengths.tolist())(query, key, value)
    torch.testing.assert_close(found, expected.transpose(0, 1))


def test_rows_are_taken_and_put_back(monkeypatch, wavs, expected):
    """The way of the GPU, with another attention."""

    def attend(lengths, longest):
        assert longest >= lengths.max()
        return attend_in_turn(lengths.tolist())

    monkeypatch.setattr(speech_encoder, "attend_at_once", attend)
    monkeypatch.setattr(SpeechEncoder, "_by_kernel", lambda *_: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda _: torch.float32)
    encoder = new_encoder()
    with torch.no_grad():
        features, counts = encoder(*wavs)
    assert_alike((features, counts), expected, atol=2e-4, rtol=1e-3)
    assert not features[1, counts[1] :].any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_kernel_finds_what_padded_batches_do(dtype, wavs, expected):
    encoder = prepared().cuda()
    with torch.inference_mode():
        full = encoder(*(x.cuda() for x in wavs))
        with torch.autocast("cuda", dtype):
            half = encoder(*(x.cuda() for x in wavs))
            assert encoder._by_kernel(full[0])
    assert_alike([x.cpu() for x in full], expected, atol=2e-3, rtol=1e-2)
    assert_alike([x.cpu() for x in half], expected, share=0.1)
