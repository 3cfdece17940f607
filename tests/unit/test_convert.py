"""Tests of ``spiritlm_plugin.integrations.convert``."""

import json
import shutil

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.integrations import convert
from spiritlm_plugin.integrations.convert import convert_release, main
from spiritlm_plugin.integrations.parts import hyperparams
from spiritlm_plugin.integrations.release import read_release


@pytest.fixture(scope="module", params=["base", "expressive"])
def converted(request, checkpoints, tmp_path_factory):
    """A released model and the folder that it is converted to."""
    assert checkpoints.is_dir(), f"{checkpoints} is missing"
    destination = tmp_path_factory.mktemp("converted") / "deep" / "model"
    assert convert_release(checkpoints, request.param, destination) == (
        destination
    )
    return read_release(checkpoints, request.param), destination


def test_weights_are_those_of_the_release(converted):
    release, folder = converted
    found = {path.stem for path in folder.glob("*.safetensors")}
    assert found == release.states.keys()
    for name, state in release.states.items():
        weights = load_file(folder / f"{name}.safetensors")
        assert weights.keys() == state.keys()
        assert all(torch.equal(weights[k], v) for k, v in state.items())
    assert {path.name for path in folder.iterdir()} == {
        "hyperparams.yaml",
        "language_model",
        *(f"{name}.safetensors" for name in found),
    }


def test_language_model_is_a_stock_folder(converted):
    release, folder = converted
    ours, theirs = folder / "language_model", release.language_model
    assert (ours / "model.safetensors").exists()
    assert not list(ours.glob("*.bin"))
    name = "tokenizer.model"
    assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    stock = AutoModelForCausalLM.from_pretrained(ours, dtype="auto")
    assert stock.dtype == torch.bfloat16
    weights = torch.load(theirs / "pytorch_model.bin")
    for name, tensor in stock.state_dict().items():
        assert torch.equal(tensor, weights[name])
    tokens = Vocabulary.load(ours).speech_tokens()
    assert tokens == Vocabulary.load(theirs).speech_tokens()


def test_yaml_loads_from_any_place(converted, tmp_path):
    release, folder = converted
    moved = shutil.copytree(folder, tmp_path / "another place")
    text = (moved / "hyperparams.yaml").read_text()
    assert str(folder) not in text
    hparams = load_hyperpyyaml(
        text,
        {"pretrained_path": str(moved), "language_model_dtype": "float32"},
    )
    assert hparams["modules"].keys() == {
        "tokenizer",
        "vocoder",
        "language_model",
    }
    assert hparams["modules"]["language_model"].model.dtype == torch.float32
    assert hparams["tokenizer"].phonetic is hparams["phonetic"]
    pretrainer = hparams["pretrainer"]
    pretrainer.collect_files(default_source=str(moved))
    pretrainer.load_collected()
    for name, state in release.states.items():
        ours = hparams[name].state_dict()
        assert ours.keys() == state.keys()
        assert all(torch.equal(ours[k], v) for k, v in state.items())
    if "pitch" in release.states:
        assert hparams["pitch_tokenizer"].quantizer is hparams["pitch"]
        assert hparams["pitch_tokenizer"].center


def test_yaml_keeps_types_and_values(converted):
    release, _ = converted
    text = hyperparams(release, "unused")
    # The arguments as they are written, without making the objects.
    lines = [
        line.split(": !new")[0] + ":" if ": !new" in line else line
        for line in text.split("\n\n# auto")[0].splitlines()
        if "!ref" not in line and not line.endswith("{}")
    ]
    written = load_hyperpyyaml("\n".join(lines))
    phonetic = dict(release.arguments["phonetic"])
    assert written["quantizer"] == phonetic.pop("quantizer")
    assert written["phonetic"] == phonetic
    assert written["vocoder"] == release.arguments["vocoder"]
    if "style" in release.arguments:
        assert written["style"] == release.arguments["style"]


@pytest.mark.parametrize("name", ["model #1", "model: new"])
def test_paths_are_quoted(checkpoints, tmp_path, name):
    folder = shutil.copytree(checkpoints, tmp_path / name)
    release = read_release(folder, "base")
    text = hyperparams(release, str(release.language_model))
    text = text.split("\n\n")[-3]
    assert "\nlanguage_model:" in text
    load_hyperpyyaml(text)


@pytest.mark.parametrize("spoilt", ["file", "folder"])
def test_existing_results_are_kept(checkpoints, tmp_path, spoilt):
    kept = tmp_path / "model" / "kept"
    kept.parent.mkdir()
    kept.mkdir() if spoilt == "folder" else kept.write_text("mine")
    with pytest.raises(FileExistsError, match="already; name") as error:
        convert_release(checkpoints, "base", kept.parent)
    assert str(kept.parent) in str(error.value)
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.parametrize("exists", [False, True])
def test_interrupted(checkpoints, tmp_path, monkeypatch, exists):
    destination = tmp_path / "model"
    if exists:
        destination.mkdir()

    def interrupt(release, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(convert, "write_folder", interrupt)
        with pytest.raises(KeyboardInterrupt):
            convert_release(checkpoints, "base", destination)
    assert destination.exists() == exists
    assert not exists or not list(destination.iterdir())
    assert not list(tmp_path.glob("*.partial"))
    # Once more, over what a run that was killed has left.
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "junk").touch()
    convert_release(checkpoints, "base", destination)
    assert (destination / "hyperparams.yaml").exists()
    assert list(tmp_path.iterdir()) == [destination]
    assert not (destination / "junk").exists()


def test_a_release_that_is_incomplete(checkpoints, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing in"):
        convert_release(
            checkpoints / "speech_tokenizer", "base", tmp_path / "m"
        )
    assert not list(tmp_path.iterdir())


def test_command_line(checkpoints, tmp_path, capsys):
    destination = tmp_path / "model"
    main([str(checkpoints), "base", str(destination)])
    assert f'SpiritLM.from_hparams("{destination}")' in capsys.readouterr().out
    config = destination / "language_model" / "config.json"
    assert json.loads(config.read_text())["model_type"] == "llama"
    with pytest.raises(SystemExit, match="1"):
        main([str(checkpoints), "base", str(destination)])
    assert "is there already" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(checkpoints), "large", str(tmp_path / "other")])
    assert "invalid choice: 'large'" in capsys.readouterr().err
