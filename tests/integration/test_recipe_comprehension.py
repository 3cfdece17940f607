"""The recipe of comprehension, on a few stories and pairs."""

import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from spiritlm_plugin import Speech, SpiritLM, Text
from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.manifests import (
    ManifestError,
    read_manifest,
)
from spiritlm_plugin.dataio.units.units import SpeechStream
from spiritlm_plugin.evaluation.comprehension import accuracies
from spiritlm_plugin.evaluation.comprehension_groups import (
    load_groups,
    read_groups,
)
from spiritlm_plugin.evaluation.comprehension_scorer import (
    Scorer,
    without_repeats,
)
from spiritlm_plugin.evaluation.predictions import PredictionsError

RECIPES = Path(__file__).parents[2] / "recipes"
RECIPE = RECIPES / "TinySpeech" / "comprehension"
CONTEXT = "the boats lay by"
ENDINGS = {"correct": "the shore", "incorrect": "a tree", "topic": "old men"}
STARTS = (9600, 16000)
TASKS = ["lexical", "syntactic", "storycloze", "topic-storycloze"]


def load_script(recipe):
    path = recipe / "evaluate.py"
    spec = importlib.util.spec_from_file_location("evaluate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return load_script(RECIPE)


def entry(folder, name, wav, **more):
    soundfile.write(folder / f"{name}.wav", wav, 16000)
    wav = {"wav": f"{{data_root}}/{name}.wav", "duration": len(wav) / 16000}
    return {name: wav | more}


@pytest.fixture(scope="module")
def manifests(recording, tmp_path_factory):
    """Two stories with three endings each, and two pairs of each kind."""
    folder = tmp_path_factory.mktemp("manifests")
    samples, _ = soundfile.read(recording)
    stories = {}
    for i, start in enumerate(STARTS):
        for k, (ending, text) in enumerate(ENDINGS.items()):
            wav = samples[: start + 8000 + 2000 * k].copy()
            wav[start:] = wav[start:][::-1] / (k + 1)
            stories |= entry(
                folder,
                f"story{i}_{ending}",
                wav,
                story=f"story{i}",
                ending=ending,
                text=f"{CONTEXT} {text}",
                context_text=CONTEXT,
                ending_text=text,
                ending_start=start / 16000,
            )
    write(folder, "storycloze", stories)
    for task in ("lexical", "syntactic"):
        pairs = {}
        for i in range(4):
            pairs |= entry(
                folder,
                f"{task}{i}",
                samples[2000 * i : 2000 * i + 9000 + 700 * i],
                pair=f"pair{i // 2}",
                correct=i % 2 == 0,
                text=["boats", "bots", "shore", "shor"][i],
            )
        write(folder, task, pairs)
    return folder


def write(folder, task, items):
    (folder / f"test_{task}.json").write_text(json.dumps(items))


def arguments(manifests, model, output, *more, yaml=RECIPE):
    return [
        str(yaml / "hparams" / "evaluate.yaml"),
        f"--manifest_folder={manifests}",
        f"--model={model}",
        f"--output_folder={output}",
        "--dtype=float32",
        *more,
    ]


@pytest.fixture(scope="module", params=["base", "expressive"])
def evaluated(request, script, manifests, folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluated")
    command = arguments(manifests, folders[request.param], output)
    script.main(command)
    return command, output


def summary(output):
    return json.loads((output / "summary.json").read_text())


def predictions(output):
    lines = (output / "predictions.jsonl").read_text().splitlines()
    return list(map(json.loads, lines))


def likelihoods(output):
    return {
        (score["utterance"], score["modality"]): (score["sum"], score["tokens"])
        for row in predictions(output)
        for score in row["scores"]
    }


def test_report(evaluated):
    _, output = evaluated
    accuracy = summary(output)["accuracy"]
    assert list(accuracy) == TASKS
    for task in TASKS:
        crossed = ["T2S", "S2T"] if "story" in task else []
        assert list(accuracy[task]) == ["S", "T", *crossed]
        assert all(cell["groups"] == 2 for cell in accuracy[task].values())
    lines = (output / "report.md").read_text().splitlines()
    header = "| task | comparisons | chance | S | T | T→S | S→T |"
    assert lines.count(header) == 2
    assert len([x for x in lines if x.startswith("| storycloze | 2 | 50.0")])
    [dropped] = [line for line in lines if "was dropped in" in line]
    assert "0 of 40 cases" in dropped


def test_likelihoods_are_those_of_the_interface(evaluated):
    """Item by item, each prompt in full."""
    command, output = evaluated
    lm = SpiritLM.from_hparams(
        command[2].partition("=")[2],
        overrides={"language_model_dtype": "float32"},
    )
    manifests = Path(command[1].partition("=")[2])
    found = likelihoods(output)
    items = json.loads((manifests / "test_storycloze.json").read_text())
    for name, item in items.items():
        wav, start = read_audio(manifests / f"{name}.wav"), item["ending_start"]
        context, whole = lm.encode_batch([wav[: round(start * 16000)], wav])
        ending = whole.cut(start)
        texts = Text(CONTEXT), Text(item["ending_text"])
        for modality, prompt, continuation in (
            ("T", texts[0], Text(" " + texts[1].text)),
            ("S2T", Speech(context), texts[1]),
            ("T2S", texts[0], Speech(ending)),
        ):
            sums, counts = lm.log_likelihood([prompt], [continuation])
            expected = pytest.approx(float(sums), abs=1e-4), int(counts)
            assert found[name, modality] == expected, (name, modality)
        _, tokens = found[name, "S"]
        assert tokens <= len(ending.merge())


def test_words_are_scored_whole(evaluated):
    command, output = evaluated
    lm = SpiritLM.from_hparams(
        command[2].partition("=")[2],
        overrides={"language_model_dtype": "float32"},
    )
    ids = lm.vocabulary.encode([Text("shor")])
    head = len(ids) - len(lm.vocabulary.encode_text("shor"))
    with torch.inference_mode():
        expected = lm.mods.language_model.log_likelihood(
            [ids[:head]], [ids[head:]]
        )
    total, tokens = likelihoods(output)["lexical3", "T"]
    assert total == pytest.approx(float(expected), abs=1e-4)
    assert tokens == len(ids) - head


@pytest.mark.parametrize(
    "right, wrong, accuracy", [(-1, -2, 100), (-1, -1, 50), (-2, -1, 0)]
)
def test_oracle_constant_and_contrary(
    evaluated, script, right, wrong, accuracy
):
    """Predictions that are there are counted, not made again."""
    command, output = evaluated
    path = output / "predictions.jsonl"
    original = path.read_text()
    rows = predictions(output)
    for row in rows:
        for score in row["scores"]:
            is_right = score["variant"] == "correct"
            score["sum"] = right if is_right else wrong
            score["tokens"] = 1
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    script.main(command)
    for cells in summary(output)["accuracy"].values():
        for cell in cells.values():
            assert cell["sum"] == cell["per_token"] == accuracy
    path.write_text(original)


def test_batches_do_not_matter(evaluated, script, tmp_path):
    command, output = evaluated
    command = [x for x in command if "output_folder" not in x]
    script.main([*command, f"--output_folder={tmp_path}", "--batch_size=1"])
    found, expected = likelihoods(tmp_path), likelihoods(output)
    assert found.keys() == expected.keys()
    for key, (total, tokens) in found.items():
        assert tokens == expected[key][1]
        assert total == pytest.approx(expected[key][0], abs=1e-4), key


def test_a_stopped_run_goes_on(evaluated, script, tmp_path, monkeypatch):
    command, output = evaluated
    command = [x for x in command if "output_folder" not in x]
    command += [f"--output_folder={tmp_path}", "--batch_size=2"]
    scorer = Scorer.__call__
    calls = []

    def stopping(self, names):
        calls.append(list(names))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return scorer(self, names)

    monkeypatch.setattr(Scorer, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        script.main(command)
    script.main(command)
    assert [len(names) for names in calls] == [2, 2, 2, 2]
    assert likelihoods(tmp_path).keys() == likelihoods(output).keys()


def test_contexts_longer_than_the_model_has_room_for(manifests, models):
    lm = models["base"]
    groups = load_groups(
        {
            "manifest_folder": manifests,
            "split": "test",
            "tasks": {"s": {"manifest": "storycloze", "wrong": "topic"}},
            "modalities": ["S2T"],
            "groups": 1,
        }
    )
    [whole] = Scorer(lm, groups, ["S2T"], 16)(groups)
    assert [score["dropped"] for score in whole["scores"]] == [0, 0, 0]
    config = lm.mods.language_model.model.config
    room, config.max_position_embeddings = config.max_position_embeddings, 16
    try:
        [row] = Scorer(lm, groups, ["S2T"], 16)(groups)
        [dropped] = {score["dropped"] for score in row["scores"]}
        assert dropped > 0
        config.max_position_embeddings = 3
        with pytest.raises(ValueError, match="storycloze/story0 has a variant"):
            Scorer(lm, groups, ["S2T"], 16)(groups)
    finally:
        config.max_position_embeddings = room


def test_units_in_force_are_not_repeated():
    before = SpeechStream.from_string("[St1][Pi2][Hu3][Hu4]")
    after = SpeechStream.from_string("[St1][Pi5][Hu4][Hu6][St1][Hu4]")
    found = without_repeats(before, after)
    assert found.to_string() == "[Pi5][Hu6][St1][Hu4]"


@pytest.mark.parametrize(
    "more, message",
    [
        (["--modalities=[S, X]"], "'S', 'T', 'T2S' or 'S2T'"),
        (["--modalities=[]"], "modalities are some of"),
        (["--tasks={lexical: words}"], "the task 'lexical' should be as in"),
        (["--tasks={other: {manifest: lexical, wrong: odd}}"], "one 'odd'"),
        (["--split=valid"], "no such manifest: .*valid_lexical;"),
        (["--groups=0"], "at least 1 utterance"),
        (["--model=null"], "name one model"),
    ],
)
def test_bad_settings(script, manifests, tmp_path, folders, more, message):
    command = arguments(manifests, folders["base"], tmp_path)
    names = {option.partition("=")[0] for option in more}
    command = [x for x in command if x.partition("=")[0] not in names]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        script.main([*command, *more])
    assert not (tmp_path / "predictions.0.jsonl").exists()


def changed(manifests, folder, task, **values):
    """Copy the manifests, with a change of one's first entry."""
    for path in manifests.glob("test_*.json"):
        items = json.loads(path.read_text())
        for name, item in items.items():
            item["wav"] = str(manifests / f"{name}.wav")
        if path.name == f"test_{task}.json":
            items[min(items)] |= values
        (folder / path.name).write_text(json.dumps(items))


@pytest.mark.parametrize(
    "task, values, message",
    [
        ("storycloze", {"ending_start": 9.0}, "story0_correct starts at 9.0 s"),
        ("storycloze", {"ending_start": 0.01}, "0.08 s from either end"),
    ],
)
def test_bad_manifests(
    script, manifests, tmp_path, folders, task, values, message
):
    changed(manifests, tmp_path, task, **values)
    with pytest.raises(ManifestError, match=message):
        script.main(arguments(tmp_path, folders["base"], tmp_path / "out"))


def test_incomplete_entries_are_left_out(
    script, manifests, tmp_path, folders, caplog
):
    changed(manifests, tmp_path, "lexical", correct=None)
    with caplog.at_level(logging.WARNING):
        read_groups(tmp_path / "test_lexical.json")
    assert "lexical0 is left out: it has no story" in caplog.text
    script.main(arguments(tmp_path, folders["base"], tmp_path / "out"))
    accuracy = summary(tmp_path / "out")["accuracy"]
    assert accuracy["lexical"]["S"]["groups"] == 1
    assert accuracy["syntactic"]["S"]["groups"] == 2


def test_several_variants_of_a_kind():
    """Each right one is compared with each wrong one."""
    scores = [
        {"variant": "correct", "modality": "S", "sum": -2.0, "tokens": 1},
        {"variant": "incorrect", "modality": "S", "sum": -1.0, "tokens": 1},
        {"variant": "incorrect", "modality": "S", "sum": -3.0, "tokens": 1},
    ]
    task = {"manifest": "lexical", "wrong": "incorrect"}
    found = accuracies(
        {"tasks": {"words": task}, "modalities": ["S"]},
        {"lexical/a": {"scores": scores}},
    )
    assert found["words"]["S"]["sum"] == 50


def test_tasks_left_out(script, manifests, tmp_path, folders):
    script.main(
        arguments(
            manifests,
            folders["base"],
            tmp_path,
            "--tasks={syntactic: null, lexical: null}",
            "--modalities=[T]",
            "--groups=1",
        )
    )
    accuracy = summary(tmp_path)["accuracy"]
    assert list(accuracy) == TASKS[2:]
    assert accuracy["storycloze"]["T"]["groups"] == 1


def test_texts_are_missing(script, manifests, tmp_path, folders):
    changed(manifests, tmp_path, "none")
    for path in tmp_path.glob("test_*.json"):
        items = json.loads(path.read_text())
        for item in items.values():
            item.pop("ending_text", None)
            item.pop("context_text", None)
        path.write_text(json.dumps(items))
    command = arguments(tmp_path, folders["base"], tmp_path / "out")
    with pytest.raises(ManifestError, match="nothing can be tested in T2S"):
        script.main(command)
    script.main([*command, "--modalities=[S, T]"])
    accuracy = summary(tmp_path / "out")["accuracy"]
    assert list(accuracy["storycloze"]) == ["S", "T"]


def test_another_model_in_the_same_folder(evaluated, script, folders):
    command, output = evaluated
    other = next(x for x in folders.values() if str(x) not in command[2])
    command = [x for x in command if not x.startswith("--model")]
    with pytest.raises(PredictionsError, match="with another model"):
        script.main([*command, f"--model={other}"])


@pytest.mark.parametrize("dataset", ["ZeroSpeech", "StoryCloze"])
def test_other_datasets(manifests, folders, tmp_path, dataset):
    """Their script and YAML, on manifests such as theirs."""
    whole = ("ending_start", "context_text", "ending_text", "text")
    items = json.loads((manifests / "test_storycloze.json").read_text())
    for name, item in items.items():
        item["wav"] = str(manifests / f"{name}.wav")
        for key in whole:
            del item[key]
    for name in ("storycloze", "topic_storycloze"):
        write(tmp_path, name, items)
    for name in ("lexical", "syntactic"):
        text = (manifests / f"test_{name}.json").read_text()
        text = text.replace("{data_root}", str(manifests))
        (tmp_path / f"valid_{name}.json").write_text(text)
    recipe = RECIPES / dataset / "comprehension"
    output = tmp_path / "out"
    load_script(recipe).main(
        arguments(tmp_path, folders["base"], output, yaml=recipe)
    )
    accuracy = summary(output)["accuracy"]
    assert len(accuracy) == 2
    for cells in accuracy.values():
        assert list(cells) == ["S"] and cells["S"]["groups"] == 2


STORIES = {"17": 9600, "a-3": 16000}
WHOLE = {
    "correct": "The boats lay by. All men saw the shore.",
    "incorrect": "The boats lay by. All men saw a tree.",
}


def prepare(corpus, *options):
    path = RECIPES / corpus / "comprehension" / f"{corpus.lower()}_prepare.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    getattr(module, f"prepare_{corpus.lower()}")(*options)


def write_recording(path, wav, text=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, 16000)
    if text is not None:
        path.with_suffix(".txt").write_text(text)


@pytest.fixture
def stories(recording, tmp_path):
    """Whole stories and, of the same sound, contexts and endings apart."""
    samples, _ = soundfile.read(recording)
    root = tmp_path / "data"
    for number, (story, start) in enumerate(STORIES.items()):
        context, rest = "The boats lay by.", samples[start : start + 12000]
        for k, (ending, text) in enumerate(WHOLE.items()):
            wav = rest[: 10000 + 2000 * k][:: 1 - 2 * k]
            whole = root / f"sSC/{2 * number + k}_{story}_{ending}.wav"
            write_recording(whole, np.concatenate([samples[:start], wav]), text)
            apart = root / "multi" / "ann" / f"{story}_{ending}.wav"
            text = text.removeprefix(context).strip()
            write_recording(apart, wav, text)
        mutual = root / "multi" / "ann" / f"{story}_mutual.wav"
        write_recording(mutual, samples[:start], context)
    return root


def align(manifests, folder):
    """Write word times as an aligner does; endings start where they do."""
    items = read_manifest(manifests / "test_storycloze")
    for item in items.values():
        start, words = STORIES[item["story"]] / 16000, item["text"].split()
        times = [start * i / 4 for i in range(4)]
        times += [start + 0.1 * i for i in range(len(words) - 4)]
        item["words"] = [[w, t, t + 0.05] for w, t in zip(words, times)]
    folder.mkdir()
    write(folder, "storycloze", items)


MODALITY_OPTION = "--modalities=[S, T, T2S, S2T]"
TASKS_OPTION = (
    "--tasks={topic-StoryCloze: null, "
    "multi: {manifest: multi, wrong: incorrect}}"
)


def test_spoken_storycloze(stories, folders, models, tmp_path):
    """From the files as they are to the likelihoods of all modalities."""
    manifests, aligned = tmp_path / "manifests", tmp_path / "aligned"
    recipe, output = RECIPES / "StoryCloze" / "comprehension", tmp_path / "out"
    prepare("StoryCloze", stories, manifests)
    command = arguments(
        manifests,
        folders["base"],
        output,
        TASKS_OPTION,
        MODALITY_OPTION,
        yaml=recipe,
    )
    align(manifests, aligned)
    prepare("StoryCloze", stories, manifests, aligned)
    load_script(recipe).main(command)
    accuracy = summary(output)["accuracy"]
    assert list(accuracy) == ["StoryCloze", "multi"]
    for cells in accuracy.values():
        assert list(cells) == ["S", "T", "T2S", "S2T"]
        assert all(cell["groups"] == 2 for cell in cells.values())
    found, lm = likelihoods(output), models["base"]
    for number, (story, start) in enumerate(STORIES.items()):
        for k, (ending, text) in enumerate(WHOLE.items()):
            whole = f"{2 * number + k}_{story}_{ending}"
            apart = f"ann/{story}_{ending}"
            wav = read_audio(stories / "sSC" / f"{whole}.wav")
            part = read_audio(stories / "multi" / f"{apart}.wav")
            units, context, alone = lm.encode_batch([wav, wav[:start], part])
            first, rest = text[:17], text[18:]
            for name, speech in (
                (whole, units.cut(start / 16000)),
                (apart, alone),
            ):
                for modality, prompt, continuation in (
                    ("T2S", Text(first), Speech(speech)),
                    ("S2T", Speech(context), Text(rest)),
                ):
                    sums, counts = lm.log_likelihood([prompt], [continuation])
                    assert found[name, modality] == (
                        pytest.approx(float(sums), abs=1e-4),
                        int(counts),
                    )
                # The whole story is scored, whether or not times are known.
                sums = score_whole(lm, Speech(units))
                assert found[name, "S"] == sums
                assert found[name, "T"] == score_whole(lm, Text(text))


def score_whole(lm, segment):
    _, continuation = lm.vocabulary.encode_continuation([segment])
    ids = lm.vocabulary.encode([segment])
    head = len(ids) - len(continuation)
    with torch.inference_mode():
        total = lm.mods.language_model.log_likelihood(
            [ids[:head]], [ids[head:]]
        )
    return pytest.approx(float(total), abs=1e-4), len(continuation)


def test_storycloze_without_word_times(stories, folders, tmp_path):
    """S and T need none; what T2S needs is said."""
    prepare("StoryCloze", stories, tmp_path)
    recipe, output = RECIPES / "StoryCloze" / "comprehension", tmp_path / "out"
    command = arguments(tmp_path, folders["base"], output, yaml=recipe)
    tasks = "--tasks={topic-StoryCloze: null}"
    with pytest.raises(ManifestError, match="ending_start comes of word times"):
        load_script(recipe).main([*command, tasks, MODALITY_OPTION])
    load_script(recipe).main([*command, tasks, "--modalities=[S, T]"])
    assert list(summary(output)["accuracy"]["StoryCloze"]) == ["S", "T"]


def test_salmon(recording, folders, tmp_path):
    samples, _ = soundfile.read(recording)
    for k, part in enumerate(("gender_consistency", "rir_consistency")):
        for i in range(2):
            for name in (0, 1):
                start = 2000 * (k + i + name)
                wav = samples[start : start + 9000]
                path = tmp_path / "data" / part / f"sample_{i}_{name}.wav"
                write_recording(path, wav)
    prepare("SALMon", tmp_path / "data", tmp_path)
    recipe, output = RECIPES / "SALMon" / "comprehension", tmp_path / "out"
    load_script(recipe).main(
        arguments(tmp_path, folders["base"], output, yaml=recipe)
    )
    found = summary(output)
    parts = found["by"]["SALMon"]["part"]
    assert list(parts) == ["gender_consistency", "rir_consistency"]
    for kind in ("sum", "per_token"):
        for part, cells in parts.items():
            rows = [
                row["scores"]
                for row in predictions(output)
                if part in row["id"]
            ]
            scores = [
                {s["variant"]: s["sum"] / divisor(s, kind) for s in row}
                for row in rows
            ]
            share = sum(s["correct"] > s["incorrect"] for s in scores) / 2
            assert cells["S"][kind] == 100 * share
        mean = sum(cells["S"][kind] for cells in parts.values()) / 2
        assert found["accuracy"]["SALMon"]["S"][kind] == mean


def divisor(score, kind):
    return score["tokens"] if kind == "per_token" else 1
