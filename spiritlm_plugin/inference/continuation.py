"""Prompts that a language model continues as some shots are continued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from spiritlm_plugin.dataio.units.prompts import (
    continuation_answer,
    continuation_shot,
)
from spiritlm_plugin.dataio.units.segments import Segment, Text, as_segment
from spiritlm_plugin.inference.few_shot import Answer, FewShot, as_shots
from spiritlm_plugin.inference.generation import Generation
from spiritlm_plugin.utils.arguments import as_list

if TYPE_CHECKING:
    from spiritlm_plugin.inference.protocols import InterleavedModel


class Continuer(FewShot):
    """Continues prompts in text or in speech.

    Arguments
    ---------
    lm : InterleavedModel
        The model.
    shots : sequence of (segment, segment)
        Prompts with continuations; `Text`, or `Speech` of anything.
    output : str
        ``"text"`` or ``"speech"``.
    max_new_tokens : int
        Of a continuation.
    temperature : float
        As of `SpiritLM.generate`.
    **options
        As of `FewShot`.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "base")
    >>> shots = [(Text("a long"), Text("walk"))]
    >>> continue_ = Continuer(lm, shots, "text", max_new_tokens=5)
    >>> [answer] = continue_([Text("two old")], seeds=[0])
    >>> answer.shots, answer.text == answer.generation.text
    (1, True)
    """

    def __init__(
        self,
        lm: InterleavedModel,
        shots: Sequence[tuple[Segment, Segment]],
        output: str,
        max_new_tokens: int,
        temperature: float = 0.8,
        **options: Any,
    ):
        pairs = as_shots(shots, as_segment, as_segment)
        shown = [continuation_shot(*pair) for pair in lm.with_units(pairs)]
        super().__init__(
            lm,
            shown,
            output,
            max_new_tokens,
            temperature=temperature,
            **options,
        )

    @torch.inference_mode()
    def __call__(
        self,
        prompts: Sequence[Segment],
        seeds: Sequence[int],
        speaker: int | str | None = None,
    ) -> list[Answer]:
        """Return the continuations; one may be empty."""
        voice = self.lm.speaker_id(speaker)
        parts = as_list("prompts", prompts, "segments")
        queries = self.lm.with_units([[as_segment(part)] for part in parts])
        shown, generations = self.ask(queries, seeds)
        answers = [
            self._read(prompt.shots, generation)
            for prompt, generation in zip(shown, generations)
        ]
        # Behind speech without a marker between.
        self.speak(answers, shown, True, seeds, voice)
        return answers

    def _read(self, shots: int, generation: Generation) -> Answer:
        """Leave what stands before a line break, where shots end in one."""
        text = generation.text
        if shots and text:
            text = continuation_answer(text)
            generation = Generation([Text(text)], generation.end_reason)
        complete = generation.end_reason == "end_of_sequence"
        return Answer(generation, shots, text, complete)
