"""vLLM as far as this package knows it, small and slow.

Requests share a batch of a few rows. They come, leave and change rows, read
their prompts in pieces, and are asked for logits before they have read them, as
in vLLM. Names and signatures are those of vLLM 0.32 and 0.33, which
`test_vllm.py` compares where it is installed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum, auto
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

ROWS = 3
PIECE = 9


@dataclass
class SamplingParams:
    temperature: float = 1.0
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    allowed_token_ids: list[int] | None = None
    extra_args: dict[str, Any] | None = None


class MoveDirectionality(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()


@dataclass(frozen=True)
class BatchUpdate:
    batch_size: int
    removed: list
    added: list
    moved: list


class LogitsProcessor(ABC):
    """Of the V1 runner."""

    @abstractmethod
    def __init__(self, vllm_config, device, is_pin_memory): ...

    @classmethod
    @abstractmethod
    def validate_params(cls, sampling_params): ...

    @abstractmethod
    def apply(self, logits): ...

    @abstractmethod
    def is_argmax_invariant(self): ...

    @abstractmethod
    def update_state(self, batch_update): ...


class LogitsProcessorV2(ABC):
    """Of the V2 runner."""

    @abstractmethod
    def __init__(self, vllm_config, req_states): ...

    @classmethod
    @abstractmethod
    def validate_params(cls, sampling_params): ...

    @abstractmethod
    def add_request(self, req_idx, sampling_params): ...

    @abstractmethod
    def apply_staged_writes(self): ...

    @abstractmethod
    def apply(self, logits, ctx): ...


@dataclass(frozen=True)
class LogitsContext:
    """Without those that are on the device."""

    idx_mapping_np: np.ndarray
    seq_lens_upper_bound_np: np.ndarray


@dataclass
class Request:
    prompt: list[int]
    params: SamplingParams
    written: list[int] = field(default_factory=list)
    read: int = 0
    logprobs: list = field(default_factory=list)

    @property
    def length(self):
        return min(self.read, len(self.prompt)) + len(self.written)

    @property
    def is_done(self):
        stop = set(self.params.stop_token_ids or ())
        return len(self.written) >= self.params.max_tokens or bool(
            self.written and self.written[-1] in stop
        )


class V1:
    """Who is in which row, as the V1 runner tells its processors."""

    def __init__(self, cls, config):
        assert issubclass(cls, LogitsProcessor)
        self.processor = cls(config, torch.device("cpu"), False)
        assert not self.processor.is_argmax_invariant()
        self.steps = 0

    def rows_of(self, rows, waiting):
        self.steps += 1
        removed = [i for i, r in enumerate(rows) if r.is_done]
        added, moved = [], []
        kept = dict(enumerate(rows))
        for i in removed:
            del kept[i]
        while waiting and len(kept) < ROWS:
            i = min(set(range(ROWS)) - set(kept))
            r = kept[i] = waiting.pop(0)
            # Rows that are taken again are not said to be removed.
            removed = [j for j in removed if j != i]
            added.append((i, r.params, r.prompt, r.written))
        for i in range(len(kept)):
            if i not in kept:
                last = max(kept)
                kept[i] = kept.pop(last)
                moved.append((last, i, MoveDirectionality.UNIDIRECTIONAL))
        if len(kept) > 1 and self.steps % 3 == 0:
            kept[0], kept[1] = kept[1], kept[0]
            moved.append((0, 1, MoveDirectionality.SWAP))
        update = BatchUpdate(len(kept), removed, added, moved)
        changed = removed or added or moved
        self.processor.update_state(update if changed else None)
        return [kept[i] for i in range(len(kept))]

    def apply(self, logits, rows):
        return self.processor.apply(logits)


class V2:
    """Who is in which slot, as the V2 runner tells its processors."""

    def __init__(self, cls, config):
        assert issubclass(cls, LogitsProcessorV2)
        self.slots: dict[int, Request] = {}
        self.lengths = np.zeros(2 * ROWS, dtype=np.int32)
        states = SimpleNamespace(prompt_len=SimpleNamespace(np=self.lengths))
        self.processor = cls(config, states)

    def rows_of(self, rows, waiting):
        self.slots = {s: r for s, r in self.slots.items() if not r.is_done}
        while waiting and len(self.slots) < ROWS:
            slot = max(set(range(2 * ROWS)) - set(self.slots))
            r = self.slots[slot] = waiting.pop(0)
            self.lengths[slot] = len(r.prompt)
            self.processor.add_request(slot, r.params)
        self.processor.apply_staged_writes()
        self.slots = dict(reversed(self.slots.items()))
        return list(self.slots.values())

    def apply(self, logits, rows):
        lengths = np.array([r.length for r in rows], dtype=np.int32)
        context = LogitsContext(np.array(list(self.slots)), lengths)
        return self.processor.apply(logits, context)


class LLM:
    """Models of transformers, without a cache."""

    runner = V1

    def __init__(
        self,
        model: str,
        *,
        skip_tokenizer_init: bool = False,
        dtype: str = "auto",
        logits_processors: list[str] | None = None,
        **kwargs: Any,
    ):
        assert skip_tokenizer_init
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
        config = self.model.config
        self.model_config = SimpleNamespace(
            model=model,
            max_model_len=config.max_position_embeddings,
            get_vocab_size=lambda: config.vocab_size,
        )
        [name] = logits_processors
        module, _, attribute = name.partition(":")
        self.cls = getattr(import_module(module), attribute)
        self.config = SimpleNamespace(
            model_config=self.model_config, speculative_config=None
        )
        self.batch = self.runner(self.cls, self.config)

    @torch.inference_mode()
    def generate(self, prompts, sampling_params=None, *, use_tqdm=True):
        requests = []
        for prompt, params in zip(prompts, sampling_params, strict=True):
            self.cls.validate_params(params)
            ids = prompt["prompt_token_ids"]
            assert 0 < len(ids) < self.model_config.max_model_len
            requests.append(Request(ids, params))
        rows, waiting = [], list(requests)
        while rows := self.batch.rows_of(rows, waiting):
            logits = torch.stack([self.read(r) for r in rows])
            scores = logits.log_softmax(-1)
            for row, r in zip(logits, rows):
                if r.params.allowed_token_ids is not None:
                    only = torch.full_like(row, -torch.inf)
                    only[r.params.allowed_token_ids] = 0
                    row += only
            logits = self.batch.apply(logits, rows)
            for r, row, score in zip(rows, logits, scores):
                if r.read >= len(r.prompt):
                    assert r.params.temperature == 0 and r.params.ignore_eos
                    r.written.append(int(row.argmax()))
                    r.logprobs.append(shown(score, r.written[-1]))
        return [self.output(r) for r in requests]

    def read(self, request):
        request.read += PIECE
        ids = [*request.prompt[: request.read], *request.written]
        return self.model(torch.tensor([ids])).logits[0, -1].float()

    def output(self, request):
        scores = None
        if request.params.prompt_logprobs is not None:
            logits = self.model(torch.tensor([request.prompt])).logits[0]
            rows = logits.float().log_softmax(-1)
            read = zip(rows, request.prompt[1:])
            scores = [None, *(shown(row, token) for row, token in read)]
        out = SimpleNamespace(
            token_ids=request.written, logprobs=request.logprobs
        )
        return SimpleNamespace(outputs=[out], prompt_logprobs=scores)


def shown(scores, token):
    return {token: SimpleNamespace(logprob=float(scores[token]))}


def modules(runner: type) -> dict[str, ModuleType]:
    """Return what stands in ``sys.modules`` where vLLM is imported."""
    found = {
        "vllm": {
            "LLM": type("LLM", (LLM,), {"runner": runner}),
            "SamplingParams": SamplingParams,
        },
        "vllm.v1.sample.logits_processor": {"LogitsProcessor": LogitsProcessor},
        "vllm.v1.worker.gpu.sample.logits_processor": {
            "LogitsProcessor": LogitsProcessorV2
        },
    }
    made = {name: ModuleType(name) for name in found}
    for name, members in found.items():
        vars(made[name]).update(members)
    return made
