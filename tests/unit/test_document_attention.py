"""Tests of ``spiritlm_plugin.lobes.document_attention``."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

from spiritlm_plugin.dataio.stream.packing import pack
from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes.document_attention import (
    BY_DOCUMENT,
    Documents,
    document_attention,
)
from spiritlm_plugin.lobes.language_model import (
    load_language_model,
    new_language_model,
)

SIZE = 70
LENGTHS = st.lists(st.integers(1, SIZE), min_size=1, max_size=9)


def positions_of(lengths):
    rows = -(-sum(lengths) // SIZE)
    lengths = [*lengths, *[1] * (rows * SIZE - sum(lengths))]
    documents = [np.ones(length, np.int32) for length in lengths]
    positions = pack(documents, rows, SIZE, np.random.default_rng(0))[1]
    return torch.from_numpy(positions).long()


@given(LENGTHS)
def test_each_token_has_a_place_among_its_document(lengths):
    positions = positions_of(lengths)
    documents = Documents.of(positions).batches
    tokens, places = documents.tokens, documents.places
    assert torch.equal(tokens[places], torch.arange(positions.numel()))
    taken = torch.cat([places, documents.padding]).sort().values
    assert torch.equal(taken, torch.arange(len(tokens)))
    sizes = [size for number, size in documents.shapes for _ in range(number)]
    first = torch.tensor([0, *sizes[:-1]]).cumsum(0)
    # Documents begin where their batches' rows do, and go on from there.
    assert positions.flatten()[tokens[first]].eq(0).all()
    assert torch.isin(places - positions.flatten(), first).all()


@given(LENGTHS, st.sampled_from([(2, 2), (4, 2), (3, 1)]))
def test_attention_and_gradients_are_those_of_the_mask(lengths, heads):
    positions = positions_of(lengths)
    rows, size = positions.shape
    generator = torch.Generator().manual_seed(1)
    states = [
        torch.randn(rows, n, size, 4, generator=generator).requires_grad_()
        for n in (heads[0], heads[1], heads[1])
    ]
    numbers = (positions == 0).cumsum(1)
    mask = (numbers[:, :, None] == numbers[:, None]).tril()[:, None]
    expected = F.scaled_dot_product_attention(
        *states, attn_mask=mask, scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    documents = Documents.of(positions)
    found = document_attention(*states, documents, scaling=0.3)
    torch.testing.assert_close(found, expected)
    direction = torch.randn(expected.shape, generator=generator)
    torch.testing.assert_close(
        torch.autograd.grad(found, states, direction),
        torch.autograd.grad(expected, states, direction),
    )


@pytest.mark.parametrize("heads", [2, 1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_short_documents_have_gradients_of_full_precision(heads, dtype):
    """Under autocast, whether or not the states are in half precision."""
    positions = positions_of([70, 50, 20, 1, 33, 7])
    generator = torch.Generator().manual_seed(0)
    states = [
        torch.randn(*positions.shape, n, 8, generator=generator).to(dtype)
        for n in (2, heads, heads)
    ]
    states = [x.transpose(1, 2).requires_grad_() for x in states]
    direction = torch.randn(*positions.shape, 2, 8, generator=generator)
    documents = Documents.of(positions)
    with torch.autocast("cpu", torch.bfloat16):
        found = document_attention(*states, documents)
    expected = document_attention(*(x.float() for x in states), documents)
    assert torch.equal(found, expected.bfloat16())
    torch.testing.assert_close(
        torch.autograd.grad(found, states, direction.bfloat16()),
        torch.autograd.grad(expected, states, direction.bfloat16().float()),
    )
    with torch.no_grad():
        longer = document_attention(*states, documents)
    assert (longer - found).abs().max() < 0.05 * found.abs().max()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (3, 1)])
def test_the_kernel_finds_what_the_batches_do(heads):
    positions = positions_of([70, 50, 20, 1, 33, 7])
    rows, size = positions.shape
    states = [
        torch.randn(rows, n, size, 64, device="cuda").requires_grad_()
        for n in (heads[0], heads[1], heads[1])
    ]
    documents = Documents.of(positions, torch.device("cuda"))
    expected = document_attention(*states, documents, scaling=0.3)
    with torch.autocast("cuda", torch.bfloat16):
        found = document_attention(*states, documents, scaling=0.3)
    assert found.dtype == torch.bfloat16
    direction = torch.randn_like(expected)
    pairs = zip(
        [found, *torch.autograd.grad(found, states, direction.bfloat16())],
        [expected, *torch.autograd.grad(expected, states, direction)],
    )
    for half, full in pairs:
        assert (half.float() - full).norm() < 0.01 * full.norm()


def test_rows_that_begin_in_the_middle_are_documents_of_their_own():
    documents = Documents.of(torch.tensor([[3, 4, 5], [6, 7, 0]]))
    assert documents.bounds.tolist() == [0, 3, 5, 6]
    assert documents.batches.shapes == [(1, 1), (2, 3)]
    assert documents.batches.places.tolist() == [1, 2, 3, 4, 5, 0]


SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
}
MODELS = {
    "llama": SMALL,
    "qwen2": SMALL,
    "mistral": SMALL | {"sliding_window": 5},
    "gpt_neox": SMALL,
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
}


def model_of(kind):
    text = train_text_tokenizer(["the cat sat on the mat"], 280)
    vocabulary = Vocabulary.extend(text, phonetic=50)
    return new_language_model(MODELS[kind] | {"model_type": kind}, vocabulary)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_models_find_what_they_find_by_the_mask(kind, checkpointing):
    lm = model_of(kind)
    if checkpointing:
        lm.train()
        lm.model.gradient_checkpointing_enable()
    for module in lm.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    positions = positions_of([40, 30, 12, 60])
    ids = torch.randint(0, 300, positions.shape)
    found = []
    for attention in (BY_DOCUMENT, "sdpa"):
        assert lm.model.config._attn_implementation == BY_DOCUMENT
        lm.model.set_attn_implementation(attention)
        lm.zero_grad()
        logits = lm(ids, positions=positions)
        logits.logsumexp(-1).sum().backward()
        found.append([logits, *(weights.grad for weights in lm.parameters())])
        lm.model.set_attn_implementation(BY_DOCUMENT)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_mask_is_heeded():
    lm = model_of("llama")
    ids = torch.randint(0, 300, (1, 6))
    mask = torch.tensor([[False, False, True, True, True, True]])
    positions = torch.tensor([[0, 0, 0, 1, 2, 3]])
    torch.testing.assert_close(lm(ids, mask, positions)[:, 2:], lm(ids[:, 2:]))


def test_the_folder_does_not_know_of_it(tmp_path):
    model_of("llama").save(tmp_path)
    assert BY_DOCUMENT not in (tmp_path / "config.json").read_text()
    lm = load_language_model(tmp_path)
    assert lm.model.config._attn_implementation == BY_DOCUMENT


def test_a_compiled_model_is_not_compiled_for_each_batch():
    lm, counter = model_of("llama"), CompileCounter()
    forward = torch.compile(lm, backend=counter)
    counts = []
    for lengths in ([60, 50], [12, 13, 40, 70], [1, 1, 1, 70, 33, 34]):
        positions = positions_of([*lengths, SIZE])[:2]
        ids = torch.randint(0, 300, positions.shape)
        torch.testing.assert_close(
            forward(ids, positions=positions), lm(ids, positions=positions)
        )
        counts.append(counter.frame_count)
    assert counts[0] and counts == counts[:1] * 3
