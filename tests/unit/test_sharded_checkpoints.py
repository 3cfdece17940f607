"""Tests of ``spiritlm_plugin.training.sharded_checkpoints``."""

import os
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.lobes.language_model import load_language_model
from spiritlm_plugin.training.checkpointer import AtomicCheckpointer
from spiritlm_plugin.training.sharded_checkpoints import (
    load_sharded,
    save_sharded,
)
from spiritlm_plugin.training.sharding import ShardedState


class Code:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def make_state(**values):
    return {
        "model": {"weight": torch.zeros(4)},
        "options": {"lr": 0.1},
    } | values


def test_all_values_come_back(tmp_path):
    saved = make_state()
    saved["model"]["weight"] += torch.arange(4)
    saved["options"] = {"lr": 0.5, "betas": (0.9, 0.95), "foreach": None}
    save_sharded(saved, tmp_path / "x")
    state = make_state(options=dict.fromkeys(saved["options"]))
    load_sharded(state, tmp_path / "x")
    assert state["options"] == saved["options"]
    assert state["model"]["weight"].tolist() == [0, 1, 2, 3]


def test_an_index_that_is_code_is_refused(tmp_path):
    save_sharded(make_state(), tmp_path / "x")
    made = tmp_path / "made"
    (tmp_path / "x" / ".metadata").write_bytes(pickle.dumps(Code(made)))
    with pytest.raises(CheckpointError, match="posix.mkdir is not data"):
        load_sharded(make_state(), tmp_path / "x")
    assert not made.exists()


def test_a_value_that_is_code_is_refused(tmp_path):
    made = tmp_path / "made"
    save_sharded(make_state(options={"lr": Code(made)}), tmp_path / "x")
    assert not made.exists()
    with pytest.raises(CheckpointError, match="(?i)weights_only"):
        load_sharded(make_state(), tmp_path / "x")
    assert not made.exists()


@pytest.mark.parametrize(
    "state, message",
    [
        ({"model": {"weight": torch.zeros(5)}}, "Size mismatch"),
        ({"model": {}}, "unknown model.weight"),
        ({"model": {"weight": torch.zeros(4), "bias": 0}}, "model.bias"),
        ({"options": {}}, "unknown options.lr"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, state, message):
    save_sharded(make_state(), tmp_path / "x")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_sharded(make_state(**state), tmp_path / "x")
    assert f"cannot load {tmp_path / 'x'}" in str(caught.value)


def test_damaged_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"No such file.*\.metadata"):
        load_sharded(make_state(), tmp_path / "x")
    save_sharded(make_state(), tmp_path / "x")
    (tmp_path / "x" / "__0_0.distcp").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot load"):
        load_sharded(make_state(), tmp_path / "x")
    (tmp_path / "x" / ".metadata").write_bytes(pickle.dumps(["text"]))
    with pytest.raises(CheckpointError, match="its index is a list"):
        load_sharded(make_state(), tmp_path / "x")


def test_a_checkpoint_is_complete_or_absent(tmp_path, monkeypatch, checkpoints):
    folder = checkpoints / "spiritlm_model" / "spirit-lm-base-7b"
    lm = load_language_model(folder)
    state = ShardedState(lm, torch.optim.AdamW(lm.parameters()))
    checkpointer = AtomicCheckpointer(tmp_path, {"sharded": state})

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dcp.FileSystemWriter, "finish", stop)
        with pytest.raises(CheckpointException):
            checkpointer.save_checkpoint()
    assert list(tmp_path.glob("PARTIAL*/sharded.ckpt/*"))
    assert checkpointer.recover_if_possible() is None
    saved = checkpointer.save_checkpoint()
    assert checkpointer.recover_if_possible().path == saved.path
    assert [path.name for path in tmp_path.iterdir()] == [saved.path.name]
