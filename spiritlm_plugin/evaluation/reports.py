"""Reports of evaluations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spiritlm_plugin.utils.files import write_file


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


def write_report(
    folder: str | Path, summary: Mapping[str, Any], *parts: str
) -> None:
    """Write ``summary.json`` and ``report.md``, and print the report."""
    folder = Path(folder)
    write_file(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    report = "\n\n".join(parts) + "\n"
    write_file(folder / "report.md", report)
    print(report)
