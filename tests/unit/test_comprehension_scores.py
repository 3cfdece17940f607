"""Figures of comprehension, held against the official scorers' rules.

Trees are laid out as the benchmarks are, prepared and scored at random; what is
expected is found anew from the tables and names of files of these trees.
"""

import csv
import importlib.util
import json
import logging
import random
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spiritlm_plugin.dataio.corpus.manifests import (
    ManifestError,
    load_manifest,
)
from spiritlm_plugin.evaluation import comprehension, comprehension_groups

RECIPES = Path(__file__).parents[2] / "recipes"
VOICES = ("en-A", "en-B", "en-C", "en-D")
SCORES = ("sum", "per_token")


def prepare(corpus, function, *arguments):
    path = RECIPES / corpus / "comprehension" / f"{corpus.lower()}_prepare.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    getattr(module, function)(*arguments)


def record(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.sin(np.arange(2000) / 9) / 5, 16000)


def score(files, seed):
    """Return of each file a log-likelihood and a number of tokens."""
    draw = random.Random(seed)
    # Few values, so that there are ties.
    return {f: (-draw.randint(1, 4) * 6.0, draw.choice((2, 3))) for f in files}


def settings(folder, split, tasks, **more):
    return {
        "manifest_folder": str(folder),
        "output_folder": str(folder / "out"),
        "split": split,
        "tasks": tasks,
        "modalities": ["S"],
        "groups": None,
        "model": "some",
        "release": None,
        **more,
    }


def predicted(groups, scores):
    """Return rows as `Scorer` does."""
    rows = {}
    for name, variants in groups.items():
        found = [
            {
                "utterance": utterance,
                "variant": item["variant"],
                "modality": "S",
                "sum": scores[Path(item["wav"]).relative_to(scores["root"])][0],
                "tokens": scores[Path(item["wav"]).relative_to(scores["root"])][
                    1
                ],
                "dropped": 0,
            }
            for utterance, item in variants.items()
        ]
        rows[name] = {"id": name, "scores": found}
    return rows


def wins(right, wrong, kind):
    """Return what a comparison counts."""
    a, b = ((s / n if kind == "per_token" else s) for s, n in (right, wrong))
    return Fraction(1) if a > b else Fraction(int(a == b), 2)


def mean(values):
    values = list(values)
    return sum(values, Fraction(0)) / len(values)


def percent(value):
    return 100 * float(value)


def evaluated(hparams, scores):
    """Return the summary of a report, and the report."""
    comprehension_groups.check(hparams)
    groups = comprehension_groups.load_groups(hparams)
    Path(hparams["output_folder"]).mkdir(exist_ok=True)
    comprehension.report(hparams, predicted(groups, scores), groups)
    output = Path(hparams["output_folder"])
    summary = json.loads((output / "summary.json").read_text())
    return summary, (output / "report.md").read_text()


def by_items(rows, columns, scores, kind):
    """Return the mean over the voices of each item of a gold.csv."""
    sides = {}
    for row in rows:
        key = tuple(row[c] for c in columns), row["voice"]
        sides.setdefault(key, {})[row["correct"]] = scores[row["path"]]
    voices = defaultdict(list)
    for (item, _), pair in sides.items():
        voices[item].append(wins(pair["1"], pair["0"], kind))
    return {item: mean(found) for item, found in voices.items()}


def write_gold(folder, rows):
    columns = [c for c in rows[0] if c != "path"]
    with open(folder / "gold.csv", "w", newline="") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)


@pytest.fixture(scope="module")
def syntactic(tmp_path_factory):
    """3 subtypes x 3 ids x 4 voices, ids unique in a subtype only."""
    root = tmp_path_factory.mktemp("sblimp")
    folder, rows = root / "syntactic" / "dev", []
    subtypes = [("agr", "noun"), ("agr", "verb"), ("anaphor", "noun")]
    for kind, subtype in subtypes:
        for number in (-1, 1, 2):
            for voice in VOICES:
                for correct in "10":
                    name = f"f{len(rows)}"
                    record(folder / f"{name}.wav")
                    rows.append(
                        {
                            "id": str(number),
                            "filename": name,
                            "voice": voice,
                            "type": kind,
                            "subtype": subtype,
                            "transcription": "dogs eat",
                            "correct": correct,
                            "path": Path(f"syntactic/dev/{name}.wav"),
                        }
                    )
    random.Random(0).shuffle(rows)
    write_gold(folder, rows)
    prepare("ZeroSpeech", "prepare_zerospeech", root, root)
    return root, rows


SBLIMP = {"manifest": "syntactic", "wrong": "incorrect", "by": ["type"]}


@pytest.mark.parametrize("seed", range(3))
def test_sblimp(syntactic, seed):
    root, rows = syntactic
    scores = score([row["path"] for row in rows], seed) | {"root": root}
    summary, report = evaluated(
        settings(root, "valid", {"sBLIMP": SBLIMP}), scores
    )
    cell = summary["accuracy"]["sBLIMP"]["S"]
    assert (cell["groups"], cell["items"]) == (36, 9)
    for kind in SCORES:
        items = by_items(rows, ("type", "subtype", "id"), scores, kind)
        assert cell[kind] == percent(mean(items.values()))
        low, high = cell[f"{kind}_interval"]
        assert low <= cell[kind] <= high and low < high
        for value, count in (("agr", 24), ("anaphor", 12)):
            found = summary["by"]["sBLIMP"]["type"][value]["S"]
            expected = mean(x for key, x in items.items() if key[0] == value)
            assert found[kind] == percent(expected)
            assert found["groups"] == count
    assert "| sBLIMP | 36 | 50.0 |" in report
    assert "| sBLIMP | type | anaphor | 12 | 50.0 |" in report
    assert summary["published_score"] == "per_token"


def test_voices_do_not_weigh_more_than_items(syntactic, tmp_path):
    """Where an item lacks a voice, it still counts as one item."""
    root, rows = syntactic
    items = load_manifest(root / "valid_syntactic")
    kept = [
        row
        for row in rows
        if (row["type"], row["subtype"], row["id"]) != ("agr", "noun", "1")
        or row["voice"] == VOICES[0]
    ]
    names = {row["filename"] for row in kept}
    (tmp_path / "valid_syntactic.json").write_text(
        json.dumps({n: i for n, i in items.items() if n in names})
    )
    scores = score([row["path"] for row in rows], 5) | {"root": root}
    summary, _ = evaluated(
        settings(tmp_path, "valid", {"sBLIMP": SBLIMP}), scores
    )
    cell = summary["accuracy"]["sBLIMP"]["S"]
    assert (cell["groups"], cell["items"]) == (33, 9)
    expected = by_items(kept, ("type", "subtype", "id"), scores, "per_token")
    assert cell["per_token"] == percent(mean(expected.values()))


@pytest.mark.parametrize("seed", range(3))
def test_swuggy(tmp_path, seed):
    """All, in vocabulary, OOV, and by frequency and length."""
    folder, rows = tmp_path / "lexical" / "dev", []
    frequencies = {"-7": 0, "1": 1, "2": 4, "3": 5, "4": 120, "5": 0}
    for name, frequency in frequencies.items():
        for voice in VOICES:
            for correct in "10":
                rows.append(
                    {
                        "id": name,
                        "filename": f"f{len(rows)}",
                        "voice": voice,
                        # Of a non-word it says nothing.
                        "frequency": frequency if correct == "1" else 0,
                        "word": "abduct",
                        "phones": "AE B",
                        "length": 3 + int(name) % 2,
                        "correct": correct,
                        "path": Path(f"lexical/dev/f{len(rows)}.wav"),
                    }
                )
                record(tmp_path / rows[-1]["path"])
    random.Random(1).shuffle(rows)
    write_gold(folder, rows)
    prepare("ZeroSpeech", "prepare_zerospeech", tmp_path, tmp_path)
    scores = score([row["path"] for row in rows], seed) | {"root": tmp_path}
    columns = ["vocabulary", "frequency_band", "length"]
    task = {"manifest": "lexical", "wrong": "incorrect", "by": columns}
    summary, report = evaluated(
        settings(tmp_path, "valid", {"sWUGGY": task}), scores
    )
    found = summary["by"]["sWUGGY"]
    parts = {
        ("vocabulary", "in vocabulary"): ("1", "2", "3", "4"),
        ("vocabulary", "OOV"): ("-7", "5"),
        ("frequency_band", "OOV"): ("-7", "5"),
        ("frequency_band", "1 to 4"): ("1", "2"),
        ("frequency_band", "5 to 19"): ("3",),
        ("frequency_band", "100 and more"): ("4",),
        ("length", "3"): ("2", "4"),
        ("length", "4"): ("-7", "1", "3", "5"),
    }
    assert {(c, v) for c in found for v in found[c]} == set(parts)
    bands = ["OOV", "1 to 4", "5 to 19", "100 and more"]
    assert list(found["frequency_band"]) == bands
    for kind in SCORES:
        items = by_items(rows, ("id",), scores, kind)
        cell = summary["accuracy"]["sWUGGY"]["S"]
        assert cell[kind] == percent(mean(items.values()))
        for (column, value), names in parts.items():
            expected = percent(mean(items[(name,)] for name in names))
            assert found[column][value]["S"][kind] == expected
    assert "| sWUGGY | vocabulary | in vocabulary | 16 | 50.0 |" in report


@pytest.mark.parametrize("seed", range(3))
def test_storycloze(tmp_path, seed):
    files = []
    for number, story in enumerate(("17", "3", "a_17", "-4", "x-1")):
        for k, ending in enumerate(("correct", "incorrect")):
            files.append(Path(f"sSC/{2 * number + k}_{story}_{ending}.wav"))
            record(tmp_path / files[-1])
    prepare("StoryCloze", "prepare_storycloze", tmp_path, tmp_path)
    scores = score(files, seed) | {"root": tmp_path}
    task = {"manifest": "storycloze", "wrong": "incorrect"}
    summary, report = evaluated(
        settings(tmp_path, "test", {"StoryCloze": task}, scored="story"), scores
    )
    cell = summary["accuracy"]["StoryCloze"]["S"]
    assert cell["groups"] == 5
    for kind in SCORES:
        # Neighbours in the order of the files' numbers.
        found = [
            wins(scores[files[i]], scores[files[i + 1]], kind)
            for i in range(0, len(files), 2)
        ]
        assert cell[kind] == percent(mean(found))
    assert "In S and T the whole story is scored." in report
    assert summary["settings"]["scored"] == "story"


@pytest.mark.parametrize("seed", range(3))
def test_salmon(tmp_path, seed):
    counts = {"gender_consistency": 4, "bg_alignment": 3, "extra": 1}
    files = [
        Path(part) / f"sample_{i}_{name}.wav"
        for part, count in counts.items()
        for i in range(count)
        for name in ("0", "1")
    ]
    for file in files:
        record(tmp_path / file)
    prepare("SALMon", "prepare_salmon", tmp_path, tmp_path)
    scores = score(files, seed) | {"root": tmp_path}
    task = {"manifest": "salmon", "wrong": "incorrect", "average": "part"}
    summary, report = evaluated(
        settings(tmp_path, "test", {"SALMon": task}), scores
    )
    found = summary["by"]["SALMon"]["part"]
    assert {part: cell["S"]["groups"] for part, cell in found.items()} == counts
    for kind in SCORES:
        means = {}
        for part in counts:
            own = sorted(file for file in files if file.parent.name == part)
            pairs = zip(own[::2], own[1::2])
            means[part] = mean(
                wins(scores[a], scores[b], kind) for a, b in pairs
            )
            assert found[part]["S"][kind] == percent(means[part])
        cell = summary["accuracy"]["SALMon"]["S"]
        assert cell[kind] == pytest.approx(percent(mean(means.values())), 1e-14)
        low, high = cell[f"{kind}_interval"]
        assert low <= cell[kind] <= high
    assert "SALMon is the mean over the values of part." in report
    assert "| SALMon | part | bg_alignment | 3 | 50.0 |" in report


def test_stories_by_several_speakers_are_drawn_together(tmp_path):
    """A story that speakers share does not count as several."""
    files = [
        Path(speaker) / f"{story}_{what}.wav"
        for speaker in ("ann", "bob", "eve")
        for story in "1"
        for what in ("mutual", "correct", "incorrect")
    ]
    for file in files:
        record(tmp_path / file)
    prepare("StoryCloze", "prepare_storycloze", tmp_path, tmp_path)
    scores = score(files, 0) | {"root": tmp_path}
    task = {"manifest": "storycloze", "wrong": "incorrect"}
    summary, _ = evaluated(settings(tmp_path, "test", {"all": task}), scores)
    cell = summary["accuracy"]["all"]["S"]
    assert cell["groups"] == 3
    # Of one story no interval can be told.
    assert cell["sum_interval"] is None


def test_columns_that_are_missing(syntactic, tmp_path, caplog):
    root, rows = syntactic
    scores = score([row["path"] for row in rows], 0) | {"root": root}
    by = {**SBLIMP, "by": ["length"]}
    hparams = settings(root, "valid", {"sBLIMP": by})
    hparams["output_folder"] = str(tmp_path)
    with caplog.at_level(logging.WARNING):
        summary, _ = evaluated(hparams, scores)
    assert summary["by"] == {} and "sBLIMP is not told by length" in caplog.text
    hparams["tasks"] = {"sBLIMP": {**SBLIMP, "average": "length"}}
    with pytest.raises(ManifestError, match="averaged over length, but not"):
        evaluated(hparams, scores)


def test_pairs_of_one_side_are_reported(syntactic, tmp_path, caplog):
    root, _ = syntactic
    items = load_manifest(root / "valid_syntactic")
    del items["f0"]
    (tmp_path / "valid_syntactic.json").write_text(json.dumps(items))
    with caplog.at_level(logging.WARNING):
        groups = comprehension_groups.load_groups(
            settings(tmp_path, "valid", {"sBLIMP": SBLIMP})
        )
    assert len(groups) == 35
    assert "1 of 36 stories or pairs are left out: they lack" in caplog.text


def test_parts_are_no_chance(tmp_path):
    """The mean over parts varies by what is in them, not by their choice."""
    scores = {"root": tmp_path}
    for part, right in (("gender_consistency", -1.0), ("bg_alignment", -3.0)):
        for i in range(10):
            for name, value in (("0", right), ("1", -2.0)):
                file = Path(part) / f"sample_{i}_{name}.wav"
                record(tmp_path / file)
                scores[file] = (value, 1)
    prepare("SALMon", "prepare_salmon", tmp_path, tmp_path)
    task = {"manifest": "salmon", "wrong": "incorrect", "average": "part"}
    summary, _ = evaluated(settings(tmp_path, "test", {"SALMon": task}), scores)
    cell = summary["accuracy"]["SALMon"]["S"]
    assert cell["sum"] == 50 and cell["sum_interval"] == [50, 50]
