"""Sentiment preservation: whether continuations have the prompts' sentiment.

Source: Nguyen et al., "SpiRit-LM", TACL 2025, the STSP benchmark.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

from spiritlm_plugin.dataio.corpus.stsp import (
    SENTIMENT_OF,
    SENTIMENTS,
    Record,
    record_id,
    sentiment_of,
)
from spiritlm_plugin.metrics.intervals import ratio_interval
from spiritlm_plugin.utils.files import read_lines

Predicted = Mapping[str, str | None]

# Of the ids that the benchmark writes as numbers.
_INT64 = range(-(2**63), 2**63)


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
        None, for one that is empty, is wrong. A run may leave out prompts
        without words.

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


def sentiment_intervals(
    records: Sequence[Record], runs: Sequence[Predicted]
) -> dict[str, tuple[float, float] | None]:
    """Return the 95% intervals of `sentiment_accuracy`, in percent.

    They say how far it would vary with other prompts, those of a speaker drawn
    together where the record names one; see `ratio_interval`.

    Arguments
    ---------
    records, runs
        As of `sentiment_accuracy`.

    Returns
    -------
    dict
        Of each dataset and of ``"all"``; None where all is said by one speaker.

    Example
    -------
    >>> records = [Record(str(i), "emov", "neutral", "a") for i in range(99)]
    >>> run = {record.id: "neutral" for record in records}
    >>> sentiment_intervals(records, [run])["all"]
    (100.0, 100.0)
    """
    tested = [(r, [run[r.id] for run in runs if r.id in run]) for r in records]
    counts = Counter(r.dataset for r, found in tested for _ in found)
    # Of datasets together the mean: each prompt has its part of its dataset's.
    parts = {name: 1 / count for name, count in counts.items()}
    intervals = {}
    for name in [*counts, "all"]:
        chosen = [
            (r, found) for r, found in tested if name in (r.dataset, "all")
        ]
        interval = ratio_interval(
            [
                parts[r.dataset] * sum(s == r.sentiment for s in found)
                for r, found in chosen
                if found
            ],
            [parts[r.dataset] * len(found) for r, found in chosen if found],
            [r.speaker or ("", r.id) for r, found in chosen if found],
        )
        intervals[name] = interval and (100 * interval[0], 100 * interval[1])
    return intervals


def check_predictions(records: Sequence[Record], run: Predicted) -> None:
    """Raise PredictionFileError unless each record has its prediction.

    Those of records without words may be left out.
    """
    ids = {record.id for record in records}
    needed = {record.id for record in records if record.has_words}
    for what, names in (
        ("lacks predictions of", needed - run.keys()),
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
    r"""Read predictions of the benchmark, ``{"id": ..., "pred": ...}`` a line.

    A prediction is a sentiment, or an emotion, of which its sentiment is
    returned.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    PredictionFileError
        Naming the line that cannot be read, or the id that is there twice.

    Example
    -------
    >>> _ = (tmp / "s2t.jsonl").write_text(
    ...     '{"id": -17, "pred": "neutral"}\n{"id": "18", "pred": "sad"}'
    ... )
    >>> read_predictions(tmp / "s2t.jsonl")
    {'-17': 'neutral', '18': 'negative'}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file of predictions: {path}")
    try:
        lines = read_lines(path)
    except ValueError as error:
        raise PredictionFileError(str(error)) from error
    found: dict[str, str | None] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, sentiment = record_id(row["id"]), _predicted(row["pred"])
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


def _predicted(label: object) -> str | None:
    if label is None:
        return None
    sentiment = sentiment_of(label)
    if sentiment is None:
        raise ValueError(
            f"its pred {label!r} is no sentiment ({', '.join(SENTIMENTS)}) and "
            f"no emotion ({', '.join(SENTIMENT_OF)}), nor null"
        )
    return sentiment


def write_predictions(path: str | Path, predicted: Predicted) -> None:
    """Write predictions of the benchmark; see `read_predictions`.

    Ids are numbers, as the benchmark's are, or strings if one of them is none
    of 64 bits: libraries that read such files want one type.

    Example
    -------
    >>> write_predictions(tmp / "s2t.jsonl", {"-17": "neutral", "18": None})
    >>> print((tmp / "s2t.jsonl").read_text())
    {"id": -17, "pred": "neutral"}
    {"id": 18, "pred": null}
    <BLANKLINE>
    """
    numbers = all(map(_is_number, predicted))
    lines = (
        json.dumps({"id": int(name) if numbers else name, "pred": sentiment})
        for name, sentiment in predicted.items()
    )
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _is_number(name: str) -> bool:
    try:
        return int(name) in _INT64 and str(int(name)) == name
    except ValueError:
        return False


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
        if record.id in run:
            hit = run[record.id] == record.sentiment
            hits.setdefault(record.dataset, []).append(hit)
    return {name: 100 * fmean(column) for name, column in hits.items()}
