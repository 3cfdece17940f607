"""Few-shot tasks whose shots are drawn several times: what is asked, and rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import stdev
from typing import Any, NamedTuple

from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.units.prompts import draw_shots
from spiritlm_plugin.evaluation.loop import (
    Items,
    ModelSettings,
    UtteranceSettings,
    answer_row,
    item_seeds,
)
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.inference.few_shot import Answer
from spiritlm_plugin.utils.seeds import derive_seed


class FewShotSettings(ModelSettings, UtteranceSettings):
    """What a model is shown, and how it answers.

    See `load_draws` and `sampling_of`.
    """

    shots: int
    draws: int
    shot_ids: list[str] | None
    shot_split: str
    longest_shot: float | None
    context: int | None
    max_new_tokens: int
    temperature: float
    top_p: float


def load_draws(
    hparams: FewShotSettings,
    tested: Iterable[str],
    needs: str = "text",
    balanced: bool = False,
) -> list[Items]:
    """Return the utterances that are shown, of ``shot_split``, in each draw.

    They are those of ``shot_ids``, once, or else so many as ``shots``, drawn by
    the seed so often as ``draws`` from utterances not longer than
    ``longest_shot`` seconds; without shots there is one draw of none.

    Arguments
    ---------
    hparams : FewShotSettings
        The recipe's.
    tested : iterable of str
        Ids that are not shown.
    needs : str
        Key that they have.
    balanced : bool
        Whether to balance them over the values of that key.

    Raises
    ------
    ValueError
        If there are too few, none of such an id, or no draws.
    """
    if hparams["draws"] < 1:
        raise ValueError(f"draws should be 1 or more, got {hparams['draws']}")
    if not hparams["shots"] and not hparams["shot_ids"]:
        return [{}]
    tested = set(tested)
    path = Path(hparams["manifest_folder"]) / hparams["shot_split"]
    items = {
        name: item
        for name, item in load_manifest(path).items()
        if item.get(needs) and name not in tested
    }
    if hparams["shot_ids"] is None:
        longest = hparams["longest_shot"] or float("inf")
        labels = {
            name: item[needs]
            for name, item in items.items()
            if item["duration"] <= longest
        }
        draws = [
            draw_shots(
                labels,
                hparams["shots"],
                _draw_seed(hparams["seed"], draw),
                labels if balanced else None,
            )
            for draw in range(hparams["draws"])
        ]
    else:
        draws = [hparams["shot_ids"]]
    unknown = [name for names in draws for name in names if name not in items]
    if unknown:
        raise ValueError(
            f"{path} has no utterance {unknown[0]!r} with a {needs} that is not "
            "tested itself; correct shot_ids"
        )
    return [{name: items[name] for name in names} for names in draws]


def _draw_seed(seed: int, draw: int) -> int:
    """Return the seed of a draw of shots; the first has the recipe's own."""
    return derive_seed(seed, "draw", draw) if draw else seed


def sampling_of(hparams: FewShotSettings) -> dict[str, Any]:
    """Return the options of `FewShot` that the YAML names."""
    keys = ("max_new_tokens", "context", "temperature", "top_p", "batch_size")
    return {key: value for key, value in hparams.items() if key in keys}


class Question(NamedTuple):
    """What is asked about an item behind the shots of a draw."""

    id: str
    draw: int
    item: str
    seed: int


def questions_of(
    seed: int, names: Iterable[str], draws: int
) -> dict[str, Question]:
    """Return what is asked, by ids that `Predictions` keeps answers by.

    Arguments
    ---------
    seed : int
        The recipe's; that of a question depends on it, the draw and the item.
    names : iterable of str
        Of the items.
    draws : int
        Of the shots.

    Example
    -------
    >>> list(questions_of(1, ["a", "b"], 1))
    ['a', 'b']
    >>> list(questions_of(1, ["a", "b"], 2))
    ['draw 1/a', 'draw 1/b', 'draw 2/a', 'draw 2/b']
    """
    names = list(names)
    questions = [
        Question(
            name if draws == 1 else f"draw {draw + 1}/{name}", draw, name, own
        )
        for draw in range(draws)
        for name, own in zip(names, item_seeds(_draw_seed(seed, draw), names))
    ]
    return {question.id: question for question in questions}


class FewShotTask(ABC):
    """A model behind the shots of each draw; called with ids, it gives rows.

    Arguments
    ---------
    hparams : FewShotSettings
        The recipe's.
    items : dict
        What is asked about, by id.
    draws : sequence of dict
        As of `load_draws`.
    """

    def __init__(
        self,
        hparams: FewShotSettings,
        items: Items,
        draws: Sequence[Items],
    ):
        self.items, self.draws = items, draws
        self.questions = questions_of(hparams["seed"], items, len(draws))
        self._shown: tuple[int, Any] | None = None

    @abstractmethod
    def show(self, shots: Items) -> Any:
        """Return a model that is shown the shots of a draw."""

    @abstractmethod
    def ask(
        self, model: Any, questions: Sequence[Question]
    ) -> Iterator[tuple[Answer, dict[str, Any]]]:
        """Yield answers of what `show` returns, and what is kept of them."""

    def __call__(self, ids: list[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of some questions."""
        asked = [self.questions[name] for name in ids]
        for draw, group in groupby(asked, key=lambda q: q.draw):
            if self._shown is None or self._shown[0] != draw:
                self._shown = draw, self.show(self.draws[draw])
            some = list(group)
            found = self.ask(self._shown[1], some)
            for question, (answer, row) in zip(some, found):
                shots = self.draws[draw]
                yield {
                    **answer_row(question.id, question.seed, shots, answer),
                    "utterance": question.item,
                    "draw": draw + 1,
                    "speaker": self.items[question.item].get("speaker"),
                    **row,
                }


def rows_by_draw(rows: Rows) -> list[Rows]:
    """Return the rows of each draw, in their order.

    Example
    -------
    >>> rows = {"draw 1/a": {"draw": 1}, "draw 2/a": {"draw": 2}}
    >>> rows_by_draw(rows)[1]
    {'draw 2/a': {'draw': 2}}
    """
    found: dict[int, Rows] = {}
    for name, row in rows.items():
        found.setdefault(row["draw"], {})[name] = row
    return [found[draw] for draw in sorted(found)]


def over_draws(
    draws: Sequence[Items], figures: Sequence[Mapping[str, float | None]]
) -> dict[str, Any]:
    """Return what a summary says of the draws.

    Arguments
    ---------
    draws : sequence of dict
        As of `load_draws`.
    figures : sequence of dict
        Of each draw, with the same names.

    Returns
    -------
    dict
        ``draws``, of each its shots and figures, and as ``WER_std`` and so on
        the standard deviations over draws, None of a single one.

    Example
    -------
    >>> found = over_draws([{"a": {}}, {"b": {}}], [{"WER": 3.0}, {"WER": 5.0}])
    >>> round(found["WER_std"], 2), found["draws"][1]
    (1.41, {'shots': ['b'], 'WER': 5.0})
    """
    return {
        **{
            f"{name}_std": _deviation([found[name] for found in figures])
            for name in figures[0]
        },
        "draws": [
            {"shots": list(shots), **found}
            for shots, found in zip(draws, figures)
        ],
    }


def _deviation(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) > 1 else None
