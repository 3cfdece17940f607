"""Checkpoints that are incomplete, damaged or hostile."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spiritlm_plugin import SpiritLM
from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.integrations.convert import convert_release

HUBERT = "speech_tokenizer/hubert_25hz/mhubert_base_25hz.pt"


QUANTIZER = "speech_tokenizer/hubert_25hz/L11_quantizer_500.pt"


VOCODER = "speech_tokenizer/hifigan_spiritlm_base"


LM = "spiritlm_model/spirit-lm-base-7b"


PICKLES = (HUBERT, f"{VOCODER}/generator.pt", f"{LM}/pytorch_model.bin")


def test_missing_files_are_all_named(copied):
    missing = (QUANTIZER, f"{VOCODER}/speakers.txt", f"{LM}/tokenizer.model")
    for name in missing:
        (copied / name).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        SpiritLM.from_release(copied, "base")
    for name in (*missing, str(copied)):
        assert name in str(caught.value)
    assert HUBERT not in str(caught.value)


def test_missing_weights_of_the_language_model(copied):
    (copied / LM / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=f"{LM}/pytorch_model.bin"):
        SpiritLM.from_release(copied, "base")


def test_files_of_the_other_variant_may_be_missing(copied):
    for name in ("vqvae_f0_quantizer", "style_encoder_w2v2"):
        shutil.rmtree(copied / "speech_tokenizer" / name)
    assert not SpiritLM.from_release(copied, "base").expressive
    with pytest.raises(FileNotFoundError, match="vqvae_f0_quantizer/model.pt"):
        SpiritLM.from_release(copied, "expressive")


def test_wrong_names_of_folder_and_variant(checkpoints, tmp_path):
    with pytest.raises(ValueError, match="base, expressive, got 'large'"):
        SpiritLM.from_release(checkpoints, "large")
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "no")):
        SpiritLM.from_release(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "no")):
        SpiritLM.from_hparams(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match="from_release"):
        SpiritLM.from_hparams(checkpoints)


class Code:
    """What a pickle can hold: a call that is made when it is read."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder,)


@pytest.mark.parametrize("name", PICKLES)
def test_code_in_a_checkpoint_is_not_run(copied, tmp_path, name):
    file, ran = copied / name, tmp_path / "ran"
    content = torch.load(file, weights_only=True)
    torch.save({**content, "extra": Code(ran)}, file)
    with pytest.raises(CheckpointError, match=str(Path(name).parent)):
        SpiritLM.from_release(copied, "base")
    file.write_bytes(pickle.dumps(Code(ran), protocol=2))
    with pytest.raises(CheckpointError, match=str(Path(name).parent)):
        SpiritLM.from_release(copied, "base")
    assert not ran.exists()
    # It would be run by a reader that trusts the file.
    pickle.loads(file.read_bytes())
    assert ran.exists()


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("kept", [0, 1000, 20000, -100])
def test_damaged_checkpoint(copied, name, kept):
    file = copied / name
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=str(Path(name).parent)):
        SpiritLM.from_release(copied, "base")


@pytest.mark.parametrize(
    "name",
    [f"{LM}/config.json", f"{LM}/tokenizer.model", f"{VOCODER}/config.json"],
)
def test_damaged_configuration(copied, name):
    (copied / name).write_bytes((copied / name).read_bytes()[:99])
    # CheckpointError is a ValueError, and so are those of tokenizers.
    with pytest.raises(ValueError, match=str(Path(name).parent)):
        SpiritLM.from_release(copied, "base")


def test_tensors_that_do_not_fit(copied):
    file = copied / VOCODER / "generator.pt"
    content = torch.load(file, weights_only=True)
    weights = content["generator"]
    weights.pop("conv_pre.bias")
    weights["conv_post.bias"] = torch.zeros(7)
    weights["ups.9.bias"] = torch.zeros(1)
    torch.save(content, file)
    with pytest.raises(CheckpointError) as caught:
        SpiritLM.from_release(copied, "base")
    message = str(caught.value)
    assert str(copied) in message
    assert "missing generator.input.bias" in message
    assert "generator.output.bias has shape (7,), expected (1,)" in message
    assert re.search(r"unknown generator\S*\.9\.\S*bias", message)


@pytest.mark.parametrize(
    "change",
    [{"vocab_size": 1000}, {"hidden_size": 32}, {"num_hidden_layers": 3}],
)
def test_language_model_that_does_not_fit(copied, change):
    file = copied / LM / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=f"{LM}.*config.json"):
        SpiritLM.from_release(copied, "base")


def test_layers_that_the_configuration_lacks(copied):
    file = copied / LM / "config.json"
    config = json.loads(file.read_text())
    config["num_hidden_layers"] -= 1
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=LM):
        SpiritLM.from_release(copied, "base")


def test_expression_in_a_checkpoint_is_not_evaluated(copied, tmp_path):
    file, ran = copied / HUBERT, tmp_path / "ran"
    content = torch.load(file, weights_only=True)
    expression = f"__import__('os').mkdir({str(ran)!r}) or [(8, 10, 5)]"
    content["model_cfg"]["conv_feature_layers"] = expression
    torch.save(content, file)
    with pytest.raises(CheckpointError, match="conv_feature_layers"):
        SpiritLM.from_release(copied, "base")
    assert not ran.exists()


@pytest.mark.parametrize(
    "name", ["vocoder.safetensors", "language_model/model.safetensors"]
)
def test_damaged_safetensors(copied_folder, name):
    file = copied_folder / name
    content = file.read_bytes()
    for damaged in (content[:-100], content[:50], b"", pickle.dumps({"a": 1})):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=str(file.parent)):
            SpiritLM.from_hparams(copied_folder)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=file.name):
        SpiritLM.from_hparams(copied_folder)


def test_safetensors_that_do_not_fit(copied_folder):
    file = copied_folder / "phonetic.safetensors"
    tensors = load_file(file)
    name, tensor = next(iter(tensors.items()))
    save_file({**tensors, name: tensor[None]}, file)
    with pytest.raises(CheckpointError, match=f"{file}.*{re.escape(name)} has"):
        SpiritLM.from_hparams(copied_folder)


def test_failed_conversion_leaves_no_folder(copied, tmp_path):
    (copied / LM / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError):
        convert_release(copied, "base", tmp_path / "model")
    assert not (tmp_path / "model").exists()
