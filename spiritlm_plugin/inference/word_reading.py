"""Reading aloud a word at a time, as interleaved models can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from spiritlm_plugin.dataio.batching import sized_batches
from spiritlm_plugin.dataio.prompts import Prompt
from spiritlm_plugin.dataio.segments import Segment, Text
from spiritlm_plugin.decoders.constrained import decode
from spiritlm_plugin.decoders.scripted import SPEAK, ScriptedTokens
from spiritlm_plugin.inference.few_shot import TOO_LONG, Reader
from spiritlm_plugin.inference.generation import Generation

if TYPE_CHECKING:
    from spiritlm_plugin.inference.spiritlm import SpiritLM


class WordReader(Reader):
    """Reads texts aloud by writing and speaking each word in turn.

    What a model was trained on that saw text and speech change at each word
    (``words`` of `DocumentMaker`): the words are given, and the model speaks
    each until it would write the next. So it cannot lose its place in the
    text, as small models do that read all of it behind ``[TTS]``.

    Arguments
    ---------
    lm : SpiritLM
        The model.
    max_new_tokens : int
        Of a reading, its written words included.
    **options
        As of `Reader`.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "base")
    >>> read = WordReader(lm, max_new_tokens=40)
    >>> [answer] = read(["the old man"], seeds=[0])
    >>> answer.generation.wav.shape[0] > 0
    True
    """

    _trained_output = "speech"

    def __init__(self, lm: SpiritLM, max_new_tokens: int = 500, **options):
        super().__init__(lm, max_new_tokens=max_new_tokens, **options)
        model = lm.mods.language_model
        speech = lm.vocabulary.allowed("speech", model.rows, stop=False)
        self._speech = speech.to(model.device)

    @torch.inference_mode()
    def ask(
        self, queries: Sequence[list[Segment]], seeds: Sequence[int]
    ) -> tuple[list[Prompt], list[Generation]]:
        """Generate the readings; texts that are too long get none."""
        lm, vocabulary = self.lm.mods.language_model, self.lm.vocabulary
        prompts, starts, scripts = [], [], []
        for [text] in queries:
            first, *rest = text.text.split() or [""]  # which is refused
            segments = [Text(first)]
            starts.append(vocabulary.encode(segments, "speech"))
            scripts.append(self._script(rest))
            prompts.append(Prompt(segments, 0, len(starts[-1])))
        lengths = [len(a) + len(b) for a, b in zip(starts, scripts)]
        generations = [Generation([], TOO_LONG) for _ in queries]
        fits = [i for i, length in enumerate(lengths) if length < self.context]
        for batch in sized_batches([lengths[i] for i in fits], self.batch_size):
            chosen = [fits[i] for i in batch]
            decoded = decode(
                lm,
                [starts[i] for i in chosen],
                "speech",
                seeds=[seeds[i] for i in chosen],
                tokens=ScriptedTokens(
                    [scripts[i] for i in chosen], self._speech
                ),
                **self.sampling,
            )
            for i, one in zip(chosen, decoded):
                segments = vocabulary.decode(one.ids)
                generations[i] = Generation(segments, one.end_reason)
        return prompts, generations

    def _script(self, words: Sequence[str]) -> list[int]:
        """Return what comes behind the first written word."""
        vocabulary, script = self.lm.vocabulary, [SPEAK]
        for word in words:
            script += vocabulary.markers["text"], *vocabulary.encode_text(word)
            script += vocabulary.markers["speech"], SPEAK
        return [*script, vocabulary.eos_id]
