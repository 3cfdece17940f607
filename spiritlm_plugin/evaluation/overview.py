"""Several evaluations of several models, in one table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from spiritlm_plugin.dataio.corpus.stsp import DIRECTIONS
from spiritlm_plugin.evaluation.comprehension import PUBLISHED
from spiritlm_plugin.evaluation.comprehension_groups import MODALITIES
from spiritlm_plugin.evaluation.reports import (
    figure_cell,
    markdown_table,
    write_report,
)
from spiritlm_plugin.utils.configuration import Settings

# What an evaluation has written into its summary.json.
Summary = Mapping[str, Any]
# By a figure's name and a model's the points: shots, and the figure.
Curves = dict[str, dict[str, list[tuple[int, float]]]]


class OverviewSettings(Settings):
    """What an evaluation of everything reads; see `make_jobs`."""

    manifest_folder: str
    stsp_folder: str | None
    recognizer: str | None
    models: dict[str, dict[str, Any] | None]
    evaluations: dict[str, dict[str, Any] | None]


class Line(NamedTuple):
    """A figure, with what it is compared with."""

    name: str
    value: float | None
    interval: Sequence[float] | None = None  # of 95%
    chance: float | None = None
    ceiling: float | None = None  # of the original audio, or the prompts
    digits: int = 1


def asr_lines(summary: Summary) -> Iterator[Line]:
    """Yield the figures of speech recognition."""
    yield Line("WER ↓", summary["WER"], summary["WER_interval"])


def tts_lines(summary: Summary) -> Iterator[Line]:
    """Yield the figures of speech synthesis."""
    for rate in ("WER", "CER"):
        if rate in summary:
            yield Line(
                f"{rate} ↓",
                summary[rate],
                summary[f"{rate}_interval"],
                ceiling=summary[f"original_{rate}"],
            )
    yield Line("not stopped ↓", summary["not_stopped"])


def intent_lines(summary: Summary) -> Iterator[Line]:
    """Yield the figures of intent classification.

    Example
    -------
    >>> summary = {"accuracy": 62.5, "accuracy_interval": None, "chance": 25.0}
    >>> next(intent_lines(summary))[:4]
    ('accuracy', 62.5, None, 25.0)
    """
    yield Line(
        "accuracy",
        summary["accuracy"],
        summary["accuracy_interval"],
        summary["chance"],
    )


def comprehension_lines(summary: Summary) -> Iterator[Line]:
    """Yield the figures of comprehension, by the score of the paper's tables."""
    for task, modalities in summary["accuracy"].items():
        for modality, found in modalities.items():
            yield Line(
                f"{task} {MODALITIES[modality][0]}",
                found[PUBLISHED],
                found[f"{PUBLISHED}_interval"],
                summary["chance"],
            )


def sentiment_lines(summary: Summary) -> Iterator[Line]:
    """Yield the figures of sentiment preservation."""
    for direction, by_shots in summary["directions"].items():
        prompts = summary["prompts"][DIRECTIONS[direction].prompt]
        for shots, found in by_shots.items():
            yield Line(
                f"{DIRECTIONS[direction].name}, {shots} shots",
                found["accuracy"]["all"]["mean"],
                found["interval"]["all"],
                summary["chance"],
                prompts["accuracy"]["all"]["mean"],
            )


def vocoder_lines(summary: Summary) -> Iterator[Line]:
    """Yield the figures of resynthesis."""
    original, system, *_ = summary["systems"].values()
    for figure, name, digits in (
        ("WER", "WER ↓", 1),
        ("style_accuracy", "style accuracy", 1),
        ("f0_frame_error", "F0 frame error ↓", 2),
        ("bits_per_second", "bits/s", 1),
    ):
        if figure in system:
            yield Line(
                name,
                system[figure],
                system.get(f"{figure}_interval"),
                ceiling=original.get(figure),
                digits=digits,
            )


# By the folder of the recipe.
LINES = {
    "asr": asr_lines,
    "tts": tts_lines,
    "intent": intent_lines,
    "comprehension": comprehension_lines,
    "sentiment": sentiment_lines,
    "vocoder": vocoder_lines,
}


class Job(NamedTuple):
    """An evaluation of a model.

    Arguments
    ---------
    evaluation : str
        Its name in the table.
    shots : int or None
        Of those that it is run with.
    model : str
        Name of the model in the table.
    recipe : str
        Folder of the recipe.
    options : dict
        What overrides the recipe's YAML.

    Example
    -------
    >>> Job("ASR, prompted", 4, "Base", "asr", {}).folder.as_posix()
    'ASR_prompted_4_shots/Base'
    """

    evaluation: str
    shots: int | None
    model: str
    recipe: str
    options: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where its results are, below those of all."""
        shots = "" if self.shots is None else f"_{self.shots}_shots"
        name = self.evaluation.replace(",", "").replace(" ", "_")
        return Path(f"{name}{shots}") / self.model

    @property
    def title(self) -> str:
        """What its rows begin with."""
        shots = "" if self.shots is None else f", {self.shots} shots"
        return f"{self.evaluation}{shots}"


def make_jobs(
    models: Mapping[str, Mapping[str, Any] | None],
    evaluations: Mapping[str, Mapping[str, Any] | None],
) -> list[Job]:
    """Return what is to be run, in the order of the table.

    Arguments
    ---------
    models : dict
        By name the options that recipes load it by.
    evaluations : dict
        By name ``recipe``, ``options``, and ``shots``, numbers of them to run
        it with. None leaves a model or an evaluation out, as an override does.

    Raises
    ------
    ValueError
        If an evaluation names no recipe of an evaluation.

    Example
    -------
    >>> asr = {"recipe": "asr", "options": {"split": "test"}, "shots": [0, 2]}
    >>> jobs = make_jobs({"Base": {"model": "tinyspeech"}}, {"ASR": asr})
    >>> [job.title for job in jobs], jobs[1].options["shots"]
    (['ASR, 0 shots', 'ASR, 2 shots'], 2)
    """
    jobs = []
    for name, evaluation in evaluations.items():
        if not evaluation:
            continue
        recipe = evaluation["recipe"]
        if recipe not in LINES:
            raise ValueError(
                f"evaluation {name!r} names recipe {recipe!r}; there are "
                f"{', '.join(LINES)}"
            )
        for shots in evaluation.get("shots") or [None]:
            asked = {} if shots is None else {"shots": shots}
            jobs += [
                Job(
                    name,
                    shots,
                    model,
                    recipe,
                    {**evaluation["options"], **asked, **loaded_by},
                )
                for model, loaded_by in models.items()
                if loaded_by
            ]
    return jobs


def read_summary(folder: Path) -> Summary:
    """Return the figures that an evaluation has written."""
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def report(
    folder: str | Path,
    title: str,
    jobs: Sequence[Job],
    summaries: Iterable[Summary],
) -> None:
    """Write all figures into one table.

    Arguments
    ---------
    folder : str or Path
        For the report.
    title : str
        Of it.
    jobs : sequence of Job
        What was run.
    summaries : iterable of dict
        What each wrote.
    """
    folder = Path(folder)
    table: dict[tuple[str, str], dict[str, Line]] = {}
    curves: Curves = {}
    for job, summary in zip(jobs, summaries):
        for line in LINES[job.recipe](summary):
            row = table.setdefault((job.title, line.name), {})
            row[job.model] = line
            if job.shots is not None and line.value is not None:
                name = f"{job.evaluation} {line.name}"
                curve = curves.setdefault(name, {}).setdefault(job.model, [])
                curve.append((job.shots, line.value))
    models = list(dict.fromkeys(job.model for job in jobs))
    rows = []
    for (run, name), found in table.items():
        first = next(iter(found.values()))
        values = [_shown(found.get(model)) for model in models]
        rows.append([run, name, *values, first.chance, first.ceiling])
    figures = {
        f"{run}, {name}": {m: line._asdict() for m, line in found.items()}
        for (run, name), found in table.items()
    }
    draw_shots(curves, folder / "shots.png")
    write_report(
        folder,
        figures,
        f"# {title}",
        markdown_table(
            ["", "", *models, "chance", "original"],
            rows,
        ),
        "In brackets the 95% interval, as each evaluation's own report explains "
        "it. `original`: of the recordings or the prompts themselves. ↓: less "
        "is better. Comprehension is by log-likelihood per token.",
        "![by the number of shots](shots.png)",
    )


def _shown(line: Line | None) -> str | None:
    if line is None:
        return None
    return figure_cell(line.value, line.interval, line.digits)


def draw_shots(curves: Curves, path: Path) -> None:
    """Draw figures by the number of shots."""
    if not curves:
        return
    size = (4 * len(curves), 3.5)
    figure = Figure(figsize=size, layout="constrained")
    for axis, (name, by_model) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items()
    ):
        for model, points in by_model.items():
            axis.plot(*zip(*points), marker="o", label=model)
        axis.set(title=name, xlabel="shots", ylim=(0, None))
        axis.legend()
    figure.savefig(path, dpi=120)
