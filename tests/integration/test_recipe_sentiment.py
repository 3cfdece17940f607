"""The recipes of STSP: classifiers are trained, and judge a small model."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from transformers import (
    AutoModelForAudioClassification,
    AutoModelForSequenceClassification,
)

from spiritlm_plugin import Speech, SpiritLM, Text
from spiritlm_plugin.dataio.corpus.stsp import (
    DIRECTIONS,
    SENTIMENTS,
    ArchiveError,
)
from spiritlm_plugin.dataio.units.segments import Break
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.evaluation import sentiment_benchmark as evaluation
from spiritlm_plugin.evaluation.predictions import PredictionsError
from spiritlm_plugin.inference.generation import Generation, Speaking
from spiritlm_plugin.metrics.sentiment import read_predictions
from spiritlm_plugin.utils.seeds import derive_seed

RECIPES = Path(__file__).parents[2] / "recipes"
RECIPE = RECIPES / "TinySpeech" / "sentiment"
IDS = {"text": "texts", "speech": "voices"}
PER_SENTIMENT = 2
QUESTIONS = len(SENTIMENTS) * PER_SENTIMENT


def load_script(name, recipe=RECIPE):
    path = recipe / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"sentiment_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def samples_of(sentiment):
    """Recordings say by their length which sentiment they have."""
    return 8000 + 1000 * SENTIMENTS.index(sentiment)


@pytest.fixture(scope="module")
def archive(recording, tmp_path_factory):
    """Pieces of a recording in the layout of the benchmark."""
    folder = tmp_path_factory.mktemp("stsp")
    (folder / "data").mkdir()
    samples, rate = soundfile.read(recording)
    texts, voices, shots = [], [], []
    for i, sentiment in enumerate(SENTIMENTS * PER_SENTIMENT):
        wav = f"{i}.wav"
        piece = samples[1600 * i :][: samples_of(sentiment)]
        soundfile.write(folder / "data" / wav, piece, rate)
        text = f"{sentiment} thing number {i}"
        row = {"sentiment": sentiment, "id": i}
        texts.append(row | {"id": f"t{i}", "asr": text})
        voices.append(row | {"wav_path": wav})
        shots.append({"text": text, "speech": wav, "sentiment": sentiment})
    for split in ("train", "dev", "test"):
        write(folder, f"tiny/texts.{split}", texts)
        write(folder, f"tiny/voices.{split}", voices)
    for name, (_, prompt, output) in DIRECTIONS.items():
        rows = [
            {
                "sentiment": shot["sentiment"],
                "prompt": shot[prompt],
                "generation": shot[output],
            }
            for shot in shots
        ]
        write(folder, f"few_shot/{name}", rows)
    return folder


def write(folder, name, rows):
    path = folder / "manifest" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def arguments(archive, checkpoints, folder, *options):
    settings = {
        "data_folder": archive,
        "release": checkpoints,
        "dtype": "float32",
        "output_folder": folder,
        "text_datasets": "[texts]",
        "speech_datasets": "[voices]",
        "text_classifier": "judge",
        "speech_classifier": "judge",
        "shots": "[0, 3]",
        "runs": 2,
        "max_new_tokens": "{t2t: 5, t2s: 9, s2s: 9, s2t: 5}",
        "sample_count": 1,
    }
    settings |= (option[2:].split("=", 1) for option in options)
    hparams = str(RECIPE / "hparams" / "evaluate.yaml")
    return [hparams, *(f"--{k}={v}" for k, v in settings.items())]


class Judge:
    """Reads sentiments, and hears them in the length of recordings."""

    model = torch.nn.Linear(1, 1)

    def __call__(self, said):
        return [self.judge(one) for one in said]

    def judge(self, said):
        if isinstance(said, str):
            return next((s for s in SENTIMENTS if s in said), None)
        return SENTIMENTS[len(said) // 1000 - 8]


@pytest.fixture
def evaluate(archive, checkpoints, tmp_path, monkeypatch):
    """Return a function that evaluates the small Base model."""

    def run(*options, judge=True, folder=tmp_path / "out", recipe=RECIPE):
        module = load_script("evaluate", recipe)
        if judge:
            monkeypatch.setattr(
                evaluation, "load_classifier", lambda *_: Judge()
            )
        command = arguments(archive, checkpoints, folder, *options)
        hparams = recipe / "hparams" / "evaluate.yaml"
        module.main([str(hparams), *command[1:]])
        summary = json.loads((folder / "summary.json").read_text())
        assert (folder / "report.md").read_text().startswith("# ")
        assert (folder / "shots.png").stat().st_size > 5_000
        return summary

    return run


@pytest.fixture
def answers(monkeypatch):
    """Replace the model by what a function answers to each question."""
    sentiments = {}
    for name, direction in DIRECTIONS.items():
        for count in (0, 3):
            for run in range(2):
                for i, sentiment in enumerate(SENTIMENTS * PER_SENTIMENT):
                    record = f"t{i}" if direction.prompt == "text" else i
                    question = f"{name}_{count}shot_run{run}/{record}"
                    sentiments[derive_seed(1986, question)] = sentiment

    def speak(self, generations, *_):
        for generation in generations:
            for i, part in enumerate(generation):
                if isinstance(part, Speech):
                    samples = 1000 * len(part.units)
                    wav = torch.zeros(samples)
                    generation[i] = replace(part, wav=wav)

    def make(answer):
        asked = []

        def generate(self, prompts, output, seed, **options):
            asked.extend(prompts)
            found = [answer(sentiments[s], output) for s in seed]
            return [Generation(parts, "end_of_sequence") for parts in found]

        monkeypatch.setattr(SpiritLM, "generate", generate)
        monkeypatch.setattr(Speaking, "speak", speak)
        return asked

    return make


def say(sentiment, output):
    if output == "text":
        return [Text(f"so {sentiment}\nwhat else")]
    return [Speech(SpeechUnits(range(samples_of(sentiment) // 1000)))]


def test_an_oracle(evaluate, answers, tmp_path):
    asked = answers(say)
    summary = evaluate()
    assert list(summary["directions"]) == list(DIRECTIONS)
    for by_shots in summary["directions"].values():
        for figures in by_shots.values():
            assert figures["accuracy"]["all"] == {"mean": 100, "std": 0}
            assert figures["empty"] == figures["shots_dropped"] == 0
    for modality in ("text", "speech"):
        assert summary["prompts"][modality]["accuracy"]["all"]["mean"] == 100
    assert summary["chance"] == pytest.approx(100 / 3)
    # A break stands behind each half of a shot, the second a line break.
    assert len(asked) == 4 * 2 * 2 * QUESTIONS
    assert sorted({len(prompt) for prompt in asked}) == [1, 3 * 4 + 1]
    for *shots, query in asked:
        assert not isinstance(query, Break)
        assert all(isinstance(part, Text | Speech) for part in shots[::2])
        assert shots[1::2] == [Break(), Break("\n")] * (len(shots) // 4)
    both = [p for p in asked if len(p) > 1 and isinstance(p[-1], Text)]
    shown = next(p for p in both if isinstance(p[2], Text))
    assert [s.text for s in shown[:4]] == [
        shown[0].text,
        "",
        shown[0].text,
        "\n",
    ]
    folder = tmp_path / "out" / "predictions"
    assert len(list(folder.iterdir())) == 4 * 2 * 2
    found = read_predictions(folder / "s2t_3shot_run1.jsonl")
    expected = zip(map(str, range(QUESTIONS)), SENTIMENTS * PER_SENTIMENT)
    assert found == dict(expected)
    rows = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    by_id = {row["id"]: row for row in map(json.loads, rows)}
    # What stands behind a line break is another example where some are shown.
    assert by_id["t2t_3shot_run0/t0"]["continuation"] == "so negative"
    assert by_id["s2t_3shot_run0/0"]["continuation"] == "so negative"
    assert "what" in by_id["t2t_0shot_run0/t0"]["continuation"]
    assert by_id["s2s_3shot_run0/0"]["continuation"].startswith("[Hu0]")
    assert len(list((tmp_path / "out" / "wavs").iterdir())) == 2 * 2


def test_a_constant_and_who_says_nothing(evaluate, answers, tmp_path):
    answers(lambda sentiment, output: say("neutral", output))
    summary = evaluate()
    for by_shots in summary["directions"].values():
        for figures in by_shots.values():
            mean = figures["accuracy"]["all"]["mean"]
            assert mean == pytest.approx(summary["chance"])
            assert figures["predicted"]["neutral"] == 100
    assert "| chance | 33.3 |" in (tmp_path / "out" / "report.md").read_text()
    answers(lambda sentiment, output: [])
    options = "--directions=[t2t]", "--shots=[0]"
    summary = evaluate(*options, folder=tmp_path / "other")
    figures = summary["directions"]["t2t"]["0"]
    assert figures["accuracy"]["all"]["mean"] == 0
    assert figures["empty"] == 100


def test_what_is_there_is_not_predicted_again(evaluate, answers, tmp_path):
    answers(say)
    options = "--directions=[s2t]", "--shots=[3]"
    evaluate(*options)
    path = tmp_path / "out" / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.unlink()
    path.with_name("predictions.5.jsonl").write_text("".join(lines[:7]))
    asked = answers(say)
    evaluate(*options, "--batch_size=4")
    assert len(asked) == 2 * QUESTIONS - 7
    assert path.read_text() == "".join(lines)
    with pytest.raises(PredictionsError, match="another top_p"):
        evaluate(*options, "--top_p=0.5")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--directions=[t2x]"], ValueError, "t2x"),
        (["--shots=[-1]"], ValueError, "shots are numbers"),
        (["--shots=[all]"], ValueError, "shots should be list"),
        (["--runs=0"], ValueError, "1 run at least"),
        (["--shots=[9]"], ArchiveError, "2 negative shots, too few for 9"),
        (["--split=none"], FileNotFoundError, "voices.none.jsonl"),
        (["--text_classifier=null"], FileNotFoundError, "no text classif"),
        (["--speaker=x"], ValueError, "unknown speaker 'x'"),
    ],
)
def test_bad_input(evaluate, answers, options, error, message):
    answers(lambda *_: pytest.fail("the model was asked"))
    with pytest.raises(error, match=message):
        evaluate(*options)


def train(archive, modality, folder, *options):
    name = IDS[modality]
    load_script("train_classifier").main(
        [
            str(RECIPE / "hparams" / f"{modality}_classifier.yaml"),
            f"--data_folder={archive}",
            f"--datasets=[{name}]",
            f"--output_folder={folder}",
            "--warmup_steps=2",
            *options,
        ]
    )
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def trained(archive, tmp_path_factory):
    """Train both classifiers."""
    folder = tmp_path_factory.mktemp("trained")
    reports = {
        "text": train(
            archive,
            "text",
            folder / "text",
            "--number_of_epochs=20",
            "--lr=0.005",
        ),
        "speech": train(
            archive, "speech", folder / "speech", "--number_of_epochs=1"
        ),
    }
    return folder, reports


def test_classifiers(trained):
    folder, reports = trained
    # It has seen the texts that it is tested on.
    assert reports["text"]["test"]["accuracy"] == 1
    assert 0 <= reports["speech"]["test"]["accuracy"] <= 1
    for kind, modality in (
        (AutoModelForSequenceClassification, "text"),
        (AutoModelForAudioClassification, "speech"),
    ):
        model = kind.from_pretrained(folder / modality / "classifier")
        assert model.config.id2label == dict(enumerate(SENTIMENTS))


def judges(folder):
    return [
        f"--{modality}_classifier={folder / modality / 'classifier'}"
        for modality in IDS
    ]


def test_small_model(evaluate, trained, tmp_path):
    """The random model says something, and the classifiers judge it."""
    folder, reports = trained
    options = judges(folder)
    summary = evaluate(*options, "--runs=1", judge=False)
    accuracy = summary["prompts"]["text"]["accuracy"]["all"]["mean"]
    assert accuracy == 100 * reports["text"]["test"]["accuracy"]
    figures = summary["directions"]["s2s"]["3"]
    assert sum(figures["predicted"].values()) + figures["empty"] == 100
    assert list((tmp_path / "out" / "wavs").glob("s2s_*"))


@pytest.mark.parametrize(
    ("modality", "options", "message"),
    [
        ("text", ["--modality=smell"], "'smell'"),
        ("speech", ["--valid_loader={batch_size: 2}"], "one by one"),
    ],
)
def test_bad_input_of_training(archive, tmp_path, modality, options, message):
    with pytest.raises(ValueError, match=message):
        train(archive, modality, tmp_path, *options)


@pytest.mark.slow
def test_two_processes(
    evaluate, archive, trained, checkpoints, tmp_path, two_processes
):
    options = [*judges(trained[0]), "--runs=1", "--batch_size=2"]
    evaluate(*options, judge=False)
    folder = tmp_path / "two"
    command = arguments(archive, checkpoints, folder, *options)
    two_processes(RECIPE / "evaluate.py", *command)
    for name in ("predictions.jsonl", "settings.json", "summary.json"):
        one = (tmp_path / "out" / name).read_bytes()
        assert (folder / name).read_bytes() == one


def test_the_archive_has_the_same_options(evaluate, answers):
    def keys(folder, name):
        lines = (folder / "hparams" / name).read_text().splitlines()
        return [x.partition(":")[0] for x in lines if x[:1].isalpha()]

    stsp = RECIPES / "STSP"
    assert keys(stsp, "evaluate.yaml") == keys(RECIPE, "evaluate.yaml")
    answers(say)
    summary = evaluate("--directions=[t2s]", "--shots=[3]", recipe=stsp)
    accuracy = summary["directions"]["t2s"]["3"]["accuracy"]["all"]
    assert accuracy == {"mean": 100, "std": 0}
    assert callable(load_script("train_classifier", stsp).main)
