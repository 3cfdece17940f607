"""Tests of ``spiritlm_plugin.dataio.corpus.manifests``."""

import json
import logging
import os
import re

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_plugin.dataio.corpus import manifests
from spiritlm_plugin.dataio.corpus.manifests import (
    ManifestError,
    load_manifest,
    manifest_labels,
    write_manifest,
)
from spiritlm_plugin.utils.files import DiskFullError

NOISE = np.random.default_rng(0).normal(size=8000) * 0.1


def write_wav(folder, name, samples=NOISE):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, 16000)
    return path


@pytest.fixture
def good(tmp_path):
    """Return an entry with half a second of noise."""
    write_wav(tmp_path, "wav/good.wav")
    return {
        "wav": "{data_root}/wav/good.wav",
        "duration": 0.5,
        "speaker": "anna",
        "text": "it's fine",
        "words": [["it's", 0.0, 0.25], ["fine", 0.25, 0.5]],
    }


def load(folder, entries, needs=()):
    write_manifest(entries, folder / "train.json")
    return load_manifest(folder / "train.json", needs)


def test_entries_come_with_the_places_of_their_recordings(tmp_path, good):
    elsewhere = str(write_wav(tmp_path, "elsewhere.wav"))
    entries = {"b": good, "a": good | {"wav": elsewhere, "intent": None}}
    items = load(tmp_path, entries, needs=["text", "speaker"])
    assert list(items) == ["b", "a"]
    assert items["b"] == good | {"wav": str(tmp_path / "wav" / "good.wav")}
    assert items["a"]["wav"] == elsewhere


BAD = {
    "missing": (None, "no such audio file"),
    "zero bytes": (lambda path: path.write_bytes(b""), "cannot read"),
    "garbage": (lambda path: path.write_bytes(b"\x00\x42" * 500), "cannot"),
    "no samples": (lambda path: soundfile.write(path, [], 16000), "is empty"),
    "silence": (
        lambda path: soundfile.write(path, np.zeros(8000), 16000),
        "is silence",
    ),
    "very short": (
        lambda path: soundfile.write(path, NOISE[:1000], 16000),
        "too short",
    ),
    "another length": (
        lambda path: soundfile.write(path, NOISE[:6000], 16000),
        "has 0.38 s, expected 0.50 s",
    ),
    "nan": (
        lambda path: soundfile.write(
            path, np.r_[NOISE[:-1], np.nan], 16000, subtype="FLOAT"
        ),
        "a sample that is nan",
    ),
    "a folder": (lambda path: path.mkdir(), "cannot read"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_recording_is_named_and_left_out(tmp_path, good, caplog, kind):
    make, message = BAD[kind]
    path = tmp_path / "wav" / "bad.wav"
    if make is not None:
        make(path)
    bad = good | {"wav": "{data_root}/wav/bad.wav"}
    for _ in range(2):  # read, and from what is known
        caplog.clear()
        items = load(tmp_path, {"x": good, "the bad": bad, "y": good})
        assert list(items) == ["x", "y"]
        assert "train.json: the bad is left out: " in caplog.text
        assert str(path) in caplog.text and message in caplog.text
        assert "1 of 3 utterances are left out" in caplog.text


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.8])
def test_a_truncated_recording_is_left_out(tmp_path, good, kind, share):
    path = write_wav(tmp_path, f"wav/cut.{kind}", np.tile(NOISE, 4))
    content = path.read_bytes()
    cut = good | {"wav": str(path), "duration": 2.0}
    assert list(load(tmp_path, {"x": good, "cut": cut})) == ["x", "cut"]
    path.write_bytes(content[: int(share * len(content))])
    assert list(load(tmp_path, {"x": good, "cut": cut})) == ["x"]


@pytest.mark.parametrize(
    "change, needs, message",
    [
        ({"text": ""}, [], "its text is empty"),
        ({"style": ""}, ["style"], "its style is empty"),
        ({"text": " \n"}, ["text"], "its text is empty"),
        ({"text": None}, ["text"], "it has no 'text'"),
        ({}, ["text", "style"], "it has no 'style'"),
        ({"wav": None}, [], "it names no recording"),
        ({"duration": None}, [], "its duration is None"),
        ({"duration": 0}, [], "its duration is 0"),
        ({"duration": -1.5}, [], "its duration is -1.5"),
        ({"duration": float("nan")}, [], "its duration is nan"),
        ({"duration": float("inf")}, [], "its duration is inf"),
        ({"duration": "0.5"}, [], "its duration is '0.5'"),
        ({"duration": True}, [], "its duration is True"),
        ({"duration": 10**400}, [], "its duration is 1000"),
        ({"text": 5}, [], "its text is 5, no text"),
        ({"speaker": 19}, [], "its speaker is 19, no text"),
        ({"intent": ["a"]}, [], "its intent is \\['a'\\], no text"),
        ({"wav": "a\0b.wav"}, [], "no such audio file"),
        ({"wav": "\ud800.wav"}, [], "no such audio file"),
        ({"wav": "/"}, [], "/"),
        ({"words": {}}, [], "its words are not names"),
        ({"words": ["abc"]}, [], "its words are not names"),
        ({"words": [["it's fine", 0, 10**400]]}, [], "its words are not"),
        ({"text": "it is fine"}, [], "its words are not those of its text"),
        ({"words": [["it's fine", 0, 0.6]]}, [], "its words are not names"),
        ({"words": [["it's fine", 0.3, 0.2]]}, [], "its words are not names"),
        ({"words": [["it's fine", 0.3]]}, [], "its words are not names"),
        ({"words": ["it's", "fine"]}, [], "its words are not names"),
        ({"words": 5}, [], "its words are not names"),
        (
            {"words": [["it's", 0.3, 0.4], ["fine", 0.1, 0.2]]},
            [],
            "its words are not names",
        ),
        ({"phones": [["f", 0.1, None]]}, [], "its phones are not names"),
        ({"phones": [["f", float("nan"), 0.2]]}, [], "its phones are not"),
        ({"phones": [[None, 0, 0.2]]}, [], "its phones are not names"),
    ],
)
def test_a_bad_entry_is_named_and_left_out(
    tmp_path, good, caplog, change, needs, message
):
    entries = {"bad": good | change, "x": good | {"style": "sad"}}
    assert list(load(tmp_path, entries, needs)) == ["x"]
    assert re.search(f"bad is left out: .*{message}", caplog.text)


def test_names_that_are_there_twice_are_left_out(tmp_path, good, caplog):
    path = tmp_path / "train.json"
    entry = json.dumps(good)
    inside = entry[:-1] + ', "wav": "b.wav"}'
    path.write_text(
        f'{{"a": {entry}, "b": {entry}, "a": {entry}, "c": {inside}}}'
    )
    assert list(load_manifest(path)) == ["b"]
    assert "a is left out: 'a' is there twice" in caplog.text
    assert "c is left out: its 'wav' is there twice" in caplog.text


def test_many_bad_entries_are_counted(tmp_path, good, caplog):
    entries = {f"bad{i}": {} for i in range(50)} | {"x": good}
    assert list(load(tmp_path, entries)) == ["x"]
    assert caplog.text.count("is left out: it names no recording") == 20
    assert "50 of 51 utterances are left out, the first of" in caplog.text


COMPOSED, DECOMPOSED = "caf\u00e9 fine", "cafe\u0301 fine"


@pytest.mark.parametrize("text", [COMPOSED, DECOMPOSED, None])
def test_letters_with_accents_have_one_form(tmp_path, good, text):
    words = [["cafe\u0301", 0.0, 0.2], ["fine", 0.2, 0.5]]
    entry = good | {"text": text, "words": words}
    loaded = load(tmp_path, {"x": entry})["x"]
    assert loaded["text"] == (text and COMPOSED)
    assert loaded["words"] == [["caf\u00e9", 0.0, 0.2], ["fine", 0.2, 0.5]]


@pytest.mark.parametrize("value", [5, ["sad"], {"a": 1}])
def test_labels_are_texts(tmp_path, good, value):
    write_manifest({"x": good | {"mood": value}}, tmp_path / "train.json")
    with pytest.raises(ManifestError, match="train.json: x: its mood is .*no"):
        manifest_labels(tmp_path / "train.json", "mood")


@pytest.mark.parametrize("entry", [None, 3, "wav", [], {}, {"duration": 1}])
def test_an_entry_that_is_none_is_left_out(tmp_path, good, entry):
    assert list(load(tmp_path, {"x": good, "bad": entry})) == ["x"]


def test_what_is_not_needed_may_be_absent(tmp_path, good):
    bare = {"wav": good["wav"], "duration": 0.5, "text": None, "words": None}
    assert list(load(tmp_path, {"bare": bare})) == ["bare"]


def test_words_may_leave_out_punctuation(tmp_path, good):
    entry = good | {"text": "It's - FINE!"}
    assert list(load(tmp_path, {"x": entry})) == ["x"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "cannot read .*train.json as JSON.*prepare the corpus again"),
        ('{"a": ', "as JSON"),
        ("\x00\xff", "as JSON"),
        ("[]", "should hold .* got a list"),
        ("5", "should hold .* got a int"),
        ("{}", "no utterance that can be used; prepare"),
        ('{"a": {}, "b": {}, "a": {}}', "a: 'a' is there twice"),
        ("[" * 100_000, "as JSON: .*recursion"),
        ("PK\3\4" + "\xfe" * 50, "as JSON"),
        ('{"a": {"wav": "no.wav", "duration": 1}}', "a: no such audio file"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_named(tmp_path, content, message):
    path = tmp_path / "train.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ManifestError, match=f"train.json.*{message}|{message}"):
        load_manifest(path)
    assert issubclass(ManifestError, ValueError)


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such manifest.*train.json"):
        load_manifest(tmp_path / "train.json")


@pytest.fixture
def checked(monkeypatch):
    """Return a list of the recordings that are read from now on."""
    reads = []
    check = manifests.check_recording

    def record(wav):
        reads.append(os.path.basename(wav))
        return check(wav)

    monkeypatch.setattr(manifests, "check_recording", record)
    return reads


def make_entries(folder, count, good):
    names = [f"wav/{index}.wav" for index in range(count)]
    for name in names:
        write_wav(folder, name)
    return {
        name: good | {"wav": "{data_root}/" + name, "words": None}
        for name in names
    }


def test_a_recording_is_read_once_unless_it_changes(tmp_path, good, checked):
    entries = make_entries(tmp_path, 3, good)
    assert len(load(tmp_path, entries)) == 3
    assert sorted(checked) == ["0.wav", "1.wav", "2.wav"]
    checked.clear()
    assert len(load(tmp_path, entries)) == 3
    assert checked == []
    write_wav(tmp_path, "wav/1.wav", np.zeros(8000))
    assert list(load(tmp_path, entries)) == ["wav/0.wav", "wav/2.wav"]
    write_wav(tmp_path, "wav/1.wav", NOISE[::-1])
    assert len(load(tmp_path, entries)) == 3
    (tmp_path / "wav/2.wav").unlink()
    assert list(load(tmp_path, entries)) == ["wav/0.wav", "wav/1.wav"]
    write_wav(tmp_path, "wav/2.wav")
    assert len(load(tmp_path, entries)) == 3
    assert checked == ["1.wav", "1.wav", "2.wav", "2.wav"]


def test_what_is_known_does_not_depend_on_what_is_needed(
    tmp_path, good, checked
):
    entries = make_entries(tmp_path, 2, good)
    entries["wav/0.wav"]["text"] = None
    assert len(load(tmp_path, entries, needs=["text"])) == 1
    assert len(load(tmp_path, entries)) == 2
    assert len(load(tmp_path, entries, needs=["text"])) == 1
    assert len(checked) == 2


def test_a_check_that_was_stopped_goes_on(tmp_path, good, checked, monkeypatch):
    entries = make_entries(tmp_path, 5, good)
    monkeypatch.setattr(manifests, "_CHECKPOINT", 2)
    record = manifests.check_recording

    def stop(wav):
        if wav.endswith("4.wav"):
            raise KeyboardInterrupt
        return record(wav)

    monkeypatch.setattr(manifests, "check_recording", stop)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path, entries)
    checked.clear()
    monkeypatch.setattr(manifests, "check_recording", record)
    assert len(load(tmp_path, entries)) == 5
    assert checked == ["4.wav"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "cannot read .*train.json.checked: .* are checked again"),
        ("{", "are checked again"),
        ("[]", "are checked again"),
        ("null", "are checked again"),
        ("\xff\xfe\x80" * 7, "are checked again"),
        ("[" * 100_000, "are checked again"),
        ("{}", "of another version: checking again"),
        ('{"version": -1, "recordings": {}}', "another version"),
        ('{"version": VERSION}', "another version"),
        ('{"version": VERSION, "recordings": [1]}', "another version"),
        ('{"version": VERSION, "recordings": {WAV: 5}}', ""),
        ('{"version": VERSION, "recordings": {WAV: []}}', ""),
        ('{"version": VERSION, "recordings": {WAV: [STAMP, "a", null]}}', ""),
        ('{"version": VERSION, "recordings": {WAV: [STAMP, 0.5, 3]}}', ""),
        ('{"version": VERSION, "recordings": {WAV: [null, 0.5, "a"]}}', ""),
        ('{"version": VERSION, "recordings": {WAV: {"a": 1}}}', ""),
    ],
)
def test_a_damaged_memory_of_checks_is_made_anew(
    tmp_path, good, checked, caplog, content, message
):
    wav = str(tmp_path / "wav" / "good.wav")
    values = {
        "VERSION": manifests.CHECK_VERSION,
        "WAV": wav,
        "STAMP": manifests.stamp(wav),
    }
    for name, value in values.items():
        content = content.replace(name, json.dumps(value))
    cache = tmp_path / "train.json.checked"
    cache.write_bytes(content.encode("latin-1"))
    with caplog.at_level(logging.INFO):
        assert list(load(tmp_path, {"x": good})) == ["x"]
    assert re.search(message, caplog.text)
    assert checked == ["good.wav"]
    assert json.loads(cache.read_text())["recordings"][wav][1] == 0.5
    assert list(load(tmp_path, {"x": good})) == ["x"]
    assert checked == ["good.wav"]


def test_a_folder_in_the_place_of_the_memory_does_not_matter(tmp_path, good):
    (tmp_path / "train.json.checked").mkdir()
    assert list(load(tmp_path, {"x": good})) == ["x"]


def test_a_full_disk_does_not_matter_but_for_the_manifest(
    tmp_path, good, small_disk
):
    many = {f"utterance{i}": good for i in range(300)}
    with pytest.raises(DiskFullError, match="no room for .*train.json"):
        load(tmp_path, many)
    assert list(load(tmp_path, {"x": good})) == ["x"]


def test_a_folder_that_cannot_be_written_does_not_matter(
    tmp_path, good, monkeypatch, caplog
):
    write_manifest({"x": good}, tmp_path / "train.json")

    def refuse(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(manifests, "write_file", refuse)
    with caplog.at_level(logging.INFO):
        assert list(load_manifest(tmp_path / "train.json")) == ["x"]
    assert "Permission denied" in caplog.text


def test_a_manifest_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "train.json"
    write_manifest({"a": {"text": "ü"}, "b": {}}, path)
    assert path.read_text().splitlines()[0] == "{"
    assert len(path.read_text().splitlines()) == 4
    with pytest.raises(TypeError):
        write_manifest({"a": {"text": object()}}, path)
    assert json.loads(path.read_text()) == {"a": {"text": "ü"}, "b": {}}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.text(max_size=5),
        values
        | st.dictionaries(
            st.sampled_from(["wav", "duration", "text", "words", "phones"]),
            values,
        ),
        max_size=4,
    )
)
def test_no_content_breaks_it(tmp_path, entries):
    wav = write_wav(tmp_path, "good.wav")
    good = {"wav": str(wav), "duration": 0.5, "text": "a"}
    items = load(tmp_path, entries | {"the good": good}, needs=["text"])
    assert items["the good"] == good


def test_groups_of_another_meaning_leave_nothing_out(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.ones(8000) / 9, 16000)
    wav = {"wav": "{data_root}/a.wav", "duration": 0.5}
    others = [{"group": 5}, {"position": -1}, {"group": [1], "position": "x"}]
    items = {f"u{i}": wav | other for i, other in enumerate(others)}
    write_manifest(items, tmp_path / "train.json")
    loaded = load_manifest(tmp_path / "train.json")
    assert [item.get("group") for item in loaded.values()] == ["5", None, None]
    assert not any("position" in item for item in loaded.values())
