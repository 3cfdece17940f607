"""Say other texts in a voice, by units spliced of what it has said.

    python splice.py VOICE TEXTS OUTPUT

VOICE and OUTPUT are folders of units, as tokenize_corpus.py writes them, TEXTS one of
units or manifests; of VOICE and TEXTS the times of phones must be known. Each text is
made of pieces of a few phones of VOICE/train, drawn among those with the same
neighbors, in the same style where there are some. Only phonetic units are written,
which are all that a Base reads.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch

from spiritlm_plugin.dataio.corpus.manifests import open_source
from spiritlm_plugin.dataio.corpus.mapping import Items, map_shards
from spiritlm_plugin.dataio.corpus.shards import make_row
from spiritlm_plugin.dataio.corpus.stores import Store
from spiritlm_plugin.dataio.units.units import PHONETIC_RATE, SpeechUnits
from spiritlm_plugin.utils.seeds import derive_seed

SHORTEST, LONGEST = 2, 6  # phones of a piece, where there is one
# How many phones before and behind it should be the same; the first that are found.
_NEIGHBORS = ((1, 1), (1, 0), (0, 1), (0, 0))


class Piece(NamedTuple):
    """A phone as it was said: its style, and its units at full rate."""

    style: str | None
    units: np.ndarray


class Voice:
    """What a voice has said, found by phones.

    Arguments
    ---------
    rows : iterable of dict
        Of a store, with ``phones`` and ``phonetic_units``.

    Raises
    ------
    ValueError
        If there are no phones.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]):
        self.pieces: list[Piece] = []
        self.places: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for row in rows:
            self._add(row)
        if not self.pieces:
            raise ValueError(
                "the voice has no times of phones; prepare it with `phones`"
            )

    def _add(self, row: Mapping[str, Any]) -> None:
        units = row["phonetic_units"].numpy()
        names = [phone["phone"] for phone in row["phones"]]
        starts = np.array([phone["start"] for phone in row["phones"][1:]])
        cuts = np.round(starts * PHONETIC_RATE).astype(int)
        first = len(self.pieces)
        if names:
            pieces = np.split(units, np.minimum(cuts, len(units)))
            self.pieces += [Piece(row["style"], piece) for piece in pieces]
        for start in range(len(names)):
            for end in range(start + 1, start + LONGEST + 3):
                if end <= len(names):
                    self.places[tuple(names[start:end])].append(first + start)

    def say(
        self, phones: Sequence[str], style: str | None, random: Random
    ) -> list[np.ndarray]:
        """Return the units of each phone; none where it was never said.

        Arguments
        ---------
        phones : sequence of str
            Of an utterance, with its silences.
        style : str, optional
            That pieces should have.
        random : random.Random
            Decides how long they are, and which are taken.
        """
        said: list[np.ndarray] = []
        while len(said) < len(phones):
            most = random.randint(SHORTEST, LONGEST)
            places, count = self._find(phones, len(said), most)
            if not places:
                said.append(self.pieces[0].units[:0])
                continue
            alike = [i for i in places if self.pieces[i].style == style]
            place = random.choice(alike or places)
            said += [p.units for p in self.pieces[place : place + count]]
        return said

    def _find(
        self, phones: Sequence[str], start: int, most: int
    ) -> tuple[list[int], int]:
        """Return where the next piece was said, and how many phones it has."""
        longest = min(most, len(phones) - start)
        for before, behind in _NEIGHBORS:
            for count in range(longest, 0, -1):
                begin, end = start - before, start + count + behind
                if begin < 0 or end > len(phones):
                    continue
                places = self.places.get(tuple(phones[begin:end]))
                if places:
                    return [place + before for place in places], count
        return [], 1


def splice(voice: Voice, seed: int, items: Items) -> Iterator[dict[str, Any]]:
    """Yield a row of a store for each utterance, as the voice says it.

    Raises
    ------
    ValueError
        If one has no times of phones; names it.
    """
    for name, item in items.items():
        if not item.get("phones"):
            raise ValueError(
                f"{name} has no times of phones; prepare it with `phones`"
            )
        phones = [phone for phone, *_ in item["phones"]]
        said = voice.say(
            phones, item.get("style"), Random(derive_seed(seed, name))
        )
        ends = np.cumsum([len(units) for units in said]) / PHONETIC_RATE
        old = np.array([end for *_, end in item["phones"]])
        times = np.concatenate([[0.0], old]), np.concatenate([[0.0], ends])
        words = [
            [word, *np.interp([start, end], *times).tolist()]
            for word, start, end in item.get("words") or ()
        ]
        units = SpeechUnits(torch.from_numpy(np.concatenate(said)))
        changed = {"words": words, "phones": None, "duration": float(ends[-1])}
        yield make_row(name, {**item, **changed}, units)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("voice", "texts", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    store = Store(given.voice / "train")
    voice = Voice(store.rows)
    made = {"parts": store.description["parts"], "voice": store.digest}
    for split in ("train", "valid"):
        map_shards(
            open_source(given.texts / split),
            given.output / split,
            lambda: lambda items: splice(voice, given.seed, items),
            made | {"seed": given.seed},
        )


if __name__ == "__main__":
    main()
