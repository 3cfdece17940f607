"""A pretrained folder builds nothing that is not on the list."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from spiritlm_plugin import SpeechCodec, SpiritLM
from spiritlm_plugin.pretrained import folders
from spiritlm_plugin.pretrained.trust import UntrustedError, check_folder

SHIPPED = Path(folders.__file__).parent / "tinyspeech"
PART = "spiritlm_plugin.lobes.speech_tokenizer"


def check(folder, text):
    (folder / "hyperparams.yaml").write_text(text)
    check_folder(folder, "hyperparams.yaml")


@pytest.mark.parametrize("name", ["hyperparams.yaml", "hyperparams_base.yaml"])
def test_what_ships_is_on_the_list(name):
    check_folder(SHIPPED, name)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [x, 1.5, null, true]\nc: {d: !ref <a> + 1}\ne: !copy <b>",
        "a: (1, 2)\nb: !tuple (3, 4)",
        "trained: 2026-01-02",
        "a: &x {b: 1}\nc: *x\nd: {<<: *x}",
        "a: !new:torch.nn.Linear {in_features: 1, out_features: 2}",
        "a: !new:speechbrain.nnet.linear.Linear {n_neurons: 1, input_size: 2}",
        "a: !new:spiritlm_plugin.lobes.pitch.FCPE {}",
    ],
)
def test_plain_values_and_modules_are_allowed(tmp_path, text):
    check(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: !new:collections.Counter {}", "!new:collections.Counter"),
        ("a: 1\nb:\n  - c: !apply:builtins.len [[]]", "line 3: !apply"),
        ("a: !name:builtins.print", "!name:builtins.print"),
        ("a: !module:string", "!module:string"),
        ("a: !include:other.yaml", "!include"),
        ("a: !!python/name:builtins.len", "python/name:builtins.len"),
        ("a: !!python/tuple [1, 2]", "python/tuple"),
        ("a: !<tag:yaml.org,2002:python/tuple> [1]", "python/tuple"),
        ("%TAG !p! tag:yaml.org,2002:python/\n---\na: !p!tuple [1]", "tuple"),
        ("%TAG ! !new:collections.\n---\na: !Counter {}", "Counter"),
        ("!new:collections.Counter {a: 1}", "Counter"),
        ("? !new:collections.Counter {}\n: 1", "Counter"),
        # What a listed package has imported is not what it defines.
        (f"a: !new:{PART}.Tensor []", "Tensor"),
        (f"a: !new:{PART}.torch.Generator []", "Generator"),
        ("a: !new:torch.nn.Linear.mro []", "mro"),
        ("a: !new:torch.nn.functional.relu [1]", "relu"),
        ("a: !new:torch.nn.Parameter []", "Parameter"),
        ("a: !apply:torch.nn.Linear [1, 1]", "!apply:torch.nn.Linear"),
        ("a: !new:spiritlm_plugin.lobes.nothing.Here []", "nothing"),
        ("a: !name:spiritlm_plugin.lobes.pitch.FCPE", "!name"),
        ("a: (!!python/name:builtins.len , 2)", "python/name:builtins.len"),
        ('a: !tuple "(!!python/name:builtins.len , 2)"', "builtins.len"),
        ('a: "(!!python/name:builtins.len , 2)"', "builtins.len"),
        (
            'a: "(!!python"\nb: !ref <a>/name:builtins.len , 2)',
            "!tuple (!!python",
        ),
        ("a: {b: &x !new:collections.Counter {}}\nc: *x", "Counter"),
    ],
)
def test_all_else_is_refused_by_name(tmp_path, text, named):
    with pytest.raises(UntrustedError) as caught:
        check(tmp_path, text)
    assert named in str(caught.value)
    assert "hyperparams.yaml" in str(caught.value)


def test_a_broken_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*hyperparams.yaml"):
        check(tmp_path, "a: [")


@pytest.fixture
def marked(tmp_path):
    """A model that would write a file when it is loaded."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "model"))
    mark = tmp_path / "mark"
    path = folder / "hyperparams_base.yaml"
    with open(path, "a") as file:
        file.write(
            f"\nmark: !apply:pathlib.Path.touch\n"
            f"    - !new:pathlib.Path [{mark}]\n"
        )
    return folder, mark


@pytest.mark.parametrize("interface", [SpeechCodec, SpiritLM])
def test_nothing_runs_before_it_is_trusted(marked, interface):
    folder, mark = marked
    with pytest.raises(UntrustedError, match="pathlib.Path"):
        interface.from_hparams(folder, "hyperparams_base.yaml")
    assert not mark.exists()


def test_what_is_trusted_runs(marked):
    folder, mark = marked
    SpeechCodec.from_hparams(folder, "hyperparams_base.yaml", trust=True)
    assert mark.exists()


def test_overrides_are_those_that_are_loaded(tmp_path):
    path = tmp_path / "hyperparams.yaml"
    path.write_text("a: !PLACEHOLDER\nb: !ref <a>, 2)")
    check_folder(tmp_path, path.name, {"a": "(1"})
    with pytest.raises(UntrustedError, match="behind a reference"):
        check_folder(tmp_path, path.name, {"a": "(!!python/name:builtins.len"})


def test_a_savedir_of_another_model_is_refused(marked, tmp_path):
    folder, _ = marked
    savedir = tmp_path / "saved"
    name = "hyperparams_base.yaml"
    for _ in range(2):
        SpeechCodec.from_hparams("tinyspeech", name, savedir=savedir)
    with pytest.raises(ValueError, match="of another model.*another savedir"):
        SpeechCodec.from_hparams(folder, name, savedir=savedir, trust=True)


def test_copies_of_another_model_are_refused(tmp_path):
    """Of one with the same YAML file and other weights."""
    model, savedir = tmp_path / "model", tmp_path / "saved"
    for folder, suffix in ((model, "pt"), (savedir, "ckpt")):
        folder.mkdir()
        (folder / "a.yaml").write_text("a: 1")
        (folder / f"weights.{suffix}").write_bytes(b"1")
    (savedir / "notes.txt").write_text("mine")
    folders.check_savedir(savedir, model, "a.yaml")
    (model / "weights.pt").write_bytes(b"2")
    with pytest.raises(ValueError, match="weights.ckpt is of another model"):
        folders.check_savedir(savedir, model, "a.yaml")


def test_overrides_are_names_and_values():
    with pytest.raises(TypeError, match="overrides are a dict .* got 'a: 1'"):
        SpeechCodec.from_hparams("tinyspeech", overrides="a: 1")


@pytest.mark.parametrize("name", ["../outside/part", "/outside", ".hidden"])
def test_names_that_lead_to_another_folder_are_refused(tmp_path, name):
    yaml = f"modules: {{}}\npretrainer:\n    '{name}': 1\n"
    (tmp_path / "hyperparams.yaml").write_text(yaml)
    with pytest.raises(UntrustedError, match="leads to another folder"):
        check_folder(tmp_path, "hyperparams.yaml", {})
