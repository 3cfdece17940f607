"""Losses and accuracies by modality."""

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
