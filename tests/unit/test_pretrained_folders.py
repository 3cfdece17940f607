"""Pretrained folders: how they are found, and what is said of broken ones."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file

from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.inference import SpeechCodec
from spiritlm_plugin.pretrained import folders
from spiritlm_plugin.pretrained.building import build_folder
from spiritlm_plugin.pretrained.folders import local_folder
from spiritlm_plugin.pretrained.trust import check_folder, read_hyperparams

SHIPPED = Path(folders.__file__).parent / "tinyspeech"
FILE = "hyperparams_base.yaml"


@pytest.fixture
def asked(monkeypatch):
    """What the Hub is asked for; it cannot be reached."""
    names = []

    def refuse(name):
        names.append(name)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    return names


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An own folder to be in, with a model in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine" / "hyperparams.yaml").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("source", "instead"),
    [
        ("./my_model", None),
        ("my_model/", None),
        ("../my_model", None),
        ("/no/such/model", None),
        ("~/no_such_model", None),
        ("~nobody/model", None),
        ("a/b/c", None),
        ("models/my_model", None),
        ("", None),
        ("models/mime", "models/mine"),
        ("./models/mime/", "models/mine"),
        ("model", "models"),
        ("tinyspech", "tinyspeech"),
        ("./tinyspeech/", "tinyspeech"),
        (Path("models") / "mime", "models/mine"),
    ],
    ids=str,
)
def test_a_folder_that_is_not_there_is_named(here, asked, source, instead):
    said = f"no such folder: {re.escape(str(source))}; .*ships: tinyspeech"
    if source == "":
        said = "no hyperparams.yaml in"
    with pytest.raises(FileNotFoundError, match=said) as error:
        local_folder(source)
    assert instead is None or f"did you mean {instead}" in str(error.value)
    assert asked == []


@pytest.mark.parametrize("source", ["org/name", "model/tinyspech"])
def test_what_is_no_path_is_asked_for(here, asked, source):
    with pytest.raises(FileNotFoundError) as error:
        local_folder(source)
    assert asked == [source]
    assert f"{source} is no folder here, and no Hub repo" in str(error.value)
    assert "Name or service not known" in str(error.value)
    if "tiny" in source:
        assert "did you mean tinyspeech?" in str(error.value)


def test_a_repository_that_is_no_model(here, monkeypatch):
    download = lambda name: str(here / "models")  # noqa: E731
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(FileNotFoundError, match="no hyperparams.yaml in"):
        local_folder("org/name")


@pytest.mark.parametrize(
    "source", ["models/mine", "./models/mine/", "~/models/mine"]
)
def test_a_folder_that_is_there_is_found(here, monkeypatch, source):
    monkeypatch.setenv("HOME", str(here))
    assert local_folder(source) == (here / "models" / "mine").resolve()


def test_a_file_is_no_folder(here):
    with pytest.raises(FileNotFoundError, match="is a file; name its folder"):
        local_folder("models/mine/hyperparams.yaml")


BROKEN = {
    "empty": (b"", "has no modules and no pretrainer"),
    "a list": (b"- 1\n- 2\n", "has no modules and no pretrainer"),
    "a text": (b"hello", "has no modules and no pretrainer"),
    "a web page": (b"<!DOCTYPE html>", "has no modules and no pretrainer"),
    "no modules": (b"a: 1\npretrainer: 2", "has no modules; download"),
    "no pretrainer": (b"modules: {}", "has no pretrainer; download"),
    "cut": (b"modules:\n    a: [1,\n", "cannot read .*: line 3: "),
    "a tab": (b"a: 1\n\tb: 2", "cannot read .*: line 2: "),
    "binary": (b"a: 1\n\xff\xfe\0\1", "line 2 is no text"),
    "zeros": (b"\0" * 40, "cannot read .*: "),
    "deep": (b"[" * 60, "cannot read .*: .* or 50 brackets in each other"),
    "long": (b"a: 1\n" * 300_000, "more than 1000000 characters"),
    "an alias of nothing": (b"a: *b", "cannot read .*: line 1: found undef"),
}


@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(tmp_path, kind, trust):
    content, message = BROKEN[kind]
    path = tmp_path / "hyperparams.yaml"
    path.write_bytes(content)
    for load in (
        lambda: read_hyperparams(path),
        lambda: SpeechCodec.from_hparams(tmp_path, trust=trust),
    ):
        with pytest.raises(ValueError, match=message) as error:
            load()
        assert str(path) in str(error.value)
        assert "download the folder again, or write" in str(error.value)


@pytest.fixture
def model(tmp_path):
    """A copy of what ships, without its language models."""
    return Path(
        shutil.copytree(
            SHIPPED,
            tmp_path / "model",
            ignore=shutil.ignore_patterns("language_model*"),
        )
    )


def edit(folder, old, new):
    path = folder / FILE
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


EDITS = {
    "a reference to nothing": ("<phonetic>", "<phonetik>"),
    "a circle": ("sample_rate: 16000", "sample_rate: !ref <sample_rate>"),
    "no number": ("sample_rate: 16000", "sample_rate: !ref <a> / 0\na: 1"),
    "no such argument": ("    units:", "    unitz:"),
    "a negative size": ("embedding_dim: ", "embedding_dim: -"),
    "a text for a number": ("embedding_dim: ", "embedding_dim: a"),
    "no modules": ("modules:\n", "modules: 5\nb:\n"),
    "no module": ("tokenizer: !ref <tokenizer>", "tokenizer: [1]"),
    "no pretrainer": ("pretrainer: ", "pretrainer: 5\nb: "),
}


@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize("kind", EDITS)
def test_what_cannot_be_built_is_named(model, kind, trust):
    edit(model, *EDITS[kind])
    with pytest.raises(ValueError) as error:
        SpeechCodec.from_hparams(model, FILE, trust=trust)
    assert str(model / FILE) in str(error.value)


@pytest.fixture
def transferred(model):
    """A copy whose phonetic part SpeechBrain's own hook loads."""
    weights = load_file(model / "phonetic.safetensors")
    (model / "phonetic.safetensors").unlink()
    torch.save(weights, model / "phonetic.ckpt")
    edit(model, "/phonetic.safetensors", "/phonetic.ckpt")
    hook = "!name:spiritlm_plugin.dataio.checkpoints.load_safetensors"
    edit(model, f"        phonetic: {hook}\n", "")
    return model


def test_weights_of_speechbrain_are_read(transferred):
    assert SpeechCodec.from_hparams(transferred, FILE)


@pytest.mark.parametrize("kept", [0, 100, 0.5, -50])
def test_truncated_weights_of_speechbrain_are_named(transferred, kept):
    path = transferred / "phonetic.ckpt"
    content = path.read_bytes()
    kept = int(kept * len(content)) if isinstance(kept, float) else kept
    path.write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match=f"cannot read {path} as plain"):
        SpeechCodec.from_hparams(transferred, FILE)


def test_weights_of_speechbrain_that_are_nan_are_named(transferred):
    path = transferred / "phonetic.ckpt"
    state = torch.load(path)
    name = next(n for n in state if n.endswith("weight"))
    state[name] = state[name] * torch.nan
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=f"{name} is NaN") as error:
        SpeechCodec.from_hparams(transferred, FILE)
    assert str(path) in str(error.value)


def test_errors_of_the_device_are_as_they_are(model):
    with pytest.raises(RuntimeError, match="no_such_device"):
        SpeechCodec.from_hparams(
            model, FILE, run_opts={"device": "no_such_device"}
        )


def test_files_may_only_be_collected(model):
    options = {"language_model": None, "pretrained_path": str(model)}
    assert build_folder(model, FILE, options, download_only=True) is None
    assert SpeechCodec.from_hparams(model, FILE, download_only=True) is None


def test_references_are_named_without_building(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: !ref <b>")
    with pytest.raises(ValueError, match=f"references of {path}: .*download"):
        check_folder(tmp_path, "a.yaml")
