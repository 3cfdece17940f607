"""The demo from end to end, and the benchmark's pieces."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.demo.tour import main
from spiritlm_plugin.evaluation.plots import plot_units, unit_spans
from tests.benchmarks.random_model import HPARAMS, random_model

ROOT = Path(__file__).resolve().parents[2]
BENCHMARK = ROOT / "tests/benchmarks/benchmark_inference.py"


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    main([f"--output={folder}", "--steps=8"])
    return folder


def test_report_lists_the_files_there_are(output):
    report = (output / "report.md").read_text()
    listed = re.findall(r"^\| \[(\S+)\]\(\1\) \| .+ \|$", report, re.M)
    written = {path.name for path in output.glob("*.*")} - {"report.md"}
    assert set(listed) == written and len(listed) == len(written)
    assert {"recording.wav", "resynthesis.wav", "units.png"} < written
    assert {f"spoken_{s}_anna.wav" for s in ("happy", "sad")} < written


def test_report_tells_what_was_said_and_heard(output):
    report = (output / "report.md").read_text()
    assert re.search(r"- heard: `.*`\n- said: `\".+\"`", report)
    assert report.count("ended by `") == 2 + 4


def test_the_loss_of_the_training_falls(output):
    report = (output / "report.md").read_text()
    rows = re.findall(r"^\| \d+ \| ([\d.]+) \| [\d.]+ \|$", report, re.M)
    assert len(rows) == 8 and float(rows[-1]) < float(rows[0])
    assert (output / "loss.png").stat().st_size > 5000


def test_units_are_counted(output):
    report = (output / "report.md").read_text()
    for stream in ("phonetic", "pitch", "style"):
        assert re.search(rf"\| {stream} \| \d+ \| \d+.\d \| \d+ \|", report)


def test_waveforms_are_audible(output):
    for path in output.glob("*.wav"):
        wav, rate = soundfile.read(path)
        assert rate == 16000 and wav.std() > 1e-3, path.name


def test_picture_is_no_blank(output):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    picture = pyplot.imread(output / "units.png")
    assert picture.shape[0] > 300 and picture.shape[1] > 600
    assert picture[..., :3].std() > 0.1


def test_demo_of_a_missing_file_says_so(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        main(["nowhere.wav", "--output", str(tmp_path / "output"), "--steps=0"])
    assert error.value.code == 1
    assert "nowhere.wav" in capsys.readouterr().err
    assert not (tmp_path / "output").exists()


def test_without_matplotlib_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"spiritlm_plugin\[demo\]"):
        plot_units(torch.zeros(1280), SpeechUnits([1]), tmp_path / "a.png")


@pytest.mark.parametrize(
    "units",
    [
        SpeechUnits([1, 1, 500]),
        SpeechUnits([1, 1, 500], pitch=[3]),
        SpeechUnits([1, 1, 500], pitch=[3, 3], style=[7]),
        SpeechUnits([], pitch=[], style=[]),
    ],
)
def test_plot_of_any_streams(units, tmp_path):
    path = tmp_path / "units.png"
    plot_units(torch.randn(1920) / 9, units, path, torch.full((25,), 90.0))
    assert path.stat().st_size > 2000


def test_spans_cover_the_stream():
    stream = torch.tensor([4, 4, 4, 9, 4])
    spans = unit_spans(stream, 25.0)
    assert [unit for _, _, unit in spans] == [4, 9, 4]
    assert spans[0][0] == 0 and spans[-1][1] == pytest.approx(0.2)


def test_random_models_repeat_and_differ_by_seed():
    wav = torch.randn(16000, generator=torch.Generator().manual_seed(0)) / 9
    hparams = HPARAMS / "spiritlm_expressive_tiny.yaml"
    state = torch.random.get_rng_state()
    units = [
        random_model(hparams, wav, seed).encode_batch([wav])[0]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert units[0] == units[1] and units[0] != units[2]
    assert len(units[0].phonetic.unique()) > 10


def test_base_definition_has_the_released_sizes():
    from hyperpyyaml import load_hyperpyyaml

    text = (HPARAMS / "spiritlm_expressive_base.yaml").read_text()
    with torch.device("meta"):
        hparams = load_hyperpyyaml(_without_weights(text))
    sizes = {
        name: sum(p.numel() for p in hparams[name].parameters()) / 1e6
        for name in ("phonetic", "style", "vocoder")
    }
    assert sizes["phonetic"] == pytest.approx(89, abs=1)
    assert sizes["style"] == pytest.approx(94.6, abs=1)
    assert sizes["vocoder"] == pytest.approx(14.8, abs=0.5)


def _without_weights(text):
    """Drop what cannot be made on the meta device, or takes long."""
    sections = text.split("\n\n")
    kept = ("quantizer:", "phonetic:", "pitch:", "style:", "vocoder:")
    return "\n\n".join(s for s in sections if s.startswith(kept))


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["benchmark"]


def test_benchmark_runs(benchmark):
    report = benchmark.report(benchmark.quick_settings(), "the command")
    tables = [
        [line.count("|") for line in part.splitlines()]
        for part in report.split("\n\n")
        if part.startswith("|")
    ]
    assert [len(table) for table in tables] == [7, 3, 5]
    assert all(len(set(table)) == 1 for table in tables)
    assert "the command" in report and "random" in report
    assert "nan" not in report and "inf" not in report


def test_benchmark_measures_in_turn(benchmark):
    order = []
    contenders = {n: lambda n=n: order.append(n) for n in "ab"}
    times = benchmark.measure(contenders, repeats=3, budget=9.0)
    assert "".join(order) == "ab" * 4
    assert set(times) == {"a", "b"} and min(times.values()) >= 0
    order.clear()
    benchmark.measure(contenders, repeats=5, budget=0.0)
    assert len(order) == 2 * (1 + 2)
