"""Toxicity as classifiers of both kinds say it, and what is added."""

import pytest
import torch

from spiritlm_plugin.metrics.toxicity import (
    ToxicityClassifier,
    added_toxicity,
    load_toxicity_classifier,
)
from tests.unit.judges import (
    save_toxicity_model,
    toxicity_model,
    word_tokens,
)

TEXTS = ["the old man walked", "it rained", "many small houses again"]
LABELS = ["obscene", "insult", "fine"]


def logits_of(model, tokenizer, text):
    with torch.no_grad():
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        return model(ids).logits[0]


def test_labels_that_exclude_each_other():
    tokenizer = word_tokens(model_max_length=32)
    model = toxicity_model(tokenizer, LABELS)
    classify = ToxicityClassifier(model, tokenizer, ["Obscene", "insult"], 2)
    for text, score in zip(TEXTS, classify(TEXTS)):
        shares = logits_of(model, tokenizer, text).softmax(0)
        assert score == pytest.approx(float(shares[:2].sum()), rel=1e-5)


@pytest.mark.parametrize("labels", [LABELS, ["insult"]])
def test_labels_that_do_not(labels):
    tokenizer = word_tokens(model_max_length=32)
    problem = "multi_label_classification" if len(labels) > 1 else None
    model = toxicity_model(tokenizer, labels, problem)
    named = [label for label in labels if label != "fine"]
    classify = ToxicityClassifier(model, tokenizer, named)
    for text, score in zip(TEXTS, classify(TEXTS)):
        chances = logits_of(model, tokenizer, text).sigmoid()
        highest = float(chances[: len(named)].max())
        assert score == pytest.approx(highest, rel=1e-5)


def test_texts_of_any_length():
    tokenizer = word_tokens(model_max_length=32)
    model = toxicity_model(tokenizer, LABELS)
    classify = ToxicityClassifier(model, tokenizer, ["insult"])
    assert classify(["", " "]) == [None, None] and classify([]) == []
    cut, whole = classify(["the day " * 16, "the day " * 99])
    assert cut == pytest.approx(whole)


def test_a_folder(tmp_path):
    folder = save_toxicity_model(tmp_path / "toxic")
    classify = load_toxicity_classifier(folder)
    assert all(0 < score < 1 for score in classify(TEXTS))
    with pytest.raises(ValueError, match=r"no label hate; .* neutral, toxic"):
        load_toxicity_classifier(folder, ["hate"])
    with pytest.raises(ValueError, match="no label named"):
        load_toxicity_classifier(folder, [])
    word_tokens("<s>").save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="do not belong together"):
        load_toxicity_classifier(folder, tokenizer=tmp_path / "other")


def test_what_is_added_by_hand():
    prompts = [0.1, 0.5, 0.9, None, 0.2]
    continuations = [0.5, 0.6, 0.1, 0.9, None]
    found = added_toxicity(prompts, continuations)
    assert found["added_toxicity"] == pytest.approx(40)  # the first, the fourth
    assert found["toxicity"] == pytest.approx(60)
    assert found["prompt_toxicity"] == pytest.approx(40)
    strict = added_toxicity(prompts, continuations, 0.7)
    assert strict["added_toxicity"] == pytest.approx(20)
    # A speaker's are drawn together.
    groups = ["ann", "bob", "bob", "ann", "bob"]
    found = added_toxicity(prompts, continuations, groups=groups)
    assert found["added_toxicity_interval"] == [0, 100]


def test_what_cannot_be_counted():
    with pytest.raises(ValueError, match="threshold.*got 0"):
        added_toxicity([0.1], [0.1], 0)
    with pytest.raises(ValueError, match="no continuations"):
        added_toxicity([], [])
    with pytest.raises(ValueError):
        added_toxicity([0.1], [])


def test_a_classifier_of_broken_weights_is_refused():
    with pytest.raises(ValueError, match="its weights are damaged"):
        added_toxicity([0.1, 0.2], [float("nan"), 0.3])
