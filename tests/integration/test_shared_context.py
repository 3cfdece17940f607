"""Continuations that share a context, against a plain loop."""

from functools import wraps

import pytest
import torch

from spiritlm_plugin.decoders.shared_context import shared_log_likelihood


def items_of(lm, seed=0):
    """Contexts of unequal length with endings of unequal length, mixed."""
    generator = torch.Generator().manual_seed(seed)

    def draw(length):
        ids = torch.randint(
            3, lm.vocabulary.size, (length,), generator=generator
        )
        return ids.tolist()

    shared = [(draw(n), m) for n, m in ((1, 5), (40, 3), (41, 1), (7, 2))]
    items = [
        (context, draw(length))
        for context, count in shared
        for length in (1, 9, 30, 2, 17)[:count]
    ]
    order = torch.randperm(len(items), generator=generator)
    return [list(column) for column in zip(*(items[i] for i in order))]


def plain(lm, contexts, continuations):
    with torch.inference_mode():
        return torch.cat(
            [
                lm.log_likelihood([context], [continuation])
                for context, continuation in zip(contexts, continuations)
            ]
        )


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 16])
def test_equals_a_plain_loop(lm, batch_size):
    model = lm.mods.language_model
    items = items_of(model)
    found = shared_log_likelihood(model, *items, batch_size=batch_size)
    assert torch.allclose(found, plain(model, *items), atol=1e-4, rtol=0)


def test_what_else_is_in_the_batch_does_not_matter(lm):
    """Nor does what padding holds."""
    model = lm.mods.language_model
    contexts, continuations = items_of(model, seed=1)
    together = shared_log_likelihood(model, contexts, continuations)
    for i in range(len(contexts)):
        [alone] = shared_log_likelihood(
            model, contexts[i : i + 1], continuations[i : i + 1]
        )
        assert abs(float(alone - together[i])) < 1e-4


def test_a_context_is_computed_once(lm, monkeypatch):
    model = lm.mods.language_model
    forward, seen = model.model.forward, []

    @wraps(forward)
    def counting(*args, **kwargs):
        seen.append(kwargs["input_ids"].shape)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", counting)
    context, endings = [5] * 30, [[6, 7, 8], [9] * 4, [3]]
    shared_log_likelihood(model, [context] * 3, endings)
    assert seen == [(1, 30), (3, 3)]


def test_nothing_to_score(base):
    assert shared_log_likelihood(base.mods.language_model, [], []).shape == (0,)


@pytest.mark.parametrize(
    "contexts, continuations, batch_size, message",
    [
        ([[1]], [[2], [3]], 4, "1 contexts and 2 continuations"),
        ([[1], []], [[2], [3]], 4, "item 1 has 0 tokens of context"),
        ([[1]], [[]], 4, "item 0 .* 0 of continuation"),
        ([[1]], [[2]], 0, "batch_size must be >= 1"),
        ([[1] * 99999], [[2]], 4, "more than the model's context"),
    ],
)
def test_bad_input(base, contexts, continuations, batch_size, message):
    with pytest.raises(ValueError, match=message):
        shared_log_likelihood(
            base.mods.language_model, contexts, continuations, batch_size
        )
