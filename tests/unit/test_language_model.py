"""Tests of ``spiritlm_plugin.lobes.language_model``: a text model's start."""

from functools import partial

import pytest
import torch

from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.units import Kind, SpeechUnits
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes.language_model import (
    load_language_model,
    new_language_model,
)
from spiritlm_plugin.lobes.language_model_start import start_language_model
from spiritlm_plugin.metrics.modalities import ModalityFigures

CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
UNITS = {"phonetic": 90, "pitch": 8, "style": 3}


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def text_lm(request, tmp_path_factory):
    """A model, and the folder that it was saved to."""
    folder = tmp_path_factory.mktemp("text_lm")
    vocabulary = Vocabulary.extend(
        train_text_tokenizer(["the cat sat on the mat"], 280), phonetic=50
    )
    config = {"tie_word_embeddings": request.param, "model_type": "llama"}
    lm = new_language_model(CONFIG | config, vocabulary)
    lm.save(folder)
    return lm, folder


def test_text_is_kept_and_speech_is_new(text_lm):
    old, folder = text_lm
    lm = start_language_model(folder, UNITS)
    text = len(lm.vocabulary.text)
    counts = {
        kind.name.lower(): lm.vocabulary.unit_count(kind) for kind in Kind
    }
    assert counts == UNITS and lm.rows == 448
    for name, tensor in lm.model.state_dict().items():
        before = old.model.state_dict()[name]
        if len(tensor) != lm.rows:
            assert torch.equal(tensor, before), name
            continue
        assert torch.equal(tensor[:text], before[:text]), name
        for token, index in old.vocabulary.speech_tokens().items():
            here = lm.vocabulary.speech_tokens()[token]
            same = torch.equal(tensor[here], before[index])
            assert same == (here in lm.vocabulary.markers.values()), name
    assert lm.model.config.max_position_embeddings == old.context


def test_the_base_of_the_rotary_embedding_is_raised(text_lm):
    lm = start_language_model(text_lm[1], UNITS, rope_theta=1e5, context=99)
    assert lm.context == 99
    rotary = lm.model.model.rotary_emb.inv_freq
    exponents = torch.arange(0, 8, 2) / 8
    assert torch.allclose(rotary, 1e5**-exponents)


def test_all_weights_may_be_random(text_lm):
    old, folder = text_lm
    torch.manual_seed(1)  # the fixture may have drawn from the tests' seed
    lm = start_language_model(folder, UNITS, random_weights=True)
    name = "model.layers.0.mlp.up_proj.weight"
    one, other = (m.model.state_dict()[name] for m in (lm, old))
    assert one.shape == other.shape and not torch.equal(one, other)


def test_a_model_that_speaks_other_units_is_refused(checkpoints):
    folder = checkpoints / "spiritlm_model" / "spirit-lm-base-7b"
    with pytest.raises(ValueError, match="other ones than the speech token"):
        start_language_model(folder, UNITS)


def test_a_model_that_speaks_these_units_goes_on(checkpoints):
    folder = checkpoints / "spiritlm_model" / "spirit-lm-base-7b"
    units = {"phonetic": 501}
    lm = start_language_model(folder, units, context=99)
    released = load_language_model(folder, "float32")
    ids = torch.tensor([lm.vocabulary.encode([("text", "the boats")])])
    assert torch.equal(lm(ids), released(ids))
    assert lm.context == 99 and not lm.vocabulary.expressive
    with pytest.raises(ValueError, match="cannot become 3.0 any more"):
        start_language_model(folder, units, rope_theta=3.0)
    again = start_language_model(folder, units)
    assert again.rows == released.rows


def test_a_base_model_becomes_an_expressive_one(text_lm):
    base, folder = text_lm
    segments = [("speech", SpeechUnits([3, 3, 49])), ("asr", "the cat")]
    ids = base.vocabulary.encode(segments)
    before = base(torch.tensor([ids]))[..., ids]
    for phonetic, same in ((50, True), (51, False)):
        lm = start_language_model(folder, {"phonetic": phonetic, "pitch": 9})
        ids = lm.vocabulary.encode(segments)
        after = lm(torch.tensor([ids]))[..., ids]
        assert torch.equal(after, before) == same


def test_a_model_without_rotary_embedding_is_refused(tmp_path, text_lm):
    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2}
    new_language_model(config, text_lm[0].vocabulary).save(tmp_path)
    with pytest.raises(ValueError, match="leave rope_theta out"):
        start_language_model(tmp_path, UNITS, rope_theta=1e5)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "cohere"])
def test_a_loss_is_made_of_hidden_states(kind):
    """Two of the kinds do more than project, and give their logits."""
    vocabulary = Vocabulary.extend(
        train_text_tokenizer(["the cat sat on the mat"], 280), phonetic=50
    )
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2}
    config = sizes if kind == "gpt2" else CONFIG | {"head_dim": 8}
    more = {"num_key_value_heads": 1, "final_logit_softcapping": 0.01}
    more = {"gemma2": more, "cohere": {"logit_scale": 0.5}}.get(kind, {})
    lm = new_language_model({"model_type": kind, **config, **more}, vocabulary)
    figures = ModalityFigures(vocabulary)
    ids = torch.randint(len(vocabulary), (2, 9))
    labels = ids.roll(-1, 1)
    expected, _ = figures(lm(ids), None, None, labels)
    for _ in range(2):
        loss, _ = lm(ids, score=partial(figures, labels=labels))
        torch.testing.assert_close(loss, expected)
    assert lm._only_projects is (kind in ("llama", "gpt2"))
    loss.backward()
    found = {n: p.grad.clone() for n, p in lm.named_parameters()}
    lm.zero_grad()
    expected.backward()
    for name, weight in lm.named_parameters():
        torch.testing.assert_close(weight.grad, found[name], msg=name)
