"""Predictions that survive, and what the evaluation recipes share."""

import contextlib
import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from spiritlm_plugin.dataio.corpus.manifests import write_manifest
from spiritlm_plugin.evaluation import draws, predictions, reports
from spiritlm_plugin.evaluation import loop as evaluation
from spiritlm_plugin.evaluation.predictions import Predictions, PredictionsError
from spiritlm_plugin.utils.configuration import check_configuration

RECIPES = Path(__file__).parents[2] / "recipes"
IDS = [f"utterance{i}" for i in range(10)]
SETTINGS = {"shots": 10, "seed": 1, "shot_ids": ["a", "b"]}


@pytest.fixture
def processes(monkeypatch):
    """Make a run's objects, one for each of so many processes."""

    def make(folder, count, settings=SETTINGS, ids=IDS):
        made = []
        for rank in range(count):
            monkeypatch.setattr(
                predictions, "rank_and_world_size", lambda r=rank: (r, count)
            )
            made.append(Predictions(folder, settings, ids))
        return made

    return make


def predict(process, batches=None):
    """Predict some batches of a process's share, or all."""
    for number, batch in enumerate(process.batches(2)):
        if number == batches:
            return
        process.add({"id": n, "text": n.upper() + "\u2028"} for n in batch)


def lines(folder):
    return (folder / "predictions.jsonl").read_text().rstrip("\n").split("\n")


def test_any_number_of_processes_gives_the_same(processes, tmp_path):
    contents = set()
    for count in (1, 2, 3, 7):
        folder = tmp_path / str(count)
        run = processes(folder, count)
        for process in run:
            predict(process)
        rows = [process.gather() for process in reversed(run)]
        assert rows[:-1] == [None] * (count - 1)
        assert list(rows[-1]) == IDS
        assert [json.loads(line)["id"] for line in lines(folder)] == IDS
        assert {path.name for path in folder.iterdir()} == {
            "predictions.jsonl",
            "settings.json",
        }
        contents.add((folder / "predictions.jsonl").read_bytes())
    assert len(contents) == 1


def test_shares_are_disjoint_whole_batches(processes, tmp_path):
    shares = [list(p.batches(4)) for p in processes(tmp_path, 2)]
    assert shares == [[IDS[:4], IDS[8:]], [IDS[4:8]]]
    missing = [process.missing(4) for process in processes(tmp_path, 2)]
    assert sorted(missing[0] + missing[1]) == IDS


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_killed_run_goes_on(processes, tmp_path, before, after):
    for process in processes(tmp_path, before):
        predict(process, batches=1)
        with open(process._file, "ab") as file:
            file.write(b'{"id": "utterance9", "text": "UTT')
    done = IDS[: 2 * before]
    run = processes(tmp_path, after)
    assert sorted(sum((p.missing() for p in run), [])) == IDS[len(done) :]
    for process in run:
        predict(process)
    assert list(run[0].gather()) == IDS
    assert len(lines(tmp_path)) == len(IDS)


def test_what_is_complete_is_not_predicted_again(processes, tmp_path):
    for _ in range(2):
        [process] = processes(tmp_path, 1)
        predict(process)
        process.gather()
        [process] = processes(tmp_path, 1)
        assert process.missing() == []


def test_an_item_is_counted_once(processes, tmp_path):
    """Killed between joining the files and removing them."""
    [process] = processes(tmp_path, 1)
    predict(process)
    parts = process._file.read_bytes()
    process.gather()
    process._file.write_bytes(parts)
    [process] = processes(tmp_path, 1)
    process.gather()
    assert len(lines(tmp_path)) == len(IDS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SETTINGS | {"shots": 3}, r"another shots \(10, now 3\)"),
        (SETTINGS | {"shot_ids": ["a"]}, "another shot_ids"),
        (SETTINGS | {"new": 1}, r"another new \(None, now 1\)"),
        ({"shots": 10, "shot_ids": ["a", "b"]}, "another seed"),
    ],
)
def test_other_settings(processes, tmp_path, settings, message):
    [process] = processes(tmp_path, 1)
    predict(process, batches=1)
    before = (tmp_path / "settings.json").read_text()
    with pytest.raises(PredictionsError, match=message + ".*output_folder"):
        processes(tmp_path, 1, settings)
    assert (tmp_path / "settings.json").read_text() == before


def test_settings_without_predictions_do_not_bind(processes, tmp_path):
    processes(tmp_path, 1)
    processes(tmp_path, 1, {"shots": 3})
    assert json.loads((tmp_path / "settings.json").read_text()) == {"shots": 3}


def test_predictions_of_nobody_knows_what(processes, tmp_path):
    (tmp_path / "predictions.jsonl").write_text('{"id": "utterance0"}\n')
    with pytest.raises(PredictionsError, match="another seed"):
        processes(tmp_path, 1)


@pytest.mark.parametrize("line", [b'{"id": "utt', b"[]", b'{"text": ""}'])
def test_damaged_line(processes, tmp_path, line):
    [process] = processes(tmp_path, 1)
    predict(process, batches=1)
    with open(process._file, "ab") as file:
        file.write(line + b"\n")
    with pytest.raises(PredictionsError, match="line 3 of .*delete the file"):
        processes(tmp_path, 1)


def test_not_all_predicted(processes, tmp_path):
    [process] = processes(tmp_path, 1)
    predict(process, batches=4)
    with pytest.raises(PredictionsError, match="2 of 10 .*utterance8"):
        process.gather()


def test_batch_size(processes, tmp_path):
    [process] = processes(tmp_path, 1)
    with pytest.raises(ValueError, match="batch_size.*0"):
        list(process.batches(0))


@pytest.fixture
def corpus(recording, tmp_path):
    """A manifest of one recording under many names."""
    items = {
        f"u{i}": {
            "wav": str(recording),
            "duration": 2.4,
            "text": "boats",
            "intent": ["go", "stay", None][i % 3],
        }
        for i in range(12)
    }
    write_manifest(items, tmp_path / "train.json")
    return {
        "manifest_folder": tmp_path,
        "split": "train",
        "utterances": 3,
        "shots": 4,
        "draws": 1,
        "shot_ids": None,
        "shot_split": "train",
        "longest_shot": None,
        "seed": 1,
        "model": None,
        "release": None,
    }


def test_items_and_shots(corpus):
    items = evaluation.load_items(corpus, ["text"])
    assert list(items) == ["u0", "u4", "u8"]
    [shots] = draws.load_draws(corpus, items, "intent", balanced=True)
    assert not set(shots) & set(items)
    assert (
        sorted(s["intent"] for s in shots.values())
        == ["go", "go"] + ["stay"] * 2
    )
    named = corpus | {"shot_ids": ["u3", "u1"], "draws": 3}
    assert [[*draw] for draw in draws.load_draws(named, items)] == [
        ["u3", "u1"]
    ]
    nothing = corpus | {"shots": 0, "draws": 3}
    assert draws.load_draws(nothing, items) == [{}]


def test_a_draw_is_the_same_whatever_their_number(corpus):
    items = evaluation.load_items(corpus)
    drawn = [
        [list(d) for d in draws.load_draws(corpus | {"draws": n}, items)]
        for n in (1, 2, 5)
    ]
    assert drawn[0] == drawn[2][:1] and drawn[1] == drawn[2][:2]
    assert len({tuple(shots) for shots in drawn[2]}) == 5
    seeds = [
        {(q.draw, q.item): q.seed for q in asked.values()}
        for asked in (draws.questions_of(1, items, n) for n in (1, 3))
    ]
    assert seeds[0].items() <= seeds[1].items()
    assert len(set(seeds[1].values())) == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"utterances": 0}, "at least 1 utterance"),
        ({"shots": 30}, "cannot draw 30 shots from 9"),
        ({"longest_shot": 1.0}, "cannot draw 4 shots from 0"),
        ({"draws": 0}, "draws should be 1 or more, got 0"),
        ({"shot_ids": ["u9", "nobody"]}, "no utterance 'nobody'"),
        ({"shot_ids": ["u0"]}, "no utterance 'u0' .* not tested"),
    ],
)
def test_items_and_shots_that_are_not_there(corpus, changes, message):
    hparams = corpus | changes
    with pytest.raises(ValueError, match=message):
        draws.load_draws(hparams, evaluation.load_items(hparams))


def test_unknown_split(corpus):
    with pytest.raises(FileNotFoundError, match="no such manifest.*dev;"):
        evaluation.load_items(corpus | {"split": "dev"})


@pytest.mark.parametrize("names", [(None, None), ("a", "b")])
def test_one_model_is_named(corpus, names):
    hparams = corpus | dict(zip(("model", "release"), names))
    with pytest.raises(ValueError, match="name one model"):
        evaluation.load_model(hparams, None)


def test_report(tmp_path, capsys):
    table = reports.markdown_table(["", "WER"], [["a|b\nc", 1.25]])
    reports.write_report(tmp_path, {"WER": 1.25}, "# Title", table)
    assert json.loads((tmp_path / "summary.json").read_text()) == {"WER": 1.25}
    report = (tmp_path / "report.md").read_text()
    assert "| a\\|b c | 1.2 |" in report
    assert report in capsys.readouterr().out


def test_settings_are_no_figures():
    settings = {"top_p": 0.95, "lr": 1e-05, "draws": 3, "context": None}
    section = reports.settings_section(settings | {"trained": False})
    assert section.startswith("## Settings\n")
    for line in (
        "| top_p | 0.95 |",
        "| lr | 1e-05 |",
        "| draws | 3 |",
        "| context |  |",
        "| trained | False |",
    ):
        assert line in section


def test_a_spread_takes_two_draws_at_least():
    drawn = [{"a": {}}, {"b": {}}, {"c": {}}]
    rates = [{"WER": 1.0, "CER": None}, {"WER": 3.0, "CER": None}]
    assert draws.over_draws(drawn[:1], rates[:1])["WER_std"] is None
    found = draws.over_draws(drawn[:2], rates)
    assert found["WER_std"] == pytest.approx(2**0.5)
    assert found["CER_std"] is None


def test_who_answers_is_made_if_there_is_anything_to_ask(tmp_path):
    hparams = {"output_folder": str(tmp_path), "batch_size": 4}
    made, asked = [], []

    def make():
        made.append(True)

        def answer(names):
            asked.append(names)
            return [{"id": name} for name in names]

        return answer

    for _ in range(2):
        rows = evaluation.predict(hparams, SETTINGS, IDS, make)
        assert list(rows) == IDS
    assert made == [True]
    assert asked == [IDS[:4], IDS[4:8], IDS[8:]]


def ask_jointly(folder, ids, fail_after=None):
    """Return what is asked together, and the rows, of two ids a batch."""
    hparams, asked = {"output_folder": str(folder), "batch_size": 2}, []

    def answer(names):
        if len(asked) == fail_after:
            raise KeyboardInterrupt
        asked.append(names)
        return [{"id": name, "text": name.upper()} for name in names]

    rows = None
    with contextlib.suppress(KeyboardInterrupt):
        rows = evaluation.predict(
            hparams, SETTINGS, ids, lambda: answer, joined=True
        )
    return asked, rows


def test_batches_are_joined(tmp_path):
    ids = [f"utterance{i}" for i in range(40)]
    asked, rows = ask_jointly(tmp_path, ids, fail_after=1)
    assert asked == [ids[:16]] and rows is None
    asked, rows = ask_jointly(tmp_path, ids)  # what was answered is kept
    assert asked == [ids[16:32], ids[32:]]
    assert [row["text"] for row in rows.values()] == [i.upper() for i in ids]


def test_what_decides_about_answers(monkeypatch):
    monkeypatch.setattr(evaluation, "digest_weights", lambda mods: mods)
    lm = type("LM", (), {"mods": "weights"})
    hparams = {"seed": 1, "output_folder": "a", "batch_size": 2}
    options, item = {"precision": "fp32"}, {"text": "boats"}
    made = [
        evaluation.settings_of(hparams, options, lm, {"u": item | {"wav": w}})
        for w in ("here.wav", "there.wav")
    ]
    assert made[0] == made[1]
    assert made[0] == {
        "seed": 1,
        "precision": "fp32",
        "weights": "weights",
        "utterances_digest": made[0]["utterances_digest"],
    }
    other = evaluation.settings_of(hparams, options, lm, {"v": item})
    assert other["utterances_digest"] != made[0]["utterances_digest"]


@pytest.mark.parametrize(
    "script",
    sorted(RECIPES.rglob("evaluate.py")),
    ids=lambda path: str(path.parent.relative_to(RECIPES)),
)
def test_configurations_are_what_the_scripts_read(script):
    spec = importlib.util.spec_from_file_location("evaluate", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    [schema] = [v for k, v in vars(module).items() if k.endswith("Settings")]
    path = script.parent / "hparams" / "evaluate.yaml"
    text = path.read_text().replace("!PLACEHOLDER", "!PLACEHOLDER here")
    nodes = yaml.compose(text).value
    given = {k.value: "x" for k, v in nodes if v.tag == "!PLACEHOLDER"}
    assert given
    assert check_configuration(path, given, schema)["seed"] == 1986


def test_a_summary_is_json_whatever_its_figures(tmp_path):
    summary = {"rates": [1.5, float("nan")], "best": {"mos": float("inf")}}
    reports.write_report(tmp_path, summary, "# Report")
    text = (tmp_path / "summary.json").read_text()
    assert json.loads(text) == {"rates": [1.5, None], "best": {"mos": None}}
