"""Weights that were damaged where they lay, through every loader."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.inference import SpeechCodec, SpiritLM
from spiritlm_plugin.integrations.parts import build, load_part, save_part
from spiritlm_plugin.integrations.release import read_release
from spiritlm_plugin.lobes.language_model import load_language_model
from spiritlm_plugin.pretrained import folders
from spiritlm_plugin.utils.files import DiskFullError

SHIPPED = Path(folders.__file__).parent / "tinyspeech"
LM = "spiritlm_model/spirit-lm-base-7b"


def nan(tensor):
    tensor = tensor.clone()
    tensor.view(-1)[-1] = torch.nan
    return tensor


DAMAGES = {
    "nan": (nan, "NaN or infinite"),
    "infinite": (lambda t: t.clone().fill_(-torch.inf), "NaN or infinite"),
    "integers": (lambda t: t.to(torch.int8), "int8|I8"),
    "truth": (lambda t: t != 0, "bool|BOOL"),
    "complex": (lambda t: t.to(torch.complex64), "complex|C64"),
}


def spoil_safetensors(path, damage, part):
    state = load_file(path)
    name = next(n for n in state if part in n)
    save_file({**state, name: DAMAGES[damage][0](state[name])}, path)
    return name, DAMAGES[damage][1]


def spoil_pickle(path, damage, part, key=None, zipped=True):
    content = torch.load(path, weights_only=True)
    state = content[key] if key else content
    name = next(n for n in state if part in n)
    state[name] = DAMAGES[damage][0](state[name])
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return name, DAMAGES[damage][1]


@pytest.fixture
def model(tmp_path):
    """A copy of the model that ships."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "model"))


@pytest.fixture
def release(checkpoints, tmp_path):
    """A copy of the small released checkpoints."""
    return Path(shutil.copytree(checkpoints, tmp_path / "release"))


def refused(load, file, name, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        load()
    assert str(file) in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "file", ["phonetic", "pitch", "style", "vocoder"], ids=str
)
def test_weights_of_a_pretrained_folder(model, file, damage):
    path = model / f"{file}.safetensors"
    name, message = spoil_safetensors(path, damage, "weight")
    load = lambda: SpeechCodec.from_hparams(model)  # noqa: E731
    refused(load, path, name, message)


@pytest.mark.parametrize("damage", DAMAGES)
def test_weights_of_a_language_model(model, damage):
    path = model / "language_model" / "model.safetensors"
    name, message = spoil_safetensors(path, damage, "q_proj")
    load = lambda: load_language_model(path.parent)  # noqa: E731
    refused(load, path.parent, name, message)


def test_a_language_model_through_the_interface(model):
    path = model / "language_model" / "model.safetensors"
    name, message = spoil_safetensors(path, "nan", "norm")
    load = lambda: SpiritLM.from_hparams(model)  # noqa: E731
    refused(load, path.parent, name, message)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_weights_of_a_released_language_model(release, damage, zipped):
    path = next((release / LM).glob("*.bin"))
    name, message = spoil_pickle(path, damage, "q_proj", zipped=zipped)
    load = lambda: load_language_model(path.parent)  # noqa: E731
    refused(load, path.parent, name, message)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("file", "key", "part", "name"),
    [
        ("hubert_25hz/mhubert_base_25hz.pt", "model_weight", "fc1", "dense"),
        ("hubert_25hz/L11_quantizer_500.pt", "model_weight", "0.", "quantizer"),
        ("vqvae_f0_quantizer/model.pt", "model", "model.0", "stages.0"),
        ("style_encoder_w2v2/pytorch_model.bin", None, "projector", "project"),
        (
            "hifigan_spiritlm_expressive_w2v2/generator.pt",
            "generator",
            "conv_post.bias",
            "generator.output.bias",
        ),
    ],
)
def test_weights_of_a_release(release, file, key, part, name, damage):
    path = release / "speech_tokenizer" / file
    _, message = spoil_pickle(path, damage, part, key)
    load = lambda: build(read_release(release, "expressive"))  # noqa: E731
    refused(load, path.parent, name, message)


@pytest.mark.parametrize("damage", DAMAGES)
def test_weights_of_a_part(release, tmp_path, damage):
    parts = read_release(release, "expressive")
    folder = tmp_path / "style"
    save_part(folder, parts.arguments["style"], build(parts)["style"])
    path = folder / "model.safetensors"
    name, message = spoil_safetensors(path, damage, "projector")
    refused(lambda: load_part("style", folder), path, name, message)


def test_old_masks_beside_the_weights_do_not_matter(model):
    path = model / "language_model" / "model.safetensors"
    state = load_file(path)
    assert load_language_model(path.parent)
    name = next(n for n in state if "q_proj" in n)
    mask = name.replace("q_proj.weight", "rotary_emb.inv_freq")
    save_file({**state, mask: torch.ones(2, dtype=torch.int64)}, path)
    assert load_language_model(path.parent)


@pytest.fixture
def trained(release):
    return load_language_model(release / LM)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_full_disk_leaves_the_language_model_as_it_was(
    trained, tmp_path, small_disk
):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("before")
    with pytest.raises(DiskFullError, match="no room for .*model"):
        trained.save(folder)
    assert contents(folder) == {"config.json": b"before"}


def test_a_language_model_is_whole_or_none(trained, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    trained.save(folder)
    before = contents(folder)
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"older")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Vocabulary, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            trained.save(folder)
    assert contents(folder).items() > before.items()
    trained.save(folder)
    assert contents(folder) == before
