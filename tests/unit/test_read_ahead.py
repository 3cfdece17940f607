"""Tests of ``read_ahead`` and of ``Placed``, which tokenizing stands on."""

import pickle
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.parametrizations import weight_norm

from spiritlm_plugin.dataio.audio.read_ahead import read_ahead
from spiritlm_plugin.utils.placing import Placed


@given(st.lists(st.lists(st.integers(), min_size=1)), st.integers(0, 3))
def test_all_is_read_in_order(batches, threads):
    read = [*read_ahead(batches, str, threads)]
    assert read == [[*map(str, batch)] for batch in batches]


def test_the_next_two_batches_are_read_while_one_is_used():
    begun = [threading.Event() for _ in range(5)]

    def read(number):
        begun[number].set()
        return number

    batches = read_ahead([[0], [1], [2], [3], [4]], read, threads=1)
    assert next(batches) == [0]
    assert begun[1].wait(30)
    assert begun[2].wait(30)
    # Memory has room for so many and no more.
    assert not begun[3].is_set()
    assert next(batches) == [1]
    assert begun[3].wait(30)
    assert not begun[4].is_set()


@pytest.mark.parametrize("threads", [0, 2])
def test_what_cannot_be_read_is_raised_where_it_would_be(threads):
    batches = read_ahead([["1"], ["x", "2"], ["3"]], int, threads)
    assert next(batches) == [1]
    with pytest.raises(ValueError, match="'x'"):
        next(batches)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_network_runs_in_the_precision_that_is_wanted(precision):
    layer = torch.nn.Linear(3, 3)
    placed = pickle.loads(pickle.dumps(Placed(layer, "cpu", precision)))
    out = placed(torch.ones(3))
    expected = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
    assert str(out.dtype) == f"torch.{expected[precision]}"
    assert not out.requires_grad
    assert torch.allclose(out.float(), layer(torch.ones(3)), atol=0.02)


def make_normed():
    torch.manual_seed(0)
    return weight_norm(torch.nn.Linear(3, 3))


def test_a_network_that_cannot_be_sent_is_made_anew():
    with pytest.raises(RuntimeError, match="parametrized"):
        pickle.dumps(Placed(make_normed(), "cpu"))
    placed = Placed(make_normed, "cpu")
    expected = placed(torch.ones(3))
    assert placed.network is placed.network
    sent = pickle.loads(pickle.dumps(placed))
    assert torch.equal(sent(torch.ones(3)), expected)


def test_other_precisions_are_refused():
    with pytest.raises(ValueError, match="fp32, bf16, fp16, got 'int8'"):
        Placed(torch.nn.Identity(), "cpu", "int8")
