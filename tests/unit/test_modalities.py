"""Losses and accuracies by modality."""

import sys
from types import SimpleNamespace

import pytest
import torch

from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes import linear_cross_entropy
from spiritlm_plugin.metrics.modalities import ModalityFigures


def test_figures_are_those_of_single_tokens():
    text = train_text_tokenizer(["the cat sat on the mat"], 280)
    vocabulary = Vocabulary.extend(text, phonetic=9, pitch=5, style=3)
    firsts = {
        "text": 262,
        "phonetic": vocabulary.speech_tokens()["[Hu0]"],
        "pitch": vocabulary.speech_tokens()["[Pi0]"],
        "style": vocabulary.speech_tokens()["[St0]"],
        "control": vocabulary.markers["asr"],
    }
    weights = {"text": 3.0, "pitch": 0.5}
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 8, len(vocabulary), generator=generator)
    labels = torch.full((5, 8), -100)
    names = list(firsts)
    expected, total = {name: [] for name in names}, 0.0
    for row, name in enumerate(names):
        # Of eight places one, two, ... are predicted; every other is right.
        for place in range(row + 1):
            label = firsts[name] + place % 2
            labels[row, place] = label
            if place % 2:
                logits[row, place, label] += 20
            loss = -logits[row, place].log_softmax(-1)[label].item()
            hit = int(logits[row, place].argmax()) == label
            expected[name].append((loss, hit))
            total += weights.get(name, 1.0) * loss

    loss, figures = ModalityFigures(vocabulary, weights)(
        logits, None, None, labels
    )

    assert loss.item() == pytest.approx(total, rel=1e-5)
    assert list(figures) == names
    for name, tokens in expected.items():
        losses, hits = zip(*tokens)
        count, mean, accuracy = figures[name]
        assert count == len(tokens)
        assert mean == pytest.approx(sum(losses) / count, rel=1e-5)
        assert accuracy == pytest.approx(sum(hits) / count)


def test_what_is_not_predicted_has_no_gradient():
    text = train_text_tokenizer(["the cat sat on the mat"], 280)
    vocabulary = Vocabulary.extend(text, phonetic=9)
    logits = torch.zeros(1, 3, len(vocabulary), requires_grad=True)
    labels = torch.tensor([[262, -100, 263]])
    loss, _ = ModalityFigures(vocabulary)(logits, None, None, labels)
    loss.backward()
    assert logits.grad[0, [0, 2]].abs().sum(-1).min() > 0
    assert not logits.grad[0, 1].any()


def test_a_projection_is_scored_as_its_logits(monkeypatch):
    monkeypatch.setattr(linear_cross_entropy, "_LOGITS", 700)
    text = train_text_tokenizer(["the cat sat on the mat"], 280)
    vocabulary = Vocabulary.extend(text, phonetic=9)
    figures = ModalityFigures(vocabulary, {"text": 0.5})
    hidden = torch.randn(2, 7, 16, requires_grad=True)
    weight = torch.randn(len(vocabulary), 16, requires_grad=True)
    bias = torch.randn(len(vocabulary), requires_grad=True)
    labels = torch.randint(len(vocabulary), (2, 7))
    labels[1, 3:] = -100
    whole, expected = figures(hidden @ weight.T + bias, None, None, labels)
    (3 * whole).backward()
    gradients = [x.grad for x in (hidden, weight, bias)]
    hidden.grad = weight.grad = bias.grad = None
    loss, found = figures(hidden, weight, bias, labels)
    (3 * loss).backward()
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-5)
    for one, other in zip((hidden, weight, bias), gradients):
        torch.testing.assert_close(one.grad, other, rtol=1e-4, atol=1e-5)


def test_weights_that_do_not_learn_get_no_gradient():
    hidden = torch.randn(3, 4, requires_grad=True)
    weight, labels = torch.randn(9, 4), torch.tensor([1, 2, -100])
    scores = linear_cross_entropy.linear_cross_entropy(
        hidden, weight, None, labels, torch.ones(3)
    )
    scores.loss.backward()
    assert weight.grad is None
    assert hidden.grad[:2].any()
    assert not hidden.grad[2].any()


def stand_in(
    _input,
    weight,
    target,
    ce_weight=None,
    bias=None,
    ignore_index=-100,
    reduction="mean",
    accum_dtype=None,
    return_predicted_tokens=False,
    token_grad_output=None,
    compute_gradients=None,
    weight_requires_grad=None,
):
    """Do what Liger's function of this name and signature does, by autograd."""
    assert reduction == "none" and return_predicted_tokens
    assert accum_dtype is torch.float32 and ce_weight is None
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in (_input, weight, bias)]
        logits = torch.nn.functional.linear(*inputs)
        losses = torch.nn.functional.cross_entropy(
            logits, target, ignore_index=ignore_index, reduction="none"
        )
        gradients = [None] * 3
        if compute_gradients:
            (losses * token_grad_output).sum().backward()
            gradients = [x.grad for x in inputs]
        if not weight_requires_grad:
            gradients[1] = None
    predicted = logits.argmax(-1).masked_fill(target == ignore_index, -1)
    return losses.detach(), None, None, predicted, *gradients


@pytest.mark.parametrize("learns", [True, False])
def test_kernels_give_the_same_figures_and_gradients(monkeypatch, learns):
    text = train_text_tokenizer(["the cat sat on the mat"], 280)
    vocabulary = Vocabulary.extend(text, phonetic=9)
    figures = ModalityFigures(vocabulary, {"text": 0.5})
    hidden = torch.randn(2, 7, 16, requires_grad=True)
    weight = torch.randn(len(vocabulary), 16, requires_grad=learns)
    bias = torch.randn(len(vocabulary), requires_grad=True)
    labels = torch.randint(len(vocabulary), (2, 7))
    labels[0, 0] = (hidden @ weight.T + bias)[0, 0].argmax()
    labels[1, 3:] = -100
    found = []
    for kernels in (None, stand_in):
        monkeypatch.setattr(
            linear_cross_entropy, "_liger", lambda device, k=kernels: k
        )
        loss, parts = figures(hidden, weight, bias, labels)
        (3 * loss).backward()
        gradients = [x.grad for x in (hidden, weight, bias)]
        found.append((loss.detach(), parts, gradients))
        hidden.grad = weight.grad = bias.grad = None
    (loss, parts, gradients), (expected, others, wanted) = found
    torch.testing.assert_close(loss, expected)
    assert parts.keys() == others.keys()
    for name, values in others.items():
        assert parts[name] == pytest.approx(values, rel=1e-5)
    for one, other in zip(gradients, wanted):
        if one is None:
            assert other is None and not learns
        else:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("device", "forward", "taken"),
    [
        ("cuda", stand_in, True),
        ("cpu", stand_in, False),
        ("cuda", lambda _input, weight, target: None, False),  # an old version
        ("cuda", None, False),
    ],
)
def test_kernels_are_taken_where_they_are(monkeypatch, device, forward, taken):
    module = SimpleNamespace(fused_linear_cross_entropy_forward=forward)
    package = SimpleNamespace(fused_linear_cross_entropy=module)
    here = forward is not None
    for name in ("liger_kernel", "liger_kernel.ops"):
        monkeypatch.setitem(sys.modules, name, package if here else None)
    linear_cross_entropy._liger.cache_clear()
    found = linear_cross_entropy._liger(device)
    linear_cross_entropy._liger.cache_clear()
    assert found is (forward if taken else None)
