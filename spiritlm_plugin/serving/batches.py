"""Outputs that are made together: what a model thread takes steps of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from spiritlm_plugin.decoders.continuous import Piece
from spiritlm_plugin.decoders.engines import TransformersEngine
from spiritlm_plugin.decoders.joining import Joining
from spiritlm_plugin.decoders.llama_steps import is_llama
from spiritlm_plugin.inference.spiritlm import SpiritLM


@dataclass(eq=False)
class WholeOutputs:
    """Stands for `Joining` where an engine makes whole outputs alone."""

    lm: SpiritLM
    output: str
    temperature: float
    top_p: float
    style_units: Sequence[int] | None = None
    jobs: dict[int, tuple[Sequence[int], int, int]] = field(
        default_factory=dict
    )
    count: int = 0

    def __len__(self) -> int:
        return len(self.jobs)

    def add(
        self, prompt: Sequence[int], seed: int = 0, max_new_tokens: int = 200
    ) -> int:
        """Add an output to be made; return its number."""
        self.count += 1
        self.jobs[self.count] = (prompt, seed, max_new_tokens)
        return self.count

    def drop(self, index: int) -> None:
        """Give an output up."""
        self.jobs.pop(index, None)

    def step(self) -> list[Piece]:
        """Make the outputs of those with the limit of the first."""
        limit = next(iter(self.jobs.values()))[2]
        chosen = {i: job for i, job in self.jobs.items() if job[2] == limit}
        for index in chosen:
            del self.jobs[index]
        made = self.lm.engine.decode(
            [prompt for prompt, _, _ in chosen.values()],
            self.output,
            limit,
            self.temperature,
            self.top_p,
            [seed for _, seed, _ in chosen.values()],
            style_units=self.style_units,
        )
        return [
            Piece(index, result.ids.tolist(), result.end_reason)
            for index, result in zip(chosen, made)
        ]


def new_batch(
    lm: SpiritLM,
    output: str,
    temperature: float,
    top_p: float,
    style_units: Sequence[int] | None,
    rows: int,
) -> Joining | WholeOutputs:
    """Return an empty batch of outputs with these settings.

    Arguments
    ---------
    lm : SpiritLM
        The model.
    output, temperature, top_p
        As of `SpiritLM.generate`.
    style_units : sequence of int, optional
        The only ones that speech may have.
    rows : int
        Outputs that may be made at a time.
    """
    engine = lm.engine
    if isinstance(engine, TransformersEngine) and is_llama(engine.lm):
        return Joining(
            engine.lm,
            output,
            temperature,
            top_p,
            rows=rows,
            style_units=style_units,
        )
    return WholeOutputs(lm, output, temperature, top_p, style_units)
