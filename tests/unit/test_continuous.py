"""Tests of ``spiritlm_plugin.decoders.continuous`` and what it stands on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from spiritlm_plugin.dataio.units.text_tokenizers import SentencePieceText
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.decoders import continuous, engines, llama_steps
from spiritlm_plugin.decoders.constrained import decode
from spiritlm_plugin.decoders.continuous import (
    AllowedScores,
    Continuous,
    decode_continuously,
)
from spiritlm_plugin.decoders.engines import TransformersEngine
from spiritlm_plugin.decoders.llama_steps import LlamaSteps, Past, is_llama
from spiritlm_plugin.decoders.row_cache import RowCache
from spiritlm_plugin.decoders.shared_prefix import groups_of_prompts
from spiritlm_plugin.lobes.language_model import LanguageModel, pad_in_front

CONTEXT = 224
KIN = {
    "llama": (LlamaForCausalLM, LlamaConfig),
    "mistral": (MistralForCausalLM, MistralConfig),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config),
}


@pytest.fixture(scope="module")
def vocabulary(sentencepiece_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "tokenizer.model"
    path.write_bytes(sentencepiece_model())
    text = SentencePieceText(path)
    return Vocabulary.extend(text, phonetic=9, pitch=3, style=2)


def make(vocabulary, kind="llama", **sizes):
    """A language model of random weights, nearly uniform over tokens."""
    torch.manual_seed(0)
    model, config = KIN[kind]
    sizes = {
        "vocab_size": len(vocabulary) + 5,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.3,
        "sliding_window": None,
        **sizes,
    }
    return LanguageModel(model(config(**sizes)).eval(), vocabulary)


@pytest.fixture(scope="module")
def lm(vocabulary):
    return make(vocabulary)


def prompts_of(count, shared=0, seed=0, longest=24):
    """Prompts of unequal length that begin with the same tokens."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tokens):
        return torch.randint(3, 300, (tokens,), generator=generator).tolist()

    shots = draw(shared)
    return [[1, *shots, *draw(3 + i * 7 % longest)] for i in range(count)]


def same(first, second):
    assert [(a.ids.tolist(), a.end_reason) for a in first] == [
        (b.ids.tolist(), b.end_reason) for b in second
    ]


@pytest.mark.parametrize("output", ["text", "speech"])
@pytest.mark.parametrize(
    ("rows", "temperature"), [(1, 1.5), (3, 0), (3, 1.5), (16, 1.5)]
)
def test_gives_what_generate_gives(lm, rows, temperature, output, monkeypatch):
    monkeypatch.setattr(continuous, "_WORTH", 100)  # so that there are groups
    # One of the prompts has room for two tokens; others share their shots.
    prompts = [
        *prompts_of(5),
        *prompts_of(4, shared=90, seed=1),
        [1] * (CONTEXT - 2),
    ]
    arguments = (prompts, output, 16, temperature, 0.95, range(10))
    found = decode_continuously(lm, *arguments, rows=rows)
    same(found, decode(lm, *arguments))
    if output == "speech" and temperature:
        reasons = {out.end_reason for out in found}
        assert reasons >= {"end_of_sequence", "max_new_tokens"}


@pytest.mark.parametrize("kind", list(KIN))
def test_all_kin(vocabulary, kind):
    lm = make(vocabulary, kind)
    assert is_llama(lm)
    arguments = (prompts_of(5, shared=70), "any", 12, 0)
    same(decode_continuously(lm, *arguments, rows=2), decode(lm, *arguments))


def test_other_models_are_left_to_transformers(vocabulary, monkeypatch):
    window = {"sliding_window": 8}
    assert not is_llama(make(vocabulary, "mistral", **window))
    layers = ["full_attention", "sliding_attention"]
    window |= {"use_sliding_window": True, "layer_types": layers}
    assert not is_llama(make(vocabulary, "qwen2", **window))
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    assert not is_llama(make(vocabulary, rope_parameters=dynamic))
    lm = make(vocabulary)
    lm.train()
    assert not is_llama(lm)
    lm.eval()
    monkeypatch.setattr(engines, "decode_continuously", None)  # not called
    monkeypatch.setattr(engines, "is_llama", lambda lm: False)
    arguments = (prompts_of(3), "speech", 5, 0)
    same(TransformersEngine(lm).decode(*arguments), decode(lm, *arguments))


def test_seconds(lm):
    def seconds_of(new):
        return (lm.vocabulary.kinds[new] >= 0).sum(1) * (new[:, 0] % 2 + 1)

    arguments = (prompts_of(9), "speech", 16, 2.0, 1.0, range(9))
    options = {"max_seconds": 14.0, "seconds_of": seconds_of}
    found = decode_continuously(lm, *arguments, rows=4, **options)
    same(found, decode(lm, *arguments, **options))
    assert {out.end_reason for out in found} >= {"max_seconds"}


@pytest.mark.parametrize("unseen", [3, 8])
def test_looking_seldom_changes_nothing(lm, monkeypatch, unseen):
    """As on a GPU, where a look costs a wait."""
    prompts = prompts_of(9, shared=80)
    arguments = (prompts, "speech", 30, 1.5, 1.0, range(9))
    expected = decode_continuously(lm, *arguments, rows=4)
    init = continuous._Rows.__init__

    def seldom(self, *given):
        init(self, *given)
        self.unseen = unseen

    monkeypatch.setattr(continuous._Rows, "__init__", seldom)
    same(decode_continuously(lm, *arguments, rows=4), expected)


def test_pieces_come_as_they_are_made(lm):
    prompts = prompts_of(4)
    arguments = (prompts, "text", 9, 0)
    pieces = list(Continuous(lm, *arguments, rows=2))
    first = [piece.prompt for piece in pieces[:6]]
    assert first == [3, 2, 3, 2, 3, 2]  # the longest prompts
    assert all(len(piece.ids) == 1 for piece in pieces)
    for i, out in enumerate(decode(lm, *arguments)):
        own = [piece for piece in pieces if piece.prompt == i]
        assert [id for piece in own for id in piece.ids] == out.ids.tolist()
        reasons = [piece.end_reason for piece in own]
        assert reasons == [None] * (len(own) - 1) + [out.end_reason]


def test_long_prompts_are_read_in_parts(lm, monkeypatch):
    prompts = prompts_of(5, shared=150)
    expected = decode(lm, prompts, "text", 6, 0)
    monkeypatch.setattr(continuous, "_READ_TOGETHER", 40)
    read, widths = LlamaSteps.read, []

    def counting(self, ids, *others):
        widths.append(tuple(ids.shape))
        return read(self, ids, *others)

    monkeypatch.setattr(LlamaSteps, "read", counting)
    same(decode_continuously(lm, prompts, "text", 6, 0), expected)
    # What they begin with is read once.
    assert widths[:4] == [(1, 40), (1, 40), (1, 40), (1, 31)]
    assert all(rows * tokens <= 40 for rows, tokens in widths)


def test_nothing_to_do_and_nothing_kept(lm):
    assert decode_continuously(lm, [], "text", temperature=0) == []
    before = {*lm.__dict__, *lm.model.__dict__}
    decode_continuously(lm, prompts_of(2), "text", 3, temperature=0)
    assert before == {*lm.__dict__, *lm.model.__dict__}


def test_scores_of_what_is_allowed(lm):
    hidden = torch.randn(3, 16)
    head = lm.model.get_output_embeddings()
    for output in ("speech", "text"):
        allowed = lm.vocabulary.allowed(output, lm.rows)
        scores = AllowedScores(lm, allowed)
        assert (scores.few is None) == (output == "text")
        assert torch.equal(allowed.nonzero().flatten(), scores.tokens)
        assert torch.allclose(scores(hidden), head(hidden)[:, allowed])


def test_a_head_of_another_kind(lm):
    """Such as one of 8-bit weights, whose rows cannot be taken."""

    class Other(nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.map = linear.forward

        def forward(self, x):
            return self.map(x)

    arguments = (prompts_of(3), "speech", 9, 0)
    expected = decode_continuously(lm, *arguments)
    plain = lm.model.lm_head
    try:
        lm.model.lm_head = Other(plain)
        same(decode_continuously(lm, *arguments), expected)
    finally:
        lm.model.lm_head = plain


def test_steps_read_what_the_model_reads(lm):
    steps = LlamaSteps(lm)
    ids, mask = pad_in_front(prompts_of(4), 2)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        expected = lm.model.model(
            ids, attention_mask=mask, position_ids=positions
        ).last_hidden_state[:, -1]
        found, past = steps.read(ids, mask)
    assert torch.allclose(found, expected, atol=1e-5)
    assert past.tokens == ids.shape[1]


@settings(max_examples=30)
@given(st.data())
def test_rows_come_and_go(data):
    """Of each row the cache gives what was put in, behind nothing unmasked."""
    cache, kept, counter = RowCache(3, torch.device("cpu")), [], 0
    for _ in range(data.draw(st.integers(1, 12))):
        choices = ["place"] * (len(kept) < 3) + ["drop", "step"] * bool(kept)
        action = data.draw(st.sampled_from(choices))
        if action == "place":
            count = data.draw(st.integers(1, 3 - len(kept)))
            lengths = [data.draw(st.integers(1, 90)) for _ in range(count)]
            items = []
            for length in lengths:
                items.append(list(range(counter, counter + length)))
                counter += length
            ids, mask = pad_in_front(items, -1)
            x = ids[:, None, :, None].float()
            cache.place(Past([(x, -x)], mask), lengths)
            kept += items
        elif action == "drop":
            row = data.draw(st.integers(0, len(kept) - 1))
            cache.drop(row)
            kept[row] = kept[-1]
            kept.pop()
        else:
            for _ in range(data.draw(st.integers(1, 80))):
                new = torch.arange(counter, counter + len(kept)).float()
                counter += len(kept)
                cache.begin_step()
                x = new[:, None, None, None]
                keys, values = cache.store(0, x, -x)
                for items, token in zip(kept, new.tolist()):
                    items.append(token)
            assert torch.equal(keys, -values)
            mask = cache.mask
            for row, items in enumerate(kept):
                own = keys[row, 0, :, 0]
                seen = own if mask is None else own[mask[row]]
                assert seen.tolist() == items
    assert len(cache) == len(kept)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 400), st.integers(0, 3)),
        max_size=12,
    )
)
def test_groups_of_prompts(items):
    prompts = [
        [kind] * length + [9, *range(rest)] for kind, length, rest in items
    ]
    groups = groups_of_prompts(prompts)
    members = sorted(i for group in groups for i in group.members)
    assert members == list(range(len(prompts)))
    for shared, members in groups:
        assert len({tuple(prompts[i][:shared]) for i in members}) == 1
        assert all(shared < len(prompts[i]) for i in members)
        assert shared == 0 or (shared >= 64 and len(members) > 1)


def test_what_is_shared_by_few_is_not_lost():
    """Some prompts had no room for the first shot."""
    prompts = prompts_of(6, shared=500)
    prompts += [prompt[:1] + prompt[40:] for prompt in prompts[:3]]
    groups = groups_of_prompts(prompts)
    assert sorted(map(len, (group.members for group in groups))) == [3, 6]
    assert min(group.shared for group in groups) >= 400


@pytest.mark.parametrize("shared", [0, 100])
def test_log_likelihood_of_shared_shots(lm, shared, monkeypatch):
    contexts = [p for p in prompts_of(4, shared) for _ in range(3)]
    endings = [[5], [6, 7], [8] * 5] * 4
    engine = TransformersEngine(lm)
    found = engine.log_likelihood(contexts, endings, batch_size=5)
    with torch.inference_mode():
        expected = lm.log_likelihood(contexts, endings)
    assert torch.allclose(found, expected, atol=1e-4)


def test_errors_name_value_and_remedy(lm):
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        decode_continuously(lm, [[1]], "text", temperature=0, rows=0)
    with pytest.raises(ValueError, match=f"{CONTEXT} tokens .*; shorten it"):
        decode_continuously(lm, [[1] * CONTEXT], "text", temperature=0)
    with pytest.raises(ValueError, match="seed"):
        decode_continuously(lm, [[1]], "text", temperature=1)
    assert llama_steps.is_llama(lm)
