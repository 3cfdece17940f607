"""What a training says of its speed."""

from itertools import count

import pytest

from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes.language_model import new_language_model
from spiritlm_plugin.training import speed


@pytest.mark.parametrize("tied", [False, True])
def test_operations_are_those_of_the_weights_that_multiply(tied):
    vocabulary = Vocabulary.extend(
        train_text_tokenizer(["the cat sat on the mat"], 280), phonetic=50
    )
    config = {
        "model_type": "llama",
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "tie_word_embeddings": tied,
    }
    lm = new_language_model(config, vocabulary)
    layer = 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16
    weights = 3 * layer + 16 + lm.rows * 16  # the last ones make logits
    of_token, of_pair = speed.operations_of(lm.model)
    assert of_token == 6 * weights
    assert of_pair == 12 * 3 * 16


def test_the_share_of_the_peak(monkeypatch):
    """Two batches, a second each, at a device that could do ten times more."""
    now = count()
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(speed, "_peak", lambda device: 1000.0)
    meter = speed.Speedometer("cpu")
    for _ in range(2):
        meter.count(operations=50.0, tokens=8)
    figures = meter.read()
    assert figures["tokens_per_second"] == 16 and figures["mfu"] == 0.1
