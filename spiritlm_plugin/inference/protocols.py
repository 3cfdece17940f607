"""What the tasks behind shots ask of a model, whoever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from spiritlm_plugin.dataio.units.segments import Segment
    from spiritlm_plugin.dataio.units.units import SpeechUnits
    from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
    from spiritlm_plugin.inference.generation import Generation


class SpeechEncoder(Protocol):
    """What makes units of recordings.

    `SpeechCodec` is one; see there for what the methods do.
    """

    def encode_batch(
        self, wavs: Tensor | Sequence[Any], wav_lens: Tensor | None = None
    ) -> list[SpeechUnits]:
        """Return the units of a batch."""
        ...

    def encode_file(self, path: Any) -> SpeechUnits:
        """Return the units of a file."""
        ...


class InterleavedModel(SpeechEncoder, Protocol):
    """What continues text and speech.

    `SpiritLM` is one; another engine, or a stand-in in a test, that has these
    members can transcribe, read and classify as well. See `SpiritLM` for what
    the methods do.
    """

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the language model."""
        ...

    @property
    def context(self) -> int:
        """Tokens that a prompt and its continuation may have together."""
        ...

    def with_units(
        self, batch: Sequence[Sequence[Segment]]
    ) -> list[list[Segment]]:
        """Replace the recordings of all prompts by their units."""
        ...

    def generate(
        self,
        prompts: Sequence[list[Segment]],
        output: str = "any",
        max_new_tokens: int = 200,
        temperature: float = 0.8,
        top_p: float = 0.95,
        *,
        seed: int | Sequence[int] | None = None,
        min_speech_units: int = 25,
        vocode: bool = True,
        batch_size: int = 16,
        num_beams: int = 1,
        style: int | str | None = None,
    ) -> list[Generation]:
        """Continue prompts."""
        ...

    def log_likelihood(
        self,
        prompts: Sequence[list[Segment]],
        continuations: Sequence[list[Segment]],
        batch_size: int = 16,
    ) -> tuple[Tensor, Tensor]:
        """Return how likely continuations are: sums, token counts."""
        ...

    def speaker_id(self, speaker: int | str | None) -> int | None:
        """Return the number of a voice, checked."""
        ...

    def style_units(self, style: int | str | None) -> list[int] | None:
        """Return the style units that carry a style, which is checked."""
        ...

    def speak(
        self,
        generations: Sequence[Generation],
        prompts: Sequence[Sequence[Segment]],
        continued: Sequence[bool],
        voice: int | None,
        seeds: Sequence[int],
        max_seconds: float | None = None,
        style: int | str | None = None,
    ) -> None:
        """Give generated speech its waveforms, in place."""
        ...
