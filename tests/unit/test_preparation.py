"""Preparation: records to manifests, and the scripts of the recipes."""

import json
import logging
import runpy
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spiritlm_plugin.dataio.corpus.preparation import fit_words, prepare

RECIPES = Path(__file__).parents[2] / "recipes"
# In tasks' folders, whose copies stand alone.
SCRIPTS = sorted(RECIPES.glob("*/*/*_prepare.py"))


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(8000), 16000)
    return path


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_entries_are_records_with_durations(tmp_path, wav):
    records = [
        ("a", {"text": "all day", "wav": wav}),
        ("b", {"wav": "{data_root}/a.wav", "speaker": "anna"}),
        # What is known is not looked up.
        ("c", {"wav": "missing.wav", "duration": 3.5}),
    ]
    prepare({"train": iter(records)}, tmp_path)
    items = read(tmp_path / "train.json")
    assert items == {
        "a": {"wav": str(wav), "duration": 0.5, "text": "all day"},
        "b": {"wav": "{data_root}/a.wav", "duration": 0.5, "speaker": "anna"},
        "c": {"wav": "missing.wav", "duration": 3.5},
    }
    assert list(items["a"]) == ["wav", "duration", "text"]
    assert records[0][1] == {"text": "all day", "wav": wav}


def test_what_is_wrong_with_a_corpus_is_said_before_all_else(tmp_path, wav):
    def read_missing():
        raise FileNotFoundError("no such table")
        yield

    splits = {"train": [("a", {"wav": wav})], "test": read_missing()}
    with pytest.raises(FileNotFoundError, match="no such table"):
        prepare(splits, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_used_is_left_out(tmp_path, wav, caplog):
    missing = tmp_path / "b.wav"
    records = [
        ("a", {"wav": wav}),
        ("a", {"wav": missing}),
        ("b", {"wav": missing}),
        ("c", {"wav": wav, "text": " "}),
        ("d", {"wav": wav, "words": [("a", 0.1, 0.7)]}),
        ("e", {"wav": wav, "text": 7}),
    ]
    with caplog.at_level(logging.INFO):
        prepare({"train": records}, tmp_path)
    items = read(tmp_path / "train.json")
    assert list(items) == ["a", "d"] and "words" not in items["d"]
    for message in [
        f"{missing} is left out: {wav} has the same id",
        f"b is left out: no such audio file: {missing}",
        "c is left out: its transcript is empty",
        "e is left out: its transcript is 7, not a text",
        "d has no word times: the alignment ends at 0.7 s",
        "train.json: 2 utterances, 3 left out, 0.00 hours",
    ]:
        assert message in caplog.text
    with pytest.raises(ValueError, match=r"split train names no .*1 are left"):
        prepare({"train": [("b", {"wav": missing})]}, tmp_path)


def test_splits_are_merged(tmp_path, wav):
    splits = {name: [(name, {"wav": wav})] for name in "xyz"}
    prepare(splits, tmp_path, {"train": ["z", "x"], "test": []})
    assert list(read(tmp_path / "train.json")) == ["z", "x"]
    assert not (tmp_path / "test.json").exists()


def test_an_id_of_two_splits_is_named(tmp_path, wav, caplog):
    other = tmp_path / "b.wav"
    shutil.copy(wav, other)
    splits = {"x": [("a", {"wav": wav})], "y": [("a", {"wav": other})]}
    prepare(splits, tmp_path, {"train": ["x", "y"]})
    assert read(tmp_path / "train.json")["a"]["wav"] == str(wav)
    assert f"{other} is left out: {wav} has the same id" in caplog.text


def test_accents_are_written_in_one_way(tmp_path, wav):
    item = {"wav": wav, "text": "cafe\u0301", "words": [("cafe\u0301", 0, 0.1)]}
    prepare({"train": [("a", item)]}, tmp_path)
    item = read(tmp_path / "train.json")["a"]
    assert item["text"] == item["words"][0][0] == "caf\xe9"


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"a": 1}', '{"a": {"wav": "WAV"}}']
)
def test_a_damaged_manifest_is_written_anew(tmp_path, wav, content):
    manifest = tmp_path / "train.json"
    manifest.write_text(content.replace("WAV", str(wav)))
    prepare({"train": [("a", {"wav": wav})]}, tmp_path)
    assert read(manifest)["a"]["duration"] == 0.5


def test_silences_are_no_words():
    words = [("", 0, 0.1), ("a", 0.1, 0.2), ("", 0.2, 0.2), ("b", 0.3, 1.004)]
    assert fit_words(words, 1.0) == [["a", 0.1, 0.2], ["b", 0.3, 1.0]]
    assert fit_words([], 1.0) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [("a", 0.3, 0.5), ("b", 0.2, 0.4)],
            "b is from 0.2 to 0.4 s, after what begins at 0.3",
        ),
        ([("a", 0.3, 0.2)], "a is from 0.3 to 0.2"),
        ([("a", -0.1, 0.2)], "a is from -0.1 to 0.2"),
        ([("a", 0.2, 0.2)], "a is from 0.2 to 0.2"),
        ([("", float("nan"), 0.2)], "a silence is from nan to 0.2"),
        ([("a", 0.2, 1.1)], "ends at 1.1 s, the recording at 1.000 s"),
    ],
)
def test_times_that_do_not_fit(words, message):
    with pytest.raises(ValueError, match=message):
        fit_words(words, 1.0)


def test_scripts_of_a_corpus_are_the_same():
    copies = {
        corpus: [path.read_text(encoding="utf-8") for path in paths]
        for corpus, paths in groupby(SCRIPTS, lambda path: path.parts[-3])
    }
    assert len(copies["LibriSpeech"]) >= 4 and len(copies["Expresso"]) == 3
    for texts in copies.values():
        assert len(set(texts)) == 1


@pytest.mark.parametrize(
    "script", SCRIPTS, ids=lambda path: "/".join(path.parts[-3:-1])
)
def test_a_script_stands_alone(script, tmp_path, monkeypatch, capsys):
    copy = shutil.copy(script, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(copy), "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(copy, run_name="__main__")
    shown = capsys.readouterr().out
    assert f"python {script.name} " in shown and "of the manifests" in shown


@pytest.mark.parametrize("name", ["tinyspeech", "tinyspeech_stsp"])
def test_tinyspeech_stands_alone(tmp_path, name):
    pytest.importorskip("espeakng_loader")
    source = RECIPES / "TinySpeech"
    shutil.copytree(source / "tinyspeech", tmp_path / "tinyspeech")
    script = shutil.copy(source / f"{name}_prepare.py", tmp_path)
    command = [sys.executable, script, "--help"]
    shown = subprocess.run(
        command, cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert f"python {name}_prepare.py " in shown


def test_no_script_reaches_into_another_folder():
    for path in RECIPES.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "sys.path" not in text and ".parents[" not in text, path
        imports = "from tinyspeech" in text or "import tinyspeech" in text
        assert not imports or path.parent == RECIPES / "TinySpeech"
