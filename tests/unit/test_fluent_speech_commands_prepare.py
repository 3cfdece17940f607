"""Tests of the preparation of Fluent Speech Commands."""

import importlib.util
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spiritlm_plugin.dataio.corpus.manifests import load_manifest

SCRIPT = Path(__file__).parents[2] / (
    "recipes/FluentSpeechCommands/intent/fluent_speech_commands_prepare.py"
)
_spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(module)

HEADER = ",path,speakerId,transcription,action,object,location\n"


@pytest.fixture
def corpus(tmp_path):
    """Three splits of two commands, one of them with a comma."""
    root = tmp_path / "corpus"
    (root / "data").mkdir(parents=True)
    for split in ("train", "valid", "test"):
        lines = [HEADER]
        for i, row in enumerate(
            [
                '"Turn on  the lights, please",activate,lights,bedroom',
                "Bring juice,bring,juice,none",
            ]
        ):
            path = f"wavs/speakers/s{i}/{split}{i}.wav"
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(i).normal(size=16000) / 10
            soundfile.write(root / path, noise, 16000)
            lines.append(f"{i},{path},s{i},{row}\n")
        (root / "data" / f"{split}_data.csv").write_text("".join(lines))
    return root


def test_manifests(corpus, tmp_path):
    folder = tmp_path / "manifests"
    command = [sys.executable, SCRIPT, corpus, folder]
    subprocess.run(list(map(str, command)), check=True)
    items = load_manifest(folder / "test", ["text", "intent"])
    assert items["test0"] == {
        "wav": str(corpus / "wavs/speakers/s0/test0.wav"),
        "duration": 1.0,
        "speaker": "s0",
        "text": "turn on the lights, please",
        "intent": "activate lights bedroom",
    }
    assert items["test1"]["intent"] == "bring juice none"
    assert len(load_manifest(folder / "train")) == 2


def test_what_cannot_be_used_is_named(corpus, tmp_path, caplog):
    (corpus / "wavs/speakers/s0/test0.wav").unlink()
    table = corpus / "data" / "valid_data.csv"
    table.write_text(table.read_text().replace("juice,none", ",none"))
    with caplog.at_level(logging.WARNING):
        module.prepare_fluent_speech_commands(corpus, tmp_path)
    assert list(load_manifest(tmp_path / "test")) == ["test1"]
    assert list(load_manifest(tmp_path / "valid")) == ["valid0"]
    assert "test0 is left out: no such audio file" in caplog.text
    assert "valid1.wav is left out: its row is not complete" in caplog.text


def test_one_name_of_two_speakers(corpus, tmp_path):
    table = corpus / "data" / "test_data.csv"
    table.write_text(table.read_text().replace("test1.wav", "test0.wav"))
    wavs = corpus / "wavs" / "speakers"
    (wavs / "s1" / "test1.wav").rename(wavs / "s1" / "test0.wav")
    module.prepare_fluent_speech_commands(corpus, tmp_path)
    items = load_manifest(tmp_path / "test")
    assert list(items) == ["s0/test0", "s1/test0"]
    assert items["s1/test0"]["speaker"] == "s1"


def test_tables_as_they_come(corpus, tmp_path):
    table = corpus / "data" / "test_data.csv"
    text = table.read_text().replace("Bring juice", "Cafe\u0301\u2028now")
    table.write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    module.prepare_fluent_speech_commands(corpus, tmp_path)
    items = load_manifest(tmp_path / "test")
    assert items["test1"]["text"] == "caf\xe9 now" and len(items) == 2
    table.write_bytes(text.replace("\u0301\u2028", "\xe9").encode("latin-1"))
    with pytest.raises(ValueError, match=r"test_data.csv is not UTF-8: line 3"):
        module.prepare_fluent_speech_commands(corpus, tmp_path)
    table.write_text(text.replace(",none", ",none,,none"))
    with pytest.raises(ValueError, match="line 3: 9 cells, but 7 columns"):
        module.prepare_fluent_speech_commands(corpus, tmp_path)
    table.write_text(text + "7\n")
    module.prepare_fluent_speech_commands(corpus, tmp_path)
    assert len(load_manifest(tmp_path / "test")) == 2


def test_folders_that_are_something_else(corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match="train_data.csv"):
        module.prepare_fluent_speech_commands(tmp_path / "x", tmp_path)
    table = corpus / "data" / "test_data.csv"
    content = table.read_text()
    table.write_text(content.replace("object", "thing"))
    with pytest.raises(ValueError, match="no column object"):
        module.prepare_fluent_speech_commands(corpus, tmp_path)
    table.write_text(HEADER)
    with pytest.raises(ValueError, match="test split .* no usable"):
        module.prepare_fluent_speech_commands(corpus, tmp_path / "manifests")
