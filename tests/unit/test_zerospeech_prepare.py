"""Tests of the scripts that prepare sWUGGY, sBLIMP and spoken StoryCloze."""

import importlib.util
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spiritlm_plugin.dataio.corpus.manifests import load_manifest

RECIPES = Path(__file__).parents[2] / "recipes"
ZEROSPEECH = RECIPES / "ZeroSpeech/comprehension/zerospeech_prepare.py"
STORYCLOZE = RECIPES / "StoryCloze/comprehension/storycloze_prepare.py"
LEXICAL = "id,filename,voice,frequency,word,phones,length_phones,correct"
SYNTACTIC = "id,filename,voice,type,subtype,transcription,correct"


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(path, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = np.sin(np.arange(int(16000 * seconds)) / 9) / 5
    soundfile.write(path, tone, 16000)


def gold(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gold.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def zerospeech(tmp_path):
    """One word in two voices, and one sentence; no labels of the tests."""
    root = tmp_path / "zerospeech"
    for name in ("aa", "ab", "ba", "bb"):
        record(root / f"lexical/dev/{name}.wav")
    gold(
        root / "lexical" / "dev",
        LEXICAL,
        "1,aa,en-US-Wavenet-A,5,abduct,AE B D,3,1",
        "1,ab,en-US-Wavenet-A,5,kidduct,K IH D,3,0",
        "1,ba,en-US-Wavenet-B,5,abduct,AE B D,3,1",
        "1,bb,en-US-Wavenet-B,5,kidduct,K IH D,3,0",
    )
    for name in ("c", "d"):
        record(root / f"syntactic/dev/{name}.wav", 0.7)
    gold(
        root / "syntactic" / "dev",
        SYNTACTIC,
        "7,c.wav,A,agreement,noun,dogs eat meat,1",
        '7,d.wav,A,agreement,noun,"dogs eats, meat",0',
    )
    record(root / "lexical/test/x.wav")
    return root


def test_zerospeech(zerospeech, tmp_path):
    output = tmp_path / "manifests"
    command = [sys.executable, ZEROSPEECH, zerospeech, output]
    subprocess.run(command, check=True)
    names = sorted(path.name for path in output.glob("*.json"))
    assert names == ["valid_lexical.json", "valid_syntactic.json"]
    items = load_manifest(output / "valid_lexical.json", ["pair", "correct"])
    assert items["ab"] == {
        "wav": str(zerospeech / "lexical/dev/ab.wav"),
        "duration": 0.5,
        "speaker": "en-US-Wavenet-A",
        "pair": "1_en-US-Wavenet-A",
        "correct": False,
        "text": "kidduct",
    }
    assert len({item["pair"] for item in items.values()}) == 2
    items = load_manifest(output / "valid_syntactic.json", ["text"])
    assert items["d"]["text"] == "dogs eats, meat"
    assert [item["correct"] for item in items.values()] == [True, False]


def test_zerospeech_without_a_recording(zerospeech, tmp_path, caplog):
    (zerospeech / "lexical/dev/ab.wav").unlink()
    with caplog.at_level(logging.WARNING):
        script(ZEROSPEECH).prepare_zerospeech(zerospeech, tmp_path)
    assert "ab is left out: no such audio file" in caplog.text
    assert "ab" not in json.loads((tmp_path / "valid_lexical.json").read_text())


@pytest.mark.parametrize(
    "lines, message",
    [
        (["id,filename,correct", "1,aa,1"], "has no rows with voice"),
        ([LEXICAL], "has no rows with id, filename, voice, correct"),
        ([LEXICAL, "1,aa,A,5,w,p,3,2"], "line 2: correct is '2', not 0 or 1"),
        ([LEXICAL, "1,zz,A,5,w,p,3,1"], "names no recording that can be used"),
    ],
)
def test_bad_gold(zerospeech, tmp_path, lines, message):
    gold(zerospeech / "lexical" / "dev", *lines)
    with pytest.raises(ValueError, match=message):
        script(ZEROSPEECH).prepare_zerospeech(zerospeech, tmp_path)


def test_no_zerospeech(tmp_path):
    with pytest.raises(FileNotFoundError, match="lexical/dev/gold.csv"):
        script(ZEROSPEECH).prepare_zerospeech(tmp_path, tmp_path)


@pytest.fixture
def storycloze(tmp_path):
    root = tmp_path / "storycloze"
    for number in (10, 9):
        for ending in ("incorrect", "correct"):
            record(root / f"sSC/{number}_{ending}.wav", 1)
            record(root / f"tSC/{number}_tts_{ending}.wav", 1)
    return root


def test_storycloze(storycloze, tmp_path):
    output = tmp_path / "manifests"
    command = [sys.executable, STORYCLOZE, storycloze, output]
    subprocess.run(command, check=True)
    items = load_manifest(output / "test_storycloze.json", ["story", "ending"])
    names = ["9_correct", "9_incorrect", "10_correct", "10_incorrect"]
    assert list(items) == names
    assert items["9_incorrect"] == {
        "wav": str(storycloze / "sSC" / "9_incorrect.wav"),
        "duration": 1.0,
        "story": "9",
        "ending": "incorrect",
    }
    topic = json.loads((output / "test_topic_storycloze.json").read_text())
    assert list(topic)[:2] == ["9_tts_correct", "9_tts_incorrect"]


def test_incomplete_stories(storycloze, tmp_path, caplog):
    (storycloze / "sSC" / "9_correct.wav").unlink()
    record(storycloze / "sSC" / "notes.wav")
    with caplog.at_level(logging.WARNING):
        script(STORYCLOZE).prepare_storycloze(storycloze, tmp_path)
    assert "story 9 is left out: it has no ending but 9_inc" in caplog.text
    assert "notes.wav is left out: its name" in caplog.text
    items = json.loads((tmp_path / "test_storycloze.json").read_text())
    assert list(items) == ["10_correct", "10_incorrect"]


def test_bad_storycloze(storycloze, tmp_path):
    prepare = script(STORYCLOZE).prepare_storycloze
    with pytest.raises(FileNotFoundError, match="no sSC and no tSC"):
        prepare(tmp_path / "missing", tmp_path)
    record(storycloze / "sSC" / "9_other_correct.wav")
    with pytest.raises(ValueError, match="both the correct ending of story 9"):
        prepare(storycloze, tmp_path)
    for path in (storycloze / "sSC").glob("*_correct.wav"):
        path.unlink()
    with pytest.raises(ValueError, match="no story with both endings"):
        prepare(storycloze, tmp_path)
