"""Comprehension: a model finds what is right likelier than what is wrong.

Compares a word with a non-word, a sentence with one that has a mistake, and the
ending of a story with one that does not fit, by log-likelihood: in speech (S), in
text (T), and for stories speech after text (T2S) and text after speech (S2T).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.manifests import ManifestError, load_manifest
from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text
from spiritlm_plugin.dataio.units.units import (
    MIN_SAMPLES,
    SAMPLE_RATE,
    Kind,
    SpeechStream,
    SpeechUnits,
)
from spiritlm_plugin.decoders.shared_context import shared_log_likelihood
from spiritlm_plugin.evaluation.loop import Items, ModelSettings, model_name
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.reports import markdown_table, write_report
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.metrics.pair_likelihood import Scored, pair_accuracy

logger = logging.getLogger(__name__)

CHANCE = 50.0
RIGHT = "correct"
# What each modality is called in a report, and what it needs of a manifest.
MODALITIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "S": ("S", ()),
    "T": ("T", ("text",)),
    "T2S": ("T→S", ("context_text", "ending_start")),
    "S2T": ("S→T", ("context_text", "ending_text", "ending_start")),
}


Task = Mapping[str, str]
Groups = dict[str, Items]
Figures = dict[str, dict[str, dict[str, float]]]


class ComprehensionSettings(ModelSettings):
    """What the evaluation of comprehension reads."""

    manifest_folder: str
    tasks: dict[str, Any]
    modalities: list[Literal["S", "T", "T2S", "S2T"]]
    groups: int | None


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
        if not isinstance(task, dict) or set(task) != {"manifest", "wrong"}:
            raise ValueError(
                f"the task {name!r} should be as in {{manifest: storycloze, "
                f"wrong: incorrect}}, got {task!r}; correct it in the YAML file"
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
        path /= f"{hparams['split']}_{manifest}.json"
        found = read_groups(path)
        for name in spread(found, hparams["groups"]):
            groups[f"{manifest}/{name}"] = found[name]
    for name, task in hparams["tasks"].items():
        if not any(
            compares(task, key, names_of(groups[key])) for key in groups
        ):
            raise ManifestError(
                f"no group of {hparams['split']}_{task['manifest']}.json has "
                f"both a variant {RIGHT!r} and one {task['wrong']!r}; correct "
                f"the task {name!r}"
            )
    for modality in hparams["modalities"]:
        if not any(modality in modalities_of(g) for g in groups.values()):
            needs = ", ".join(MODALITIES[modality][1])
            raise ManifestError(
                f"nothing can be tested in {modality}: no manifest in "
                f"{hparams['manifest_folder']} has {needs} of all variants of "
                "a group; leave it out of the modalities"
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
        if all(item.get(key) for item in variants.values() for key in needs)
    ]


def compares(task: Task, name: str, variants: set[str]) -> bool:
    """Tell whether a group, of such variants, is one of a task."""
    is_its = name.partition("/")[0] == task["manifest"]
    return is_its and {RIGHT, task["wrong"]} <= variants


class Scorer:
    """Scores the variants of groups in all modalities.

    Arguments
    ---------
    lm : SpiritLM
        The model.
    groups : dict
        As of `load_groups`.
    modalities : sequence of str
        Of `MODALITIES`.
    batch_size : int
        Continuations to run together.
    """

    def __init__(
        self,
        lm: SpiritLM,
        groups: Groups,
        modalities: Sequence[str],
        batch_size: int,
    ):
        self.lm = lm
        self.groups = groups
        self.modalities = modalities
        self.batch_size = batch_size

    def __call__(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return a row for each of some groups, as predictions are written."""
        groups = {name: self.groups[name] for name in names}
        speech = self.read(groups) if set(self.modalities) - {"T"} else {}
        rows: list[dict[str, Any]] = []
        contexts: list[list[int]] = []
        continuations: list[list[int]] = []
        for name, variants in groups.items():
            scores = []
            for modality in self.modalities:
                if modality in modalities_of(variants):
                    for utterance, item in variants.items():
                        scores.append(
                            {
                                "utterance": utterance,
                                "variant": item["variant"],
                                "modality": modality,
                            }
                        )
                        spoken = speech.get(utterance, (None, None))
                        parts = self.parts(modality, item, *spoken)
                        context, continuation = self.ids(*parts)
                        contexts.append(context)
                        continuations.append(continuation)
            rows.append({"id": name, "scores": scores})
        self.shorten(rows, contexts, continuations)
        sums = shared_log_likelihood(
            self.lm.mods.language_model,
            contexts,
            continuations,
            self.batch_size,
        ).tolist()
        written = (score for row in rows for score in row["scores"])
        for score, total, ids in zip(written, sums, continuations):
            score |= {"sum": total, "tokens": len(ids)}
        return rows

    def read(
        self, groups: Groups
    ) -> dict[str, tuple[SpeechUnits | None, SpeechUnits]]:
        """Return of each recording its context's units and the others.

        The context is tokenized by itself, so that no ending, right or wrong,
        is heard in it, and only once if several recordings have it.
        """
        wavs: list[Any] = []
        places: dict[bytes, int] = {}
        spans: dict[str, tuple[int | None, int, float | None]] = {}
        for variants in groups.values():
            for utterance, item in variants.items():
                wav, start = read_audio(item["wav"]), item.get("ending_start")
                spans[utterance] = None, len(wavs), start
                wavs.append(wav)
                if start is None:
                    continue
                context = wav[: round(start * SAMPLE_RATE)]
                place = places.setdefault(context.numpy().tobytes(), len(wavs))
                spans[utterance] = place, len(wavs) - 1, start
                wavs += [context] if place == len(wavs) else []
        units = self.lm.encode_batch(wavs)
        return {
            name: (
                None if context is None else units[context],
                units[whole] if start is None else units[whole].cut(start),
            )
            for name, (context, whole, start) in spans.items()
        }

    def parts(
        self,
        modality: str,
        item: Mapping[str, Any],
        context: SpeechUnits | None,
        ending: SpeechUnits | None,
    ) -> tuple[Segment | None, Segment]:
        """Return the context, or None, and the segment that is scored."""
        if modality == "T":
            if not item.get("context_text") or not item.get("ending_text"):
                return None, Text(item["text"])
            # As in the middle of a text.
            rest = Text(" " + item["ending_text"])
            return Text(item["context_text"]), rest
        if modality == "S2T":
            return Speech(context), Text(item["ending_text"])
        if modality == "T2S":
            return Text(item["context_text"]), Speech(ending)
        if context is None or ending is None:
            return None, Speech(ending)
        before = context.merge()
        return Speech(before), Speech(without_repeats(before, ending.merge()))

    def ids(
        self, context: Segment | None, ending: Segment
    ) -> tuple[list[int], list[int]]:
        """Return the tokens of a context and those that are scored."""
        vocabulary = self.lm.vocabulary
        marker, continuation = vocabulary.encode_continuation([ending])
        if context is not None:
            return vocabulary.encode([context], marker), continuation
        whole = vocabulary.encode([ending])
        return whole[: len(whole) - len(continuation)], continuation

    def shorten(
        self,
        rows: Sequence[Mapping[str, Any]],
        contexts: list[list[int]],
        continuations: Sequence[list[int]],
    ) -> None:
        """Drop the beginning of contexts that the model has no room for.

        All variants of a group keep the same context.

        Raises
        ------
        ValueError
            If a variant has no token, or more than the model has room for.
        """
        head = len(self.lm.vocabulary.text.prompt_start) + 1
        scores = [(r["id"], s) for r in rows for s in r["scores"]]
        order = groupby(
            range(len(scores)),
            key=lambda i: (scores[i][0], scores[i][1]["modality"]),
        )
        for (name, modality), found in order:
            places = list(found)
            longest = max(len(continuations[i]) for i in places)
            room = self.lm.context - longest
            if room < head:
                raise ValueError(
                    f"{name} has a variant of {longest} tokens in {modality}; "
                    "the model has no room for them: leave it out of the "
                    "manifest"
                )
            for i in places:
                if not continuations[i]:
                    raise ValueError(
                        f"{scores[i][1]['utterance']} has no token to score in "
                        f"{modality}; leave it out of the manifest"
                    )
                dropped = max(len(contexts[i]) - room, 0)
                scores[i][1]["dropped"] = dropped
                contexts[i] = contexts[i][:head] + contexts[i][head + dropped :]


def without_repeats(before: SpeechStream, after: SpeechStream) -> SpeechStream:
    """Return a stream without what only repeats the last unit before it.

    Example
    -------
    >>> before, after = map(SpeechStream.from_string, ["[Hu3]", "[Hu3][Hu4]"])
    >>> without_repeats(before, after).to_string()
    '[Hu4]'
    """
    keep = torch.ones(len(after), dtype=torch.bool)
    for kind in Kind:
        held = before.values[before.kinds == int(kind)]
        places = (after.kinds == int(kind)).nonzero().flatten()
        if len(held) and len(places) and after.values[places[0]] == held[-1]:
            keep[places[0]] = False
    return SpeechStream(after.kinds[keep], after.values[keep])


def accuracies(hparams: ComprehensionSettings, rows: Rows) -> Figures:
    """Return the figures of each task in each modality."""
    figures: Figures = {}
    for name, task in hparams["tasks"].items():
        figures[name] = {}
        for modality in hparams["modalities"]:
            variants = list(scored(task, modality, rows))
            if variants:
                found = pair_accuracy(variants)
                figures[name][modality] = {
                    "sum": 100 * found["sum"],
                    "per_token": 100 * found["per_token"],
                    "groups": found["groups"],
                }
    return figures


def scored(task: Task, modality: str, rows: Rows) -> Iterator[Scored]:
    """Yield the variants that a task compares in a modality."""
    for name, row in rows.items():
        scores = [s for s in row["scores"] if s["modality"] == modality]
        if compares(task, name, {s["variant"] for s in scores}):
            for s in scores:
                if s["variant"] in (RIGHT, task["wrong"]):
                    right = s["variant"] == RIGHT
                    yield Scored(name, right, s["sum"], s["tokens"])


def report(hparams: ComprehensionSettings, rows: Rows) -> None:
    """Count what is right, and write it down.

    Arguments
    ---------
    hparams : ComprehensionSettings
        The recipe's.
    rows : dict
        Of `Scorer`, by the names of groups.
    """
    figures = accuracies(hparams, rows)
    scores = [s for row in rows.values() for s in row["scores"]]
    shortened = sum(s["dropped"] > 0 for s in scores)
    summary = {
        "model": model_name(hparams),
        "split": hparams["split"],
        "chance": CHANCE,
        "scored": len(scores),
        "shortened": shortened,
        "accuracy": figures,
    }
    write_report(
        hparams["output_folder"],
        summary,
        f"# Comprehension, {hparams['split']}",
        "Percent of the comparisons in which what is right is likelier than "
        "what is wrong; ties count half.",
        "By log-likelihood divided by the number of tokens:",
        table(hparams, figures, "per_token"),
        "By log-likelihood:",
        table(hparams, figures, "sum"),
        f"The beginning of the context was dropped in {shortened} of "
        f"{len(scores)} cases, for want of room.",
    )


def table(hparams: ComprehensionSettings, figures: Figures, score: str) -> str:
    """Return one of both scores as Markdown, a column for each modality."""
    modalities = hparams["modalities"]
    rows = [
        [
            name,
            max(cell["groups"] for cell in cells.values()),
            CHANCE,
            *(cells.get(m, {}).get(score) for m in modalities),
        ]
        for name, cells in figures.items()
    ]
    header = ["task", "comparisons", "chance"]
    return markdown_table(header + [MODALITIES[m][0] for m in modalities], rows)
