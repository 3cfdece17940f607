"""Tests of what the training of a vocoder goes on from."""

import pytest
import torch

from spiritlm_plugin.integrations.parts import save_part
from spiritlm_plugin.lobes.vocoder import UnitVocoder
from spiritlm_plugin.training.vocoder_start import load_pretrained

SHAPE = {
    "phonetic_units": 20,
    "embedding_dim": 8,
    "duration_dim": 8,
    "generator": {
        "channels": 32,
        "upsample_rates": [5, 4, 4, 8],
        "upsample_kernels": [11, 8, 8, 16],
        "resblock_kernels": [3],
        "resblock_dilations": [[1]],
    },
}
BASE = {**SHAPE, "speakers": ["ann", "bob"], "global_styles": 3}
EXPRESSIVE = {
    **SHAPE,
    "speakers": ["ann", "bob"],
    "pitch_units": 6,
    "style_units": 4,
}


def made(arguments, seed=0):
    torch.manual_seed(seed)
    return UnitVocoder(**arguments).eval()


@pytest.fixture
def saved(tmp_path):
    def save(arguments):
        vocoder = made(arguments)
        return vocoder, save_part(tmp_path / "vocoder", arguments, vocoder)

    return save


def test_speakers_keep_what_was_learned_of_them(saved):
    known = {**BASE, "recognizes_speakers": True}
    trained, folder = saved(known)
    more = made({**known, "speakers": ["abe", "ann", "bob", "cy"]}, 1)
    load_pretrained(folder, more)
    weights = trained.embeddings["speaker"].weight
    found = more.embeddings["speaker"].weight
    assert torch.equal(found[1:3], weights)
    assert torch.equal(found[0], weights.mean(0))
    assert torch.equal(found[3], weights.mean(0))
    for name, weight in trained.state_dict().items():
        if "speaker" not in name:
            assert torch.equal(more.state_dict()[name], weight), name


def test_expressive_goes_on_from_base_as_it_sounds(saved):
    base, folder = saved(BASE)
    expressive = made(EXPRESSIVE, 1)
    load_pretrained(folder, expressive)
    with torch.inference_mode():
        # What is constant is held at its mean.
        styles = base.embeddings["global_style"].weight
        styles.copy_(styles.mean(0).expand_as(styles))
    units = {"phonetic": torch.arange(20)[None]}
    prosody = {
        "pitch": torch.arange(20)[None] % 6,
        "style": torch.arange(20)[None] % 4,
    }
    lengths, speaker = torch.tensor([20]), torch.tensor([1])
    with torch.inference_mode():
        before, _ = base(units, lengths, speaker)
        after, _ = expressive({**units, **prosody}, lengths, speaker)
    # At the ends what is constant has fewer of the kernel's taps.
    inner = slice(8 * base.hop, 12 * base.hop)
    torch.testing.assert_close(after[:, inner], before[:, inner])
    wav, _ = expressive({**units, **prosody}, lengths, speaker)
    wav.square().sum().backward()
    gradient = expressive.generator.input.parametrizations.weight.original1.grad
    pitch, style = gradient[:, 8:16], gradient[:, 16:24]
    assert pitch.abs().sum() > 0 and style.abs().sum() > 0


def test_base_goes_on_from_expressive(saved):
    expressive, folder = saved(EXPRESSIVE)
    base = made(BASE, 1)
    load_pretrained(folder, base)
    for name in ("phonetic", "speaker"):
        old, new = (v.embeddings[name].weight for v in (expressive, base))
        assert torch.equal(old, new)


def test_another_shape_is_refused_by_the_name_of_the_weight(saved):
    _, folder = saved(BASE)
    wider = made({**BASE, "phonetic_units": 30}, 1)
    with pytest.raises(ValueError, match=r"embeddings\.phonetic\.weight"):
        load_pretrained(folder, wider)
