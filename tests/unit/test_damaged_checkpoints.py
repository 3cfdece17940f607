"""Training checkpoints: damaged, on full disks, written meanwhile."""

from __future__ import annotations

import shutil
from threading import Event
from time import sleep

import pytest
import torch
from torch import nn

from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.evaluation.predictions import Predictions, PredictionsError
from spiritlm_plugin.training.checkpointer import AtomicCheckpointer
from spiritlm_plugin.training.sharded_checkpoints import (
    load_sharded,
    save_sharded,
)
from spiritlm_plugin.training.trainer import RunningMeans
from spiritlm_plugin.utils.files import DiskFullError


def checkpointer(folder, width=3):
    model = nn.Linear(width, width)
    recoverables = {
        "model": model,
        "optimizer": torch.optim.AdamW(model.parameters()),
        "means": RunningMeans(),
    }
    return AtomicCheckpointer(folder, recoverables)


@pytest.fixture
def saved(tmp_path):
    """Folder of the only checkpoint in ``tmp_path``."""
    return checkpointer(tmp_path).save_checkpoint(meta={"loss": 1.0}).path


@pytest.mark.parametrize("kept", [0, 10, 0.5, -3])
@pytest.mark.parametrize("name", ["model", "optimizer", "means"])
def test_a_truncated_file_is_named(tmp_path, saved, name, kept):
    path = saved / f"{name}.ckpt"
    content = path.read_bytes()
    if isinstance(kept, float):
        kept = int(kept * len(content))
    path.write_bytes(content[:kept] if name != "means" else b'{"a')
    with pytest.raises(CheckpointError, match="delete the checkpoint") as error:
        checkpointer(tmp_path).recover_if_possible()
    assert str(path) in str(error.value)


def test_weights_that_are_nan_are_named(tmp_path, saved):
    path = saved / "model.ckpt"
    state = torch.load(path)
    state["bias"][0] = torch.nan
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="model.ckpt.*bias is NaN"):
        checkpointer(tmp_path).recover_if_possible()


def test_a_checkpoint_of_another_size_is_named(tmp_path, saved):
    with pytest.raises(CheckpointError, match="(?s)model.ckpt: .*configur"):
        checkpointer(tmp_path, width=4).recover_if_possible()


@pytest.mark.parametrize(
    "content", ["", "loss: 1.0", "a: [", "\0", "[1, 2]", "unixtime: 1"]
)
def test_a_damaged_description_is_named(tmp_path, saved, content):
    (saved / "CKPT.yaml").write_text(content)
    with pytest.raises(CheckpointError, match="cannot read .*CKPT.yaml: "):
        checkpointer(tmp_path).recover_if_possible()


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, saved, small_disk):
    with pytest.raises(DiskFullError, match="no room for .*checkpoint"):
        checkpointer(tmp_path, width=200).save_checkpoint()
    assert [path.name for path in tmp_path.iterdir()] == [saved.name]
    assert checkpointer(tmp_path).recover_if_possible().path == saved


@pytest.mark.parametrize("name", ["model", "optimizer", "means"])
def test_what_is_half_deleted_is_no_checkpoint(tmp_path, saved, name):
    (saved / f"{name}.ckpt").unlink()
    with pytest.raises(CheckpointError, match=f"lacks the file of {name};"):
        checkpointer(tmp_path).recover_if_possible()


def test_sharded_weights_that_are_nan_are_named(tmp_path):
    state = {"model": {"weight": torch.ones(4)}, "lr": 0.1}
    state["model"]["weight"][2] = torch.nan
    save_sharded(state, tmp_path / "x")
    with pytest.raises(CheckpointError, match="x .*: model.weight is NaN"):
        load_sharded(state, tmp_path / "x")


@pytest.mark.filterwarnings("ignore")
def test_a_full_disk_is_named_by_all_processes(tmp_path, small_disk):
    with pytest.raises(DiskFullError, match="no room for .*x: "):
        save_sharded({"weight": torch.ones(40_000)}, tmp_path / "x")


@pytest.mark.parametrize("content", ["", '{"shots": 1', "[]", "\xff"])
def test_damaged_settings_of_predictions_are_named(tmp_path, content):
    predictions = Predictions(tmp_path, {"shots": 10}, ["a", "b"])
    predictions.add([{"id": "a"}])
    (tmp_path / "settings.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(PredictionsError, match="cannot read .*settings.json: "):
        Predictions(tmp_path, {"shots": 10}, ["a", "b"])


@pytest.mark.parametrize("line", ['{"id": ["a"]}', "[" * 100_000, "5", "{}"])
def test_a_line_that_is_no_prediction_is_named(tmp_path, line):
    Predictions(tmp_path, {"shots": 10}, ["a"]).add([{"id": "a"}])
    with open(tmp_path / "predictions.0.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(PredictionsError, match="line 2 of .*0.jsonl"):
        Predictions(tmp_path, {"shots": 10}, ["a"])


def test_a_full_disk_keeps_the_predictions_before(tmp_path, small_disk):
    predictions = Predictions(tmp_path, {"shots": 10}, ["a", "b"])
    predictions.add([{"id": "a", "text": "all day"}])
    with pytest.raises(DiskFullError, match="no room for .*0.jsonl"):
        predictions.add([{"id": "b", "text": "a" * 30_000}])
    predictions = Predictions(tmp_path, {"shots": 10}, ["a", "b"])
    assert predictions.missing() == ["b"]
    predictions.add([{"id": "b", "text": "and night"}])
    assert predictions.gather() == {
        "a": {"id": "a", "text": "all day"},
        "b": {"id": "b", "text": "and night"},
    }


def test_a_training_does_not_start_from_nothing_silently(
    tmp_path, saved, caplog
):
    """Where it was to go on, and a description is missing."""
    (saved / "CKPT.yaml").unlink()
    with pytest.raises(
        CheckpointError, match="has no CKPT.yaml.* from nothing"
    ):
        checkpointer(tmp_path).recover_if_possible()


def test_the_remains_of_a_checkpoint_are_passed_over(tmp_path, saved, caplog):
    remains = saved.with_name("CKPT+2020-01-01+00-00-00+00")
    shutil.copytree(saved, remains)
    (remains / "CKPT.yaml").unlink()
    found = checkpointer(tmp_path).recover_if_possible()
    assert found.path == saved
    assert f"{remains} is passed over" in caplog.text


class Slow:
    """Is written when it is allowed to be."""

    def __init__(self):
        self.may = Event()

    def stage(self, path):
        def write():
            assert self.may.wait(60)
            path.write_text("slow")

        return write


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path):
    checkpoints, slow = checkpointer(tmp_path), Slow()
    model = checkpoints.recoverables["model"]
    before = checkpoints.save_checkpoint().path
    checkpoints.add_recoverable("slow", slow)
    expected = model.weight.detach().clone()
    checkpoints.save_and_keep_only()
    with torch.no_grad():  # as the next step does
        model.weight.add_(1)
    checkpoints.check()
    # A run that is killed here goes on from the one before.
    assert [path.name for path in tmp_path.glob("CKPT*")] == [before.name]
    slow.may.set()
    saved = checkpoints.wait()
    assert [path.name for path in tmp_path.iterdir()] == [saved.path.name]
    assert saved.path != before
    assert (saved.path / "slow.ckpt").read_text() == "slow"
    state = torch.load(saved.paramfiles["model"])
    assert torch.equal(state["weight"], expected)


@pytest.mark.parametrize("ask", ["check", "wait", "save_and_keep_only"])
def test_a_disk_that_gets_full_meanwhile_is_named(
    tmp_path, saved, small_disk, ask
):
    checkpoints = checkpointer(tmp_path, width=200)
    checkpoints.save_and_keep_only()
    while not checkpoints._written.done():
        sleep(0.01)
    with pytest.raises(DiskFullError, match="no room for .*checkpoint"):
        getattr(checkpoints, ask)()
    assert [path.name for path in tmp_path.iterdir()] == [saved.name]
    checkpoints.check()  # it is said once


def test_what_is_copied_stays_one(tmp_path):
    """Tied weights are written once."""
    model = nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 300))
    model[1].weight = model[0].weight
    checkpoints = AtomicCheckpointer(tmp_path, {"model": model})
    [path] = checkpoints.save_checkpoint().paramfiles.values()
    assert path.stat().st_size < 1.2 * model[0].weight.nbytes
    state = torch.load(path)
    assert state["0.weight"].data_ptr() == state["1.weight"].data_ptr()
    assert state._metadata == model.state_dict()._metadata


def test_what_is_deleted_meanwhile_is_passed_over(tmp_path, saved, monkeypatch):
    """By a run that ends, while the next one looks what there is."""
    found = checkpointer(tmp_path)
    listed = [*found._list_checkpoint_dirs(), tmp_path / "CKPT+gone"]
    monkeypatch.setattr(found, "_list_checkpoint_dirs", lambda: listed)
    assert [c.path for c in found.list_checkpoints()] == [saved]
