"""The recipe of preferences: pairs are made of answers, and learned from."""

import importlib.util
import json
from pathlib import Path

import pytest
import soundfile
import torch

from spiritlm_plugin import Speech, SpiritLM, Text
from spiritlm_plugin.dataio.corpus.stsp import SENTIMENTS
from spiritlm_plugin.dataio.stream.preferences import read_pairs
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.evaluation import preference_tasks as tasks
from spiritlm_plugin.evaluation.predictions import PredictionsError
from spiritlm_plugin.evaluation.preference_tasks import (
    ContinuationTask,
    Prompt,
    ReadingTask,
)
from spiritlm_plugin.inference.generation import Generation
from spiritlm_plugin.metrics.generative import Surprise

RECIPE = Path(__file__).parents[2] / "recipes" / "TinySpeech" / "preference"
PROMPTS, CANDIDATES = 6, 3


def script(name):
    path = RECIPE / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"preference_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def archive(recording, tmp_path_factory):
    """Shots and voices in the layout of the benchmark."""
    folder = tmp_path_factory.mktemp("stsp")
    (folder / "data").mkdir()
    samples, rate = soundfile.read(recording)
    voices, shots = [], []
    for i, sentiment in enumerate(SENTIMENTS * 2):
        soundfile.write(folder / "data" / f"{i}.wav", samples[i * 999 :], rate)
        row = {"sentiment": sentiment, "id": f"v{i}", "wav_path": f"{i}.wav"}
        voices.append(row)
        text = f"number {i} is"
        shots.append((text, f"{i}.wav", sentiment))
    write(folder / "manifest/tiny/tinyspeech_read.train.jsonl", voices)
    for direction in ("t2s", "s2t"):
        rows = [
            {
                "prompt": text if direction == "t2s" else wav,
                "generation": wav if direction == "t2s" else text,
                "sentiment": sentiment,
            }
            for text, wav, sentiment in shots
        ]
        write(folder / f"manifest/few_shot/{direction}.jsonl", rows)
    return folder


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def by_length(classifier, said):
    """Say that whatever is longer is more positive and less negative."""
    found = []
    for one in said:
        share = len(one) / (20 if isinstance(one, str) else 9000)
        share = share / (1 + share)
        some = {"positive": share, "neutral": share, "negative": 1 - share}
        found.append(some if len(one) else None)
    return found


@pytest.fixture(scope="module")
def made(archive, folders, tmp_path_factory):
    """The folder of pairs, and what makes them again."""
    folder = tmp_path_factory.mktemp("pairs")
    settings = {
        "output_folder": folder,
        "data_folder": archive,
        "model": folders["expressive"],
        "speech_classifier": "judge",
        "text_classifier": "judge",
        "prompts": PROMPTS,
        "candidates": CANDIDATES,
        "max_new_tokens": "{t2s: 30, s2t: 10}",
        "dtype": "float32",
        "speaker": "null",
        "valid_share": 0.25,
        "margin": 0.02,
    }

    def make(**changes):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tasks, "load_classifier", lambda *_: None)
            patch.setattr(tasks, "sentiment_probabilities", by_length)
            command = {**settings, **changes}
            script("make_pairs")(
                [
                    str(RECIPE / "hparams" / "pairs.yaml"),
                    *(f"--{name}={value}" for name, value in command.items()),
                ]
            )

    make()
    return folder, make


def test_pairs_are_the_best_and_the_worst_of_the_answers(made):
    folder, _ = made
    rows = [*map(json.loads, open(folder / "predictions.jsonl"))]
    assert len(rows) == 3 * PROMPTS
    by_id = {row["id"]: row for row in rows}
    assert {row["task"] for row in rows} == {"t2s", "s2t", "s2t_neutral"}
    assert {len(row["candidates"]) for row in rows} == {CANDIDATES}
    pairs = [
        pair
        for split in ("train", "valid")
        for pair in read_pairs(folder / f"{split}.jsonl")
    ]
    assert len({pair.id for pair in pairs}) == len(pairs)
    for pair in pairs:
        row = by_id[pair.id]
        scores = [one["score"] for one in row["candidates"]]
        known = [score for score in scores if score is not None]
        assert pair.chosen.score == max(known)
        worst = None if None in scores else min(known)
        assert pair.rejected.score == worst
        assert pair.output == ("speech" if row["task"] == "t2s" else "text")
        spoken = Speech if row["task"] != "t2s" else Text
        assert isinstance(pair.prompt[0], spoken)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["train"] + summary["valid"] == len(pairs)
    assert sum(t["pairs"] for t in summary["tasks"].values()) == len(pairs)
    assert summary["tasks"]["t2s"]["score"] <= summary["tasks"]["t2s"]["best"]
    assert (folder / "report.md").read_text().startswith("# Preference pairs")


def test_a_run_goes_on_and_its_answers_are_paired_anew(made):
    folder, make = made
    path = folder / "predictions.jsonl"
    before = path.read_text()
    lines = before.splitlines(keepends=True)
    path.unlink()
    (folder / "predictions.3.jsonl").write_text("".join(lines[1:]))
    make(valid_share=0.5, margin=0, batch_size=2)
    assert path.read_text() == before
    summary = json.loads((folder / "summary.json").read_text())
    assert abs(summary["train"] - summary["valid"]) <= 1
    with pytest.raises(PredictionsError, match="another top_p"):
        make(top_p=0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": 1}, "candidates should be 2 or more"),
        ({"valid_share": 1}, "valid_share should be between 0 and 1"),
        (
            {"tasks": "{t2s: 3}"},
            "tasks are PreferenceTask by their names, got t2s",
        ),
        ({"speaker": "x"}, "unknown speaker 'x'"),
    ],
)
def test_bad_settings(made, change, message):
    with pytest.raises(ValueError, match=message):
        made[1](**change)


def test_the_model_learns_what_is_preferred(made, folders, tmp_path):
    folder, make = made
    make()  # the pairs of the first test, whatever ran since
    for _ in range(2):  # the second time it is done already
        script("train")(
            [
                str(RECIPE / "hparams" / "train.yaml"),
                f"--output_folder={tmp_path}",
                f"--pairs_folder={folder}",
                f"--model={folders['expressive']}",
                "--number_of_epochs=2",
                "--epoch_steps=4",
                "--step_pairs=4",
                "--warmup_steps=1",
                "--lr=0.003",
            ]
        )
    first, last = (tmp_path / "train_log.txt").read_text().splitlines()
    assert number(last, "train margin") > number(first, "train margin") > 0
    before = SpiritLM.from_hparams(
        folders["expressive"], overrides={"language_model_dtype": "float32"}
    )
    after = SpiritLM.from_hparams(tmp_path / "model")
    pairs = [
        pair
        for pair in read_pairs(folder / "train.jsonl")
        if pair.chosen.segments and pair.rejected.segments
    ]
    prompts = [pair.prompt for pair in pairs]
    ratios = []
    for kind in ("chosen", "rejected"):
        answers = [getattr(pair, kind).segments for pair in pairs]
        new, old = (
            lm.log_likelihood(prompts, answers)[0] for lm in (after, before)
        )
        ratios.append(new - old)
    assert float((ratios[0] > ratios[1]).float().mean()) > 0.8
    record = json.loads((tmp_path / "model" / "training.json").read_text())
    assert record["steps"] in (4, 8)  # of the better validation


def number(line, name):
    return float(line.split(f"{name}: ")[1].split(" ")[0].rstrip(","))


@pytest.fixture
def manifest(recording, tmp_path):
    item = {"wav": str(recording), "duration": 2.36, "text": "two old boats"}
    (tmp_path / "train.json").write_text(json.dumps({"a": item}))
    return {"manifest_folder": str(tmp_path), "max_new_tokens": 9}


def test_readings_are_judged_by_what_is_heard(manifest, monkeypatch):
    def load(source, device):
        return lambda wavs: ["two old boats", "two bold boat"][: len(wavs)]

    monkeypatch.setattr(tasks, "load_recognizer", load)
    task = ReadingTask(**manifest, recognizer="whisper")
    [prompt] = task.ask().values()
    assert (task.output, task.listens) == ("tts", True)
    assert task.segments(prompt) == [Text("two old boats")]
    spoken = [
        Generation([Speech(SpeechUnits([1]), wav=torch.ones(n))], "")
        for n in (1600, 1600)
    ]
    answers = [spoken[0], Generation([], ""), spoken[1]]
    scores = task.judge(None, [prompt] * 3, answers)
    assert scores == [1, None, pytest.approx(1 - 2 / 13)]


def test_continuations_are_judged_by_their_words(manifest, monkeypatch):
    def load(source, device):
        return lambda texts, contexts: [
            Surprise(6.0, len(t.split())) if t else None for t in texts
        ]

    monkeypatch.setattr(tasks, "load_judge", load)
    options = {**manifest, "text_model": "gpt", "prompt_seconds": 1.0}
    task = ContinuationTask(**options, direction="s2t")
    [prompt] = task.ask().values()
    assert prompt.wanted == "two"  # as large a share of the words
    [speech] = task.segments(prompt)
    assert len(speech.content) == 16000
    answers = [Generation([Text(t)] if t else [], "") for t in ("a b", "a", "")]
    assert task.judge(None, [prompt] * 3, answers) == [-3, -6, None]
    assert not ContinuationTask(
        **{**options, "prompt_seconds": 3.0}, direction="s2t"
    ).ask()
    with pytest.raises(ValueError, match="name a recognizer"):
        ContinuationTask(**options, direction="s2s")


def test_prompts_without_room_get_no_answers(made, folders, monkeypatch):
    """They are counted, and nothing is asked of the model."""
    from spiritlm_plugin.evaluation.preferences import Answering

    lm = SpiritLM.from_hparams(folders["expressive"])
    task = ReadingTask(manifest_folder="", max_new_tokens=9)
    monkeypatch.setattr(type(task), "output", property(lambda self: "speech"))
    asked = {"a": ("readings", Prompt("so " * lm.context, "so"))}
    answer = Answering({"candidates": 2}, lm, {"readings": task}, asked)
    monkeypatch.setattr(
        SpiritLM, "generate", lambda self, prompts, *_, **__: prompts
    )
    hparams = {"candidates": 2, "temperature": 1.0, "top_p": 1.0}
    answer.hparams = hparams | {"speaker": None, "seed": 1, "batch_size": 1}
    [row] = answer(["a"])
    assert row["candidates"] == []
