"""All evaluations of TinySpeech in one, with the models that ship."""

import importlib.util
import json
from pathlib import Path

import pytest

from spiritlm_plugin import SpiritLM
from spiritlm_plugin.evaluation.overview import (
    comprehension_lines,
    sentiment_lines,
)
from tests.benchmarks.benchmark_evaluation import report

RECIPE = Path(__file__).parents[2] / "recipes" / "TinySpeech"
# Of each evaluation the options that make it short, or None.
SHORT = {
    "ASR": {"options": {"utterances": 4, "max_new_tokens": 8}},
    "ASR, voice held out": None,
    "ASR, prompted": {
        "shots": [0, 1],
        "options": {"utterances": 2, "max_new_tokens": 4},
    },
    "TTS": {"options": {"utterances": 2, "max_new_tokens": 30}},
    "IC": {"shots": [1], "options": {"utterances": 24, "max_new_tokens": 4}},
    "comprehension": {"options": {"groups": 2}},
    "resynthesis": {"options": {"utterances": 3, "style_utterances": 12}},
}


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location(
        "evaluate_tinyspeech", RECIPE / "evaluate.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(tinyspeech, folder, evaluations):
    return [
        str(RECIPE / "hparams" / "evaluate.yaml"),
        f"--manifest_folder={tinyspeech}",
        f"--output_folder={folder}",
        f"--evaluations={json.dumps(evaluations)}",
    ]


def test_all_figures_are_in_one_table(script, tinyspeech, tmp_path, capsys):
    script.main([*arguments(tinyspeech, tmp_path, SHORT), "--device=cpu"])
    said = capsys.readouterr().out
    assert "STSP is left out: no --stsp_folder was named" in said
    natural = "ASR, natural voice held out"
    reason = "the corpus has no test_unseen_natural"
    assert f"{natural} is left out: {reason}" in said
    summary = json.loads((tmp_path / "summary.json").read_text())
    for name, chance in (
        ("ASR, WER ↓", None),
        ("ASR, prompted, 1 shots, WER ↓", None),
        ("TTS, not stopped ↓", None),
        ("IC, 1 shots, accuracy", 100 / 3),
        ("comprehension, storycloze S→T", 50.0),
        ("resynthesis, F0 frame error ↓", None),
    ):
        assert set(summary[name]) == {"Base", "Expressive"}
        for line in summary[name].values():
            assert isinstance(line["value"], (int, float))
            assert line["chance"] == pytest.approx(chance)
            if line["interval"]:
                low, high = line["interval"]
                assert low <= line["value"] <= high
    assert summary["ASR, WER ↓"]["Base"]["interval"]
    table = (tmp_path / "report.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) == len(summary) + 2
    assert (tmp_path / "shots.png").stat().st_size > 5000
    asr = json.loads((tmp_path / "ASR/Base/summary.json").read_text())
    assert asr["WER"] == summary["ASR, WER ↓"]["Base"]["value"]


def test_what_sentiment_is_compared_with():
    accuracy = {"all": {"mean": 61.0}}
    prompts = {
        m: {"accuracy": {"all": {"mean": 90.0}}} for m in ("text", "speech")
    }
    lines = sentiment_lines(
        {
            "chance": 100 / 3,
            "prompts": prompts,
            "directions": {
                "s2t": {
                    "0": {"accuracy": accuracy, "interval": {"all": [55, 66]}}
                }
            },
        }
    )
    assert [line[:5] for line in lines] == [
        ("S→T, 0 shots", 61.0, [55, 66], 100 / 3, 90.0)
    ]


def test_comprehension_is_by_the_score_of_the_papers_tables():
    cell = {"sum": 60.0, "per_token": 70.0, "per_token_interval": [61, 79]}
    summary = {"chance": 50.0, "accuracy": {"StoryCloze": {"S2T": cell}}}
    [line] = comprehension_lines(summary)
    assert line[:4] == ("StoryCloze S→T", 70.0, [61, 79], 50.0)


def test_an_unknown_recipe_is_named(script, tinyspeech, tmp_path):
    evaluations = {"ASR": {"recipe": "singing"}}
    with pytest.raises(ValueError, match="'ASR' names recipe 'singing'"):
        script.main(arguments(tinyspeech, tmp_path, evaluations))


def test_benchmark(tinyspeech):
    lm = SpiritLM.from_hparams("tinyspeech")
    table = report(lm, tinyspeech, 2, [1, 2], repeats=1)
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert [row[0].strip("| ") for row in rows] == [
        "ASR, utterances",
        "StoryCloze in four modalities, stories",
    ]
    assert all(float(cell.strip(" |")) > 0 for row in rows for cell in row[1:])
