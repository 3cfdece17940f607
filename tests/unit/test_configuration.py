"""Configurations are checked before anything is made of them."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import NotRequired

from spiritlm_plugin.utils.configuration import (
    ConfigurationError,
    Settings,
    TrainingSettings,
    check_arguments,
    check_configuration,
    parse_overrides,
)
from spiritlm_plugin.utils.recipes import load_recipe

YAML = """
seed: 1986
corpus: !PLACEHOLDER
output_folder: !ref results/<seed>
splits: [train, valid]
shots: 10
speaker: null
rate: 1
method: likelihood
weights: {text: 2.0}
width: 3
model: !new:no_such_package.Model
    width: !ref <width>
opt: !name:collections.Counter
    a: !ref <rate> * 2
"""


class Example(Settings):
    corpus: str
    splits: list[str]
    shots: int
    speaker: int | str | None
    rate: float
    method: Literal["likelihood", "generate"]
    weights: dict[str, float]
    model: Any
    opt: Any
    spare: NotRequired[int]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "evaluate.yaml"
    path.write_text(YAML)
    return path


def check(path, overrides="corpus: here", schema=Example):
    return check_configuration(path, parse_overrides(overrides), schema)


def test_values_are_returned_and_nothing_is_built(path):
    values = check(path, "corpus: here\nseed: 3")
    assert values["output_folder"] == "results/3"
    assert values["corpus"] == "here"
    assert values["splits"] == ["train", "valid"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("", ["corpus has no value", "--corpus VALUE"]),
        ("corpus: a\nshot: 1", ["--shot overrides nothing", "mean shots"]),
        ("corpus: a\ndebgu: 1", ["--debgu overrides", "did you mean debug"]),
        ("corpus: 2024", ["corpus should be str", "2024", "--corpus='...'"]),
        ("corpus: a\nsplits: test", ["splits should be list", "[test]"]),
        ("corpus: a\nsplits: [1]", ["splits should be list", "got [1]"]),
        ("corpus: a\nshots: 1.5", ["shots should be int", "1.5"]),
        ("corpus: a\nshots: true", ["shots should be int", "True"]),
        ("corpus: a\nspeaker: 1.5", ["speaker should be int | str | None"]),
        (
            "corpus: a\nmethod: likelihod",
            ["method", "'likelihood', 'generate'"],
        ),
        ("corpus: a\nweights: {text: x}", ["weights", "text", "valid number"]),
        ("corpus: a\nseed: one", ["seed should be int"]),
        ("corpus: a\noutput_folder: 2024", ["output_folder should be str"]),
        ("corpus: 2024-01-01", ["corpus should be str", "--corpus='...'"]),
        ("corpus: (old)", ["corpus should be str", "('old',)"]),
        ("corpus: !!python/tuple [1]\nshots: x", ["shots should be int"]),
        ("corpus: {a: b}", ["structure of the overrides", "corpus"]),
        ("corpus: [", ["cannot read the overrides as YAML", "line"]),
        ("corpus", ["--name=value", "'corpus'"]),
    ],
)
def test_overrides_that_do_not_fit_are_named(path, overrides, words):
    with pytest.raises(ConfigurationError) as caught:
        check(path, overrides)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "shots: 10",
            "shotz: 10",
            ["shots is missing", "shotz", "mean shots?"],
        ),
        ("shots: 10", "", ["shots is missing"]),
        ("shots: 10", "shots: ten", ["shots should be int, got 'ten'"]),
        ("seed: 1986", "", ["cannot resolve references", "seed"]),
        ("<width>", "<widht>", ["cannot resolve references", "widht"]),
        ("shots: 10", "shots: 10\nshots: 9", ["duplicate key", "line"]),
        ("splits: [", "splits: ]", ["as YAML", "line 5"]),
        ("width: 3", "width: 3\nbatch: 2", ["batch is read by nothing"]),
        ("width: 3", "width: 3\n7: 2", ["7 is read by nothing"]),
        ("width: 3", "width: 3\nmax_grad_nrom: 2", ["mean max_grad_norm?"]),
        ("* 2", "/ 0", ["cannot resolve references"]),
        ("<rate> * 2", "<rate> * 2\nx: !include:no.yaml", ["no.yaml"]),
    ],
)
def test_faults_of_a_file_are_named(path, old, new, words):
    path.write_text(YAML.replace(old, new))
    with pytest.raises(ConfigurationError) as caught:
        check(path)
    for word in [path.name, *words]:
        assert word in str(caught.value)


def test_all_faults_are_named_at_once(path):
    with pytest.raises(ConfigurationError) as caught:
        check(path, "corpus: 1\nshots: x\nsplits: y")
    assert len(str(caught.value).splitlines()) == 4


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no.yaml"):
        check(tmp_path / "no.yaml")


def test_run_options_may_stand_in_a_file(path):
    path.write_text(YAML + "find_unused_parameters: true\n")
    assert check(path)["find_unused_parameters"] is True


@pytest.mark.parametrize(
    "arguments",
    [["--text=a #b"], ["--text=#b"], ["--text", "a #b"], ["--text=[a, b] #c"]],
)
def test_what_yaml_would_cut_is_refused(arguments):
    with pytest.raises(ConfigurationError, match="cut at ' #'"):
        check_arguments(["train.yaml", *arguments])


@pytest.mark.parametrize(
    "argument",
    ["--text='a #b'", "--text=a#b", '--text="#"', "run #1/x.yaml", "--debug"],
)
def test_what_yaml_keeps_is_not(argument):
    check_arguments([argument])


@pytest.mark.parametrize(
    ("argument", "option"), [("--deb", "debug"), ("--prec=bf16", "precision")]
)
def test_names_that_speechbrain_would_complete_are_refused(argument, option):
    with pytest.raises(ConfigurationError, match=f"run option --{option}"):
        check_arguments(["train.yaml", argument])


@pytest.mark.parametrize(
    "arguments", [["--text=a", "b"], ["--debug", "b"], ["--text", "a", "b"]]
)
def test_words_behind_no_name_are_refused(arguments):
    with pytest.raises(ConfigurationError, match="'b' stands behind no --name"):
        check_arguments(["train.yaml", *arguments])
    with pytest.raises(ConfigurationError, match="one YAML file"):
        check_arguments(["train.yaml", "b", *arguments])


def test_what_is_best_is_a_minimum_or_a_maximum(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(
        "seed: 1\nnumber_of_epochs: 1\noutput_folder: x\ncorpus: x\n"
        "best: {mni: loss}\nepoch_counter: null\ntrain_logger: null\n"
        "checkpointer: null\n"
    )
    with pytest.raises(ConfigurationError, match="mni"):
        check_configuration(path, {}, Run)


def test_a_file_that_is_no_text_is_named(path):
    path.write_bytes(b"seed: \xff")
    with pytest.raises(ConfigurationError, match="evaluate.yaml is not UTF-8"):
        check(path)


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"])))
def test_an_override_is_what_is_used_or_an_error(value):
    argument = f"--text='{value}'" if "'" not in value else f"--text={value}"
    try:
        check_arguments([argument])
        found = parse_overrides(argument.replace("--text=", "text: "))
    except ConfigurationError:
        return
    if "'" not in value:
        assert found == {"text": value}


class Run(TrainingSettings):
    corpus: str


def test_a_recipe_gets_what_the_command_line_says(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["none"])
    path = tmp_path / "train.yaml"
    path.write_text(
        "seed: 1\nnumber_of_epochs: 1\noutput_folder: !PLACEHOLDER\n"
        "corpus: x\nbest: {min: loss}\nepoch_counter: null\ntrain_logger: null\n"
        "checkpointer: null\n"
    )
    out = tmp_path / "lr=0.1" / "a #b"
    hparams, run_opts = load_recipe(
        [
            str(path),
            f"--output_folder='{out}'",
            "--corpus",
            "a=b=c",
            "--device=cpu",
        ],
        Run,
    )
    assert hparams["output_folder"] == str(out)
    assert hparams["corpus"] == "a=b=c"
    assert run_opts["device"] == "cpu"
    assert "corpus: a=b=c" in (out / "hyperparams.yaml").read_text()
    with pytest.raises(ConfigurationError, match="cut at ' #'"):
        load_recipe([str(path), "--output_folder=x", "--corpus=a #b"], Run)
    assert not (tmp_path / "x").exists()


def test_nothing_is_made_of_a_faulty_configuration(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="shots should be int"):
        load_recipe([str(path), "--corpus=a", "--shots=x"], Example)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
