"""The benchmark of training, on a tiny model."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from spiritlm_plugin.dataio.corpus.stores import CorpusError

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "benchmark_training.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[SCRIPT.stem]


@pytest.fixture(scope="module")
def benchmark(script):
    return script.Benchmark(script.quick_settings())


def test_all_read_the_same_documents(script, benchmark):
    fillers = benchmark.ids.numel() - benchmark.tokens
    positions = benchmark.positions.flatten().tolist() + [0]
    alone = [
        place
        for place, (one, other) in enumerate(zip(positions, positions[1:]))
        if one == other == 0
    ]
    assert fillers == len(alone)
    documents = script.split_documents(
        torch.tensor([5, 6, 7, 8, 9, 0]), torch.tensor([0, 1, 0, 1, 2, 0])
    )
    assert [x.tolist() for x in documents] == [[5, 6], [7, 8, 9]]
    assert 0 < benchmark.padded_share() < benchmark.packed_share() <= 1


def test_packed_rows_make_the_same_model_as_ours(benchmark):
    """Loss, order, clipping and optimizer are the same.

    Weights move by 0.0045; what differs by rounding alone, Adam enlarges.
    """
    expected = benchmark.packed().model.state_dict()
    start = benchmark.lm.model.state_dict()
    for name, weight in benchmark.ours().model.state_dict().items():
        assert torch.allclose(weight, expected[name], atol=5e-5), name
        assert not torch.equal(weight, start[name]), name


def test_report(script, capsys):
    report = script.report(script.quick_settings(), "the command")
    assert "the command" in report
    rows = [line for line in report.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == [
        "Trainer, padded documents",
        "Trainer, packed rows",
        "ours",
        "our loader alone",
    ]
    assert rows[2].split("|")[3].strip() == "1.00"


def test_a_corpus_of_another_tokenizer(script, tmp_path):
    (tmp_path / "corpus.json").write_text(
        '{"parts": {"phonetic": "other"}, "shards": 1, "utterances": 1}'
    )
    settings = replace(script.quick_settings(), corpus=tmp_path)
    with pytest.raises(CorpusError, match="another phonetic tokenizer"):
        script.Benchmark(settings)
    with pytest.raises(FileNotFoundError, match="no corpus in"):
        script.Benchmark(replace(settings, corpus=tmp_path / "missing"))
