"""The paper's tables on real data: what is measured of whom, and the report."""

from __future__ import annotations

import json
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from spiritlm_plugin.dataio.corpus.manifests import has_manifest
from spiritlm_plugin.evaluation import (
    asr,
    comprehension,
    intent,
    resynthesis,
    sentiment,
    tts,
)
from spiritlm_plugin.evaluation.comprehension_groups import StorySettings
from spiritlm_plugin.evaluation.published import TABLES, Summary, comparison
from spiritlm_plugin.evaluation.reports import write_report
from spiritlm_plugin.evaluation.sentiment_benchmark import SentimentSettings
from spiritlm_plugin.utils.configuration import (
    ConfigurationError,
    Settings,
    check_values,
)

# Below the manifests of a corpus, those with word times of the aligner.
ALIGNED = "aligned"
# What a summary of resynthesis says of the recordings themselves.
_ORIGINAL = "original audio"
# By any of these names a task is told how much of a test set is measured.
_SIZES = ("utterances", "groups", "prompts")


class ReproductionSettings(Settings):
    """What a reproduction of the paper's tables reads; see `plan`."""

    data_folder: str
    checkpoints: str | None
    models: dict[str, dict[str, Any] | None]
    dtype: str
    items: int | None
    batch_size: int
    recognizer: str | None
    aligner: str | None
    tasks: dict[str, dict[str, Any]]
    evaluations: dict[str, dict[str, Any] | None]


class Task(NamedTuple):
    """What an evaluation reads, and what runs it."""

    schema: type[Settings]
    evaluate: Callable[..., None]


TASKS = {
    "asr": Task(asr.ASRSettings, asr.evaluate),
    "tts": Task(tts.TTSSettings, tts.evaluate),
    "intent": Task(intent.IntentSettings, intent.evaluate),
    "sentiment": Task(SentimentSettings, sentiment.evaluate),
    "comprehension": Task(StorySettings, comprehension.evaluate),
    "resynthesis": Task(resynthesis.ResynthesisSettings, resynthesis.evaluate),
}


class Evaluation(NamedTuple):
    """A task on a corpus, for one model.

    Arguments
    ---------
    name : str
        In the tables.
    model : str
        Name of the model in the tables.
    task : str
        Of `TASKS`.
    corpus : str
        Folder of the data.
    settings : dict
        All that the task reads.
    """

    name: str
    model: str
    task: str
    corpus: str
    settings: dict[str, Any]

    @property
    def summary(self) -> Summary | None:
        """What was measured, None if nothing was."""
        path = Path(self.settings["output_folder"]) / "summary.json"
        if not path.is_file():
            return None
        return json.loads(path.read_text(encoding="utf-8"))


def plan(
    hparams: ReproductionSettings, corpora: Collection[str]
) -> tuple[list[Evaluation], list[str]]:
    """Return what is to be measured, and why some of it is left out.

    Arguments
    ---------
    hparams : ReproductionSettings
        The recipe's. ``tasks`` has the settings of each task, ``evaluations``
        by name ``task``, ``corpus``, and settings of its own.
    corpora : collection of str
        Those that are there.

    Returns
    -------
    evaluations : list of Evaluation
        All of a model, then of the next, with settings that are checked.
    left_out : list of str
        A sentence for each evaluation that cannot be run.

    Raises
    ------
    ConfigurationError
        If settings are not what a task reads.
    """
    evaluations: list[Evaluation] = []
    left_out = []
    for model, loaded_by in hparams["models"].items():
        for name, found in hparams["evaluations"].items():
            if not loaded_by or not found:
                continue
            own = dict(found)
            task, corpus = own.pop("task", ""), own.pop("corpus", "")
            if task not in TASKS:
                raise ConfigurationError(
                    f"evaluations: {name}: task is one of {', '.join(TASKS)}, "
                    f"got {task!r}"
                )
            reason = _missing(hparams, task, corpus, corpora)
            if reason:
                left_out.append(f"{name}: {reason}")
                continue
            settings = _complete(hparams, task, corpus, own)
            lost = _without_times(hparams, settings)
            if lost:
                left_out.append(
                    f"{name}, {lost}: no word times; name an aligner: --aligner"
                )
            settings |= model_settings(hparams, model)
            folder = Path(hparams["output_folder"]) / _folder(name) / model
            settings = _read_by(task, settings)
            settings["output_folder"] = str(folder)
            check_values(settings, TASKS[task].schema, f"{name}, {model}")
            evaluations.append(Evaluation(name, model, task, corpus, settings))
    return evaluations, list(dict.fromkeys(left_out))


def with_manifests(
    evaluations: Iterable[Evaluation],
) -> tuple[list[Evaluation], list[str]]:
    """Return what has its manifests once they are prepared, and what lacks."""
    kept, left_out = [], []
    for evaluation in evaluations:
        settings = evaluation.settings
        missing = [p for p in _manifests(evaluation) if not has_manifest(p)]
        if evaluation.task == "comprehension":
            settings["tasks"] = {
                name: task
                for name, task in settings["tasks"].items()
                if task and _manifest(settings, task) not in missing
            }
        if not missing or settings.get("tasks"):
            kept.append(evaluation)
        left_out += [
            f"{evaluation.name}: {evaluation.corpus} has no {path.name}"
            for path in missing
        ]
    return kept, list(dict.fromkeys(left_out))


def _manifests(evaluation: Evaluation) -> list[Path]:
    settings = evaluation.settings
    if evaluation.task == "sentiment":  # reads the archive
        return []
    if evaluation.task == "comprehension":
        return [_manifest(settings, t) for t in settings["tasks"].values() if t]
    names = [settings["split"], settings.get("shot_split")]
    folder = Path(settings["manifest_folder"])
    return [folder / name for name in names if name]


def _manifest(settings: Mapping[str, Any], task: Mapping[str, Any]) -> Path:
    name = f"{settings['split']}_{task['manifest']}"
    return Path(settings["manifest_folder"]) / name


def model_settings(hparams: ReproductionSettings, model: str) -> dict[str, Any]:
    """Return the options that a model is loaded by.

    Raises
    ------
    ConfigurationError
        Unless it is a release or a model.
    """
    loaded_by = hparams["models"][model] or {}
    if not (loaded_by.get("release") or loaded_by.get("model")):
        raise ConfigurationError(
            f"models: {model} names no weights: --checkpoints FOLDER for Meta's, "
            f'or --models "{{{model}: {{model: FOLDER}}}}" for others'
        )
    return {
        "model": None,
        "hparams_file": "hyperparams.yaml",
        "release": None,
        "variant": "base",
        "dtype": hparams["dtype"],
        **loaded_by,
    }


def manifests_of(hparams: Settings) -> Path:
    """Return the folder of the manifests of all corpora."""
    return Path(hparams["output_folder"]) / "manifests"


def _missing(
    hparams: ReproductionSettings,
    task: str,
    corpus: str,
    corpora: Collection[str],
) -> str | None:
    """Return what an evaluation lacks, None if nothing."""
    if corpus not in corpora:
        return f"no {corpus} in {hparams['data_folder']}"
    if task != "tts":
        return None
    if not hparams["recognizer"]:
        return "nobody listens; name a recognizer: --recognizer WHISPER"
    times = hparams["aligner"] or f"{corpus}_alignments" in corpora
    if not times and not hparams["tasks"]["tts"].get("stop_speech"):
        return (
            'nobody says "stop": --aligner finds the word, or a folder '
            f"{corpus}_alignments beside the corpus does"
        )
    return None


def _complete(
    hparams: ReproductionSettings,
    task: str,
    corpus: str,
    own: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the settings of a task with what all evaluations share."""
    settings: dict[str, Any] = {
        "seed": hparams["seed"],
        "batch_size": hparams["batch_size"],
        "recognizer": hparams["recognizer"],
        "manifest_folder": str(manifests_of(hparams) / corpus),
        "data_folder": str(Path(hparams["data_folder"]) / corpus),
        **dict.fromkeys(_SIZES, hparams["items"]),
        **hparams["tasks"].get(task, {}),
        **own,
    }
    if hparams["aligner"] and task == "tts":
        settings["shot_split"] = f"{ALIGNED}/{settings['shot_split']}"
    return settings


def _without_times(
    hparams: ReproductionSettings, settings: dict[str, Any]
) -> str:
    """Drop modalities that need word times, where none are to be had."""
    asked = settings.get("modalities") or []
    if hparams["aligner"] or not set(asked) - {"S", "T"}:
        return ""
    settings["modalities"] = [m for m in asked if m in ("S", "T")]
    return ", ".join(m for m in asked if m not in ("S", "T"))


def _read_by(task: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what others read; what nothing reads stays, to be refused."""
    others = {
        name
        for other in TASKS.values()
        for name in get_type_hints(other.schema)
    }
    read = get_type_hints(TASKS[task].schema)
    return {n: v for n, v in settings.items() if n in read or n not in others}


def _folder(name: str) -> str:
    return name.replace(",", "").replace(" ", "_")


def _size_remark(items: int | None) -> Iterator[str]:
    if items is not None:
        yield (
            f"**A first look:** of each test set {items} utterances, pairs or "
            "prompts at most. These are no figures to compare."
        )


def report(
    hparams: ReproductionSettings,
    evaluations: Iterable[Evaluation],
    left_out: Iterable[str],
) -> None:
    """Write the paper's tables with what was measured beside.

    Arguments
    ---------
    hparams : ReproductionSettings
        The recipe's.
    evaluations : iterable of Evaluation
        What was run.
    left_out : iterable of str
        As of `plan`.
    """
    measured: dict[str, dict[str, Summary]] = {}
    missing = list(left_out)
    for evaluation in evaluations:
        summary = evaluation.summary
        if summary is None:
            missing.append(f"{evaluation.name}, {evaluation.model}: failed")
            continue
        if evaluation.task == "resynthesis":
            # Of the recordings first, then of the one vocoder.
            original, system, *_ = summary["systems"].values()
            measured.setdefault(_ORIGINAL, {})[evaluation.name] = original
            summary = system
        measured.setdefault(evaluation.model, {})[evaluation.name] = summary
    if _ORIGINAL in measured:
        measured[_ORIGINAL] = measured.pop(_ORIGINAL)
    parts = []
    for table in TABLES:
        found = comparison(table, measured)
        if found:
            parts += [f"## {table.title}", found, table.remark]
    if missing:
        parts += ["## Left out", "\n".join(f"- {line}" for line in missing)]
    write_report(
        hparams["output_folder"],
        measured,
        "# The tables of Spirit LM's paper",
        *_size_remark(hparams["items"]),
        "`published`: the paper's. `measured`: here, with 95% intervals in "
        "brackets. The settings of each figure stand in the report of its "
        "evaluation, in the folder of its name.",
        *(part for part in parts if part),
    )
