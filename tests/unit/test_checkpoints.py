"""Tests of ``spiritlm_plugin.dataio.checkpoints``."""

import io
import math
import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from spiritlm_plugin.dataio.checkpoints import (
    CheckpointError,
    check_weights,
    load_safetensors,
    load_state,
    read_pickle,
    read_safetensors,
    require_files,
    save_safetensors,
)
from spiritlm_plugin.utils.files import DiskFullError


class Code:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def saved(content, zipped=True):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


PLAIN = {"a": torch.arange(3.0), "b": {"c": [1, 2.5, "x", None, (True,)]}}


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_data_is_read(tmp_path, zipped):
    path = tmp_path / "a.pt"
    path.write_bytes(saved(PLAIN, zipped))
    content = read_pickle(path)
    assert torch.equal(content["a"], PLAIN["a"])
    assert content["b"] == PLAIN["b"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["zipped", "legacy", "pickle"])
def test_code_is_never_run(tmp_path, how):
    path, made = tmp_path / "a.pt", tmp_path / "made"
    content = {"a": torch.zeros(2), "b": Code(made)}
    if how == "pickle":
        path.write_bytes(pickle.dumps({"b": Code(made)}))
    else:
        path.write_bytes(saved(content, how == "zipped"))
    with pytest.raises(CheckpointError, match="do not trust") as error:
        read_pickle(path)
    assert str(path) in str(error.value)
    assert not made.exists()
    Code(made).__reduce__()[0](made)
    assert made.exists()  # so the test above would have seen it


def test_a_dict_is_needed(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="hold a dict, got list"):
        read_pickle(tmp_path / "a.pt")


def test_missing_pickle(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_pickle(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"<!DOCTYPE html>"])
def test_damaged_pickle(tmp_path, content):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="download it again") as error:
        read_pickle(path)
    assert str(path) in str(error.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "zipped",
    [
        True,
        pytest.param(
            False,
        ),
    ],
)
def test_truncated_pickle(tmp_path, zipped):
    whole, path = saved(PLAIN, zipped), tmp_path / "a.pt"
    for length in range(0, len(whole), 1 + len(whole) // 150):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="download it again"):
            read_pickle(path)


def test_what_is_no_pickle(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"hello")
    with pytest.raises(CheckpointError, match="download it again"):
        read_pickle(path)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_state_that_fits():
    module, state = net(), {k: v + 1 for k, v in net().state_dict().items()}
    load_state(module, state, "here")
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_every_misfit_is_named():
    module = net()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = {k: v + 1 for k, v in before.items()}
    state["0.weight"] = torch.zeros(3, 5)
    state["0.extra"] = state.pop("0.bias")
    with pytest.raises(CheckpointError) as error:
        load_state(module, state, "folder/a.pt")
    message = str(error.value)
    assert "of folder/a.pt do not fit Sequential" in message
    assert "missing 0.bias; unknown 0.extra; 0.weight has shape (3, 5), " in (
        message
    )
    assert "expected (3, 2). Check that its configuration" in message
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])  # nothing half-loaded


def test_many_misfits_are_counted():
    module = nn.Sequential(*[nn.Linear(1, 1) for _ in range(6)])
    with pytest.raises(CheckpointError, match="; and 4 more. Check") as error:
        load_state(module, {}, "here")
    assert len(re.findall("missing", str(error.value))) == 8


def floats(dtype, value):
    tensor = torch.ones(7, dtype=torch.float32).to(dtype)
    tensor[3] = value
    return tensor


FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_named(dtype, value):
    state = {"good": torch.ones(2), "bad": floats(dtype, value)}
    with pytest.raises(CheckpointError, match="of model.pt .*: bad is NaN or"):
        check_weights(state, "model.pt")
    check_weights({"a": floats(dtype, torch.finfo(dtype).max)}, "model.pt")


def test_eight_bits_are_looked_at_as_well():
    bad = floats(torch.float32, math.nan).to(torch.float8_e4m3fn)
    with pytest.raises(CheckpointError, match="a is NaN"):
        check_weights({"a": bad}, "model.pt")


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([]),
        torch.tensor(3),
        torch.tensor([True]),
        torch.ones(2, 3).T,
        torch.nn.Parameter(torch.ones(3)),
    ],
)
def test_weights_that_may_be(value):
    check_weights({"a": value}, "model.pt")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, 2.0], "0.bias is a list"),
        (None, "0.bias is a NoneType"),
        (torch.ones(3, dtype=torch.int8), "0.bias is of torch.int8, expected"),
        (torch.ones(3, dtype=torch.bool), "0.bias is of torch.bool"),
        (torch.ones(3, dtype=torch.complex64), "0.bias is of torch.complex64"),
        (torch.ones(3).to_sparse(), "0.bias is no plain tensor"),
        (torch.ones(3, device="meta"), "0.bias is no plain tensor"),
        (torch.tensor([1, math.nan, 0]), "0.bias is NaN or infinite"),
        # More than a float32 can be.
        (torch.full((3,), 1e200, dtype=torch.float64), "0.bias is NaN or inf"),
    ],
)
def test_a_wrong_value_is_named_and_nothing_is_loaded(value, message):
    module, state = net(), {k: v + 1 for k, v in net().state_dict().items()}
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"folder/a.pt .*{message}"):
        load_state(module, state | {"0.bias": value}, "folder/a.pt")
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_weights_without_a_direction_are_named():
    module = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
    state = module.state_dict()
    name = "parametrizations.weight.original1"
    state[name] = torch.zeros(3, 2)
    with pytest.raises(CheckpointError, match="of here .*weight is NaN"):
        load_state(module, state, "here")


def test_other_sizes_of_number_are_converted():
    module = net()
    state = {
        k: v.half() if v.is_floating_point() else v.int()
        for k, v in net().state_dict().items()
    }
    load_state(module, state, "here")
    assert module[0].weight.dtype == torch.float32
    assert torch.equal(module[0].weight, state["0.weight"].float())


def test_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    module, other = net(), net()
    with torch.no_grad():
        # As a transposed view, which safetensors alone refuses.
        module[0].weight.data = torch.rand(2, 3).T
    save_safetensors(module, path)
    load_safetensors(other, path)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name])
    with pytest.raises(CheckpointError, match="missing bias") as error:
        load_safetensors(nn.Linear(2, 3), path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("damage", [0, 5, 40, -1, "bytes"])
def test_damaged_safetensors(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    save_safetensors(net(), path)
    content = path.read_bytes()
    content = b"\xff" * 99 if damage == "bytes" else content[:damage]
    path.write_bytes(content)
    module = net()
    with pytest.raises(CheckpointError, match="download it again") as error:
        load_safetensors(module, path)
    assert str(path) in str(error.value)


def test_missing_safetensors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such .*a.safetensors"):
        read_safetensors(tmp_path / "a.safetensors")


def test_weights_appear_when_they_are_complete(tmp_path, small_disk):
    path = tmp_path / "a.safetensors"
    save_safetensors(net(), path)
    with pytest.raises(DiskFullError, match="no room for .*a.safetensors"):
        save_safetensors(nn.Linear(100, 100), path)
    assert list(tmp_path.iterdir()) == [path]
    load_safetensors(net(), path)


def test_all_missing_files_are_named(tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "d").mkdir()
    require_files(tmp_path, ["a"])
    with pytest.raises(FileNotFoundError, match="b, d/c; is this") as error:
        require_files(tmp_path, ["a", "b", "d/c"])
    assert str(tmp_path) in str(error.value)
