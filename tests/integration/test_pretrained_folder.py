"""A pretrained folder is the release it was made from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import soundfile
import torch

from spiritlm_plugin import SpiritLM, Text
from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.integrations.convert import convert_release
from tests.integration.helpers import RATE, VARIANTS, shown


@pytest.mark.parametrize("variant", VARIANTS)
def test_pretrained_folder_is_the_release(
    variant, folders, models, prompts_of, samples, tmp_path, monkeypatch
):
    folder = shutil.copytree(folders[variant], tmp_path / "moved" / "model")
    monkeypatch.chdir(tmp_path)
    lm = SpiritLM.from_hparams(
        "moved/model", overrides={"language_model_dtype": "float32"}
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["moved"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        p.name for p in folders[variant].iterdir()
    )
    release = models[variant]
    prompts = prompts_of(release)
    assert lm.speakers == release.speakers
    for output in ("text", "any"):
        options = {"seed": 0, "max_new_tokens": 20, "vocode": False}
        expected = release.generate(prompts, output, **options)
        actual = lm.generate(prompts, output, **options)
        assert list(map(shown, actual)) == list(map(shown, expected))
    units = release.encode_batch([samples])
    assert lm.encode_batch([samples]) == units
    assert torch.equal(
        lm.decode_batch(units)[0], release.decode_batch(units)[0]
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_folder_of_version_0_1_loads(
    variant, folders, models, samples, tmp_path
):
    """Its YAML names paths of this package, which must not move."""
    folder = shutil.copytree(folders[variant], tmp_path / "model")
    written = Path(__file__).parent / "pretrained_0.1" / f"{variant}.yaml"
    shutil.copy(written, folder / "hyperparams.yaml")
    lm = SpiritLM.from_hparams(
        folder, overrides={"language_model_dtype": "float32"}
    )
    units = models[variant].encode_batch([samples])
    assert lm.encode_batch([samples]) == units
    assert torch.equal(
        lm.decode_batch(units)[0], models[variant].decode_batch(units)[0]
    )


def test_language_model_inside_is_stock(folders, expressive):
    from transformers import AutoModelForCausalLM

    folder = folders["expressive"]
    assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt")]
    stock = AutoModelForCausalLM.from_pretrained(
        folder / "language_model", dtype=torch.float32
    )
    ids = torch.tensor([expressive.vocabulary.encode([Text("the cat")])])
    with torch.inference_mode():
        expected = expressive.mods.language_model(ids)
        assert torch.equal(stock(ids).logits, expected)


def test_release_is_found_by_the_environment(checkpoints, monkeypatch):
    monkeypatch.setenv("SPIRITLM_CHECKPOINTS_DIR", str(checkpoints))
    lm = SpiritLM.from_release(variant="base", run_opts={"device": "cpu"})
    assert not lm.expressive
    assert lm.mods.language_model.model.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in lm.parameters())
    assert not any(module.training for module in lm.mods.modules())
    monkeypatch.delenv("SPIRITLM_CHECKPOINTS_DIR")
    with pytest.raises(ValueError, match="SPIRITLM_CHECKPOINTS_DIR"):
        SpiritLM.from_release()


def test_conversion_does_not_overwrite(checkpoints, tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        convert_release(checkpoints, "base", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_nothing_is_printed(checkpoints, samples, tmp_path, capfd):
    # torchfcpe reports where it is used, and what is beyond 1, as the samples
    # of a float file may well be.
    file = tmp_path / "loud.wav"
    soundfile.write(file, samples / abs(samples).max() * 1.2, RATE, "FLOAT")
    SpiritLM.from_release(checkpoints).encode_file(file)
    assert capfd.readouterr().out == ""


def test_conversion_checks_the_tensors(copied, tmp_path):
    file = copied / "speech_tokenizer/hifigan_spiritlm_base/generator.pt"
    state = torch.load(file, weights_only=True)
    state["generator"]["conv_post.bias"] = torch.zeros(2)
    torch.save(state, file)
    with pytest.raises(CheckpointError, match="generator.output.bias"):
        convert_release(copied, "base", tmp_path / "model")
    assert not any(path.name.startswith("model") for path in tmp_path.iterdir())


def test_conversion_into_a_file(checkpoints, tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(FileExistsError, match="model"):
        convert_release(checkpoints, "base", tmp_path / "model")
    assert (tmp_path / "model").read_text() == "mine"
