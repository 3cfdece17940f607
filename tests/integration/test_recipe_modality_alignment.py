"""The recipe that compares speech and text in the layers of models."""

import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.nn.functional import cosine_similarity, one_hot

from spiritlm_plugin import Speech, SpiritLM, Text
from spiritlm_plugin.dataio.corpus.manifests import ManifestError
from spiritlm_plugin.dataio.units.units import Kind
from spiritlm_plugin.evaluation import alignment

RECIPE = Path(__file__).parents[2] / "recipes" / "TinySpeech" / "alignment"
TEXTS = [
    "the old man walked",
    "boats lie in the harbour the whole day",
    "stop it",
    "it's raining again",
    "many small houses",
]


@pytest.fixture(scope="module")
def script():
    path = RECIPE / "evaluate.py"
    spec = importlib.util.spec_from_file_location("alignment_evaluate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def manifests(recording, tmp_path_factory):
    """Pieces of a recording, of unequal length, with words and times."""
    folder = tmp_path_factory.mktemp("manifests")
    samples, rate = soundfile.read(recording)
    items = {}
    for i, text in enumerate(TEXTS):
        piece = samples[1600 * i : 9600 * (i % 3) + 16000]
        soundfile.write(folder / f"test{i}.wav", piece, rate)
        duration, words = len(piece) / rate, text.split()
        times = np.linspace(0.05, duration - 0.1, len(words) + 1).tolist()
        items[f"test{i}"] = {
            "wav": str(folder / f"test{i}.wav"),
            "duration": duration,
            "text": text,
            "words": [list(w) for w in zip(words, times, times[1:])],
        }
    write(folder, items)
    return folder


def write(folder, items):
    (folder / "test.json").write_text(json.dumps(items))


def read(folder):
    return json.loads((folder / "test.json").read_text())


def arguments(manifests, folders, output, *more):
    models = ", ".join(f"{n}: {folder}" for n, folder in folders.items())
    settings = {
        "manifest_folder": manifests,
        "models": f"{{{models}}}",
        "output_folder": output,
        "dtype": "float32",
    }
    settings |= (option[2:].split("=", 1) for option in more)
    hparams = RECIPE / "hparams" / "evaluate.yaml"
    return [str(hparams), *(f"--{k}={v}" for k, v in settings.items())]


@pytest.fixture(scope="module")
def evaluated(script, manifests, folders, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluated")
    script.main(arguments(manifests, folders, output))
    return output


def summary(output):
    return json.loads((output / "summary.json").read_text())


def rows(output, model):
    lines = (output / model / "predictions.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def test_report(evaluated, folders):
    found = summary(evaluated)
    assert found["utterances"] == 5 and list(found["models"]) == [*folders]
    words = sum(len(text.split()) for text in TEXTS)
    for name, folder in folders.items():
        figures = found["models"][name]
        assert figures["model"] == str(folder)
        assert figures["words"] + figures["words_left_out"] == words
        assert figures["words"] > words / 2 and figures["too_long"] == 0
        # The embeddings and two layers.
        assert len(figures["matching"]) == len(figures["other"]) == 3
        assert all(-1 <= x <= 1 for x in figures["matching"])
    lines = (evaluated / "report.md").read_text().splitlines()
    header = [
        f"{n}, {p}" for n in folders for p in ("same word", "other words")
    ]
    assert f"| layer | {' | '.join(header)} |" in lines
    assert len([x for x in lines if x.startswith("| 2 | ")]) == 1
    assert (evaluated / "similarity.png").stat().st_size > 10_000


def expected(lm, item):
    """Compare the words of an utterance, one after the other."""
    names = [word for word, _, _ in item["words"]]
    ends = [end for _, _, end in item["words"]]
    units = lm.encode_file(item["wav"])
    stream = units.merge()
    features = {}
    for side, segment in (
        ("speech", Speech(units)),
        ("text", Text(item["text"])),
    ):
        ids = torch.tensor([lm.vocabulary.encode([segment])])
        with torch.inference_mode():
            states = lm.mods.language_model.model(
                input_ids=ids, output_hidden_states=True
            ).hidden_states
        layers = torch.stack(states).squeeze(1)
        if side == "speech":
            rates = {Kind.STYLE: 1, Kind.PITCH: 12.5, Kind.PHONETIC: 25}
            streams = {
                Kind.STYLE: units.style,
                Kind.PITCH: units.pitch,
                Kind.PHONETIC: units.phonetic,
            }
            starts = {
                kind: [
                    i / rates[kind]
                    for i, unit in enumerate(streams[kind].tolist())
                    if kind is Kind.STYLE
                    or i == 0
                    or unit != streams[kind][i - 1]
                ]
                for kind in map(Kind, set(stream.kinds.tolist()))
            }
            times = [starts[Kind(k)].pop(0) for k in stream.kinds.tolist()]
            # Words follow upon each other in these manifests.
            own = [sum(t >= end - 1e-7 for end in ends[:-1]) for t in times]
        else:
            own = []
            for i, name in enumerate(names):
                text = name if i == 0 else f" {name}"
                own += [i] * len(lm.vocabulary.encode_text(text))
        head = ids.shape[1] - len(own)
        features[side] = [
            layers[:, [head + k for k, w in enumerate(own) if w == i]].mean(1)
            if i in own
            else None
            for i in range(len(names))
        ]
    speech, text = features["speech"], features["text"]
    there = [i for i, word in enumerate(speech) if word is not None]
    matching = other = 0
    for i in there:
        matching += cosine_similarity(speech[i], text[i], dim=-1)
        others = [j for j in there if names[j] != names[i]]
        other += sum(
            cosine_similarity(speech[i], text[j], dim=-1) for j in others
        ) / len(others)
    return matching, other, len(there)


@pytest.mark.parametrize("variant", ["base", "expressive"])
def test_similarities_are_those_of_the_interface(
    evaluated, manifests, folders, variant
):
    """Utterance by utterance and word by word, without padding."""
    lm = SpiritLM.from_hparams(
        folders[variant], overrides={"language_model_dtype": "float32"}
    )
    found = rows(evaluated, variant)
    items = read(manifests)
    assert list(found) == list(items)
    for name, item in items.items():
        matching, other, words = expected(lm, item)
        assert found[name]["words"] == words
        for key, sums in (("matching", matching), ("other", other)):
            assert found[name][key] == pytest.approx(sums.tolist(), abs=1e-4)


def test_batches_do_not_matter(evaluated, script, manifests, folders, tmp_path):
    script.main(arguments(manifests, folders, tmp_path, "--batch_size=1"))
    for model in folders:
        found, other = rows(tmp_path, model), rows(evaluated, model)
        for name, row in found.items():
            assert row["words"] == other[name]["words"]
            for key in ("matching", "other"):
                sums = pytest.approx(other[name][key], abs=1e-5 * row["words"])
                assert row[key] == sums


def test_oracle(script, manifests, folders, tmp_path, monkeypatch):
    """Features that say the word, and nothing else."""

    def hidden_states(lm, batch):
        places = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(item.places) for item in batch],
            batch_first=True,
            padding_value=-1,
        )
        return [one_hot(places + 1, 20).float()], places

    monkeypatch.setattr(alignment, "hidden_states", hidden_states)
    script.main(arguments(manifests, folders, tmp_path))
    for figures in summary(tmp_path)["models"].values():
        assert figures["matching"] == pytest.approx([1.0])
        assert figures["other"] == pytest.approx([0.0])


def test_tokens_are_those_of_prompts(manifests, models):
    lm = models["expressive"]
    for item in read(manifests).values():
        units = lm.encode_file(item["wav"])
        item["boundaries"] = alignment.boundaries(item)
        speech, text = alignment.encode_both(lm.vocabulary, item, units)
        assert speech.ids == lm.vocabulary.encode([Speech(units)])
        assert text.ids == lm.vocabulary.encode([Text(item["text"])])
        for part in (speech, text):
            assert len(part.ids) == len(part.places)
            head = len(lm.vocabulary.text.prompt_start) + 1
            assert part.places[:head] == [-1] * head
            assert min(part.places[head:]) == 0
            assert max(part.places) < len(item["words"])


def test_a_stopped_run_goes_on_and_takes_more_models(
    evaluated, script, manifests, folders, tmp_path, monkeypatch
):
    compare, calls = alignment.compare, []

    def stopping(lm, items, pooling):
        calls.append((lm.expressive, list(items)))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return compare(lm, items, pooling)

    monkeypatch.setattr(alignment, "compare", stopping)
    base = {"base": folders["base"]}
    command = arguments(manifests, base, tmp_path, "--batch_size=3")
    with pytest.raises(KeyboardInterrupt):
        script.main(command)
    script.main(command)
    script.main(arguments(manifests, folders, tmp_path, "--batch_size=3"))
    assert [(e, len(names)) for e, names in calls] == [
        (False, 3),
        (False, 2),
        (False, 2),
        (True, 3),
        (True, 2),
    ]
    for name, figures in summary(tmp_path)["models"].items():
        sums = summary(evaluated)["models"][name]["matching"]
        assert figures["matching"] == pytest.approx(sums, abs=1e-5)


def test_utterances_longer_than_the_model_has_room_for(manifests, models):
    lm = models["base"]
    items = read(manifests)
    for item in items.values():
        item["boundaries"] = alignment.boundaries(item)
    whole = alignment.compare(lm, items, "max")
    lengths = sorted(row["speech_tokens"] for row in whole)
    config = lm.mods.language_model.model.config
    room, config.max_position_embeddings = (
        config.max_position_embeddings,
        lengths[-1] - 1,
    )
    try:
        for row, before in zip(alignment.compare(lm, items, "max"), whole):
            if before["speech_tokens"] == lengths[-1]:
                assert row["too_long"] and row["words"] == 0
            else:
                assert not row["too_long"]
                assert row["words"] == before["words"]
        config.max_position_embeddings = 3
        rows = alignment.compare(lm, items, "max")
        assert all(row["too_long"] for row in rows)
    finally:
        config.max_position_embeddings = room


@pytest.mark.parametrize(
    "more, message",
    [
        (["--pooling=min"], "pooling should be .*'mean', 'max'.* got 'min'"),
        (["--models={}"], "name the models"),
        (["--models=some_folder"], "models should be dict.* got 'some_folder'"),
        (["--models={base: no_such_folder}"], "'base' is not there: no such f"),
        (["--models={../base: tinyspeech}"], "'../base' is no name for a mod"),
        (["--models={base: {folder: x}}"], "'base' should be FOLDER"),
        (["--models={base: {model: x, release: y}}"], "'base' should be"),
        (["--models={base: null}"], "'base' should be FOLDER"),
        (["--models={a: {release: no_folder}}"], "'a' is not there: missing"),
        (["--split=valid"], "no such manifest: .*valid;"),
    ],
)
def test_bad_settings(script, manifests, folders, tmp_path, more, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        script.main(arguments(manifests, folders, tmp_path, *more))
    assert not list(tmp_path.glob("*/predictions*"))


def test_models_are_looked_for_before_any_is_loaded(
    script, manifests, folders, tmp_path
):
    both = {"base": folders["base"], "other": "no_such_folder"}
    with pytest.raises(ValueError, match="'other' is not there"):
        script.main(arguments(manifests, both, tmp_path))
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (None, "it has no 'words'"),
        ([], "no utterance of test has words to compare"),
        ([["a", 0.0, 0.2], ["a", 0.2, 0.4]], "has words to compare"),
        ([["a", 0.0, 0.2], [" ", 0.2, 0.4]], "has words to compare"),
        ([["a", 0.0, 0.4], ["b", 0.0, 0.1], ["c", 0.1, 0.1]], "to compare"),
    ],
)
def test_no_words(script, manifests, folders, tmp_path, words, message):
    items = read(manifests)
    for item in items.values():
        item["words"] = words
        del item["text"]
    write(tmp_path, items)
    with pytest.raises(ManifestError, match=message):
        script.main(arguments(tmp_path, folders, tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*/predictions*"))


def test_an_utterance_without_words_is_left_out(manifests, tmp_path, caplog):
    items = read(manifests)
    items["test2"] |= {"words": [["stop", 0.0, 0.3]], "text": "stop"}
    write(tmp_path, items)
    with caplog.at_level(logging.WARNING):
        found = alignment.load_utterances(
            {"manifest_folder": tmp_path, "split": "test", "utterances": None}
        )
    assert list(found) == ["test0", "test1", "test3", "test4"]
    assert "test2 is left out: ['stop'] are not two different" in caplog.text


def test_meta_checkpoints(evaluated, script, manifests, checkpoints, tmp_path):
    release = {"base": f"{{release: {checkpoints}, variant: base}}"}
    script.main(arguments(manifests, release, tmp_path))
    [figures] = summary(tmp_path)["models"].values()
    sums = summary(evaluated)["models"]["base"]["matching"]
    assert figures["matching"] == pytest.approx(sums, abs=1e-5)


@pytest.mark.slow
def test_two_processes(script, manifests, folders, tmp_path, two_processes):
    one, two = tmp_path / "one", tmp_path / "two"
    script.main(arguments(manifests, folders, one, "--batch_size=2"))
    command = arguments(manifests, folders, two, "--batch_size=2")
    two_processes(RECIPE / "evaluate.py", *command)
    for name in ("summary.json", "base/predictions.jsonl"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
