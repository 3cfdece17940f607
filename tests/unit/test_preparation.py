"""Preparation: records to stores, and the scripts of the recipes."""

import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
import weakref
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.corpus import checking, preparation
from spiritlm_plugin.dataio.corpus.checking import fit_words
from spiritlm_plugin.dataio.corpus.manifests import load_manifest, read_manifest
from spiritlm_plugin.dataio.corpus.merging import merge_shards
from spiritlm_plugin.dataio.corpus.preparation import Names, prepare
from spiritlm_plugin.dataio.corpus.stores import Store
from spiritlm_plugin.utils.files import DiskFullError

RECIPES = Path(__file__).parents[2] / "recipes"
# In tasks' folders, whose copies stand alone.
SCRIPTS = sorted(RECIPES.glob("*/*/*_prepare.py"))


@pytest.fixture
def wav(tmp_path):
    return sound(tmp_path / "a.wav")


def sound(path, samples=8000):
    noise = np.random.default_rng(samples).normal(size=samples) * 0.1
    soundfile.write(path, noise, 16000)
    return path


def test_entries_are_records_with_durations(tmp_path, wav):
    records = [
        ("a", {"text": "all day", "wav": wav, "book": 7}),
        ("b", {"wav": "{data_root}/a.wav", "speaker": "anna"}),
        ("c", {"wav": wav, "duration": 0.49, "group": "x", "position": 2}),
    ]
    prepare({"train": iter(records)}, tmp_path)
    items = read_manifest(tmp_path / "train")
    assert items == {
        "a": {"wav": str(wav), "duration": 0.5, "text": "all day", "book": 7},
        "b": {"wav": "{data_root}/a.wav", "duration": 0.5, "speaker": "anna"},
        "c": {"wav": str(wav), "duration": 0.49, "group": "x", "position": 2},
    }
    assert list(items["a"]) == ["wav", "duration", "text", "book"]
    assert records[0][1] == {"text": "all day", "wav": wav, "book": 7}
    loaded = load_manifest(tmp_path / "train", ["speaker"])
    assert loaded == {"b": items["b"] | {"wav": str(wav)}}


def test_what_is_wrong_with_a_corpus_is_said_before_all_else(
    tmp_path, wav, opened
):
    def read_missing():
        raise FileNotFoundError("no such table")
        yield

    splits = {"train": [("a", {"wav": wav})], "test": read_missing()}
    with pytest.raises(FileNotFoundError, match="no such table"):
        prepare(splits, tmp_path / "out")
    assert opened == []
    with pytest.raises(FileNotFoundError, match="no such manifest"):
        load_manifest(tmp_path / "out" / "train")


def test_what_cannot_be_used_is_left_out(tmp_path, wav, caplog):
    missing, silent = tmp_path / "b.wav", tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(8000), 16000)
    bad = os.fsdecode(b"\xe9")
    records = [
        ("a", {"wav": wav}),
        ("a", {"wav": missing}),
        ("b", {"wav": missing}),
        ("c", {"wav": wav, "text": " "}),
        ("d", {"wav": wav, "words": [("a", 0.1, 0.7)]}),
        ("e", {"wav": wav, "text": 7}),
        ("f", {"wav": silent}),
        ("g", {"wav": wav, "duration": 0.9}),
        ("h", {"wav": wav, "text": "b", "words": [("a", 0.1, 0.2)]}),
        ("i", {"wav": wav, "speaker": 19}),
        ("j", {"wav": wav, "position": 2**31}),
        ("k", {"wav": f"{bad}.wav"}),
        ("l", {"wav": wav, "bytes": b"x"}),
        (f"m{bad}", {"wav": wav}),
    ]
    with caplog.at_level(logging.INFO):
        prepare({"train": records}, tmp_path)
    items = read_manifest(tmp_path / "train")
    assert list(items) == ["a", "d"] and "words" not in items["d"]
    for message in [
        f"train: a is left out: {wav} has the same id",
        f"train: b is left out: no such audio file: {missing}",
        "c is left out: its transcript is empty",
        "e is left out: its transcript is 7, not a text",
        "f is left out: " + f"{silent} is silence",
        f"g is left out: {wav} has 0.50 s, expected 0.90 s",
        "h is left out: its words are not those of its text 'b'",
        "i is left out: its speaker is 19, no text",
        "j is left out: its position is 2147483648, no number",
        "k is left out: its name or text is not UTF-8",
        "l is left out: ",
        "m\\udce9 is left out: its name or text is not UTF-8",
        "d has no word times: the alignment ends at 0.7 s",
        "train: 12 of 14 utterances are left out",
        "train: 2 utterances, 12 left out, 0.00 hours",
    ]:
        assert message in caplog.text
    with pytest.raises(ValueError, match=r"split train names no .*1 are left"):
        prepare({"train": [("b", {"wav": missing})]}, tmp_path)
    with pytest.raises(FileNotFoundError):
        load_manifest(tmp_path / "train")


def test_many_are_counted(tmp_path, wav, caplog, few_rows):
    records = [(f"bad{i}", {"wav": f"{i}.wav"}) for i in range(30)]
    prepare({"train": [("a", {"wav": wav}), *records]}, tmp_path)
    assert caplog.text.count("is left out: no such audio file") == 20
    assert "train: 30 of 31 utterances are left out, the first" in caplog.text
    description = json.loads((tmp_path / "train/corpus.json").read_text())
    assert description["shards"] == 11 and description["utterances"] == 1


@pytest.fixture
def few_rows(monkeypatch):
    """Make shards of three records."""
    monkeypatch.setattr(preparation, "ROWS", 3)


@pytest.fixture
def opened(monkeypatch):
    """Return a list of the recordings that are read from now on."""
    names, check = [], checking.check_recording

    def record(wav):
        names.append(Path(wav).name)
        return check(wav)

    monkeypatch.setattr(checking, "check_recording", record)
    return names


def make_records(folder, count):
    """Return records of as many recordings, in two groups."""
    wavs = [sound(folder / f"{i}.wav", 2000 + 16 * i) for i in range(count)]
    return [
        (wav.stem, {"wav": wav, "group": f"g{i // 5}", "position": i % 5})
        for i, wav in enumerate(wavs)
    ]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_no_recording_is_read_again(tmp_path, opened, few_rows):
    records = make_records(tmp_path, 10)
    prepare({"train": records}, tmp_path)
    assert sorted(opened) == [f"{i}.wav" for i in range(10)]
    before = contents(tmp_path / "train")
    assert sorted(before) == [
        "corpus.json",
        *(f"shard-0000{i}.{s}" for i in range(4) for s in ("arrow", "json")),
    ]
    opened.clear()
    prepare({"train": records}, tmp_path)
    merge_shards(tmp_path / "train")
    prepare({"train": records}, tmp_path)
    assert opened == []
    assert list(read_manifest(tmp_path / "train")) == [n for n, _ in records]
    # Of a shard with another recording, all are.
    sound(tmp_path / "4.wav", 3000)
    prepare({"train": records}, tmp_path)
    assert len(opened) == 10  # which were merged
    opened.clear()
    sound(tmp_path / "4.wav", 4000)
    prepare({"train": records}, tmp_path)
    assert sorted(opened) == ["3.wav", "4.wav", "5.wav"]
    assert load_manifest(tmp_path / "train")["4"]["duration"] == 0.25


def test_fewer_records_leave_no_shards(tmp_path, opened, few_rows):
    records = make_records(tmp_path, 10)
    prepare({"train": records}, tmp_path)
    opened.clear()
    prepare({"train": records[:6]}, tmp_path)
    assert opened == []
    assert len(contents(tmp_path / "train")) == 5
    assert len(Store(tmp_path / "train")) == 6


@pytest.mark.parametrize("stop", range(10))
def test_a_stopped_run_goes_on(tmp_path, monkeypatch, opened, few_rows, stop):
    records = make_records(tmp_path, 10)
    prepare({"train": records}, tmp_path / "whole")
    record = checking.check_recording

    def fail(wav):
        if Path(wav).name == f"{stop}.wav":
            raise KeyboardInterrupt
        return record(wav)

    monkeypatch.setattr(checking, "check_recording", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare({"train": records}, tmp_path / "parts")
    with pytest.raises(FileNotFoundError):
        load_manifest(tmp_path / "parts" / "train")
    monkeypatch.setattr(checking, "check_recording", record)
    opened.clear()
    prepare({"train": records}, tmp_path / "parts")
    assert len(opened) < 10 or stop < 3
    whole, parts = (tmp_path / n / "train" for n in ("whole", "parts"))
    assert {
        n: c for n, c in contents(parts).items() if not n.startswith("shard-")
    } == {
        n: c for n, c in contents(whole).items() if not n.startswith("shard-")
    }
    assert {p.name: p.read_bytes() for p in parts.glob("*.arrow")} == {
        p.name: p.read_bytes() for p in whole.glob("*.arrow")
    }


def test_a_damaged_shard_is_made_anew(tmp_path, opened, few_rows, caplog):
    records = make_records(tmp_path, 10)
    prepare({"train": records}, tmp_path)
    before = contents(tmp_path / "train")["shard-00002.arrow"]
    path = tmp_path / "train" / "shard-00002.arrow"
    path.write_bytes(path.read_bytes()[:-9])
    opened.clear()
    prepare({"train": records}, tmp_path)
    assert sorted(opened) == ["6.wav", "7.wav", "8.wav"]
    assert f"{path} is made anew: " in caplog.text
    assert path.read_bytes() == before


def test_no_more_than_a_shard_is_in_memory(tmp_path, wav, few_rows):
    alive, most = weakref.WeakSet(), 0

    class Item(dict):
        __hash__ = object.__hash__

    def read():
        nonlocal most
        for i in range(60):
            item = Item(wav=wav, text=f"text {i}")
            alive.add(item)
            most = max(most, len(alive))
            yield f"{i}", item

    prepare({"train": read()}, tmp_path)
    assert len(Store(tmp_path / "train")) == 60
    assert most <= 7


def test_splits_are_merged(tmp_path, wav):
    splits = {name: [(name, {"wav": wav})] for name in "xyz"}
    prepare(splits, tmp_path, {"train": ["z", "x"], "test": []})
    assert list(read_manifest(tmp_path / "train")) == ["z", "x"]
    assert not (tmp_path / "test").exists()
    # Nothing is copied, and merging a part's shards changes nothing.
    assert [path.name for path in (tmp_path / "train").iterdir()] == [
        "corpus.json"
    ]
    before = Store(tmp_path / "train").digest
    merge_shards(tmp_path / "z")
    assert Store(tmp_path / "train").digest == before
    assert list(load_manifest(tmp_path / "train")) == ["z", "x"]


def test_a_split_becomes_a_union_and_a_split_again(tmp_path, wav):
    splits = {name: [(name, {"wav": wav})] for name in "xy"}
    prepare({"train": splits["x"]}, tmp_path)
    prepare(splits, tmp_path, {"train": ["x", "y"]})
    assert list(contents(tmp_path / "train")) == ["corpus.json"]
    assert list(read_manifest(tmp_path / "train")) == ["x", "y"]
    prepare({"train": splits["y"]}, tmp_path)
    assert list(read_manifest(tmp_path / "train")) == ["y"]


def test_a_full_disk_is_named_and_what_is_complete_is_kept(
    tmp_path, small_disk, few_rows, opened
):
    records = [
        (name, item | {"text": "a" * (30_000 if int(name) > 6 else 9)})
        for name, item in make_records(tmp_path, 9)
    ]
    with pytest.raises(DiskFullError, match="no room for .*-00002.arrow"):
        prepare({"train": records}, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.partial"))
    records = [(name, item | {"text": "a"}) for name, item in records]
    prepare({"train": records}, tmp_path / "out")
    assert len(Store(tmp_path / "out" / "train")) == 9


def test_an_id_of_two_splits_is_named(tmp_path, wav, caplog):
    other = tmp_path / "b.wav"
    shutil.copy(wav, other)
    splits = {
        "x": [("a", {"wav": wav})],
        "y": [("a", {"wav": other}), ("b", {"wav": other})],
        "z": [("a", {"wav": other})],
    }
    prepare(splits, tmp_path, {"train": ["x", "y"]})
    assert list(read_manifest(tmp_path / "train")) == ["a", "b"]
    assert read_manifest(tmp_path / "train")["a"]["wav"] == str(wav)
    assert "y: a is left out: another recording has the same id" in caplog.text
    assert list(read_manifest(tmp_path / "z")) == ["a"]


@given(st.lists(st.lists(st.integers(0, 40), max_size=9)))
def test_names_are_new_once(batches):
    names, seen = Names(), set()
    for batch in batches:
        ids = [str(number) for number in dict.fromkeys(batch)]
        are_new = [name not in seen for name in ids]
        assert names.are_new(ids).tolist() == are_new
        names.add([name for name, is_new in zip(ids, are_new) if is_new])
        seen.update(ids)


def test_accents_are_written_in_one_way(tmp_path, wav):
    item = {"wav": wav, "text": "cafe\u0301", "words": [("cafe\u0301", 0, 0.1)]}
    prepare({"train": [("a", item)]}, tmp_path)
    item = read_manifest(tmp_path / "train")["a"]
    assert item["text"] == item["words"][0][0] == "caf\xe9"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"shards": 1}'])
def test_a_damaged_description_is_written_anew(tmp_path, wav, content, opened):
    prepare({"train": [("a", {"wav": wav})]}, tmp_path)
    path = tmp_path / "train" / "corpus.json"
    before = path.read_text()
    path.write_text(content)
    prepare({"train": [("a", {"wav": wav})]}, tmp_path)
    assert path.read_text() == before
    assert opened == ["a.wav"]


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
    if "AsteriskSounds" in script.parts:  # it has a module beside it
        shutil.copy(script.with_name("phone_alignment.py"), tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "phone_alignment", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(copy), "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(copy, run_name="__main__")
    shown = capsys.readouterr().out
    assert f"python {script.name} " in shown and "of the manifest" in shown


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


def test_nothing_is_undone_for_a_corpus_that_is_empty(tmp_path, wav):
    prepare({"train": [("a", {"wav": wav})]}, tmp_path)
    changed = {"train": [("b", {"wav": wav})], "valid": []}
    with pytest.raises(ValueError, match="the split valid names no recording"):
        prepare(changed, tmp_path)
    assert list(read_manifest(tmp_path / "train")) == ["a"]


def test_what_a_union_is_made_of_is_said(tmp_path, caplog):
    splits = {
        name: [(name, {"wav": sound(tmp_path / f"{name}.wav", length)})]
        for name, length in (("p1", 8000), ("p2", 9000))
    }
    prepare(splits, tmp_path, {"train": ["p1", "p2"]})
    with caplog.at_level(logging.WARNING):
        prepare({"p1": splits["p1"]}, tmp_path, {"train": ["p1"]})
    assert "train was p1, p2 before; it has no more than p1 now" in caplog.text
    with pytest.raises(
        ValueError, match="train is to be of p9, and the splits"
    ):
        prepare(splits, tmp_path, {"train": ["p1", "p9"]})
    with pytest.raises(ValueError, match="a split is the name of a folder"):
        prepare({"a/b": splits["p1"]}, tmp_path)


@pytest.mark.parametrize(
    "name, more",
    [
        (5, {}),
        ("b", {"duration": "1.0"}),
        ("b", {"duration": 10**400}),
        ("b", {"text": "day", "words": [["day", "0.1", "0.2"]]}),
        ("b", {"text": "day", "words": [["day", None, None]]}),
    ],
)
def test_values_of_another_kind_are_left_out(tmp_path, wav, name, more):
    records = [("a", {"wav": wav}), (name, {"wav": wav, **more})]
    prepare({"train": records}, tmp_path)
    assert list(read_manifest(tmp_path / "train")) == ["a"]
