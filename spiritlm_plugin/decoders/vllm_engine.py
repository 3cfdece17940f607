"""The engine that is vLLM, in the way that `SpiritLM` uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, PreTrainedConfig

from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.decoders.constrained import (
    ContextLimit,
    Decoded,
    RowLimit,
    SecondsLimit,
    check_decoding,
    check_sampling,
    cut,
)
from spiritlm_plugin.decoders.vllm_sampling import Wish, register
from spiritlm_plugin.lobes.language_model_config import context_of

# By its name, which vLLM imports in processes of its own.
PROCESSOR = f"{Wish.__module__}:ConstrainedSampling"
# Likelihoods as the model gives them, before any constraint.
_RAW = "raw_logprobs"


class VllmEngine:
    """A language model that vLLM runs.

    What it gives is what `TransformersEngine` gives, but for the rounding of
    another engine's sums: tokens are drawn with the same random numbers.

    Arguments
    ---------
    folder : str or Path
        A stock transformers folder with the tokenizer's files.
    dtype : str
        ``"auto"`` is that of the weights.
    **options
        Of ``vllm.LLM``, such as ``gpu_memory_utilization``,
        ``max_model_len`` and ``tensor_parallel_size``.

    Raises
    ------
    ImportError
        If vLLM is not installed.
    FileNotFoundError
        If the tokenizer is missing.
    ValueError
        If the embedding has fewer rows than the vocabulary has ids, or
        ``dtype`` is ``"auto"`` and ``config.json`` does not name it.
    """

    def __init__(self, folder: str | Path, dtype: str = "auto", **options: Any):
        try:
            self.vllm = import_module("vllm")
        except ModuleNotFoundError as error:
            raise ImportError(
                'engine="vllm" needs vLLM: pip install "spiritlm_plugin[vllm]"'
            ) from error
        if options.get("logprobs_mode", _RAW) != _RAW:
            raise ValueError(
                f"logprobs_mode {options['logprobs_mode']!r} would change the "
                f"model's likelihoods; leave it out, it is {_RAW!r}"
            )
        register()
        self._vocabulary = Vocabulary.load(folder)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        # raises if rows are missing
        self._vocabulary.allowed("any", config.get_text_config().vocab_size)
        longest, context = options.get("max_model_len"), context_of(config)
        if longest is not None and longest > context:
            raise ValueError(
                f"max_model_len {longest} is more than the model's context of "
                f"{context}; lower it, or leave it out"
            )
        settings: dict[str, Any] = {
            "dtype": _named_dtype(config, folder) if dtype == "auto" else dtype,
            "skip_tokenizer_init": True,  # ids in, ids out
            "generation_config": "vllm",  # none of the folder's settings
            **options,
        }
        processors = [*options.get("logits_processors", ()), PROCESSOR]
        settings["logits_processors"] = processors
        self.llm = self.vllm.LLM(str(folder), **settings)

    @property
    def vocabulary(self) -> Vocabulary:
        """Of the language model."""
        return self._vocabulary

    @property
    def context(self) -> int:
        """Tokens that a prompt and its continuation may have together."""
        return self.llm.model_config.max_model_len

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
        """Continue prompts; see `Engine`.

        vLLM batches by itself: ``batch_size`` is not looked at. With
        ``max_seconds`` outputs are made whole and cut.

        Raises
        ------
        ValueError
            Also if a search with beams is asked for.
        """
        if num_beams > 1:
            raise ValueError(
                f"num_beams={num_beams}: vLLM does not search under a "
                'constraint; give num_beams=1, or engine="transformers"'
            )
        sampling = check_decoding(
            prompts,
            self.context,
            check_sampling(max_new_tokens, temperature, top_p),
            seeds,
            max_seconds,
            seconds_of,
        )
        if not prompts:
            return []
        max_new_tokens, temperature, top_p, _ = sampling
        room = [self.context - len(prompt) for prompt in prompts]
        eos_id = self.vocabulary.eos_id
        drawn = seeds if seeds and temperature > 0 else [None] * len(prompts)
        units = None if style_units is None else tuple(style_units)
        wishes = [
            Wish(output, stop, seed, temperature, top_p, units)
            for seed in drawn
        ]
        outputs = self._generate(
            prompts,
            [
                {
                    "max_tokens": min(max_new_tokens, tokens),
                    "stop_token_ids": [eos_id],
                    "extra_args": wish.extra_args,
                }
                for tokens, wish in zip(room, wishes)
            ],
        )
        new = pad_sequence(
            [torch.tensor(out.outputs[0].token_ids) for out in outputs],
            batch_first=True,
            padding_value=eos_id,
        )
        limits: list[RowLimit] = [ContextLimit(torch.tensor(room), 0)]
        if max_seconds is not None and seconds_of is not None:
            limits.append(SecondsLimit(seconds_of, max_seconds, 0))
        for length in range(1, new.shape[1] + 1):
            for limit in limits:
                limit(new[:, :length], new)
        return cut(new, eos_id, limits, max_new_tokens)

    def log_likelihood(
        self,
        contexts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        batch_size: int = 16,
        shared: bool = False,
    ) -> Tensor:
        """Return how likely continuations are; see `Engine`.

        vLLM batches by itself: ``batch_size`` is not looked at. A context that
        is ``shared`` is read once where continuations are of one token: vLLM
        keeps no likelihoods of tokens that it has read before.
        """
        items: list[list[int]] = []
        for context, continuation in zip(contexts, continuations):
            if not len(context) or not len(continuation):
                raise ValueError(
                    f"item {len(items)} has {len(context)} tokens of context "
                    f"and {len(continuation)} of continuation; it needs one of "
                    "each"
                )
            items.append([*context, *continuation])
            if len(items[-1]) > self.context:
                raise ValueError(
                    f"{len(items[-1])} tokens are more than the model's "
                    f"context of {self.context}; shorten the prompt"
                )
        # The last token is written, not read: so that an item may fill the
        # context, and one token costs no more than one step.
        outputs = self._generate(
            [item[:-1] for item in items],
            [
                {
                    "max_tokens": 1,
                    "allowed_token_ids": item[-1:],
                    "logprobs": 0,
                    "prompt_logprobs": 0 if len(continuation) > 1 else None,
                }
                for item, continuation in zip(items, continuations)
            ],
        )
        sums = []
        for item, continuation, out in zip(items, continuations, outputs):
            count = len(continuation) - 1
            steps = [
                *(out.prompt_logprobs[-count:] if count else ()),
                out.outputs[0].logprobs[0],
            ]
            tokens = item[-len(continuation) :]
            sums.append(sum(s[t].logprob for s, t in zip(steps, tokens)))
        return torch.tensor(sums, dtype=torch.float32)

    def _generate(
        self, prompts: Sequence[Sequence[int]], settings: list[dict[str, Any]]
    ) -> list[Any]:
        """Run prompts of ids, the likeliest token where nothing is drawn."""
        params = [
            self.vllm.SamplingParams(
                temperature=0.0, ignore_eos=True, detokenize=False, **own
            )
            for own in settings
        ]
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return self.llm.generate(inputs, params, use_tqdm=False)


def _named_dtype(config: PreTrainedConfig, folder: str | Path) -> str:
    """Return the type that a model says to have; vLLM's "auto" is another."""
    if config.dtype is None:
        raise ValueError(
            f"the config.json in {folder} names no dtype; give the dtype of "
            'the language model, such as "bfloat16"'
        )
    return str(config.dtype).removeprefix("torch.")
