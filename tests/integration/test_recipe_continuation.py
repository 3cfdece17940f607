"""The recipe of continuations: a small model, and small judges of all kinds."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
import torch

from spiritlm_plugin import SpiritLM, Text
from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.evaluation import continuation as evaluation
from spiritlm_plugin.evaluation.predictions import PredictionsError
from spiritlm_plugin.inference.generation import Generation
from spiritlm_plugin.metrics.generative import load_judge
from spiritlm_plugin.metrics.speech_quality import load_speaker_encoder
from spiritlm_plugin.utils.files import safe_file_name
from tests.unit.judges import (
    save_language_model,
    save_recognizer,
    save_speaker_encoder,
    save_toxicity_model,
)

RECIPE = Path(__file__).parents[2] / "recipes" / "LibriSpeech" / "continuation"
TEXTS = [
    "the old man walked in the harbour",
    "boats lie in the harbour and it rained",
    "he said that she was there all day",
    "many small houses",
]
DIRECTIONS = ("original", "s2s", "s2t", "t2t", "t2s")
LONG = ("test1", "test/3", "test2")


def load_script():
    path = RECIPE / "evaluate.py"
    spec = importlib.util.spec_from_file_location("continuation_eval", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def manifests(recording, tmp_path_factory):
    """Pieces of a recording; the first is too short."""
    folder = tmp_path_factory.mktemp("manifests")
    samples, rate = soundfile.read(recording)
    items = {}
    names = ["test0", "test1", "test/3", "test2"]
    for i, (name, text) in enumerate(zip(names, TEXTS)):
        path = folder / f"{i}.wav"
        soundfile.write(path, samples[800 * i :][: 9000 + 5000 * (i > 0)], rate)
        items[name] = {
            "wav": f"{{data_root}}/{path.name}",
            "duration": soundfile.info(path).duration,
            "text": text,
            "speaker": f"speaker{i % 2}",
        }
    (folder / "test-clean.json").write_text(json.dumps(items))
    return folder


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    """All who may be named, but for the predictor of opinions."""
    folder = tmp_path_factory.mktemp("judges")
    return {
        "recognizer": save_recognizer(folder / "recognizer"),
        "judge": save_language_model(folder / "judge", context=64),
        "speaker_encoder": save_speaker_encoder(folder / "ecapa"),
        "toxicity_classifier": save_toxicity_model(folder / "toxicity"),
        "toxicity_threshold": 1e-9,
    }


def arguments(manifests, checkpoints, folder, *options, **settings):
    settings = {
        "manifest_folder": manifests,
        "release": checkpoints,
        "dtype": "float32",
        "output_folder": folder,
        "prompt_seconds": 0.25,
        "shortest": 0.7,
        "max_new_tokens": "{s2s: 20, s2t: 9, t2t: 9, t2s: 9}",
        "batch_size": 2,
        "sample_count": 2,
        **settings,
    }
    settings |= (option[2:].split("=", 1) for option in options)
    hparams = str(RECIPE / "hparams" / "evaluate.yaml")
    return [hparams, *(f"--{k}={v}" for k, v in settings.items())]


@pytest.fixture
def evaluate(manifests, checkpoints, tmp_path):
    def run(*options, folder=tmp_path / "out", **settings):
        load_script().main(
            arguments(manifests, checkpoints, folder, *options, **settings)
        )
        summary = json.loads((folder / "summary.json").read_text())
        lines = (folder / "predictions.jsonl").read_text().splitlines()
        return summary, {r["id"]: r for r in map(json.loads, lines)}

    return run


@pytest.fixture
def opinions(monkeypatch):
    """Replace the package, whose import takes long, by seconds as scores."""

    def run(samples, rate):
        return {"ovrl_mos": 1 + len(samples) / rate}

    module = SimpleNamespace(dnsmos=SimpleNamespace(run=run))
    monkeypatch.setitem(sys.modules, "speechmos", module)


def test_all_judges(evaluate, judges, manifests, opinions, tmp_path):
    summary, rows = evaluate("--mos=dnsmos", **judges)
    folder = tmp_path / "out"
    assert [*rows] == [f"{d}/{name}" for d in DIRECTIONS for name in LONG]
    assert summary["utterances"] == 3
    assert [*summary["directions"]] == [*DIRECTIONS]
    for direction, found in summary["directions"].items():
        assert found["continuations"] == 3 and found["too_long"] == 0
        assert found["GenPPL"] > 1 and found["GenPPL_prompted"] > 1
        assert 0 <= found["auto_bleu"] <= 1
        # Whatever has words is toxic, so are all prompts: nothing is added.
        assert found["prompt_toxicity"] == 100
        assert found["added_toxicity"] == 0
        spoken = direction in ("original", "s2s", "t2s")
        assert ("mos" in found) == spoken
        same_voice = direction in ("original", "s2s")
        assert ("speaker_similarity" in found) == same_voice
    check_rows(rows, judges, manifests)
    report = (folder / "report.md").read_text()
    assert "| S→S |" in report and "| toxicity_threshold | 1e-09 |" in report
    assert (folder / "continuations.png").stat().st_size > 5_000
    # Of those to listen to, two of three.
    names = {path.name for path in (folder / "wavs").iterdir()}
    labels = ("prompt", "original", "s2s", "t2s")
    shown = ("test1", safe_file_name("test/3"))
    assert names == {f"{n}_{label}.wav" for n in shown for label in labels}


def check_rows(rows, judges, manifests):
    """What is kept of an item is what the judges say of it alone."""
    wav = read_audio(manifests / "1.wav")
    prompt, rest = wav[:4000], wav[4000:]
    row = rows["original/test1"]
    assert row["prompt"] == "boats lie" and row["seed"] is None
    assert row["seconds"] == len(rest) / 16000
    assert row["mos"] == pytest.approx(1 + len(rest) / 16000)
    encoder = load_speaker_encoder(judges["speaker_encoder"])
    alike = torch.cosine_similarity(encoder(prompt), encoder(rest), dim=0)
    assert row["speaker_similarity"] == pytest.approx(float(alike), abs=1e-5)
    judge = load_judge(judges["judge"])
    row = rows["t2t/test1"]
    for key, context in (
        ("surprise", [""]),
        ("surprise_prompted", ["boats lie"]),
    ):
        [expected] = judge([row["text"]], context)
        assert row[key] == pytest.approx(list(expected), rel=1e-5)


def test_without_judges(evaluate, tmp_path):
    summary, rows = evaluate("--utterances=2")
    assert len(rows) == 10
    found = summary["directions"]
    assert "GenPPL" not in found["s2t"] and "mos" not in found["s2s"]
    assert "auto_bleu" in found["t2t"] and "auto_bleu" not in found["s2s"]
    # The words are those of the manifest.
    assert rows["original/test1"]["text"] == "in the harbour and it rained"
    assert rows["s2s/test1"]["text"] is None
    assert rows["s2s/test1"]["seconds"] > 0
    assert (tmp_path / "out" / "continuations.png").exists()


def test_who_says_nothing(evaluate, judges, opinions, monkeypatch):
    def generate(self, prompts, output, **options):
        parts = [Text("")] if output == "text" else []
        return [Generation(parts, "end_of_sequence") for _ in prompts]

    monkeypatch.setattr(SpiritLM, "generate", generate)
    summary, rows = evaluate("--mos=dnsmos", **judges)
    for direction in DIRECTIONS[1:]:
        found = summary["directions"][direction]
        assert found["empty"] == 100 and found["toxicity"] == 0
        assert not {"GenPPL", "mos", "speaker_similarity"} & set(found)
        assert rows[f"{direction}/test1"]["text"] == ""
    assert summary["directions"]["original"]["empty"] == 0


def test_what_is_there_is_not_asked_again(evaluate, monkeypatch, tmp_path):
    evaluate()
    path = tmp_path / "out" / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.unlink()
    partial = path.with_name("predictions.7.jsonl")
    partial.write_text("".join(lines[:-1]) + lines[-1][:20])
    asked = []
    ask = evaluation.Continuation.__call__

    def spy(self, ids):
        asked.extend(ids)
        return ask(self, ids)

    monkeypatch.setattr(evaluation.Continuation, "__call__", spy)
    evaluate("--batch_size=1")
    assert asked == ["t2s/test2"]
    assert path.read_text() == "".join(lines)
    with pytest.raises(PredictionsError, match="another temperature"):
        evaluate("--temperature=0.5")


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ("--directions=[]", ValueError, "directions are some of t2t"),
        ("--prompt_seconds=0.65", ValueError, "have 0.08 s at least"),
        (
            "--shortest=99",
            ValueError,
            "has 99 s, the longest has .* lower --shortest",
        ),
        ("--split=dev", FileNotFoundError, "no such manifest.*dev"),
        ("--speaker=x", ValueError, "unknown speaker 'x'"),
        ("--mos=ears", ValueError, "'ears'|dnsmos"),
    ],
)
def test_bad_input(evaluate, option, error, message):
    with pytest.raises(error, match=message):
        evaluate(option)


def test_a_direction_without_a_limit(manifests):
    hparams = {
        "manifest_folder": manifests,
        "split": "test-clean",
        "directions": ["s2s", "t2t"],
        "max_new_tokens": {"t2t": 5},
    }
    with pytest.raises(ValueError, match="no limit of s2s"):
        evaluation.load_utterances(hparams)


@pytest.mark.slow
def test_two_processes(
    evaluate, manifests, checkpoints, tmp_path, two_processes
):
    evaluate()
    folder = tmp_path / "two"
    command = arguments(manifests, checkpoints, folder)
    two_processes(RECIPE / "evaluate.py", *command)
    for name in ("predictions.jsonl", "summary.json", "settings.json"):
        one = (tmp_path / "out" / name).read_bytes()
        assert (folder / name).read_bytes() == one
