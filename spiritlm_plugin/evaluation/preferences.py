"""Preference pairs: a model answers prompts several times, and is judged.

The better and the worse of its answers to a prompt become a pair, for the
training of preferences. They are the model's own, so that the training moves
it no further than it has to.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.stream.preferences import (
    Candidate,
    Pair,
    best_and_worst,
    plain_segments,
    read_segments,
    write_pairs,
)
from spiritlm_plugin.dataio.units.segments import Segment, Text
from spiritlm_plugin.dataio.units.units import Kind
from spiritlm_plugin.evaluation import loop
from spiritlm_plugin.evaluation.loop import ModelSettings, load_model, predict
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.preference_tasks import (
    PreferenceTask,
    Prompt,
    settings_of,
)
from spiritlm_plugin.evaluation.reports import (
    markdown_table,
    settings_section,
    write_report,
)
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.inference.generation import Generation
from spiritlm_plugin.utils.arguments import number, whole_number
from spiritlm_plugin.utils.seeds import derive_seed

# Settings that decide about pairs, not about what is answered.
_OF_PAIRS = ("valid_share", "margin")
# Figures that are told with three digits.
_SCORES = ("score", "best", "worst")


class PairSettings(ModelSettings):
    """What the making of pairs reads."""

    tasks: dict[str, Any]
    candidates: int
    temperature: float
    top_p: float
    speaker: int | str | None
    valid_share: float


@torch.inference_mode()
def make_pairs(
    hparams: PairSettings, run_opts: Any, lm: SpiritLM | None = None
) -> None:
    """Have prompts answered and judged, and write pairs.

    Arguments
    ---------
    hparams : PairSettings
        The recipe's; ``tasks`` are `PreferenceTask`.
    run_opts : RunOptions
        As of `load_recipe`.
    lm : SpiritLM, optional
        The model; loaded as ``hparams`` says by default.

    Raises
    ------
    ValueError
        If a setting is out of range, or there are no tasks, or one has no
        prompts.
    FileNotFoundError, ArchiveError, ManifestError
        As of the tasks and `load_model`.
    """
    tasks = _checked(hparams)
    asked = {
        f"{name}/{key}": (name, prompt)
        for name, task in tasks.items()
        for key, prompt in _prompts(name, task).items()
    }
    lm = lm or load_model(hparams, run_opts)
    lm.speaker_id(hparams["speaker"])  # if there is none, say so now
    plain = {
        **{n: v for n, v in hparams.items() if n not in _OF_PAIRS},
        "tasks": settings_of(tasks),
    }
    wanted = {key: {"wanted": p.wanted} for key, (_, p) in asked.items()}
    settings = loop.settings_of(plain, run_opts, lm, wanted)
    make = partial(Answering, hparams, lm, tasks, asked)
    rows = predict(hparams, settings, asked, make)
    if rows is not None:
        report(hparams, tasks, rows)


def _checked(hparams: PairSettings) -> Mapping[str, PreferenceTask]:
    if whole_number("candidates", hparams["candidates"]) < 2:
        raise ValueError("candidates should be 2 or more, got 1")
    if not 0 < hparams["valid_share"] < 1:
        raise ValueError(
            f"valid_share should be between 0 and 1, got "
            f"{hparams['valid_share']}"
        )
    if number("temperature", hparams["temperature"]) <= 0:
        raise ValueError(
            "at a temperature of "
            f"{hparams['temperature']} all answers to a prompt are the same; "
            "raise it"
        )
    tasks = hparams["tasks"]
    others = [n for n, t in tasks.items() if not isinstance(t, PreferenceTask)]
    if others or not tasks:
        raise ValueError(
            f"tasks are PreferenceTask by their names, got "
            f"{', '.join(others) or 'none'}; name them in the YAML file"
        )
    return tasks


def _prompts(name: str, task: PreferenceTask) -> dict[str, Prompt]:
    if prompts := task.ask():
        return prompts
    raise ValueError(
        f"the task {name} has no prompts: its data has none that it can use; "
        "name other data, or leave it out"
    )


class Answering:
    """A model that answers prompts several times, judged; ids to rows.

    Arguments
    ---------
    hparams : PairSettings
        The recipe's.
    lm : SpiritLM
        The model.
    tasks : dict
        `PreferenceTask` by name.
    asked : dict
        Of each id the name of its task, and its prompt.
    """

    def __init__(
        self,
        hparams: PairSettings,
        lm: SpiritLM,
        tasks: Mapping[str, PreferenceTask],
        asked: Mapping[str, tuple[str, Prompt]],
    ):
        self.hparams, self.lm = hparams, lm
        self.tasks, self.asked = tasks, asked

    def __call__(self, ids: list[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of some prompts."""
        for name, group in groupby(ids, key=lambda key: self.asked[key][0]):
            yield from self._answer(name, list(group))

    def _answer(self, name: str, ids: list[str]) -> Iterator[dict[str, Any]]:
        task, count = self.tasks[name], self.hparams["candidates"]
        prompts = [self.asked[key][1] for key in ids]
        segments = self.lm.with_units([task.segments(p) for p in prompts])
        room = [self._has_room(task, some) for some in segments]
        chosen = [i for i, fits in enumerate(room) if fits]
        drawn = self._draw(
            task, [segments[i] for i in chosen], [ids[i] for i in chosen]
        )
        repeated = [prompts[i] for i in chosen for _ in range(count)]
        scores = task.judge(self.lm, repeated, drawn) if drawn else []
        judged = iter(zip(drawn, scores))
        for i, key in enumerate(ids):
            answers = [next(judged) for _ in range(count)] if room[i] else []
            yield {
                "id": key,
                "task": name,
                "prompt": plain_segments(segments[i]),
                "output": task.output,
                "wanted": prompts[i].wanted,
                "candidates": [candidate_of(*a).to_json() for a in answers],
            }

    def _has_room(self, task: PreferenceTask, prompt: list[Segment]) -> bool:
        tokens = len(self.lm.vocabulary.encode(prompt, task.output))
        return tokens < self.lm.context

    def _draw(
        self,
        task: PreferenceTask,
        prompts: Sequence[list[Segment]],
        ids: Sequence[str],
    ) -> list[Generation]:
        """Return the answers to each prompt, one prompt after the other."""
        numbers = range(self.hparams["candidates"])
        return self.lm.generate(
            [prompt for prompt in prompts for _ in numbers],
            task.output,
            max_new_tokens=task.max_new_tokens,
            temperature=self.hparams["temperature"],
            top_p=self.hparams["top_p"],
            speaker=self.hparams["speaker"],
            seed=[
                derive_seed(self.hparams["seed"], key, number)
                for key in ids
                for number in numbers
            ],
            min_speech_units=0,
            vocode=task.listens,
            batch_size=self.hparams["batch_size"] * len(numbers),
        )


def candidate_of(answer: Generation, score: float | None) -> Candidate:
    """Return an answer as it is kept.

    Example
    -------
    >>> candidate_of(Generation([Text("a")], "end_of_sequence"), 0.5)
    Candidate(segments=[Text(text='a')], ended=True, score=0.5)
    """
    said = [s for s in answer if not isinstance(s, Text) or s.text]
    return Candidate(said, answer.end_reason == "end_of_sequence", score)


def pairs_of(row: Mapping[str, Any], margin: float) -> list[Pair]:
    """Return the pair of a prompt, if two of its answers differ enough.

    Arguments
    ---------
    row : dict
        Of `Answering`.
    margin : float
        As of `best_and_worst`.
    """
    drawn = [Candidate.from_json(one) for one in row["candidates"]]
    # What has neither a token nor an end cannot be learned from.
    drawn = [one for one in drawn if one.segments or one.ended]
    found = best_and_worst(drawn, margin)
    if found is None:
        return []
    prompt = read_segments(row["prompt"])
    return [Pair(row["id"], prompt, row["output"], *found)]


def report(
    hparams: PairSettings, tasks: Mapping[str, PreferenceTask], rows: Rows
) -> None:
    """Write the pairs of training and validation, and what they are like.

    Arguments
    ---------
    hparams : PairSettings
        The recipe's.
    tasks : dict
        By name.
    rows : dict
        Of `Answering`, by id.
    """
    folder = Path(hparams["output_folder"])
    found = {
        key: pairs_of(row, tasks[row["task"]].margin)
        for key, row in rows.items()
    }
    paired = {key: row for key, row in rows.items() if found[key]}
    held = held_out(paired, hparams["valid_share"])
    splits = {
        "train": [p for key in paired if key not in held for p in found[key]],
        "valid": [p for key in paired if key in held for p in found[key]],
    }
    for split, pairs in splits.items():
        write_pairs(folder / f"{split}.jsonl", pairs)
    figures = {
        name: figures_of(
            {k: r for k, r in rows.items() if r["task"] == name}, found
        )
        for name in tasks
    }
    counts = {split: len(pairs) for split, pairs in splits.items()}
    settings = {
        "model": loop.model_name(hparams),
        **{n: hparams[n] for n in ("seed", "candidates", "temperature")},
        **{n: hparams[n] for n in ("top_p", "speaker", "valid_share")},
        **{f"margin of {name}": task.margin for name, task in tasks.items()},
    }
    write_report(
        folder,
        {**counts, "tasks": figures, "settings": settings},
        "# Preference pairs",
        f"{counts['train']} pairs of training, {counts['valid']} of validation.",
        figures_table(figures),
        "Means over prompts; `score`: of all answers, `best` and `worst`: of "
        "each prompt's. `units`: phonetic units, or characters of text, of "
        "chosen and rejected answers.",
        settings_section(settings),
    )


def held_out(rows: Rows, share: float) -> set[str]:
    """Return the ids of the prompts of validation.

    Those that are alike are of training or of validation together: the same
    words or recording, or the same name in two tasks, such as an utterance
    that one goes on from and another reads.

    Arguments
    ---------
    rows : dict
        Of `Answering`, by id; those that have a pair.
    share : float
        Of all; where there are two to choose from, there is one at least.

    Example
    -------
    >>> rows = {
    ...     f"{task}/{name}": {"task": task, "prompt": [["text", words]]}
    ...     for task, name, words in (
    ...         ("t2s", "1", "a"), ("t2s", "2", "b"), ("t2t", "1", "c")
    ...     )
    ... }
    >>> sorted(held_out(rows, 0.1))
    ['t2s/1', 't2t/1']
    """
    families = _families(rows)
    count = min(max(round(share * len(families)), 1), len(families) - 1)
    chosen = spread(families, count) if count > 0 else []
    return {key for family in chosen for key in family}


def _families(rows: Rows) -> list[list[str]]:
    """Return ids by what no other family has: a name, and a prompt."""
    links: dict[str, str] = {}

    def root(mark: str) -> str:
        while links.setdefault(mark, mark) != mark:
            mark = links[mark]
        return mark

    names = {
        key: key.removeprefix(f"{row['task']}/") for key, row in rows.items()
    }
    for key, row in rows.items():
        links[root(names[key])] = root(json.dumps(row["prompt"]))
    families = defaultdict(list)
    for key, name in names.items():
        families[root(name)].append(key)
    return [*families.values()]


def figures_of(
    rows: Rows, found: Mapping[str, Sequence[Pair]]
) -> dict[str, float | None]:
    """Return what the answers and the pairs of a task are like.

    Arguments
    ---------
    rows : dict
        Of `Answering`, by id.
    found : dict
        The pairs by id.
    """
    scores = [
        [c["score"] for c in row["candidates"] if c["score"] is not None]
        for row in rows.values()
    ]
    judged = [some for some in scores if some]
    pairs = [pair for key in rows for pair in found[key]]
    return {
        "prompts": len(rows),
        "without room": sum(not r["candidates"] for r in rows.values()),
        "pairs": len(pairs),
        "score": _mean([fmean(some) for some in judged]),
        "best": _mean([max(some) for some in judged]),
        "worst": _mean([min(some) for some in judged]),
        "units, chosen": _mean([_length(p.chosen) for p in pairs]),
        "units, rejected": _mean([_length(p.rejected) for p in pairs]),
    }


def figures_table(tasks: Mapping[str, Mapping[str, float | None]]) -> str:
    """Return what `figures_of` says of each task.

    Example
    -------
    >>> print(figures_table({"t2s": {"pairs": 3, "score": 0.25, "best": None}}))
    |  | pairs | score | best |
    | --- | ---: | --- | ---: |
    | t2s | 3 | 0.250 |  |
    """
    rows = [
        [
            name,
            *(
                f"{value:.3f}"
                if figure in _SCORES and value is not None
                else value
                for figure, value in figures.items()
            ),
        ]
        for name, figures in tasks.items()
    ]
    return markdown_table(["", *next(iter(tasks.values()))], rows)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _length(candidate: Candidate) -> float:
    return sum(
        len(s.text) if isinstance(s, Text) else s.stream.count(Kind.PHONETIC)
        for s in candidate.segments
    )
