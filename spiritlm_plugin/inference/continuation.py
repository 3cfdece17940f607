"""Prompts that a language model continues as some shots are continued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from spiritlm_plugin.dataio.units.segments import Segment, Text
from spiritlm_plugin.inference.few_shot import Answer, FewShot
from spiritlm_plugin.inference.generation import Generation

if TYPE_CHECKING:
    from spiritlm_plugin.inference.protocols import InterleavedModel

# Ends a shot of text alone, which no change of modality ends.
_END = "\n"


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
        shown = [_join(*pair) for pair in lm.with_units(shots)]
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
        queries = self.lm.with_units([[part] for part in prompts])
        shown, generations = self.ask(queries, seeds)
        answers = [
            self._read(prompt.segments, prompt.shots, generation)
            for prompt, generation in zip(shown, generations)
        ]
        # Behind speech without a marker between.
        self.speak(answers, shown, True, seeds, voice)
        return answers

    def _read(
        self, prompt: list[Segment], shots: int, generation: Generation
    ) -> Answer:
        """Leave what stands before the end of a shot, where some are shown."""
        text = generation.text
        if shots and isinstance(prompt[-1], Text) and text:
            text = text.partition(_END)[0]
            generation = Generation([Text(text)], generation.end_reason)
        complete = generation.end_reason == "end_of_sequence"
        return Answer(generation, shots, text, complete)


def _join(prompt: Segment, continuation: Segment) -> list[Segment]:
    if isinstance(prompt, Text) and isinstance(continuation, Text):
        return [prompt, Text(f" {continuation.text}{_END}")]
    return [prompt, continuation]
