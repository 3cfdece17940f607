"""Tests of the engine that is vLLM, against that which is transformers.

A stand-in that has vLLM's signatures runs everywhere; where vLLM is installed
its signatures are compared, and the last test runs vLLM itself.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from importlib import import_module
from inspect import signature
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from spiritlm_plugin import SpiritLM, Text
from spiritlm_plugin.dataio.units.text_tokenizers import SentencePieceText
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.decoders.engines import TransformersEngine
from spiritlm_plugin.decoders.vllm_engine import VllmEngine
from spiritlm_plugin.decoders.vllm_sampling import ConstrainedSampling, Wish
from spiritlm_plugin.lobes.language_model import (
    LanguageModel,
    load_language_model,
)
from tests.unit import vllm_stand_in as stand_in

CONTEXT = 48
PROMPTS = [[1, 40, 41], [1, *range(30, 70)], [1, 5] * 8, [1], [1, *range(46)]]
SEEDS = [11, 12, -(2**63), 2**64 - 1, 11]
RUNNERS = [stand_in.V1, stand_in.V2]


@pytest.fixture(scope="module")
def folder(sentencepiece_model, tmp_path_factory):
    """A saved language model of random weights, with spare rows."""
    folder = tmp_path_factory.mktemp("lm")
    path = folder / "text.model"
    path.write_bytes(sentencepiece_model())
    vocabulary = Vocabulary.extend(
        SentencePieceText(path), phonetic=9, pitch=3, style=2
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary) + 50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=32,  # vLLM has no smaller ones on a CPU
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
    )
    LanguageModel(LlamaForCausalLM(config), vocabulary).save(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def transformers_engine(folder):
    return TransformersEngine(load_language_model(folder))


@pytest.fixture(params=RUNNERS, ids=lambda runner: runner.__name__)
def vllm(request, monkeypatch):
    for name, module in stand_in.modules(request.param).items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def engine(vllm, folder):
    return VllmEngine(folder)


def shown(results):
    return [(r.ids.tolist(), r.end_reason) for r in results]


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("output", ["text", "speech", "any"])
def test_gives_what_transformers_give(
    engine, transformers_engine, output, stop
):
    assert (engine.context, len(engine.vocabulary)) == (
        CONTEXT,
        len(transformers_engine.vocabulary),
    )
    reasons = set()
    for settings in ((24, 0), (24, 0.7, 0.95, SEEDS), (7, 2.0, 1.0, SEEDS)):
        arguments = (PROMPTS, output, *settings)
        results = shown(engine.decode(*arguments, stop=stop))
        assert results == shown(
            transformers_engine.decode(*arguments, stop=stop)
        )
        reasons |= {reason for _, reason in results}
    assert reasons >= {"context_full", "max_new_tokens"}
    assert ("end_of_sequence" in reasons) <= (stop or output != "speech")


def test_every_end(engine, transformers_engine):
    def seconds_of(new):
        return (engine.vocabulary.kinds[new] >= 0).sum(1) * 0.1

    settings = {"seeds": range(20), "temperature": 2.0, "top_p": 1.0}
    settings |= {"max_seconds": 0.7, "seconds_of": seconds_of}
    arguments = (PROMPTS * 4, "speech", 30)
    results = engine.decode(*arguments, **settings)
    expected = transformers_engine.decode(*arguments, **settings)
    assert shown(results) == shown(expected)
    assert {r.end_reason for r in results} >= {
        "end_of_sequence",
        "context_full",
        "max_seconds",
    }


def test_spare_rows_are_never_allowed(engine):
    banned = torch.full((1, engine.llm.model_config.get_vocab_size()), 5.0)
    banned[:, : len(engine.vocabulary)] = -5.0
    processor = engine.llm.batch.processor
    params = stand_in.SamplingParams(extra_args=Wish("any").extra_args)
    processor._add(0, params, [])
    left = processor._constrain(banned, [processor.requests[0]], [0])
    spare = left[0, len(engine.vocabulary) :]
    assert torch.equal(spare, torch.full_like(spare, -torch.inf))
    assert left.max() == -5.0


def test_other_requests_are_left_alone(engine):
    """A server has those that ask nothing of this package."""
    ids = engine.vocabulary.encode([Text("a b")], "speech")
    wishes = [None, Wish("speech", False, 5, 1.0, 1.0), None, Wish("text")]
    params = [
        stand_in.SamplingParams(
            0.0,
            ignore_eos=True,
            max_tokens=12,
            extra_args={"other": 1} if wish is None else wish.extra_args,
        )
        for wish in wishes * 3
    ]
    prompts = [{"prompt_token_ids": ids}] * len(params)
    found = engine.llm.generate(prompts, params)
    free = [out.outputs[0].token_ids for out in found[::2]]
    model = Plain(engine.llm.model)
    assert free == [model.greedy(ids, 12)] * 6
    [drawn] = engine.decode([ids], "speech", 12, 1.0, 1.0, [5], stop=False)
    assert found[1].outputs[0].token_ids == drawn.ids.tolist()


class Plain:
    """A model of transformers without anything around it."""

    def __init__(self, model):
        self.model = model

    @torch.inference_mode()
    def greedy(self, ids, count):
        ids = list(ids)
        for _ in range(count):
            ids.append(
                int(self.model(torch.tensor([ids])).logits[0, -1].argmax())
            )
        return ids[-count:]


@pytest.mark.parametrize("shared", [True, False])
def test_log_likelihood(engine, transformers_engine, shared):
    contexts = [[1, 40, 41], [1], [1, 40, 41], [5] * (CONTEXT - 3)]
    continuations = [[7], [8, 9, 10], [11, 12], [4, 5, 6]]
    found = engine.log_likelihood(contexts, continuations, shared=shared)
    with torch.inference_mode():
        expected = transformers_engine.log_likelihood(
            contexts, continuations, batch_size=2, shared=shared
        )
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=1e-4, rtol=0)


def test_nothing_to_do(engine, transformers_engine):
    for one in (engine, transformers_engine):
        assert one.decode([], "text", seeds=[]) == []
        assert one.log_likelihood([], []).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_beams": 2}, 'num_beams=2.*engine="transformers"'),
        ({"temperature": 0.5}, "a seed for each prompt"),
        ({"max_seconds": 1.0}, "needs seconds_of"),
        ({"prompts": [[1] * CONTEXT]}, f"{CONTEXT} tokens .*; shorten it"),
        ({"output": "audio"}, "got 'audio'"),
    ],
)
def test_what_cannot_be_decoded(engine, arguments, message):
    arguments = {
        "prompts": [[1]],
        "output": "text",
        "temperature": 0,
        **arguments,
    }
    with pytest.raises(ValueError, match=message):
        engine.decode(**arguments)


@pytest.mark.parametrize(
    ("context", "continuation", "message"),
    [
        ([], [5], "item 0 has 0 tokens of context"),
        ([5], [], "0 of continuation"),
        ([5] * CONTEXT, [5], f"context of {CONTEXT}; shorten"),
    ],
)
def test_what_has_no_likelihood(engine, context, continuation, message):
    with pytest.raises(ValueError, match=message):
        engine.log_likelihood([context], [continuation])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"output": "audio"}, "output must be one of"),
        ({"output": 3}, "got 3"),
        ({"seed": 1}, "a request has spiritlm_output.*got spiritlm_seed"),
        ({"output": "text", "sede": 1}, "got spiritlm_output, spiritlm_sede"),
        ({"output": "text", "stop": "no"}, "spiritlm_stop must be True"),
        ({"output": "text", "seed": "one"}, "seed"),
        ({"output": "text", "seed": 2**64}, "below"),
        ({"output": "text", "temperature": 1}, "give it, or vLLM's own"),
        ({"output": "text", "seed": 1, "temperature": -1}, "temperature"),
        ({"output": "text", "seed": 1, "temperature": 0}, "no spiritlm_seed"),
        ({"output": "text", "seed": 1, "top_p": 0}, "top_p"),
    ],
)
def test_requests_that_are_refused(extra, message):
    extra = {f"spiritlm_{name}": value for name, value in extra.items()}
    params = stand_in.SamplingParams(extra_args=extra)
    with pytest.raises(ValueError, match=message):
        ConstrainedSampling.validate_params(params)


@pytest.mark.parametrize(
    ("model", "speculative", "message"),
    [("org/name", None, "is no folder"), (".", object(), "speculative")],
)
def test_what_vllm_must_not_do(model, speculative, message):
    config = SimpleNamespace(
        model_config=SimpleNamespace(model=model),
        speculative_config=speculative,
    )
    with pytest.raises(ValueError, match=message):
        ConstrainedSampling(config, torch.device("cpu"), False)


@pytest.fixture
def without_transformers(monkeypatch):
    """Make it an error to load the weights of a language model."""

    def refuse(*args, **kwargs):
        raise AssertionError("transformers load the weights")

    monkeypatch.setattr(
        "spiritlm_plugin.lobes.language_model.load_language_model", refuse
    )


@pytest.mark.parametrize("vllm", RUNNERS[:1], indirect=True)
def test_a_release_by_vllm(vllm, load, checkpoints, request):
    expected = load(checkpoints, "base", "float32")
    request.getfixturevalue("without_transformers")
    lm = SpiritLM.from_release(checkpoints, "base", "float32", engine="vllm")
    assert lm.mods.language_model is None
    check_model(lm, expected)


@pytest.mark.parametrize("vllm", RUNNERS[:1], indirect=True)
def test_a_folder_by_vllm(vllm, checkpoints, tmp_path, request):
    from spiritlm_plugin.integrations.convert import convert_release

    folder = convert_release(checkpoints, "base", tmp_path / "model")
    options = {"overrides": {"language_model_dtype": "float32"}}
    expected = SpiritLM.from_hparams(folder, **options)
    request.getfixturevalue("without_transformers")
    lm = SpiritLM.from_hparams(folder, engine="vllm", **options)
    assert lm.engine.llm.model.dtype == torch.float32
    check_model(lm, expected)
    for override in ({"folder": "x", "rotary_dtype": "y"}, None):
        with pytest.raises(ValueError, match='engine="transformers"'):
            SpiritLM.from_hparams(
                folder, engine="vllm", overrides={"language_model": override}
            )


def content(segment):
    return segment.text if isinstance(segment, Text) else segment.stream


def check_model(lm, expected):
    assert (lm.context, lm.expressive) == (expected.context, False)
    prompts = [[Text("the cat")], [Text("he said that")]]
    for output in ("text", "speech"):
        options = {"max_new_tokens": 5, "seed": 3, "vocode": False}
        pairs = zip(
            lm.generate(prompts, output, **options),
            expected.generate(prompts, output, **options),
            strict=True,
        )
        for found, other in pairs:
            assert found.end_reason == other.end_reason
            assert [*map(content, found)] == [*map(content, other)]
    sums, counts = lm.log_likelihood(*zip(*[[[Text("a")], [Text("b")]]] * 2))
    other, others = expected.log_likelihood(
        [[Text("a")]] * 2, [[Text("b")]] * 2
    )
    assert torch.allclose(sums, other, atol=1e-4)
    assert torch.equal(counts, others)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "tgi"}, "transformers or vllm, got 'tgi'"),
        ({"engine_options": {"seed": 1}}, "are vLLM's"),
    ],
)
def test_other_engines_are_refused(checkpoints, arguments, message):
    for load in (SpiritLM.from_release, SpiritLM.from_hparams):
        with pytest.raises(ValueError, match=message):
            load("nowhere", **arguments)


def test_auto_is_the_type_of_the_weights(vllm, folder, tmp_path):
    """To vLLM itself it is another where they are of 32 bits."""
    assert VllmEngine(folder).llm.model.dtype == torch.float32
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "dtype": None}))
    with pytest.raises(ValueError, match="names no dtype"):
        VllmEngine(path.parent)
    path.write_text(json.dumps({**config, "vocab_size": 9}))
    with pytest.raises(ValueError, match="9 rows, fewer than"):
        VllmEngine(path.parent)


def test_without_vllm(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match=r"pip install .*\[vllm\]"):
        VllmEngine(folder)


def test_the_stand_in_has_vllms_signatures():
    vllm = pytest.importorskip("vllm", reason="vLLM is not installed")
    v1 = import_module("vllm.v1.sample.logits_processor")
    v2 = import_module("vllm.v1.worker.gpu.sample.logits_processor")
    for ours, theirs in (
        (stand_in.LLM.__init__, vllm.LLM.__init__),
        (stand_in.LLM.generate, vllm.LLM.generate),
        (stand_in.SamplingParams, vllm.SamplingParams),
        (stand_in.BatchUpdate, v1.BatchUpdate),
        (stand_in.LogitsContext, v2.LogitsContext),
    ):
        assert {*signature(ours).parameters} <= {*signature(theirs).parameters}
    for ours, theirs in (
        (stand_in.LogitsProcessor, v1.LogitsProcessor),
        (stand_in.LogitsProcessorV2, v2.LogitsProcessor),
    ):
        for name in ("__init__", *vars(ours)):
            if callable(getattr(theirs, name, None)) and name[:2] != "_a":
                expected = signature(getattr(theirs, name)).parameters
                assert [*signature(getattr(ours, name)).parameters] == [
                    *expected
                ]
        # None of theirs is missing in ours.
        members = {n for n in vars(theirs) if not n.startswith("_")}
        assert members <= {*dir(ConstrainedSampling)}
    directions = {d.name for d in v1.MoveDirectionality}
    assert directions == {d.name for d in stand_in.MoveDirectionality}


def test_vllm_itself(folder, transformers_engine, monkeypatch):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    for name, value in (
        ("VLLM_ENABLE_V1_MULTIPROCESSING", "0"),
        (
            "VLLM_CPU_KVCACHE_SPACE",
            os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
        ),
    ):
        monkeypatch.setenv(name, value)
    engine = VllmEngine(folder, enforce_eager=True)
    for output in ("text", "speech", "any"):
        for settings in ((24, 0), (24, 0.7, 0.95, SEEDS)):
            arguments = (PROMPTS, output, *settings)
            assert shown(engine.decode(*arguments)) == shown(
                transformers_engine.decode(*arguments)
            )
    items = ([[1, 40, 41], [5] * (CONTEXT - 3)], [[7], [4, 5, 6]])
    with torch.inference_mode():
        expected = transformers_engine.log_likelihood(*items)
    found = engine.log_likelihood(*items)
    assert torch.allclose(found, expected, atol=1e-3, rtol=0)


def test_likelihoods_are_the_models(vllm, folder):
    with pytest.raises(ValueError, match="leave it out, it is 'raw_logprobs'"):
        VllmEngine(folder, logprobs_mode="processed_logprobs")


def test_no_more_than_the_context(vllm, folder):
    with pytest.raises(ValueError, match=f"{CONTEXT + 1} is more than"):
        VllmEngine(folder, max_model_len=CONTEXT + 1)
