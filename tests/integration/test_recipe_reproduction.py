"""The paper's tables, on small corpora and random weights of the released form."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import soundfile

from spiritlm_plugin.evaluation import reproduction
from spiritlm_plugin.evaluation.predictions import Predictions
from spiritlm_plugin.evaluation.published import TABLES, find
from spiritlm_plugin.utils.configuration import ConfigurationError
from tests.integration.helpers import save_recognizer
from tests.integration.paper_data import write_data

RECIPE = Path(__file__).parents[2] / "recipes" / "Paper"
# Fewer and shorter than the paper's.
SHORT = (
    "--items=16",
    "--batch_size=4",
    "--tasks={asr: {shots: 1, draws: 1, max_new_tokens: 4, context: 600},"
    " tts: {shots: 1, draws: 1, max_new_tokens: 8, context: 600},"
    " intent: {shots: 2, draws: 2, max_new_tokens: 4, context: 600}}",
)


def load_main():
    sys.path.insert(0, str(RECIPE))
    try:
        spec = importlib.util.spec_from_file_location(
            "reproduce", RECIPE / "reproduce.py"
        )
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(RECIPE))
    return module.main


@pytest.fixture(scope="module")
def data(recording, tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper") / "data"
    write_data(folder, soundfile.read(recording)[0])
    return folder


@pytest.fixture(scope="module")
def aligner(tmp_path_factory):
    return save_recognizer(tmp_path_factory.mktemp("aligner") / "ctc")


@pytest.fixture(scope="module")
def reproduced(data, checkpoints, aligner, tmp_path_factory):
    output = tmp_path_factory.mktemp("reproduced")
    load_main()(command(data, checkpoints, output, aligner))
    return output


def command(data, checkpoints, output, aligner, *more):
    return [
        str(RECIPE / "hparams" / "reproduce.yaml"),
        f"--data_folder={data}",
        f"--checkpoints={checkpoints}",
        f"--output_folder={output}",
        f"--aligner={aligner}",
        f"--recognizer={aligner}",
        *SHORT,
        *more,
    ]


def read(output):
    summary = json.loads((output / "summary.json").read_text())
    return summary, (output / "report.md").read_text()


def test_every_figure_of_the_paper_stands_beside_one_of_ours(reproduced):
    summary, report = read(reproduced)
    for table in TABLES:
        for system, values in table.rows.items():
            if system not in summary or table.title.startswith("Sentiment"):
                continue
            for column, value in zip(table.columns, values):
                found = find(
                    summary[system].get(column.evaluation), column.path
                )
                assert (found is None) <= (value is None), (system, column.name)
    assert "| Base, published | 21.9 | 29.2 | 45.5 | 43.8 | 71.9 |" in report
    assert "STSP: no STSP in" in report


def test_a_second_run_asks_nothing_again(
    reproduced, data, checkpoints, aligner, monkeypatch
):
    paths = list(reproduced.glob("*/*/predictions.jsonl"))
    assert len(paths) == 2 * 9  # models and evaluations
    figures = read(reproduced)
    monkeypatch.delattr(Predictions, "add")
    load_main()(command(data, checkpoints, reproduced, aligner))
    assert read(reproduced) == figures


def planned(data_folder="data", corpora=("LibriSpeech", "StoryCloze"), **more):
    hparams = {
        "seed": 1,
        "output_folder": "results",
        "data_folder": data_folder,
        "checkpoints": "checkpoints",
        "models": {
            "Base": {"release": "checkpoints", "variant": "base"},
            "Expressive": None,
        },
        "dtype": "auto",
        "items": None,
        "batch_size": 1,
        "recognizer": None,
        "aligner": None,
        "tasks": {"comprehension": {"scored": "story"}},
        "evaluations": {
            "TTS": {"task": "tts", "corpus": "LibriSpeech"},
            "SALMon": {"task": "comprehension", "corpus": "SALMon"},
            "stories": {
                "task": "comprehension",
                "corpus": "StoryCloze",
                "split": "test",
                "modalities": ["S", "T2S", "S2T"],
                "tasks": {"it": {"manifest": "it", "wrong": "incorrect"}},
            },
        },
        **more,
    }
    return reproduction.plan(hparams, corpora)


def test_what_cannot_be_measured_is_told():
    [stories], left_out = planned()
    assert stories.model == "Base" and stories.name == "stories"
    assert stories.settings["modalities"] == ["S"]
    assert stories.settings["release"] == "checkpoints"
    assert [line.partition(":")[0] for line in left_out] == [
        "TTS",
        "SALMon",
        "stories, T2S, S2T",
    ]
    assert "--recognizer" in left_out[0] and "no SALMon in data" in left_out[1]
    assert "--aligner" in left_out[2]
    [_, stories], left_out = planned(
        tasks={"tts": TTS, "comprehension": {"scored": "story"}},
        recognizer="whisper",
        aligner="ctc",
    )
    assert stories.settings["modalities"] == ["S", "T2S", "S2T"]
    assert len(left_out) == 1


TTS = {
    "split": "test",
    "speaker": None,
    "style": None,
    "style_utterances": 0,
    "trained_tts": False,
    "shots": 1,
    "shot_ids": None,
    "shot_split": "train",
    "longest_shot": 4.0,
    "draws": 1,
    "stop_speech": None,
    "context": 600,
    "max_new_tokens": 8,
    "temperature": 0.8,
    "top_p": 0.95,
    "candidates": 1,
    "sample_count": 1,
}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"models": {"Base": {"variant": "base"}}}, "Base names no weights"),
        (
            {"tasks": {"comprehension": {}}},
            "stories, Base:\n  scored is missing",
        ),
        ({"evaluations": {"x": {"task": "asx"}}}, "task is one of asr"),
    ],
)
def test_settings_that_nothing_can_be_done_with(more, message):
    with pytest.raises(ConfigurationError, match=message):
        planned(**more)


def test_a_folder_without_corpora_is_named(tmp_path, checkpoints):
    with pytest.raises(FileNotFoundError, match="holds none of LibriSpeech"):
        load_main()(command(tmp_path, checkpoints, tmp_path / "out", "ctc"))


def test_parts_of_a_corpus_that_are_missing_are_told(tmp_path):
    evaluations, _ = planned(
        output_folder=str(tmp_path),
        recognizer="whisper",
        aligner="ctc",
        tasks={"tts": TTS, "comprehension": {"scored": "story"}},
    )
    for name in ("LibriSpeech/test", "StoryCloze/test_it"):
        path = tmp_path / "manifests" / f"{name}.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    [stories], left_out = reproduction.with_manifests(evaluations)
    assert stories.name == "stories" and list(stories.settings["tasks"])
    assert left_out == ["TTS: LibriSpeech has no train"]


def test_what_failed_is_told_beside_what_was_measured(tmp_path):
    """And that a first look is one."""
    hparams = {"output_folder": str(tmp_path), "items": 3}
    evaluations = [
        reproduction.Evaluation(
            name, "Base", "intent", "", {"output_folder": str(tmp_path / name)}
        )
        for name in ("IC", "other")
    ]
    (tmp_path / "IC").mkdir()
    (tmp_path / "IC" / "summary.json").write_text('{"accuracy": 50.0}')
    reproduction.report(hparams, evaluations, [])
    _, report = read(tmp_path)
    assert "| Base, measured |  |  |  |  | 50.0 |" in report
    assert "- other, Base: failed" in report
    assert "at most. These are no figures to compare" in report
