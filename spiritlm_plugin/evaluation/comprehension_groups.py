"""What comprehension compares: words, sentences and stories of manifests.

An entry of a manifest has ``story`` and ``ending``, of which one is "correct", or
``pair`` and ``correct`` (true or false); entries with the same story or pair are
compared. It may have ``item``, over whose pairs (the voices of a sentence) figures
are averaged first, and ``text_id``, which those share that are drawn together
for intervals. Where a story's ending starts is told by ``ending_start`` (seconds), or
its context is a recording of its own, ``context_wav``.
"""

from __future__ import annotations

import logging
from collections.abc import (
    Mapping,
)
from pathlib import Path
from typing import Any, Literal

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.manifests import ManifestError, load_manifest
from spiritlm_plugin.dataio.units.units import (
    MIN_SAMPLES,
    SAMPLE_RATE,
)
from spiritlm_plugin.evaluation.loop import (
    Items,
    ModelSettings,
)

logger = logging.getLogger(__name__)

RIGHT = "correct"
# What each modality is called in a report, and what it needs of a manifest.
MODALITIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "S": ("S", ()),
    "T": ("T", ("text",)),
    "T2S": ("T→S", ("context_text", "ending_start")),
    "S2T": ("S→T", ("context_text", "ending_text", "ending_start")),
}


Task = Mapping[str, Any]
Groups = dict[str, Items]


class ComprehensionSettings(ModelSettings):
    """What the evaluation of comprehension reads."""

    manifest_folder: str
    tasks: dict[str, Any]
    modalities: list[Literal["S", "T", "T2S", "S2T"]]
    groups: int | None


class StorySettings(ComprehensionSettings):
    """What the evaluation of stories reads besides.

    In S and in T whole stories are scored, or their endings after the context.
    """

    scored: Literal["story", "ending"]


def check(hparams: ComprehensionSettings) -> None:
    """Drop tasks that are null.

    Raises
    ------
    ValueError
        If a task has no manifest and wrong variant, or nothing is asked.
    """
    # An override can leave a task out by null, and by nothing else.
    tasks = {n: task for n, task in hparams["tasks"].items() if task}
    hparams["tasks"] = tasks
    for name, task in tasks.items():
        needs, may = {"manifest", "wrong"}, {"by", "average"}
        if not isinstance(task, dict) or not needs <= {*task} <= needs | may:
            raise ValueError(
                f"the task {name!r} should be as in {{manifest: storycloze, "
                f"wrong: incorrect}}, perhaps with by (columns) and average (one), "
                f"got {task!r}; correct it in the YAML file"
            )
    if not hparams["modalities"] or not tasks:
        raise ValueError(
            f"modalities are some of {', '.join(MODALITIES)}, and there is a "
            f"task at least; got {hparams['modalities']!r} and "
            f"{list(tasks)!r}"
        )


def load_groups(hparams: ComprehensionSettings) -> Groups:
    """Return what is compared: of each group its variants.

    Groups are the stories and pairs of all manifests, by the name of the
    manifest and their own.

    Raises
    ------
    FileNotFoundError, ManifestError
        If there is no such manifest, or nothing in it for a task or modality.
    """
    groups: Groups = {}
    for manifest in {t["manifest"]: None for t in hparams["tasks"].values()}:
        path = Path(hparams["manifest_folder"])
        path /= f"{hparams['split']}_{manifest}"
        every = read_groups(path)
        found = {
            name: variants
            for name, variants in every.items()
            if any(
                compares(task, f"{manifest}/", names_of(variants))
                for task in hparams["tasks"].values()
            )
        }
        lacking = [name for name in every if name not in found]
        if lacking:
            logger.warning(
                "%s: %d of %d stories or pairs are left out: they lack a "
                "variant to compare, such as %s",
                path.name,
                len(lacking),
                len(every),
                lacking[0],
            )
        for name in spread(found, hparams["groups"]):
            groups[f"{manifest}/{name}"] = found[name]
    for name, task in hparams["tasks"].items():
        if not any(
            compares(task, key, names_of(groups[key])) for key in groups
        ):
            raise ManifestError(
                f"no group of {hparams['split']}_{task['manifest']} has "
                f"both a variant {RIGHT!r} and one {task['wrong']!r}; correct "
                f"the task {name!r}"
            )
    for modality in hparams["modalities"]:
        if not any(modality in modalities_of(g) for g in groups.values()):
            needs = ", ".join(MODALITIES[modality][1])
            raise ManifestError(
                f"nothing can be tested in {modality}: no manifest in "
                f"{hparams['manifest_folder']} has {needs} of all variants of "
                "a group; leave it out of the modalities, or prepare the "
                "manifests with it (ending_start comes of word times, or of a "
                "recording of the context, context_wav)"
            )
    return groups


def read_groups(path: Path) -> Groups:
    """Return the variants of each story or pair of a manifest.

    Arguments
    ---------
    path : Path
        Of a manifest. An entry has ``story`` and ``ending``, of which one is
        ``"correct"``, or ``pair`` and ``correct`` (true or false).

    Raises
    ------
    ManifestError
        If an ending starts outside of its recording.
    """
    groups: Groups = {}
    for name, item in load_manifest(path).items():
        group = item.get("story") or item.get("pair")
        variant = item.get("ending")
        if variant is None and isinstance(item.get("correct"), bool):
            variant = RIGHT if item["correct"] else "incorrect"
        if group is None or variant is None:
            logger.warning(
                "%s: %s is left out: it has no story and ending, and no pair "
                "and correct (true or false)",
                path.name,
                name,
            )
            continue
        _check_ending(path, name, item)
        if "context_wav" in item:
            root = str(path.parent)
            context = item["context_wav"].replace("{data_root}", root)
            item = item | {"context_wav": context}
        groups.setdefault(group, {})[name] = item | {"variant": variant}
    return groups


def _check_ending(path: Path, name: str, item: Mapping[str, Any]) -> None:
    start, shortest = item.get("ending_start"), MIN_SAMPLES / SAMPLE_RATE
    if start is None:
        return
    latest = item["duration"] - shortest
    if not isinstance(start, (int, float)) or not shortest <= start <= latest:
        raise ManifestError(
            f"{path}: the ending of {name} starts at {start!r} s of "
            f"{item['duration']} s; it should be inside, {shortest} s from "
            "either end: correct ending_start"
        )


def names_of(variants: Items) -> set[str]:
    """Return the names of a group's variants."""
    return {item["variant"] for item in variants.values()}


def modalities_of(variants: Items) -> list[str]:
    """Return the modalities that all variants of a group can be tested in."""
    return [
        modality
        for modality, (_, needs) in MODALITIES.items()
        if all(_has(item, key) for item in variants.values() for key in needs)
    ]


def _has(item: Mapping[str, Any], key: str) -> bool:
    is_apart = key == "ending_start" and bool(item.get("context_wav"))
    return is_apart or bool(item.get(key))


def compares(task: Task, name: str, variants: set[str]) -> bool:
    """Tell whether a group, of such variants, is one of a task."""
    is_its = name.partition("/")[0] == task["manifest"]
    return is_its and {RIGHT, task["wrong"]} <= variants
