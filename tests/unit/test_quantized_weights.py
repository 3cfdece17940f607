"""Tests of ``spiritlm_plugin.lobes.quantized_weights``, and how users ask for it."""

import copy
import re
import sys
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spiritlm_plugin.dataio.checkpoints import digest_weights
from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.decoders.engines import TransformersEngine
from spiritlm_plugin.evaluation.loop import (
    load_model,
    plain_settings,
    settings_shown,
)
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.inference.run_options import quantize, split_run_opts
from spiritlm_plugin.lobes import quantized_weights
from spiritlm_plugin.lobes.language_model import (
    load_language_model,
    new_language_model,
)
from spiritlm_plugin.lobes.packed_linear import can_pack
from spiritlm_plugin.lobes.quantized_weights import (
    GROUP,
    HalfLinear,
    Int4Linear,
    Int8Linear,
    fits_int4,
    quantize_linear_maps,
)

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,  # which 4 bits do not take
}


@pytest.fixture(scope="module")
def vocabulary():
    text = train_text_tokenizer(["the cat sat on the mat"], 280)
    return Vocabulary.extend(text, phonetic=50)


def make_lm(vocabulary, **settings):
    torch.manual_seed(0)
    lm = new_language_model({**LLAMA, **settings}, vocabulary)
    with torch.no_grad():  # so that attention and maps count
        for parameter in lm.parameters():
            parameter.mul_(10 if parameter.ndim > 1 else 1)
    return lm


def make_map(columns, rows, bias, seed):
    torch.manual_seed(seed)
    linear = nn.Linear(columns, rows, bias=bias)
    nn.init.normal_(linear.weight)
    return linear


@settings(max_examples=25)
@given(
    st.integers(1, 90),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([1e-4, 1.0, 1e4]),
    st.integers(0, 99),
)
def test_eight_bits_are_as_near_as_their_steps(columns, rows, bias, size, seed):
    linear = make_map(columns, rows, bias, seed)
    x = size * torch.randn(2, 3, columns)
    with torch.no_grad():
        x[0, 0] = 0
        exact, near = linear(x), Int8Linear(linear.weight, linear.bias)(x)
        weight = linear.weight.abs()
        steps = weight.amax(1) / 127
        levels = quantized_weights._int8_levels()
        ends = x.abs().amax(-1, keepdim=True) / levels
        bound = x.abs().sum(-1, keepdim=True) * steps / 2
        bound += ends / 2 * (weight.sum(1) + columns * steps / 2)
    assert ((near - exact).abs() <= 1.01 * bound + 1e-5 * size).all()


@settings(max_examples=25)
@given(st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 99))
def test_four_bits_are_as_near_as_their_steps(groups, blocks, bias, seed):
    linear = make_map(GROUP * groups, 16 * blocks, bias, seed)
    assert fits_int4(linear)
    x = torch.randn(5, GROUP * groups)
    with torch.no_grad():
        exact, near = linear(x), Int4Linear(linear.weight, linear.bias)(x)
        parts = linear.weight.unflatten(1, (-1, GROUP))
        steps = (parts.amax(-1) - parts.amin(-1)) / 15
        sums = x.abs().unflatten(1, (-1, GROUP)).sum(-1)
        # bfloat16 has 8 bits, for inputs, steps, zeros and the sum.
        bound = sums @ steps.T / 2 + x.abs() @ linear.weight.abs().T / 40
    assert ((near - exact).abs() <= bound + 0.05).all()


@pytest.mark.parametrize("kind", [Int8Linear, Int4Linear])
def test_a_row_does_not_depend_on_the_batch(kind):
    linear = make_map(64, 32, True, 0)
    quantized = kind(linear.weight, linear.bias)
    x = torch.randn(7, 64) * torch.logspace(-3, 3, 7)[:, None]
    together = quantized(x)
    for index in range(7):
        for row in (x[index], x[index : index + 1], x[index][None, None]):
            alone = quantized(row)
            assert alone.shape == (*row.shape[:-1], 32)
            assert torch.equal(alone.flatten(), together[index])
    scattered = torch.randn(64, 7).T
    assert torch.equal(quantized(scattered), quantized(scattered.contiguous()))
    assert torch.equal(quantized.float()(x), together)
    assert torch.equal(quantized(x[:3]), together[:3])
    assert quantized(x.bfloat16()).dtype == torch.bfloat16


def test_processors_that_overflow_get_half_the_steps(monkeypatch):
    def saturating(x, levels, packed):
        weight = torch.ops.quantized.linear_unpack(packed)[0]
        inputs = x.round() + levels + 1
        products = inputs[:, None] * weight.int_repr().float()
        pairs = products.unflatten(-1, (-1, 2)).sum(-1)
        sums = pairs.clamp(max=32767).sum(-1)
        zeros = (levels + 1) * weight.int_repr().float().sum(-1)
        return (sums - zeros) * weight.q_per_channel_scales().float()

    find = quantized_weights._int8_levels.__wrapped__
    monkeypatch.setattr(quantized_weights, "_int8_product", saturating)
    assert find() == 63
    monkeypatch.setattr(
        quantized_weights, "_int8_product", lambda x, *_: x.new_zeros(1)
    )
    assert find() == 0


@pytest.mark.parametrize(
    ("form", "probe"), [("int8", "_int8_levels"), ("int4", "_has_int4")]
)
def test_a_processor_without_products_is_told(monkeypatch, form, probe):
    monkeypatch.setattr(quantized_weights, probe, lambda: 0)
    with pytest.raises(ValueError, match=f"{form}: this build of PyTorch"):
        quantize_linear_maps(nn.Sequential(nn.Linear(64, 64)), form)


@torch.inference_mode()
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("form", ["int8", "int4"])
def test_a_language_model(vocabulary, form, tied):
    lm = make_lm(vocabulary, tie_word_embeddings=tied)
    embedding = lm.model.get_input_embeddings().weight.clone()
    items = [vocabulary.encode([("text", "the cat sat")]), [1, 9, 300, 301]]
    before = lm.log_likelihood([[1], [1]], [item[1:] for item in items])
    digest = digest_weights(lm)
    lm.quantize(form)
    kinds = {n: type(m).__name__ for n, m in lm.model.named_modules()}
    layer = "model.layers.1"
    short = "Int4Linear" if form == "int4" else "Int8Linear"
    assert kinds[f"{layer}.self_attn.q_proj"] == short
    assert kinds[f"{layer}.mlp.down_proj"] == kinds["lm_head"] == "Int8Linear"
    assert torch.equal(lm.model.get_input_embeddings().weight, embedding)
    after = lm.log_likelihood([[1], [1]], [item[1:] for item in items])
    limit = 0.02 if form == "int8" else 0.2
    assert 0 < float(((after - before) / before).abs().max()) < limit
    assert digest_weights(lm) != digest
    engine = TransformersEngine(lm)
    together = engine.decode(items, "any", 9, seeds=[0, 1])
    alone = engine.decode(items[1:], "any", 9, seeds=[1])
    assert together[1].ids.tolist() == alone[0].ids.tolist()


@torch.inference_mode()
@pytest.mark.parametrize("laid_out", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_bfloat16_is_that_of_a_model_loaded_in_it(
    vocabulary, tied, laid_out, monkeypatch, tmp_path
):
    if not laid_out:  # as where the processor has no bfloat16
        monkeypatch.setattr(quantized_weights, "can_pack", lambda _: False)
    lm = make_lm(vocabulary, tie_word_embeddings=tied)
    lm.save(tmp_path)
    plain = load_language_model(tmp_path, "bfloat16")
    lm.quantize("bf16")
    half = laid_out and can_pack(torch.bfloat16)
    kind = HalfLinear if half else nn.Linear
    assert type(lm.model.get_output_embeddings()) is kind
    frequencies = lm.model.model.rotary_emb.inv_freq
    assert frequencies.dtype == torch.float32
    assert digest_weights(lm) == digest_weights(plain)
    ids = torch.tensor([vocabulary.encode([("text", "the cat sat")])])
    expected = plain(ids).float()
    scale = expected.abs().max()
    for model in (lm, copy.deepcopy(lm)):
        found = model(ids)
        assert found.dtype == torch.bfloat16
        assert ((found.float() - expected).abs() <= 0.02 * scale).all()
    outputs = [
        TransformersEngine(model).decode(ids.tolist(), "text", 9, temperature=0)
        for model in (lm, plain)
    ]
    if not half:  # the same sums, in the same order
        assert outputs[0][0].ids.tolist() == outputs[1][0].ids.tolist()


def test_a_part_of_a_map_of_bfloat16_follows_its_weights():
    linear, other = (make_map(64, 32, True, seed) for seed in (0, 1))
    few, x = torch.tensor([9, 3]), torch.randn(2, 64).bfloat16()
    half = HalfLinear(linear.weight, linear.bias)
    for weights in (linear, other):
        half.load_state_dict(weights.bfloat16().state_dict())
        part = half.take(few)
        assert part is half.take(few)
        assert torch.allclose(part(x), half(x)[:, few], rtol=0.02, atol=0.02)


def test_bfloat16_takes_any_model(vocabulary):
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2}
    lm = new_language_model({"model_type": "gpt2", **sizes}, vocabulary)
    lm.quantize("bf16")
    assert lm(torch.tensor([[1, 2]])).dtype == torch.bfloat16


def test_what_a_quantized_language_model_does_not_do(vocabulary, tmp_path):
    lm = make_lm(vocabulary)
    with pytest.raises(ValueError, match="bf16 or int8 or int4, got 'int2'"):
        lm.quantize("int2")
    lm.quantize("int8")
    with pytest.raises(ValueError, match="quantized to int8; load it again"):
        lm.quantize("int4")
    with pytest.raises(ValueError, match="save the language model before"):
        lm.save(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_model_without_linear_maps_is_named(vocabulary):
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2}
    lm = new_language_model({"model_type": "gpt2", **sizes}, vocabulary)
    with pytest.raises(ValueError, match="GPT2LMHeadModel has no linear maps"):
        lm.quantize("int8")
    assert lm.quantized is None


def test_on_cuda_torchao_is_asked(monkeypatch):
    made = []

    def quantize_(model, config, filter_fn):
        names = [n for n, m in model.named_modules() if filter_fn(m, n)]
        made.append((config, names))

    stand_in = types.SimpleNamespace(
        Int8WeightOnlyConfig=lambda: 8,
        Int4WeightOnlyConfig=lambda group_size, int4_packing_format: 4,
        quantize_=quantize_,
    )
    by_torchao = quantized_weights._quantize_by_torchao
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ImportError, match=re.escape("plugin[quantize]")):
        by_torchao(model, {"0"}, set())
    monkeypatch.setitem(sys.modules, "torchao", stand_in)
    monkeypatch.setitem(sys.modules, "torchao.quantization", stand_in)
    with pytest.raises(ValueError, match=r"1 is of torch.float32; load"):
        by_torchao(model, {"0"}, {"1"})
    by_torchao(model.bfloat16(), {"0"}, {"1"})
    assert made == [(8, ["0"]), (4, ["1"])]


def test_torchao_rounds_weights():
    pytest.importorskip("torchao")
    model = nn.Sequential(make_map(64, 32, True, 0), make_map(32, 32, True, 1))
    x = torch.randn(2, 64)
    before, digest = model(x), digest_weights(model)
    quantized_weights._quantize_by_torchao(model, {"0"}, set())
    error = (model(x) - before).norm() / before.norm()
    assert 0 < error < 0.02 and type(model[1].weight) is nn.Parameter
    assert "0.weight.qdata" in model.state_dict()
    assert digest_weights(model) != digest


@pytest.mark.parametrize(
    ("forms", "error", "message"),
    [
        ("int8", TypeError, "quantize holds forms of parts"),
        ({"language_model": 8}, TypeError, "quantize holds forms of parts"),
        ({"vocoder": "int8"}, ValueError, "vocoder cannot be quantized; what"),
    ],
)
def test_run_options_are_checked_before_anything_is_read(forms, error, message):
    run_opts = {"quantize": forms}
    for load in (SpiritLM.from_release, SpiritLM.from_hparams):
        with pytest.raises(error, match=message):
            load("no/such/folder", run_opts=run_opts)


def test_parts_that_are_not_there(vocabulary):
    modules = {"tokenizer": nn.Identity(), "language_model": None}
    with pytest.raises(ValueError, match="no tokenizer that could .* nothing"):
        quantize(modules, {"tokenizer": "int8"})
    modules = {"language_model": make_lm(vocabulary)}
    forms = {"language_model": "int8", "tokenizer": "int8"}
    with pytest.raises(ValueError, match="no tokenizer .* but language_model"):
        quantize(modules, forms)
    assert modules["language_model"].quantized is None


def test_no_quantization_is_asked_for():
    assert split_run_opts(None) == (None, {})
    assert split_run_opts({"quantize": None}) == ({}, {})


def test_the_shipped_model_says_what_it_said():
    lm = SpiritLM.from_hparams("tinyspeech", run_opts={"device": "cpu"})
    prompt = [("text", "open the")]
    before, after = (
        quantize(lm.mods, forms)
        or lm.generate(prompt, "text", max_new_tokens=8, temperature=0)
        for forms in ({}, {"language_model": "int8"})
    )
    assert before[0].text == after[0].text


def test_evaluations_pass_it_on(monkeypatch):
    given = {}
    monkeypatch.setattr(
        SpiritLM, "from_hparams", lambda *_, **kwargs: given.update(kwargs)
    )
    forms = {"language_model": "int8"}
    hparams = {
        "model": "tinyspeech",
        "hparams_file": "hyperparams.yaml",
        "release": None,
        "dtype": "auto",
        "quantize": forms,
    }
    load_model(hparams, {"device": "cpu"})
    assert given["run_opts"] == {"device": "cpu", "quantize": forms}
    run_opts = {"precision": "fp32"}
    settings = plain_settings(hparams, run_opts)
    others = plain_settings({**hparams, "quantize": None}, run_opts)
    assert settings.pop("quantize") == forms and settings == others
    assert settings_shown(hparams)["quantize"] == forms
    assert "quantize" not in settings_shown({**hparams, "quantize": None})
