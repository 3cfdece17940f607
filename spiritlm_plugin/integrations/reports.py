"""What evaluations have written, as a model card tells it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spiritlm_plugin.utils.files import read_json, read_text

# Parts of a summary that are no figures, or more than a card has room for.
_LEFT_OUT = {"settings", "draws", "by"}


@dataclass(frozen=True)
class Figure:
    """A figure of an evaluation.

    Arguments
    ---------
    name : str
        Such as ``WER``, or ``StoryCloze, S, per_token``.
    value : float
        As it was written: rates are percent.
    spread : str
        The interval of 95%, ``± `` and the standard deviation, or nothing.
    """

    name: str
    value: float
    spread: str = ""


@dataclass(frozen=True)
class Report:
    """An evaluation.

    Arguments
    ---------
    name : str
        Of what was evaluated on.
    title : str
        As ``report.md`` has it.
    split : str
        Of the data; empty where it is not known.
    figures : list of Figure
        At least one.
    settings : dict
        Plain values, no paths.
    """

    name: str
    title: str
    split: str
    figures: list[Figure]
    settings: dict[str, Any]


def read_report(named: str) -> Report:
    """Read what an evaluation has written.

    Arguments
    ---------
    named : str
        Its output folder, or ``NAME=FOLDER``: by default the name is that of
        the folder.

    Raises
    ------
    FileNotFoundError
        If it has no ``summary.json``.
    ValueError
        If that is damaged, or holds no figures with an interval or a deviation.

    Example
    -------
    >>> _ = (tmp / "summary.json").write_text(
    ...     '{"split": "test", "WER": 2.61, "WER_interval": [1.88, 3.75]}'
    ... )
    >>> read_report(f"TinySpeech={tmp}").figures
    [Figure(name='WER', value=2.61, spread='1.88 to 3.75')]
    """
    name, equals, folder = named.partition("=")
    if not equals or Path(named).is_dir():
        name, folder = Path(named).resolve().name, named
    path = Path(folder)
    if not (path / "summary.json").is_file():
        raise FileNotFoundError(
            f"no summary.json in {path}; name the output folder of an "
            "evaluation, or NAME=FOLDER"
        )
    summary = read_json(path / "summary.json", "evaluate again")
    figures = list(_figures(summary))
    if not figures:
        raise ValueError(
            f"{path / 'summary.json'} has no figures with intervals; name the "
            "output folder of an evaluation"
        )
    settings = summary.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    return Report(
        name,
        _title(path / "report.md"),
        str(summary.get("split", settings.get("split", ""))),
        figures,
        {key: value for key, value in settings.items() if _is_plain(value)},
    )


def _title(path: Path) -> str:
    if not path.is_file():
        return ""
    return read_text(path).partition("\n")[0].removeprefix("#").strip()


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return not set("/\\") & set(value)
    return isinstance(value, (int, float))


def _figures(values: Mapping[str, Any], within: str = "") -> Iterator[Figure]:
    for key, value in values.items():
        if key in _LEFT_OUT:
            continue
        name = f"{within}, {key}" if within else key
        if isinstance(value, Mapping):
            if _are_numbers(value.get("mean"), value.get("std")):
                spread = f"± {shown(value['std'])}"
                yield Figure(name, value["mean"], spread)
            yield from _figures(value, name)
        elif _are_numbers(value) and f"{key}_interval" in values:
            interval = values[f"{key}_interval"]
            is_one = isinstance(interval, list) and len(interval) == 2
            spread = ""
            if is_one and _are_numbers(*interval):
                spread = f"{shown(interval[0])} to {shown(interval[1])}"
            yield Figure(name, value, spread)


def _are_numbers(*values: Any) -> bool:
    return all(type(value) in (int, float) for value in values)


def shown(value: float) -> str:
    """Return a figure as a card shows it.

    Example
    -------
    >>> shown(28.851), shown(0.4666), shown(100)
    ('28.9', '0.47', '100')
    """
    if isinstance(value, int):
        return str(value)
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
