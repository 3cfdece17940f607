"""Comprehension: a model finds what is right likelier than what is wrong.

Compares a word with a non-word, a sentence with one that has a mistake, and the
ending of a story with one that does not fit, by log-likelihood: in speech (S), in
text (T), and for stories speech after text (T2S) and text after speech (S2T).

An entry of a manifest has ``story`` and ``ending``, of which one is "correct", or
``pair`` and ``correct`` (true or false); entries with the same story or pair are
compared. It may have ``item``, over whose pairs (the voices of a sentence) figures
are averaged first, and ``text_id``, which those share that are drawn together
for intervals. Where a story's ending starts is told by ``ending_start`` (seconds), or
its context is a recording of its own, ``context_wav``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import (
    Callable,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

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
from spiritlm_plugin.evaluation.loop import (
    Items,
    ModelSettings,
    load_model,
    model_name,
    predict,
    settings_of,
    settings_shown,
)
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.reports import (
    markdown_table,
    settings_section,
    with_interval,
    write_report,
)
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.metrics.intervals import ratio_interval
from spiritlm_plugin.metrics.pair_likelihood import (
    SCORES,
    Scored,
    item_accuracies,
    pair_accuracy,
)

logger = logging.getLogger(__name__)

CHANCE = 50.0
# Which score the tables of Spirit LM's paper are by.
PUBLISHED = "per_token"
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
# Of each modality accuracies, in percent, with their intervals.
Cells = dict[str, dict[str, Any]]
Figures = dict[str, Cells]
# Of each task, column of the manifest and value in it.
Breakdowns = dict[str, dict[str, Figures]]


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


@torch.inference_mode()
def evaluate(
    hparams: ComprehensionSettings, run_opts: Any, lm: SpiritLM | None = None
) -> None:
    """Compare what is right with what is wrong, and report.

    Arguments
    ---------
    hparams : ComprehensionSettings
        The recipe's.
    run_opts : RunOptions
        As of `load_recipe`.
    lm : SpiritLM, optional
        The model; loaded as ``hparams`` says by default.

    Raises
    ------
    ValueError, FileNotFoundError, ManifestError
        As of `check`, `load_groups` and `load_model`.
    """
    check(hparams)
    groups = load_groups(hparams)
    lm = lm or load_model(hparams, run_opts)
    items = {n: i for group in groups.values() for n, i in group.items()}
    settings = settings_of(hparams, run_opts, lm, items)
    make = partial(
        Scorer,
        lm,
        groups,
        hparams["modalities"],
        hparams["batch_size"],
        str(hparams.get("scored", "ending")),
    )
    rows = predict(hparams, settings, groups, make)
    if rows is not None:
        report(hparams, rows, groups)


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
        path /= f"{hparams['split']}_{manifest}.json"
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


class Spoken(NamedTuple):
    """Units of a recording: its context's, if any, its ending's and all."""

    context: SpeechUnits | None
    ending: SpeechUnits
    whole: SpeechUnits | None


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
    scored : str
        In S and T ``"story"``, the whole of a story, or ``"ending"``, its
        ending after the context.
    """

    def __init__(
        self,
        lm: SpiritLM,
        groups: Groups,
        modalities: Sequence[str],
        batch_size: int,
        scored: str = "ending",
    ):
        self.lm = lm
        self.groups = groups
        self.modalities = modalities
        self.batch_size = batch_size
        self.is_whole = scored == "story"

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
                        spoken = speech.get(utterance)
                        parts = self.parts(modality, item, spoken)
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

    def read(self, groups: Groups) -> dict[str, Spoken]:
        """Return the units of each recording.

        A context is tokenized by itself, so that no ending, right or wrong, is
        heard in it, and only once if several recordings have it.
        """
        wavs: list[torch.Tensor] = []
        places: dict[bytes, int] = {}

        def add(wav: torch.Tensor) -> int:
            place = places.setdefault(wav.numpy().tobytes(), len(wavs))
            wavs.extend([wav] if place == len(wavs) else [])
            return place

        found = {
            utterance: self._place(item, add)
            for variants in groups.values()
            for utterance, item in variants.items()
        }
        units = self.lm.encode_batch(wavs)
        spoken = {}
        for name, (context, ending, whole, start) in found.items():
            spoken[name] = Spoken(
                None if context is None else units[context],
                units[ending] if start is None else units[ending].cut(start),
                None if whole is None else units[whole],
            )
        return spoken

    def _place(
        self, item: Mapping[str, Any], add: Callable[[torch.Tensor], int]
    ) -> tuple[int | None, int, int | None, float | None]:
        """Add what is to be tokenized, and return where it stands.

        That is the context, the recording with the ending, the whole, and
        when the ending starts.
        """
        wav, start = read_audio(item["wav"]), item.get("ending_start")
        wants_context = "S2T" in self.modalities or not self.is_whole
        if item.get("context_wav"):
            before = read_audio(item["context_wav"])
            wants_whole = self.is_whole and "S" in self.modalities
            return (
                add(before) if wants_context else None,
                add(wav),
                add(torch.cat([before, wav])) if wants_whole else None,
                None,
            )
        whole = add(wav)
        if start is None or not wants_context:
            return None, whole, whole, start
        return add(wav[: round(start * SAMPLE_RATE)]), whole, whole, start

    def parts(
        self, modality: str, item: Mapping[str, Any], spoken: Spoken | None
    ) -> tuple[Segment | None, Segment]:
        """Return the context, or None, and the segment that is scored."""
        if modality == "T":
            has_both = item.get("context_text") and item.get("ending_text")
            if self.is_whole or not has_both:
                return None, Text(item["text"])
            # As in the middle of a text.
            rest = Text(" " + item["ending_text"])
            return Text(item["context_text"]), rest
        if spoken is None:
            raise ValueError(f"{item['wav']} was not read for {modality}")
        if modality == "S2T":
            return Speech(spoken.context), Text(item["ending_text"])
        if modality == "T2S":
            return Text(item["context_text"]), Speech(spoken.ending)
        if self.is_whole:
            return None, Speech(spoken.whole)
        if spoken.context is None:
            return None, Speech(spoken.ending)
        before = spoken.context.merge()
        return Speech(before), Speech(
            without_repeats(before, spoken.ending.merge())
        )

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


def accuracies(
    hparams: ComprehensionSettings, rows: Rows, groups: Groups | None = None
) -> Figures:
    """Return the figures of each task in each modality.

    Arguments
    ---------
    hparams : ComprehensionSettings
        The recipe's.
    rows : dict
        Of `Scorer`, by the names of groups.
    groups : dict, optional
        As of `load_groups`; without them each group is an item of its own.

    Returns
    -------
    dict
        Of each task and modality ``sum`` and ``per_token``, in percent, each
        with the 95% interval over items as ``sum_interval`` and so on, and the
        numbers of ``groups`` and ``items``. Of a task with ``average`` the
        mean over the values of this column.
    """
    entries = _entries(groups or {})
    figures: Figures = {}
    for name, task in hparams["tasks"].items():
        figures[name] = {}
        for modality in hparams["modalities"]:
            variants = list(scored(task, modality, rows, entries))
            if variants:
                column = task.get("average")
                figures[name][modality] = _cell(variants, entries, column)
    return figures


def breakdowns(
    hparams: ComprehensionSettings, rows: Rows, groups: Groups
) -> Breakdowns:
    """Return the figures of each task by the columns that it names.

    They are those of ``by`` and ``average``; an item has the value of its
    right variant. Arguments are those of `accuracies`.
    """
    entries = _entries(groups)
    found: Breakdowns = {}
    for name, task in hparams["tasks"].items():
        for column in _columns(task):
            of_column: Figures = {}
            for modality in hparams["modalities"]:
                parts = _by_value(
                    scored(task, modality, rows, entries), entries, column
                )
                for value, variants in parts.items():
                    cells = of_column.setdefault(value, {})
                    cells[modality] = _cell(variants, entries)
            if not of_column:
                logger.warning(
                    "%s is not told by %s: test_%s.json and the like have no "
                    "such column; prepare the manifest again",
                    name,
                    column,
                    task["manifest"],
                )
                continue
            ordered = sorted(of_column, key=_natural)
            found.setdefault(name, {})[column] = {
                value: of_column[value] for value in ordered
            }
    return found


def _columns(task: Task) -> list[str]:
    columns = [*(task.get("by") or ()), task.get("average")]
    return list(dict.fromkeys(c for c in columns if c))


def _natural(value: str) -> tuple[int, str]:
    """Return what sorts by the first number in a text."""
    number = re.search(r"\d+", value)
    return (int(number[0]) if number else -1), value.casefold()


def _entries(groups: Groups) -> dict[str, dict[str, Any]]:
    """Return of each group the entry of its right variant."""
    return {
        name: item
        for name, variants in groups.items()
        for item in variants.values()
        if item["variant"] == RIGHT
    }


def _by_value(
    variants: Iterable[Scored], entries: Items, column: str
) -> dict[str, list[Scored]]:
    """Return the variants of each value of a column."""
    found: dict[str, list[Scored]] = {}
    for variant in variants:
        value = entries.get(str(variant.group), {}).get(column)
        if value is not None:
            found.setdefault(str(value), []).append(variant)
    return found


def _cell(
    variants: Sequence[Scored], entries: Items, average: str | None = None
) -> dict[str, Any]:
    """Return the figures of some variants, or the mean over a column."""
    if average is None:
        parts = [variants]
    else:
        parts = list(_by_value(variants, entries, average).values())
        if sum(map(len, parts)) < len(variants):
            raise ManifestError(
                f"figures are averaged over {average}, but not all entries "
                "have this column; prepare the manifest again"
            )
    means = [pair_accuracy(part) for part in parts]
    items = [item_accuracies(part) for part in parts]
    # Each part weighs the same, so many items as it has.
    weights = [1 / len(part) for part in items for _ in part]
    # What reads the same text is alike, and drawn together.
    texts = {
        _item(variant): entries.get(str(variant.group), {}).get("text_id")
        for variant in variants
    }
    drawn = [texts[name] or name for part in items for name in part]
    cell: dict[str, Any] = {}
    for score in SCORES:
        rates = [item[score] for part in items for item in part.values()]
        centres = [0.0] * len(rates)
        if average is not None:
            # Which parts there are is no chance: drawn are items' deviations.
            centres = [
                found[score] for found, part in zip(means, items) for _ in part
            ]
        mean = fmean(found[score] for found in means)
        interval = ratio_interval(
            [w * (r - c) for w, r, c in zip(weights, rates, centres)],
            weights,
            drawn,
        )
        shift = 0.0 if average is None else mean
        cell[score] = 100 * mean
        cell[f"{score}_interval"] = interval and [
            100 * min(max(end + shift, 0.0), 1.0) for end in interval
        ]
    cell["groups"] = sum(found["groups"] for found in means)
    return cell | {"items": len(weights)}


def _item(variant: Scored) -> Hashable:
    return variant.group if variant.item is None else variant.item


def scored(
    task: Task, modality: str, rows: Rows, entries: Items
) -> Iterator[Scored]:
    """Yield the variants that a task compares in a modality."""
    for name, row in rows.items():
        scores = [s for s in row["scores"] if s["modality"] == modality]
        if compares(task, name, {s["variant"] for s in scores}):
            item = entries.get(name, {}).get("item")
            for s in scores:
                if s["variant"] in (RIGHT, task["wrong"]):
                    right = s["variant"] == RIGHT
                    yield Scored(name, right, s["sum"], s["tokens"], item)


def report(hparams: ComprehensionSettings, rows: Rows, groups: Groups) -> None:
    """Count what is right, and write it down.

    Arguments
    ---------
    hparams : ComprehensionSettings
        The recipe's.
    rows : dict
        Of `Scorer`, by the names of groups.
    groups : dict
        As of `load_groups`.
    """
    figures = accuracies(hparams, rows, groups)
    parts = breakdowns(hparams, rows, groups)
    scores = [s for row in rows.values() for s in row["scores"]]
    shortened = sum(s["dropped"] > 0 for s in scores)
    stories = hparams.get("scored")
    summary = {
        "model": model_name(hparams),
        "split": hparams["split"],
        "chance": CHANCE,
        "published_score": PUBLISHED,
        "scored": len(scores),
        "shortened": shortened,
        "settings": settings_shown(
            hparams,
            modalities=hparams["modalities"],
            groups=len(groups),
            **({"scored": stories} if stories else {}),
        ),
        "accuracy": figures,
        "by": parts,
    }
    write_report(
        hparams["output_folder"],
        summary,
        f"# Comprehension, {hparams['split']}",
        "Percent of the comparisons in which what is right is likelier than "
        "what is wrong; ties count half. The comparisons of an item, such as "
        "its voices, are averaged, then the items. In brackets the 95% "
        "interval over items, by the bootstrap.",
        *_remarks(hparams, figures, groups),
        "By log-likelihood divided by the number of tokens, as in the tables "
        "of the paper:",
        *tables(hparams, figures, parts, "per_token"),
        "By log-likelihood, summed over tokens:",
        *tables(hparams, figures, parts, "sum"),
        f"The beginning of the context was dropped in {shortened} of "
        f"{len(scores)} cases, for want of room.",
        settings_section(summary["settings"]),
    )


def _remarks(
    hparams: ComprehensionSettings, figures: Figures, groups: Groups
) -> list[str]:
    """Return what else decides about figures."""
    remarks = []
    if stories := hparams.get("scored"):
        what = {
            "story": "the whole story",
            "ending": "the ending after its context, where it is known",
        }
        remarks.append(f"In S and T {what[str(stories)]} is scored.")
    for name, cells in figures.items():
        task = hparams["tasks"][name]
        if task.get("average"):
            remarks.append(
                f"{name} is the mean over the values of {task['average']}."
            )
        total = sum(compares(task, n, names_of(g)) for n, g in groups.items())
        for modality in hparams["modalities"]:
            count = cells.get(modality, {"groups": 0})["groups"]
            if 0 < count < total:
                remarks.append(
                    f"{name}, {MODALITIES[modality][0]}: {total - count} of "
                    f"{total} lack what it needs and are left out."
                )
    return remarks


def tables(
    hparams: ComprehensionSettings,
    figures: Figures,
    parts: Breakdowns,
    score: str,
) -> list[str]:
    """Return one of both scores as Markdown, a column for each modality.

    A table of the tasks, and if there are any, one of their breakdowns.
    """
    modalities = hparams["modalities"]
    names = [MODALITIES[m][0] for m in modalities]

    def row(cells: Cells, *start: str) -> list[Any]:
        count = max(cell["groups"] for cell in cells.values())
        shown = [with_interval(cells.get(m) or {}, score) for m in modalities]
        return [*start, count, CHANCE, *shown]

    found = [row(cells, name) for name, cells in figures.items() if cells]
    header = ["task", "comparisons", "chance", *names]
    shown = [markdown_table(header, found)]
    details = [
        row(cells, name, column, value)
        for name, columns in parts.items()
        for column, values in columns.items()
        for value, cells in values.items()
    ]
    if details:
        header = ["task", "by", "", "comparisons", "chance", *names]
        shown.append(markdown_table(header, details))
    return shown
