"""Sentiment preservation: whether continuations have the prompts' sentiment.

Source: Nguyen et al., "SpiRit-LM", TACL 2025, the STSP benchmark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from spiritlm_plugin.dataio.corpus.stsp import SENTIMENTS, Record

Predicted = Mapping[str, str | None]


class PredictionFileError(ValueError):
    """Predictions that cannot be scored."""


def sentiment_accuracy(
    records: Sequence[Record], runs: Sequence[Predicted]
) -> dict[str, dict[str, float]]:
    """Return how many predictions are the prompts' sentiments, in percent.

    Arguments
    ---------
    records : sequence of Record
        The prompts.
    runs : sequence of dict
        Of each run the sentiment of each continuation, by the prompt's id;
        None, for one that is empty, is wrong.

    Returns
    -------
    dict
        ``mean`` and ``std`` (of a sample) over the runs, for each dataset,
        and for ``"all"``, the mean of the datasets.

    Raises
    ------
    ValueError
        If there are no records or no runs.
    PredictionFileError
        Naming the record that a run lacks, or does not know.

    Example
    -------
    >>> records = [Record("1", "emov", "positive", "a"),
    ...            Record("2", "emov", "neutral", "b")]
    >>> figures = sentiment_accuracy(
    ...     records, [{"1": "positive", "2": "negative"},
    ...               {"1": "positive", "2": "neutral"}]
    ... )
    >>> figures["emov"]["mean"], round(figures["all"]["std"], 1)
    (75.0, 35.4)
    """
    if not records or not runs:
        raise ValueError(
            f"{len(records)} records and {len(runs)} runs are nothing to "
            "score; give one of each at least"
        )
    columns: dict[str, list[float]] = {}
    for run in runs:
        check_predictions(records, run)
        accuracies = _by_dataset(records, run)
        accuracies["all"] = fmean(accuracies.values())
        for name, accuracy in accuracies.items():
            columns.setdefault(name, []).append(accuracy)
    return {
        name: {
            "mean": fmean(column),
            "std": stdev(column) if len(column) > 1 else 0.0,
        }
        for name, column in columns.items()
    }


def check_predictions(records: Sequence[Record], run: Predicted) -> None:
    """Raise PredictionFileError unless each record has its prediction."""
    ids = {record.id for record in records}
    for what, names in (
        ("lacks predictions of", ids - run.keys()),
        ("predicts records that are not tested,", run.keys() - ids),
    ):
        if names:
            raise PredictionFileError(
                f"a run {what} {len(names)} ids, such as {min(names)}; it "
                f"should have all {len(ids)} records, and no others"
            )
    for name, sentiment in run.items():
        if sentiment is not None and sentiment not in SENTIMENTS:
            raise PredictionFileError(
                f"the prediction {sentiment!r} of {name} is not one of "
                f"{', '.join(SENTIMENTS)}, or null where there is none"
            )


def read_predictions(path: str | Path) -> dict[str, str | None]:
    """Read predictions of the benchmark, ``{"id": ..., "pred": ...}`` a line.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PredictionFileError
        Naming the line that cannot be read, or the id that is there twice.

    Example
    -------
    >>> write_predictions(tmp / "s2t.jsonl", {"17": "neutral", "18": None})
    >>> read_predictions(tmp / "s2t.jsonl")
    {'17': 'neutral', '18': None}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file of predictions: {path}")
    found: dict[str, str | None] = {}
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, sentiment = str(row["id"]), row["pred"]
        except (ValueError, TypeError, KeyError) as error:
            raise PredictionFileError(
                f"cannot read line {number} of {path} ({error}); a line is "
                '{"id": 17, "pred": "neutral"}'
            ) from error
        if name in found:
            raise PredictionFileError(
                f"{path} predicts {name} twice, again in line {number}; "
                "remove one of the two"
            )
        found[name] = sentiment
    return found


def write_predictions(path: str | Path, predicted: Predicted) -> None:
    """Write predictions of the benchmark; see `read_predictions`."""
    lines = (
        json.dumps({"id": int(n) if n.isdecimal() else n, "pred": sentiment})
        for n, sentiment in predicted.items()
    )
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def most_common(records: Iterable[Record]) -> float:
    """Return the accuracy of who always says the best of the sentiments.

    Example
    -------
    >>> most_common([Record("1", "emov", "positive", "a")])
    100.0
    """
    records = list(records)
    constants = (
        fmean(_by_dataset(records, {r.id: s for r in records}).values())
        for s in SENTIMENTS
    )
    return max(constants)


def _by_dataset(records: Iterable[Record], run: Predicted) -> dict[str, float]:
    hits: dict[str, list[bool]] = {}
    for record in records:
        hit = run[record.id] == record.sentiment
        hits.setdefault(record.dataset, []).append(hit)
    return {name: 100 * fmean(column) for name, column in hits.items()}
