"""The tables of Spirit LM's paper, and measured figures beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from spiritlm_plugin.evaluation.reports import markdown_table

# What an evaluation has written into its summary.json.
Summary = Mapping[str, Any]
# By the name of an evaluation what it wrote.
Summaries = Mapping[str, Summary]


class Column(NamedTuple):
    """A column of a table.

    Arguments
    ---------
    name : str
        Its title.
    evaluation : str
        Whose figure it is.
    path : tuple of str
        Where the figure stands in the summary.
    interval : tuple of str
        Where its 95% interval stands.
    scale : float
        What the figure of the summary is multiplied by.
    digits : int
        Behind the point.
    """

    name: str
    evaluation: str
    path: tuple[str, ...]
    interval: tuple[str, ...] = ()
    scale: float = 1.0
    digits: int = 1


class Table(NamedTuple):
    """A table of the paper.

    Arguments
    ---------
    title : str
        What it is about.
    columns : sequence of Column
        In order.
    rows : dict
        By the name of a system the published figures, None where there is none.
    remark : str
        What a reader has to know to compare.
    """

    title: str
    columns: Sequence[Column]
    rows: Mapping[str, Sequence[float | None]]
    remark: str = ""


def _rate(name: str, evaluation: str, key: str) -> Column:
    return Column(name, evaluation, (key,), (f"{key}_interval",))


def _likelihood(
    name: str, evaluation: str, task: str, modality: str = "S"
) -> Column:
    """Return the column of a task that is scored per token."""
    place = ("accuracy", task, modality)
    return Column(
        name,
        evaluation,
        (*place, "per_token"),
        (*place, "per_token_interval"),
    )


def _sentiment(name: str, direction: str) -> Column:
    place = ("directions", direction, "0")
    return Column(
        name,
        "STSP",
        (*place, "accuracy", "all", "mean"),
        (*place, "interval", "all"),
        0.01,
        2,
    )


def _salmon(part: str) -> Column:
    place = ("by", "SALMon", "part", part, "S")
    return Column(
        part.replace("_", " "),
        "SALMon",
        (*place, "per_token"),
        (*place, "per_token_interval"),
    )


# Sources: Nguyen et al., "SpiRit-LM: Interleaved Spoken and Written Language
# Model", TACL 2025; SALMon's of the leaderboard of Maimon et al., 2024.
TABLES = (
    Table(
        "Few-shot tasks",
        (
            _rate("ASR WER, clean", "ASR, test-clean", "WER"),
            _rate("ASR WER, other", "ASR, test-other", "WER"),
            _rate("TTS CER, clean", "TTS, test-clean", "CER"),
            _rate("TTS CER, other", "TTS, test-other", "CER"),
            _rate("IC", "IC", "accuracy"),
        ),
        {
            "Base": (21.9, 29.2, 45.5, 43.8, 71.9),
            "Base + ASR + TTS": (6.0, 11.0, 6.7, 7.9, 75.8),
            "Expressive": (37.9, 50.0, 52.0, 53.6, 66.2),
            "cascade (Whisper, Llama 2, MMS)": (3.7, 7.2, 4.0, 4.9, 89.6),
        },
        "WER and CER: less is better. Which shots the paper drew is not known; "
        "here they are drawn several times.",
    ),
    Table(
        "Sentiment preservation (STSP), 0-shot",
        (
            _sentiment("T→T", "t2t"),
            _sentiment("T→S", "t2s"),
            _sentiment("S→S", "s2s"),
            _sentiment("S→T", "s2t"),
        ),
        {
            "Base": (0.65, 0.33, 0.33, 0.34),
            "Expressive": (0.63, 0.38, 0.54, 0.36),
        },
    ),
    Table(
        "Comprehension",
        (
            _likelihood("sWUGGY", "ZeroSpeech", "sWUGGY"),
            Column(
                "sWUGGY, in vocabulary",
                "ZeroSpeech",
                (
                    *("by", "sWUGGY", "vocabulary", "in vocabulary", "S"),
                    "per_token",
                ),
                (
                    *("by", "sWUGGY", "vocabulary", "in vocabulary", "S"),
                    "per_token_interval",
                ),
            ),
            _likelihood("sBLIMP", "ZeroSpeech", "sBLIMP"),
            *(
                _likelihood(f"{task} {shown}", "StoryCloze", task, modality)
                for task in ("topic-StoryCloze", "StoryCloze")
                for modality, shown in (
                    ("S", "S"),
                    ("T2S", "T→S"),
                    ("S2T", "S→T"),
                )
            ),
        ),
        {
            "Base": (69.0, None, 58.3, 82.9, 72.7, 88.6, 61.0, 59.5, 64.6),
            "Base, no interleaving": (
                *(67.1, None, 57.2, 74.0, 57.5, 71.9, 60.1, 54.2, 56.4),
            ),
            "Expressive": (
                *(65.0, None, 54.2, 75.4, 61.6, 73.2, 56.9, 54.6, 58.8),
            ),
        },
        "By log-likelihood per token.",
    ),
    Table(
        "Consistency (SALMon)",
        (
            _salmon("sentiment_consistency"),
            _salmon("speaker_consistency"),
            _salmon("gender_consistency"),
            _salmon("bg_domain_consistency"),
            _salmon("bg_all_consistency"),
            _salmon("rir_consistency"),
            _salmon("sentiment_alignment"),
            _salmon("bg_alignment"),
        ),
        {
            "Base": (54.5, 69.5, 67.0, *[None] * 5),
            "Expressive": (73.5, 81.0, 85.0, *[None] * 5),
        },
        "Published figures are those of the benchmark's leaderboard.",
    ),
    Table(
        "Resynthesis",
        (
            Column("bits/s", "resynthesis", ("bits_per_second",), digits=0),
            _rate("WER", "resynthesis", "WER"),
            _rate("style accuracy", "resynthesis", "style_accuracy"),
            Column(
                "F0 frame error",
                "resynthesis",
                ("f0_frame_error",),
                ("f0_frame_error_interval",),
                digits=2,
            ),
        ),
        {
            "Base": (225, 23.4, 20.4, 0.40),
            "Expressive": (307, 23.2, 41.4, 0.16),
            "original audio": (None, 16.2, 65.2, None),
        },
        "WER and F0 frame error: less is better. Recognizer and judge of styles "
        "are not those of the paper.",
    ),
)


def find(summary: Summary | None, path: Sequence[str]) -> Any:
    """Return what stands at a place of a summary, None if nothing does.

    Example
    -------
    >>> find({"accuracy": {"IC": {"S": 50.0}}}, ("accuracy", "IC", "S"))
    50.0
    >>> find({"accuracy": {}}, ("accuracy", "IC", "S")) is None
    True
    """
    found: Any = summary
    for key in path:
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found


def _cell(column: Column, summaries: Summaries) -> str | None:
    summary = summaries.get(column.evaluation)
    value = find(summary, column.path)
    if value is None:
        return None
    shown = f"{column.scale * value:.{column.digits}f}"
    interval = find(summary, column.interval) if column.interval else None
    if not interval:
        return shown
    low, high = (f"{column.scale * end:.{column.digits}f}" for end in interval)
    return f"{shown} ({low} to {high})"


def comparison(table: Table, measured: Mapping[str, Summaries]) -> str | None:
    """Return a table with what was measured beside what was published.

    Arguments
    ---------
    table : Table
        Of the paper.
    measured : dict
        By the names of models, and of their evaluations, the summaries.

    Returns
    -------
    str or None
        Markdown: of each model a row of its own, with 95% intervals, before
        the published one of the same name; None if nothing was measured.

    Example
    -------
    >>> table = Table("IC", [_rate("IC", "IC", "accuracy")], {"Base": [71.9]})
    >>> summary = {"accuracy": 70.25, "accuracy_interval": [68, 72]}
    >>> print(comparison(table, {"Base": {"IC": summary}}))
    |  | IC |
    | --- | --- |
    | Base, measured | 70.2 (68.0 to 72.0) |
    | Base, published | 71.9 |
    """
    lines: list[list[str | None]] = []
    for model, summaries in measured.items():
        cells = [_cell(column, summaries) for column in table.columns]
        if any(cell is not None for cell in cells):
            lines.append([f"{model}, measured", *cells])
            lines += _published(table, [model])
    if not lines:
        return None
    others = [name for name in table.rows if name not in measured]
    lines += _published(table, others)
    header = ["", *(column.name for column in table.columns)]
    return markdown_table(header, lines)


def _published(
    table: Table, names: Sequence[str]
) -> Iterator[list[str | None]]:
    for name in names:
        if name in table.rows:
            cells = [
                None if value is None else f"{value:.{column.digits}f}"
                for column, value in zip(table.columns, table.rows[name])
            ]
            yield [f"{name}, published", *cells]
