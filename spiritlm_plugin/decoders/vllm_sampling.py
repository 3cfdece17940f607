"""The constraint and the draws of `constrained`, inside vLLM.

vLLM imports `ConstrainedSampling` by its name, in its own processes, and asks
it about all requests. What a request wants stands in its ``extra_args``, or
``vllm_xargs`` of a server:

``spiritlm_output``
    ``"text"``, ``"speech"``, ``"any"``, ... as of `Vocabulary.allowed`. A
    request without it is left alone.
``spiritlm_stop``
    Whether speech may end with the end-of-sequence token; 1 by default.
``spiritlm_seed``
    Draw as `SeededSampling` does; without it vLLM chooses among what is
    allowed, as its own ``temperature`` and ``top_p`` say.
``spiritlm_temperature``, ``spiritlm_top_p``
    Of the draws with a seed; 0.8 and 0.95 by default.
``spiritlm_style_units``
    A list of the only style units that speech may have; any by default.

Both interfaces for logits processors of vLLM 0.32 and 0.33 are served, of its
V1 and of its V2 model runner.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.vocabulary import Vocabulary, check_output
from spiritlm_plugin.decoders.constrained import (
    check_sampling,
    draw,
    uniform,
    warpers,
)
from spiritlm_plugin.utils.arguments import as_list, flag, whole_number
from spiritlm_plugin.utils.seeds import draw_seeds

PREFIX = "spiritlm_"
_RUNNERS = ("vllm.v1.sample", "vllm.v1.worker.gpu.sample")


@dataclass(frozen=True)
class Wish:
    """What a request asks for, checked.

    Arguments
    ---------
    output : str
        What it may contain.
    stop : bool
        Whether speech may end.
    seed : int, optional
        Of the draws; None where vLLM chooses.
    temperature, top_p : float
        Of the draws.
    style_units : tuple of int, optional
        The only ones that speech may have.

    Example
    -------
    >>> wish = Wish.read({"spiritlm_output": "text", "spiritlm_seed": 1})
    >>> wish.output, wish.seed, wish.temperature
    ('text', 1, 0.8)
    """

    output: str
    stop: bool = True
    seed: int | None = None
    temperature: float = 0.8
    top_p: float = 0.95
    style_units: tuple[int, ...] | None = None

    @classmethod
    def read(cls, extra: Mapping[str, Any] | None) -> Wish | None:
        """Read the wish of a request, None if it has none.

        Arguments
        ---------
        extra : dict, optional
            Its ``extra_args``.

        Raises
        ------
        ValueError
            Naming what is wrong.
        """
        given = {
            name.removeprefix(PREFIX): value
            for name, value in (extra or {}).items()
            if name.startswith(PREFIX)
        }
        if not given:
            return None
        names = {field.name for field in fields(cls)}
        if "output" not in given or not set(given) <= names:
            raise ValueError(
                f"a request has {PREFIX}output, and may have "
                f"{_named(names - {'output'})}; got {_named(given)}"
            )
        check_output(given["output"])
        try:
            stop = flag(f"{PREFIX}stop", given.pop("stop", cls.stop))
            seed, units = given.get("seed"), None
            if given.get("style_units") is not None:
                units = tuple(
                    whole_number(f"{PREFIX}style_units", unit, least=0)
                    for unit in as_list(
                        f"{PREFIX}style_units", given["style_units"], "units"
                    )
                )
            if seed is None:
                cls._check_none_drawn(given)
                return cls(given["output"], stop, style_units=units)
            [seed] = draw_seeds([seed], 1)
            sampling = check_sampling(
                1,
                given.get("temperature", cls.temperature),
                given.get("top_p", cls.top_p),
            )
        except TypeError as error:  # which a server would take for its own
            raise ValueError(str(error)) from error
        if not sampling.temperature:
            raise ValueError(
                f"{PREFIX}temperature must be positive to draw; for the "
                f"likeliest tokens give temperature=0 and no {PREFIX}seed"
            )
        return cls(
            given["output"],
            stop,
            seed,
            sampling.temperature,
            sampling.top_p,
            units,
        )

    @staticmethod
    def _check_none_drawn(given: Mapping[str, Any]) -> None:
        unused = sorted({"temperature", "top_p"} & set(given))
        if unused:
            raise ValueError(
                f"{_named(unused)} are of draws with {PREFIX}seed: give it, or "
                f"vLLM's own {', '.join(unused)}"
            )

    @property
    def extra_args(self) -> dict[str, Any]:
        """What a request says to ask for this."""
        said = asdict(self)
        if self.seed is None:
            said = {"output": self.output, "stop": self.stop}
        said.pop("style_units", None)
        if self.style_units is not None:
            said["style_units"] = [*self.style_units]
        return {f"{PREFIX}{name}": value for name, value in said.items()}


class _Request(NamedTuple):
    """A request that vLLM works on."""

    wish: Wish
    # Random numbers of its draws, shape (tokens,).
    numbers: Tensor | None
    # Of V1: its new tokens, a list that vLLM adds to.
    written: list[int]


class ConstrainedSampling:
    """vLLM's logits processor: what is allowed, and draws with seeds.

    vLLM's V1 model runner calls it as its
    ``vllm.v1.sample.logits_processor.LogitsProcessor``, the V2 runner as its
    ``vllm.v1.worker.gpu.sample.logits_processor.LogitsProcessor``. It is
    registered as a class of both.

    Arguments
    ---------
    vllm_config : vllm.config.VllmConfig
        Names the folder of the language model.
    place : torch.device or LogitsProcRequestState
        V1: where the logits are; V2: what it knows of all requests.
    is_pin_memory : bool
        Of V1.

    Raises
    ------
    ValueError
        If vLLM is to guess tokens ahead, the model is in no folder, or its
        embedding has fewer rows than the vocabulary has ids.
    """

    def __init__(
        self, vllm_config: Any, place: Any, is_pin_memory: bool = False
    ):
        if vllm_config.speculative_config is not None:
            raise ValueError(
                "seeds and speculative decoding do not go together; leave out "
                "the speculative_config"
            )
        folder = Path(vllm_config.model_config.model)
        if not folder.is_dir():
            raise ValueError(
                f"the language model {folder} is no folder; download it and "
                "name its folder"
            )
        self.vocabulary = Vocabulary.load(folder)
        rows = vllm_config.model_config.get_vocab_size()
        self.vocabulary.allowed("any", rows)  # raises if rows are missing
        self.state = place
        # By their rows of the logits (V1), or by their slots (V2).
        self.requests: dict[int, _Request] = {}
        self._banned: dict[tuple[Any, ...], Tensor] = {}

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raise ValueError for what a request must not ask."""
        Wish.read(sampling_params.extra_args)

    def is_argmax_invariant(self) -> bool:
        """Tell V1 that the likeliest token may be another."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow V1's requests: those that left, came and moved, in order."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self.requests.pop(row, None)
        for row, params, _, written in batch_update.added:
            self._add(row, params, written)
        for first, second, direction in batch_update.moved:
            here = self.requests.pop(first, None)
            there = self.requests.pop(second, None)
            if here is not None:
                self.requests[second] = here
            if there is not None and direction.name == "SWAP":
                self.requests[first] = there

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Take a request of V2; return whether it is looked after."""
        return self._add(req_idx, sampling_params, [])

    def apply_staged_writes(self) -> None:
        """Do nothing: V2 has no tensors of ours to fill."""

    def apply(self, logits: Tensor, ctx: Any = None) -> Tensor:
        """Return logits that leave what is allowed, or the token drawn.

        Arguments
        ---------
        logits : Tensor
            Shape (requests, rows of the embedding).
        ctx : LogitsContext, optional
            Of V2: which requests they are.
        """
        if ctx is None:
            rows = slots = sorted(self.requests)
            steps = [len(self.requests[slot].written) for slot in slots]
        else:
            all_slots = ctx.idx_mapping_np.tolist()
            rows = [i for i, s in enumerate(all_slots) if s in self.requests]
            slots = [all_slots[row] for row in rows]
            ends = ctx.seq_lens_upper_bound_np[rows]
            steps = (ends - self.state.prompt_len.np[slots]).tolist()
        if rows:
            requests = [self.requests[slot] for slot in slots]
            logits[rows] = self._constrain(logits[rows], requests, steps)
        return logits

    def _constrain(
        self,
        logits: Tensor,
        requests: Sequence[_Request],
        steps: Sequence[int],
    ) -> Tensor:
        """Return what is left of logits, after so many new tokens of each."""
        banned = [self._banned_of(r.wish, logits) for r in requests]
        logits = logits.masked_fill(torch.stack(banned), -torch.inf)
        alike: dict[tuple[float, float], list[int]] = defaultdict(list)
        drawn: dict[int, Tensor] = {}
        for row, (request, step) in enumerate(zip(requests, steps)):
            numbers = request.numbers
            # Before a prompt is read whole, what is drawn is thrown away.
            if numbers is not None and 0 <= step < len(numbers):
                drawn[row] = numbers[step]
                alike[request.wish.temperature, request.wish.top_p].append(row)
        for settings, rows in alike.items():
            column = torch.stack([drawn[row] for row in rows])[:, None]
            logits[rows] = draw(
                logits[rows], column.to(logits.device), warpers(*settings)
            )
        return logits

    def _add(self, slot: int, params: Any, written: list[int]) -> bool:
        """Note what a request wants; return whether it wants anything."""
        self.requests.pop(slot, None)
        wish = Wish.read(params.extra_args)
        if wish is None:
            return False
        numbers = None
        if wish.seed is not None:
            numbers = uniform(wish.seed, params.max_tokens)
        self.requests[slot] = _Request(wish, numbers, written)
        return True

    def _banned_of(self, wish: Wish, logits: Tensor) -> Tensor:
        key = (wish.output, wish.stop, wish.style_units)
        if key not in self._banned:
            allowed = self.vocabulary.allowed(
                wish.output, logits.shape[-1], wish.stop, wish.style_units
            )
            self._banned[key] = (~allowed).to(logits.device)
        return self._banned[key]


def _named(names: Iterable[str]) -> str:
    return ", ".join(PREFIX + name for name in sorted(names))


def register() -> None:
    """Let both runners of vLLM take the class for one of theirs."""
    for runner in _RUNNERS:
        base = import_module(f"{runner}.logits_processor").LogitsProcessor
        base.register(ConstrainedSampling)


if "vllm" in sys.modules:  # which imports this file by its name
    register()
