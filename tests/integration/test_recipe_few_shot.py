"""The recipes of transcribing, reading and classifying behind shots."""

import importlib.util
import json
from pathlib import Path
from statistics import mean, stdev

import jiwer
import numpy as np
import pytest
import soundfile

from spiritlm_plugin import Speech, SpiritLM, Text
from spiritlm_plugin.dataio.corpus.manifests import ManifestError
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.evaluation import asr, intent, tts
from spiritlm_plugin.evaluation.draws import questions_of
from spiritlm_plugin.evaluation.predictions import PredictionsError
from spiritlm_plugin.inference.generation import Generation
from spiritlm_plugin.metrics.recognition import normalize_transcript
from spiritlm_plugin.utils.recipes import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
TEXTS = [
    "the old man walked",
    "boats lie in the harbour",
    "stop the music",
    "it's raining again",
    "many small houses",
    "he said that she was there",
]
INTENTS = ["go", "stay", "stop music none"]


def load_script(task, corpus="TinySpeech"):
    path = RECIPES / corpus / task / "evaluate.py"
    spec = importlib.util.spec_from_file_location(f"{task}_evaluate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def manifests(recording, tmp_path_factory):
    """Pieces of a recording, with texts, words and intents."""
    folder = tmp_path_factory.mktemp("manifests")
    samples, rate = soundfile.read(recording)
    for split in ("train", "test"):
        items = {}
        for i, text in enumerate(TEXTS):
            path = folder / f"{split}{i}.wav"
            piece = samples[1600 * i : 1600 * i + 12000]
            soundfile.write(path, piece, rate)
            words = text.split()
            times = np.linspace(0.05, 0.7, len(words) + 1).tolist()
            items[path.stem] = {
                "wav": f"{{data_root}}/{path.name}",
                "duration": len(piece) / rate,
                "text": text,
                "words": [list(w) for w in zip(words, times, times[1:])],
                "intent": INTENTS[i % 3],
                "speaker": ["ann", "bob", "cy"][i // 2],
            }
        (folder / f"{split}.json").write_text(json.dumps(items))
    return folder


@pytest.fixture
def evaluate(manifests, checkpoints, tmp_path):
    """Return a function that evaluates the small Base model."""

    def run(task, *options, corpus="TinySpeech", folder=tmp_path / "out"):
        module = load_script(task, corpus)
        command = arguments(task, manifests, checkpoints, folder, *options)
        hparams = RECIPES / corpus / task / "hparams" / "evaluate.yaml"
        module.main([str(hparams), *command[1:]])
        return read_summary(folder)

    return run


def arguments(task, manifests, checkpoints, folder, *options):
    settings = {
        "manifest_folder": manifests,
        "release": checkpoints,
        "dtype": "float32",
        "output_folder": folder,
        "shots": 3,
        "max_new_tokens": 5,
    }
    settings |= (option[2:].split("=", 1) for option in options)
    hparams = RECIPES / "TinySpeech" / task / "hparams" / "evaluate.yaml"
    return [str(hparams), *(f"--{k}={v}" for k, v in settings.items())]


def read_summary(folder):
    summary = json.loads((folder / "summary.json").read_text())
    assert (folder / "report.md").read_text().startswith("# ")
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    asked = [(row["draw"], row["utterance"]) for row in rows]
    draws = range(1, len(summary["draws"]) + 1)
    assert asked == [(d, f"test{i}") for d in draws for i in range(6)]
    return summary, rows


@pytest.fixture
def answers(monkeypatch):
    """Replace the model by what a function answers to each seed's item."""

    def replace(answer):
        names = [f"test{i}" for i in range(6)]
        questions = questions_of(1986, names, 3).values()
        seeds = {q.seed: names.index(q.item) for q in questions}

        def generate(self, prompts, output, seed, **options):
            found = [answer(seeds[s]) for s in seed]
            return [Generation([part], "end_of_sequence") for part in found]

        monkeypatch.setattr(SpiritLM, "generate", generate)

    return replace


def flagged(text):
    return Text(f"<START Transcript> {text} <END>")


# Of each task what a model answers that makes no mistake.
ORACLES = {
    "asr": lambda i: flagged(TEXTS[i]),
    "tts": lambda i: Speech(SpeechUnits(range(i + 5))),
    "intent": lambda i: Text(f" {INTENTS[i % 3]} "),
}


def test_asr_of_an_oracle(evaluate, answers, tmp_path):
    answers(ORACLES["asr"])
    summary, rows = evaluate("asr")
    assert summary["WER"] == 0 and summary["complete"] == 100
    assert summary["utterances"] == 6 and summary["shots_dropped"] == 0
    assert len(rows[0]["shots"]) == 3 and "text" in rows[0]
    assert "%WER 0.00" in (tmp_path / "out" / "wer.txt").read_text()
    assert (tmp_path / "out" / "wer.png").stat().st_size > 5_000


def test_asr_counts_as_jiwer_does(evaluate, answers):
    said = [TEXTS[i - 1] if i % 2 else f"{TEXTS[i]} again" for i in range(6)]
    answers(lambda i: flagged(said[i]))
    summary, _ = evaluate("asr")
    expected = jiwer.wer(
        [normalize_transcript(text) for text in TEXTS],
        [normalize_transcript(text) for text in said],
    )
    assert summary["WER"] == pytest.approx(100 * expected)


def test_asr_counts_for_each_speaker(evaluate, answers, tmp_path):
    """Who is heard, and who is not."""
    answers(lambda i: flagged(TEXTS[i] if i % 2 else ""))
    summary, rows = evaluate("asr", "--draws=2")
    speakers = {row["speaker"] for row in rows}
    assert set(summary["speakers"]) == speakers and len(speakers) > 1
    for name, found in summary["speakers"].items():
        of_speaker = [row for row in rows if row["speaker"] == name]
        expected = jiwer.wer(
            [normalize_transcript(row["text"]) for row in of_speaker],
            [normalize_transcript(row["transcript"]) for row in of_speaker],
        )
        assert found["WER"] == pytest.approx(100 * expected)
        assert 2 * found["utterances"] == len(of_speaker)
        report = (tmp_path / "out" / "report.md").read_text()
        assert f"| {name} | {found['utterances']} |" in report


def test_asr_of_who_says_nothing(evaluate, answers):
    answers(lambda i: flagged(""))
    summary, _ = evaluate("asr")
    assert summary["WER"] == 100
    assert summary["deletions"] == summary["words"]


def test_each_draw_has_shots_and_figures_of_its_own(
    evaluate, monkeypatch, tmp_path
):
    """Of a model that says one of two things, by its seed."""

    def generate(self, prompts, output, seed, **options):
        said = ("the old man", "boats lie in the harbour")
        return [
            Generation([flagged(said[one % 2])], "end_of_sequence")
            for one in seed
        ]

    monkeypatch.setattr(SpiritLM, "generate", generate)
    summary, rows = evaluate("asr", "--draws=3", "--shots=2")
    options = "--draws=1", "--shots=2"
    one, alone = evaluate("asr", *options, folder=tmp_path / "one")
    assert [row["id"] for row in rows[5:7]] == ["draw 1/test5", "draw 2/test0"]
    by_draw = [rows[:6], rows[6:12], rows[12:]]
    seeds = [{row["seed"] for row in some} for some in by_draw]
    assert len(set.union(*seeds)) == 18
    shots = [some[0]["shots"] for some in by_draw]
    assert [draw["shots"] for draw in summary["draws"]] == shots
    assert len({tuple(names) for names in shots}) == 3
    rates = [
        100 * jiwer.wer(TEXTS, [row["transcript"] for row in some])
        for some in by_draw
    ]
    assert [draw["WER"] for draw in summary["draws"]] == pytest.approx(rates)
    assert len(set(rates)) > 1
    assert summary["WER"] == pytest.approx(mean(rates))
    assert summary["WER_std"] == pytest.approx(stdev(rates))
    assert summary["settings"]["draws"] == 3 and summary["utterances"] == 6
    # A draw is the same whatever the number of draws.
    same = ("seed", "shots", "transcript", "draw", "utterance")
    assert [[row[key] for key in same] for row in alone] == [
        [row[key] for key in same] for row in by_draw[0]
    ]
    assert one["WER"] == pytest.approx(rates[0]) and one["WER_std"] is None


def test_a_stopped_run_of_several_draws_goes_on(evaluate, answers, tmp_path):
    options = "--draws=2", "--shots=2", "--max_new_tokens=4"
    evaluate("asr", *options)
    path = tmp_path / "out" / "predictions.jsonl"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    path.unlink()
    path.with_name("predictions.0.jsonl").write_text("".join(lines[:7]))
    evaluate("asr", *options, "--batch_size=4")
    assert path.read_text() == whole


@pytest.mark.parametrize(
    ("task", "schema"),
    [
        (asr, asr.ASRSettings),
        (tts, tts.TTSSettings),
        (intent, intent.IntentSettings),
    ],
    ids=lambda value: getattr(value, "__name__", "").rpartition(".")[2],
)
def test_a_model_may_be_loaded_already(
    answers, load, manifests, checkpoints, tmp_path, monkeypatch, task, schema
):
    name = task.__name__.rpartition(".")[2]
    command = arguments(name, manifests, checkpoints, tmp_path, "--shots=1")
    hparams, run_opts = load_recipe(command, schema)
    lm = load(checkpoints, "base", "float32")
    answers(ORACLES[name])
    monkeypatch.setattr(task, "load_model", lambda *_: pytest.fail("loaded"))
    task.evaluate(hparams, run_opts, lm)
    _, rows = read_summary(tmp_path)
    assert len(rows[0]["shots"]) == 1


@pytest.mark.parametrize("options", [["--shots=0"], ["--shot_ids=[train3]"]])
def test_what_is_not_drawn_is_asked_once(evaluate, answers, options):
    answers(ORACLES["asr"])
    summary, _ = evaluate("asr", "--draws=3", *options)
    assert len(summary["draws"]) == summary["settings"]["draws"] == 1


def test_what_decides_stands_in_the_report(evaluate, answers, tmp_path):
    answers(ORACLES["asr"])
    summary, _ = evaluate("asr", "--draws=2", "--temperature=0.25")
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| temperature | 0.25 |" in report and "| top_p | 0.95 |" in report
    for name, value in {
        "shots": 3,
        "draws": 2,
        "utterances": 6,
        "num_beams": 1,
        "context": 1024,
        "max_new_tokens": 5,
        "seed": 1986,
        "dtype": "float32",
        "split": "test",
    }.items():
        assert summary["settings"][name] == value
        assert f"| {name} | {value} |" in report
    assert "| normalizer | lower case" in report


def test_texts_without_words_are_apart(evaluate, answers, manifests, tmp_path):
    items = json.loads((manifests / "test.json").read_text())
    for name, item in items.items():
        item["wav"] = item["wav"].format(data_root=manifests)
        del item["words"]
        if name == "test1":
            item["text"] = "..."
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "test.json").write_text(json.dumps(items))
    answers(lambda i: flagged("oh no" if i == 1 else TEXTS[i]))
    summary, _ = evaluate("asr", f"--manifest_folder={folder}", "--shots=0")
    assert summary["WER"] == 0
    assert summary["empty_references"] == 1
    assert summary["empty_insertions"] == 2


def recognizer(texts):
    """Return what loads a recognizer that knows the texts."""
    return lambda source, device: lambda wavs: texts[: len(wavs)]


def test_tts_of_an_oracle(evaluate, answers, monkeypatch, tmp_path):
    monkeypatch.setattr(tts, "load_recognizer", recognizer(TEXTS))
    answers(ORACLES["tts"])
    options = "--recognizer=oracle", "--sample_count=2", "--speaker=ex02"
    summary, rows = evaluate("tts", *options)
    assert summary["WER"] == summary["CER"] == summary["original_WER"] == 0
    assert summary["not_stopped"] == summary["empty"] == 0
    seconds = [sum(r[k] for r in rows) for k in ("seconds", "original_seconds")]
    assert summary["duration_ratio"] == pytest.approx(seconds[0] / seconds[1])
    assert rows[0]["original_seconds"] == 0.75
    folder = tmp_path / "out"
    report = (folder / "report.md").read_text()
    for name in ("WER", "CER", "original_WER"):
        assert f"| {name} | 0.0 |  |  |" in report
    assert len(list((folder / "wavs").iterdir())) == 4
    assert (folder / "durations.png").stat().st_size > 5_000
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["stop"]["wav"].endswith("train2.wav")


def test_tts_counts_as_jiwer_does():
    heard = ["the old man", "", "stop that", "Its reigning", *TEXTS[:2]]
    rows = {
        str(i): {"text": text, "heard": heard[i]}
        for i, text in enumerate(TEXTS)
    }
    errors = tts.errors_of(rows, "heard")
    pair = [
        [normalize_transcript(t) for t in texts] for texts in (TEXTS, heard)
    ]
    assert errors["WER"].rate() == pytest.approx(100 * jiwer.wer(*pair))
    assert errors["CER"].rate() == pytest.approx(100 * jiwer.cer(*pair))


def test_tts_of_several_draws_hears_the_originals_once(
    evaluate, answers, monkeypatch, tmp_path
):
    """Wavs are named so that any id is safe."""
    heard = []

    def load(source, device):
        def recognize(wavs):
            heard.append(len(wavs))
            return ["the old man walked"] * len(wavs)

        return recognize

    monkeypatch.setattr(tts, "load_recognizer", load)
    answers(ORACLES["tts"])
    summary, rows = evaluate(
        "tts", "--recognizer=x", "--draws=2", "--sample_count=1"
    )
    assert sum(heard) == 3 * 6
    assert rows[0]["heard_original"] and rows[6]["heard_original"] is None
    assert summary["WER"] == summary["original_WER"] > 0
    assert summary["WER_std"] == 0 and "original_WER_std" not in summary
    names = {path.name for path in (tmp_path / "out" / "wavs").iterdir()}
    assert names == {"test0_read.wav", "test0_original.wav"}


def test_tts_without_recognizer(evaluate):
    """The small model reads; nobody listens."""
    summary, rows = evaluate("tts", "--max_new_tokens=9")
    assert "WER" not in summary and rows[0]["heard"] is None
    assert summary["not_stopped"] > 0 and rows[0]["seconds"] > 0


def test_intents_of_an_oracle(evaluate, answers, tmp_path):
    answers(ORACLES["intent"])
    summary, rows = evaluate("intent")
    assert summary["accuracy"] == 100 and summary["labels"] == 3
    assert summary["accuracy_interval"] is None  # few, and alike
    assert rows[2]["predicted"] == "stop music none"
    assert (tmp_path / "out" / "confusion.png").stat().st_size > 5_000


@pytest.mark.parametrize(("label", "none"), [("stay", 0), ("nonsense", 100)])
def test_intents_of_a_constant(evaluate, answers, label, none):
    answers(lambda i: Text(label))
    summary, _ = evaluate("intent")
    chance = summary["chance"] if none == 0 else 0
    assert summary["accuracy"] == pytest.approx(chance)
    assert summary["no_label"] == none


def test_intents_by_likelihood(evaluate):
    summary, rows = evaluate("intent", "--method=likelihood")
    assert summary["no_label"] == 0
    for row in rows:
        assert set(row["scores"]) == set(INTENTS)
        best = max(row["scores"], key=row["scores"].get)
        assert row["predicted"] == best


def test_what_is_there_is_not_predicted_again(evaluate, answers, tmp_path):
    answers(lambda i: flagged(TEXTS[i]))
    evaluate("asr")
    path = tmp_path / "out" / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.unlink()
    partial = path.with_name("predictions.5.jsonl")
    partial.write_text("".join(lines[:4]) + lines[4][:20])
    asked = []
    answers(lambda i: asked.append(i) or flagged(TEXTS[i]))
    evaluate("asr", "--batch_size=3")
    assert asked == [4, 5]
    assert path.read_text() == "".join(lines)
    with pytest.raises(PredictionsError, match=r"another seed \(1986, now 7\)"):
        evaluate("asr", "--seed=7")


@pytest.mark.parametrize(
    ("task", "options", "error", "message"),
    [
        ("asr", ["--split=dev"], FileNotFoundError, "no such manifest.*dev"),
        ("asr", ["--shot_ids=[x]"], ValueError, "no utterance 'x'"),
        ("asr", ["--shots=7"], ValueError, "7 shots from 6"),
        ("asr", ["--draws=0"], ValueError, "draws should be 1 or more, got 0"),
        ("asr", ["--release=null"], ValueError, "name one model"),
        ("asr", ["--trained_asr=true"], ValueError, r"\[ASR\]"),
        ("tts", ["--speaker=x"], ValueError, "unknown speaker 'x'"),
        (
            "tts",
            ["--shot_split=other"],
            FileNotFoundError,
            "manifest: .*other;",
        ),
        ("tts", ["--stop_speech=x.wav"], FileNotFoundError, "x.wav"),
        ("intent", ["--method=guess"], ValueError, "'guess'"),
        ("intent", ["--label=mood"], ValueError, "'mood'"),
    ],
)
def test_bad_input(evaluate, answers, task, options, error, message):
    answers(lambda i: pytest.fail("the model was asked"))
    with pytest.raises(error, match=message):
        evaluate(task, *options)


def test_missing_recordings(evaluate, manifests, tmp_path, caplog):
    items = json.loads((manifests / "test.json").read_text())
    for item in items.values():
        item["wav"] = "gone.wav"
    (tmp_path / "test.json").write_text(json.dumps(items))
    with pytest.raises(ManifestError, match="gone.wav"):
        evaluate("asr", f"--manifest_folder={tmp_path}")


@pytest.mark.slow
def test_two_processes(
    evaluate, manifests, checkpoints, tmp_path, two_processes
):
    options = "--temperature=0.8", "--batch_size=2", "--draws=2"
    evaluate("asr", *options)
    folder = tmp_path / "two"
    command = arguments("asr", manifests, checkpoints, folder, *options)
    two_processes(RECIPES / "TinySpeech" / "asr" / "evaluate.py", *command)
    names = "predictions.jsonl", "settings.json", "summary.json", "wer.txt"
    for name in names:
        one = (tmp_path / "out" / name).read_bytes()
        assert (folder / name).read_bytes() == one
    assert not list(folder.glob("predictions.*.jsonl"))


@pytest.mark.parametrize(
    ("corpus", "task"),
    [
        ("LibriSpeech", "asr"),
        ("LibriSpeech", "tts"),
        ("FluentSpeechCommands", "intent"),
    ],
)
def test_other_corpora_have_the_same_options(evaluate, answers, corpus, task):
    def keys(name):
        path = RECIPES / name / task / "hparams" / "evaluate.yaml"
        lines = path.read_text().splitlines()
        return [x.partition(":")[0] for x in lines if x[:1].isalpha()]

    assert keys(corpus) == keys("TinySpeech")
    answers(ORACLES[task])
    summary, _ = evaluate(task, "--split=test", corpus=corpus)
    figure, value = {
        "asr": ("WER", 0),
        "tts": ("not_stopped", 0),
        "intent": ("accuracy", 100),
    }[task]
    assert summary[figure] == value
