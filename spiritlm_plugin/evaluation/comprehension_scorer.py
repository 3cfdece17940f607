"""How likely a model finds what is compared, in each modality."""

from __future__ import annotations

from collections.abc import (
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from itertools import groupby
from typing import Any, NamedTuple

import torch

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text
from spiritlm_plugin.dataio.units.units import (
    SAMPLE_RATE,
    Kind,
    SpeechStream,
    SpeechUnits,
)
from spiritlm_plugin.evaluation.comprehension_groups import (
    Groups,
    modalities_of,
)
from spiritlm_plugin.inference import SpiritLM


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
        sums = self.lm.engine.log_likelihood(
            contexts, continuations, self.batch_size, shared=True
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
