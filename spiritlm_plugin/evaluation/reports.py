"""Reports of evaluations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from spiritlm_plugin.utils.files import write_file

# What readers of rates have to know.
RATES = (
    "`95%`: interval by the bootstrap over speakers, or over utterances where "
    "the speakers are unknown or all the same. `± of draws`: standard deviation "
    "over draws of the shots, over which rates are means."
)
ERRORS = (
    "`WER`, `CER`: as the field counts, on words in lower case without "
    "punctuation but apostrophes within words; spaces count in `CER`. "
    "`WER_whisper`: after Whisper's normalization of English. "
    "`empty_references`: texts without words, which are not in the rate; "
    "`empty_insertions`: words that are heard of them; `_whisper`: after its "
    "normalization."
)


def percent(flags: Iterable[bool]) -> float:
    """Return how many of all are true.

    Example
    -------
    >>> percent([True, False])
    50.0
    """
    flags = list(flags)
    return 100 * sum(flags) / len(flags)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Return a table as Markdown; figures with one digit, None as nothing.

    Example
    -------
    >>> print(markdown_table(["", "WER"], [["base", 21.93], ["other", None]]))
    |  | WER |
    | --- | ---: |
    | base | 21.9 |
    | other |  |
    """
    rows = [list(row) for row in rows]
    columns = list(zip(*rows)) or [()] * len(header)
    lines = [
        list(header),
        ["---:" if _are_figures(c) else "---" for c in columns],
    ]
    lines += [[_cell(value) for value in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _are_figures(column: Sequence) -> bool:
    return all(isinstance(value, (int, float)) for value in column if value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def interval_cell(interval: Sequence[float] | None) -> str | None:
    """Return an interval as tables have it.

    Example
    -------
    >>> interval_cell((31.25, 52.0))
    '31.2 to 52.0'
    """
    return f"{interval[0]:.1f} to {interval[1]:.1f}" if interval else None


def figure_cell(
    value: float | None,
    interval: Sequence[float] | None = None,
    digits: int = 1,
) -> str | None:
    """Return a figure with its interval as tables have it, None of none.

    Example
    -------
    >>> figure_cell(21.93, [20.0, 23.5]), figure_cell(0.4, digits=2)
    ('21.9 (20.0 to 23.5)', '0.40')
    """
    if value is None:
        return None
    shown = f"{value:.{digits}f}"
    if not interval:
        return shown
    low, high = (f"{end:.{digits}f}" for end in interval)
    return f"{shown} ({low} to {high})"


def with_interval(
    figures: Mapping[str, Any], name: str, digits: int = 1
) -> str | None:
    """Return one of several figures with its interval, None where it lacks.

    Arguments
    ---------
    figures : dict
        With ``name`` and perhaps ``name_interval``.
    name : str
        Of the figure.
    digits : int
        Behind the point.

    Example
    -------
    >>> with_interval({"WER": 21.93, "WER_interval": [20.0, 23.5]}, "WER")
    '21.9 (20.0 to 23.5)'
    """
    return figure_cell(
        figures.get(name), figures.get(f"{name}_interval"), digits
    )


def rates_table(summary: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return rates as Markdown, each with what it varies by.

    Arguments
    ---------
    summary : dict
        With each rate, its ``_interval``, and its ``_std`` over draws.
    names : iterable of str
        Of the rates; those that are not in the summary are left out.

    Example
    -------
    >>> summary = {"WER": 21.93, "WER_interval": [20.0, 23.5], "WER_std": 0.5}
    >>> print(rates_table(summary, ["WER", "CER"]))
    |  | percent | 95% | ± of draws |
    | --- | ---: | --- | ---: |
    | WER | 21.9 | 20.0 to 23.5 | 0.5 |
    """
    rows = [
        [
            name,
            summary[name],
            interval_cell(summary[f"{name}_interval"]),
            summary.get(f"{name}_std"),
        ]
        for name in names
        if name in summary
    ]
    return markdown_table(["", "percent", "95%", "± of draws"], rows)


def settings_section(settings: Mapping[str, Any]) -> str:
    """Return what decides about figures as a section of a report.

    Arguments
    ---------
    settings : dict
        Plain values by the names of options.

    Example
    -------
    >>> print(settings_section({"top_p": 0.95, "shots": 10, "context": None}))
    ## Settings
    <BLANKLINE>
    |  |  |
    | --- | --- |
    | top_p | 0.95 |
    | shots | 10 |
    | context |  |
    """
    rows = [[name, _setting(value)] for name, value in settings.items()]
    return f"## Settings\n\n{markdown_table(['', ''], rows)}"


def _setting(value: Any) -> str | None:
    if isinstance(value, float):
        return f"{value:g}"
    return None if value is None else str(value)


def write_report(
    folder: str | Path, summary: Mapping[str, Any], *parts: str
) -> None:
    """Write ``summary.json`` and ``report.md``, and print the report.

    What is no number, such as a rate of nothing, is null in the summary.
    """
    folder = Path(folder)
    text = json.dumps(_finite(summary), indent=2, allow_nan=False)
    write_file(folder / "summary.json", text + "\n")
    report = "\n\n".join(parts) + "\n"
    write_file(folder / "report.md", report)
    print(report)


def _finite(value: Any) -> Any:
    """Return plain values, with None for numbers that JSON has not."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
