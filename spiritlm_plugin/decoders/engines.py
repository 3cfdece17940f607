"""Who runs the language model: what is asked of it, and transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from spiritlm_plugin.dataio.batching import sized_batches
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.decoders.constrained import Decoded, decode
from spiritlm_plugin.decoders.continuous import decode_continuously
from spiritlm_plugin.decoders.llama_steps import is_llama
from spiritlm_plugin.decoders.shared_context import shared_log_likelihood
from spiritlm_plugin.lobes.language_model import LanguageModel
from spiritlm_plugin.utils.arguments import shown

ENGINES = ("transformers", "vllm")


class Engine(Protocol):
    """What runs a language model.

    `TransformersEngine` is one, and
    `spiritlm_plugin.decoders.vllm_engine.VllmEngine`. Prompts go in as ids
    and ids come out, so that an engine knows no text.
    """

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the language model."""
        ...

    @property
    def context(self) -> int:
        """Tokens that a prompt and its continuation may have together."""
        ...

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        output: str,
        max_new_tokens: int = 200,
        temperature: float = 0.8,
        top_p: float = 0.95,
        seeds: Sequence[int] | None = None,
        stop: bool = True,
        max_seconds: float | None = None,
        seconds_of: Callable[[Tensor], Tensor] | None = None,
        num_beams: int = 1,
        batch_size: int = 16,
        style_units: Sequence[int] | None = None,
    ) -> list[Decoded]:
        """Continue prompts, as `constrained.decode` does.

        An engine that batches by itself need not look at ``batch_size``.
        """
        ...

    def log_likelihood(
        self,
        contexts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        batch_size: int = 16,
        shared: bool = False,
    ) -> Tensor:
        """Return the log-likelihood of each continuation in its context.

        Arguments
        ---------
        contexts, continuations : sequence of sequences of int
            Token ids; none may be empty.
        batch_size : int
            As of `decode`.
        shared : bool
            Whether several continuations have a context in common, which
            then need not go through the model for each, where that is not
            found out anyway.

        Returns
        -------
        Tensor
            Natural logarithms, summed over the tokens of a continuation,
            float32 on the CPU, shape (items,).

        Raises
        ------
        ValueError
            If an item is longer than the model's context.
        """
        ...


@dataclass(frozen=True)
class TransformersEngine:
    """A model of transformers in this process.

    Llama and its kin run by steps of our own, in which a prompt whose output
    has ended makes room for the next one, and what prompts begin with in
    common is computed once; other models, and searches with several beams,
    by transformers' ``generate``.

    Arguments
    ---------
    lm : LanguageModel
        The model.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> engine = TransformersEngine(lm)
    >>> prompt = engine.vocabulary.encode([("text", "the cat")], "text")
    >>> [out] = engine.decode([prompt], "text", 3, temperature=0)
    >>> out.end_reason
    'max_new_tokens'
    >>> bool(engine.log_likelihood([prompt], [out.ids.tolist()]) < 0)
    True
    """

    lm: LanguageModel

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the language model."""
        return self.lm.vocabulary

    @property
    def context(self) -> int:
        """Tokens that a prompt and its continuation may have together."""
        return self.lm.context

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        output: str,
        max_new_tokens: int = 200,
        temperature: float = 0.8,
        top_p: float = 0.95,
        seeds: Sequence[int] | None = None,
        stop: bool = True,
        max_seconds: float | None = None,
        seconds_of: Callable[[Tensor], Tensor] | None = None,
        num_beams: int = 1,
        batch_size: int = 16,
        style_units: Sequence[int] | None = None,
    ) -> list[Decoded]:
        """Continue prompts; see `Engine`."""
        if num_beams == 1 and is_llama(self.lm):
            return decode_continuously(
                self.lm,
                prompts,
                output,
                max_new_tokens,
                temperature,
                top_p,
                seeds,
                stop,
                max_seconds,
                seconds_of,
                batch_size,
                style_units,
            )
        decoded: dict[int, Decoded] = {}
        for chosen in sized_batches([len(ids) for ids in prompts], batch_size):
            results = decode(
                self.lm,
                [prompts[i] for i in chosen],
                output,
                max_new_tokens,
                temperature,
                top_p,
                None if seeds is None else [seeds[i] for i in chosen],
                stop,
                max_seconds,
                seconds_of,
                num_beams,
                style_units,
            )
            decoded.update(zip(chosen, results))
        return [decoded[i] for i in range(len(prompts))]

    def log_likelihood(
        self,
        contexts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        batch_size: int = 16,
        shared: bool = False,
    ) -> Tensor:
        """Return how likely continuations are; see `Engine`."""
        if shared or is_llama(self.lm):
            return shared_log_likelihood(
                self.lm, contexts, continuations, batch_size
            )
        pairs = [
            (list(context), list(continuation))
            for context, continuation in zip(contexts, continuations)
        ]
        sums = torch.empty(len(pairs))
        lengths = [len(context) + len(target) for context, target in pairs]
        for chosen in sized_batches(lengths, batch_size):
            sums[chosen] = self.lm.log_likelihood(
                [pairs[i][0] for i in chosen], [pairs[i][1] for i in chosen]
            )
        return sums


def check_engine(name: str, options: Mapping[str, Any] | None) -> None:
    """Raise ValueError unless an engine has this name, and takes options.

    Example
    -------
    >>> check_engine("tgi", None)
    Traceback (most recent call last):
        ...
    ValueError: engine must be transformers or vllm, got 'tgi'
    """
    if name not in ENGINES:
        raise ValueError(
            f"engine must be {' or '.join(ENGINES)}, got {shown(name)}"
        )
    if name == "transformers" and options:
        raise ValueError(
            f"engine_options {shown(options)} are vLLM's; give engine='vllm', "
            "or leave them out"
        )
