"""Tests of writing, and of JSON, in ``spiritlm_plugin.utils.files``."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pyarrow
import pytest
import soundfile
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

from spiritlm_plugin.utils import files
from spiritlm_plugin.utils.files import (
    DiskFullError,
    naming_full_disk,
    read_json,
    write_file,
    writing,
)

MANY = 300_000


def write_arrow(path):
    table = pyarrow.table({"a": np.arange(MANY)})
    with pyarrow.OSFile(str(path), "wb") as file:
        with pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)


def write_wav(path):
    noise = np.random.default_rng(0).normal(size=MANY) / 9
    soundfile.write(path, noise, 16000, format="WAV")


def write_folder(path):
    path.mkdir()
    torch.save(torch.ones(MANY), path / "a.pt")


def write_sharded(path):
    dcp.save({"a": torch.ones(MANY)}, checkpoint_id=path)


WRITERS = {
    "text": lambda path: path.write_text("a" * MANY),
    "torch": lambda path: torch.save(torch.ones(MANY), path),
    "safetensors": lambda path: save_file({"a": torch.ones(MANY)}, path),
    "arrow": write_arrow,
    "wav": write_wav,
    "folder": write_folder,
    "sharded": write_sharded,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, small_disk, kind):
    path = tmp_path / "results"
    with pytest.raises(DiskFullError, match="no room for .*results: ") as error:
        with writing(path) as partial:
            WRITERS[kind](partial)
    assert "MB free. Make room and start again" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays(tmp_path, small_disk):
    path = tmp_path / "a.txt"
    write_file(path, "before")
    with pytest.raises(DiskFullError):
        write_file(path, "a" * MANY)
    assert path.read_text() == "before"
    write_file(path, "after")
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError, OSError])
def test_other_errors_are_as_they_are(tmp_path, stop):
    with pytest.raises(stop, match="^mine$"):
        with writing(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise stop("mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=errno.errorcode.get
)
def test_all_that_says_so_is_known(tmp_path, code):
    with pytest.raises(DiskFullError, match=os.strerror(code)) as error:
        with naming_full_disk(tmp_path / "a"):
            raise OSError(code, os.strerror(code))
    assert isinstance(error.value, OSError)


def test_the_disk_is_asked_where_a_library_does_not_say(tmp_path, monkeypatch):
    asked = []

    def refuse(path):
        asked.append(path)
        return "No space left on device"

    monkeypatch.setattr(files, "_why_no_room", refuse)
    with pytest.raises(DiskFullError, match="No space left"):
        with naming_full_disk(tmp_path / "a"):
            raise RuntimeError("System error.")
    assert asked == [tmp_path / "a"]


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with writing(tmp_path / "model") as partial:
        partial.mkdir()
        (partial / "a").touch()
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "a").exists()
    with pytest.raises(OSError):
        with writing(tmp_path / "model") as partial:
            partial.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    shutil.rmtree(tmp_path / "model")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1"),
        (b'{"a": 1', "line 1"),
        (b'{"a":\n nul', "line 2"),
        (b"[1, 2]", "it holds a list"),
        (b"5", "it holds a int"),
        (b"\x80\x81\xff" * 9, "utf"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_damaged_json_is_named(tmp_path, content, message):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_json(path, "delete it")
    assert f"cannot read {path}: " in str(error.value)
    assert message in str(error.value)
    assert str(error.value).endswith("; delete it")


def test_json_is_read(tmp_path):
    path = tmp_path / "state.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": "\xc3\xbc"}')
    assert read_json(path, "") == {"a": "ü"}
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json", "")


def test_the_error_is_of_the_wanted_type(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UnicodeError):
        read_json(tmp_path / "a.json", "", UnicodeError)
