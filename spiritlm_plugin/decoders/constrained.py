"""Sampling under a modality constraint, batched.

The loop is `transformers`' own ``generate``; this module adds what Spirit LM
needs of it: the tokens that an output may contain, sampling that does not
depend on what else is in the batch, and the reason why each output ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from spiritlm_plugin.lobes.language_model import LanguageModel, pad_in_front
from spiritlm_plugin.utils.arguments import number, whole_number

if TYPE_CHECKING:
    from transformers import GenerationMixin

# How often, in tokens, the duration of the speech so far is looked at.
SECONDS_EVERY = 8
_NEVER = 2**31 - 1
# Of models that generate: how many threads do, and their own settings.
_SWAPPED: WeakKeyDictionary[Any, tuple[int, Any]] = WeakKeyDictionary()
_SWAPPING = threading.Lock()
# Beyond these, logits divided by a temperature leave the range of float32.
_COLDEST, _HOTTEST = 1e-30, 1e30
# A beam costs as much as a prompt.
_MOST_BEAMS = 256


class Sampling(NamedTuple):
    """How tokens are chosen, in numbers that were checked."""

    max_new_tokens: int
    temperature: float
    top_p: float
    num_beams: int


def check_sampling(
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    num_beams: int = 1,
) -> Sampling:
    """Return how tokens are chosen, checked.

    Arguments
    ---------
    max_new_tokens, temperature, top_p, num_beams
        As of `decode`.

    Raises
    ------
    TypeError, ValueError
        Naming the argument.

    Example
    -------
    >>> check_sampling(9, np.float64(0.5), 1).temperature
    0.5
    >>> check_sampling(9, 1e-300, 1).temperature
    0.0
    """
    new_tokens = whole_number("max_new_tokens", max_new_tokens)
    heat = number("temperature", temperature)
    if not 0 <= heat <= _HOTTEST:
        raise ValueError(
            f"temperature must not be negative, nor above {_HOTTEST:.0e}, got "
            f"{temperature}"
        )
    share = number("top_p", top_p)
    if not 0 < share <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}")
    beams = whole_number("num_beams", num_beams)
    if beams > _MOST_BEAMS:
        raise ValueError(
            f"num_beams must be at most {_MOST_BEAMS}, got {num_beams}"
        )
    if beams > 1 and heat >= _COLDEST:
        raise ValueError(
            f"num_beams={beams} searches for the likeliest output: give "
            "temperature=0"
        )
    return Sampling(new_tokens, heat if heat >= _COLDEST else 0.0, share, beams)


@dataclass(frozen=True)
class Decoded:
    """The continuation of one prompt.

    Arguments
    ---------
    ids : Tensor
        New token ids without the end-of-sequence token, shape (tokens,).
    end_reason : str
        ``"end_of_sequence"``, ``"max_new_tokens"``, ``"max_seconds"`` or
        ``"context_full"``.
    """

    ids: Tensor
    end_reason: str


class AllowedTokens(LogitsProcessor):
    """Ban every token that is not allowed.

    Arguments
    ---------
    allowed : Tensor
        Of bool, shape (rows,).

    Example
    -------
    >>> only = AllowedTokens(torch.tensor([True, False]))
    >>> only(None, torch.zeros(1, 2))
    tensor([[0., -inf]])
    """

    def __init__(self, allowed: Tensor):
        self.banned = ~allowed

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores with banned tokens at minus infinity."""
        return scores.masked_fill(self.banned, -torch.inf)


class SeededSampling(LogitsProcessor):
    """Draw each row's next token with that row's own random numbers.

    The draws of a row depend on its seed alone, not on its place in a batch
    nor on the device. Returns scores in which the drawn token is the only
    one left, so that a greedy search takes it.

    Arguments
    ---------
    seeds : sequence of int
        One for each row.
    steps : int
        Tokens to draw at most.
    temperature, top_p : float
        As in transformers.

    Example
    -------
    >>> sampling = SeededSampling([0], 1, temperature=1.0, top_p=1.0)
    >>> sampling(torch.zeros(1, 0), torch.tensor([[0.0, -torch.inf]]))
    tensor([[0., -inf]])
    """

    def __init__(
        self,
        seeds: Sequence[int],
        steps: int,
        temperature: float,
        top_p: float,
    ):
        self.warpers = warpers(temperature, top_p)
        self.uniform = torch.stack([uniform(seed, steps) for seed in seeds])
        self.prompt_length: int | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: Tensor) -> Tensor:
        """Return scores that leave one token for each row."""
        if self.prompt_length is None:
            self.prompt_length = input_ids.shape[1]
            self.uniform = self.uniform.to(scores.device)
        step = input_ids.shape[1] - self.prompt_length
        return draw(scores, self.uniform[:, step : step + 1], self.warpers)


def uniform(seed: int, steps: int) -> Tensor:
    """Return the random numbers of a seed, in [0, 1), shape (steps,).

    The first of them are the same, however many there are.
    """
    return torch.rand(steps, generator=torch.Generator().manual_seed(seed))


def warpers(temperature: float, top_p: float) -> LogitsProcessorList:
    """Return what shapes scores before a token is drawn."""
    shaping = LogitsProcessorList([TopPLogitsWarper(top_p)])
    if temperature != 1.0:
        shaping.insert(0, TemperatureLogitsWarper(temperature))
    return shaping


def draw(
    scores: Tensor, numbers: Tensor, shaping: LogitsProcessorList
) -> Tensor:
    """Return scores that leave one token for each row: the one drawn.

    Arguments
    ---------
    scores, numbers, shaping
        As of `drawn`.

    Example
    -------
    >>> draw(torch.zeros(1, 4), torch.tensor([[0.6]]), warpers(1.0, 1.0))
    tensor([[-inf, -inf, 0., -inf]])
    """
    left = torch.full_like(scores, -torch.inf)
    return left.scatter_(1, drawn(scores, numbers, shaping), 0.0)


def drawn(
    scores: Tensor, numbers: Tensor, shaping: LogitsProcessorList
) -> Tensor:
    """Return the token that is drawn for each row, shape (batch, 1).

    Arguments
    ---------
    scores : Tensor
        Shape (batch, rows).
    numbers : Tensor
        In [0, 1), shape (batch, 1).
    shaping : LogitsProcessorList
        As of `warpers`.

    Example
    -------
    >>> drawn(torch.zeros(1, 4), torch.tensor([[0.6]]), warpers(1.0, 1.0))
    tensor([[2]])
    """
    # They look at scores alone.
    none = torch.LongTensor(len(scores), 0)
    probabilities = shaping(none, scores).float().softmax(-1)
    cumulative = probabilities.cumsum(-1)
    threshold = numbers * cumulative[:, -1:]
    places = torch.searchsorted(cumulative, threshold, right=True)
    return places.clamp_(max=scores.shape[-1] - 1)


class RowLimit(StoppingCriteria):
    """A limit that stops rows one by one and remembers when.

    Arguments
    ---------
    reason : str
        What an output that ends here is reported to have ended by.
    prompt_length : int
        Tokens before the new ones, padding included.
    """

    def __init__(self, reason: str, prompt_length: int):
        self.reason = reason
        self.prompt_length = prompt_length
        self.stopped_at: Tensor | None = None

    def reached(self, new: Tensor) -> Tensor:
        """Return which rows of new tokens, (batch, tokens), are at the end."""
        raise NotImplementedError

    def __call__(
        self, input_ids: Tensor, scores: Tensor, **kwargs: Any
    ) -> Tensor:
        """Return which rows have reached the limit, now or before."""
        new = input_ids[:, self.prompt_length :]
        if self.stopped_at is None:
            self.stopped_at = torch.full_like(input_ids[:, 0], _NEVER)
        now = self.reached(new) & (self.stopped_at == _NEVER)
        self.stopped_at[now] = new.shape[1]
        return self.stopped_at < _NEVER


class ContextLimit(RowLimit):
    """Stop a row when it fills the model's context.

    Arguments
    ---------
    room : Tensor
        Tokens that fit behind each prompt, shape (batch,).
    prompt_length : int
        Tokens before the new ones, padding included.
    """

    def __init__(self, room: Tensor, prompt_length: int):
        super().__init__("context_full", prompt_length)
        self.room = room

    def reached(self, new: Tensor) -> Tensor:
        """Return which rows are full."""
        beams = len(new) // len(self.room)
        return new.shape[1] >= self.room.repeat_interleave(beams)


class SecondsLimit(RowLimit):
    """Stop a row when its speech reaches a duration.

    Arguments
    ---------
    seconds_of : callable
        Gives the seconds of speech in each row of a batch of new token ids,
        a Tensor of shape (batch,).
    limit : float
        Seconds.
    prompt_length : int
        Tokens before the new ones, padding included.
    """

    def __init__(
        self,
        seconds_of: Callable[[Tensor], Tensor],
        limit: float,
        prompt_length: int,
    ):
        super().__init__("max_seconds", prompt_length)
        self.seconds_of = seconds_of
        self.limit = limit

    def reached(self, new: Tensor) -> Tensor:
        """Return which rows are long enough, looked at now and then."""
        if new.shape[1] % SECONDS_EVERY:
            return torch.zeros_like(new[:, 0], dtype=torch.bool)
        return self.seconds_of(new).to(new.device) >= self.limit


def decode(
    lm: LanguageModel,
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
    style_units: Sequence[int] | None = None,
) -> list[Decoded]:
    """Continue a batch of prompts.

    Arguments
    ---------
    lm : LanguageModel
        The model.
    prompts : sequence of sequences of int
        Token ids of each prompt.
    output : str
        ``"text"``, ``"speech"`` or ``"any"``.
    max_new_tokens : int
        Tokens to add at most.
    temperature : float
        0 takes the most likely token, as does what is almost 0.
    top_p : float
        Share of the probability that tokens are drawn from.
    seeds : sequence of int, optional
        One for each prompt; needed unless ``temperature`` is 0.
    stop : bool
        Whether speech may end with the end-of-sequence token.
    max_seconds : float, optional
        Limit on the duration of speech, which needs ``seconds_of``, as in
        `SecondsLimit`.
    seconds_of : callable, optional
        See ``max_seconds``.
    num_beams : int
        Continuations of each prompt that are followed, of which the likeliest
        a token is given, 256 at most; for a ``temperature`` of 0.
    style_units : sequence of int, optional
        The only ones that speech may have.

    Returns
    -------
    list of Decoded

    Raises
    ------
    ValueError
        If a prompt fills the model's context, or an argument is out of range.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> prompt = lm.vocabulary.encode([("text", "the cat")])
    >>> [out] = decode(lm, [prompt], "text", max_new_tokens=3, temperature=0)
    >>> len(out.ids), out.end_reason
    (3, 'max_new_tokens')
    """
    sampling = check_decoding(
        prompts,
        lm.context,
        check_sampling(max_new_tokens, temperature, top_p, num_beams),
        seeds,
        max_seconds,
        seconds_of,
    )
    max_new_tokens, temperature, top_p, num_beams = sampling
    if not prompts:
        return []
    lengths = [len(prompt) for prompt in prompts]
    longest = max(lengths)
    # No more random numbers are drawn than there can be tokens.
    max_new_tokens = min(max_new_tokens, lm.context - min(lengths))
    eos_id = lm.vocabulary.eos_id
    ids, mask = pad_in_front(prompts, eos_id)
    allowed = lm.vocabulary.allowed(output, lm.rows, stop, style_units)
    processors = LogitsProcessorList([AllowedTokens(allowed.to(lm.device))])
    if temperature > 0 and seeds is not None:
        processors.append(
            SeededSampling(seeds, max_new_tokens, temperature, top_p)
        )
    room = torch.tensor([lm.context - length for length in lengths])
    limits: list[RowLimit] = [ContextLimit(room.to(lm.device), longest)]
    if max_seconds is not None and seconds_of is not None:
        limits.append(SecondsLimit(seconds_of, max_seconds, longest))
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=num_beams,
        eos_token_id=eos_id,
        pad_token_id=eos_id,
    )
    model = cast("GenerationMixin", lm.model)  # as every causal LM is
    with _without_defaults(model), _positions_below(lm.context, lm.model):
        sequences = model.generate(
            ids.to(lm.device),
            attention_mask=mask.to(lm.device),
            generation_config=settings,
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList(limits),
        )
    assert isinstance(sequences, Tensor)  # and no more, as asked
    return cut(sequences[:, longest:], eos_id, limits, max_new_tokens)


def check_decoding(
    prompts: Sequence[Sequence[int]],
    context: int,
    sampling: Sampling,
    seeds: Sequence[int] | None,
    max_seconds: float | None,
    seconds_of: Callable[[Tensor], Tensor] | None,
) -> Sampling:
    """Return how tokens are chosen, if that goes with the other arguments.

    Arguments
    ---------
    prompts, seeds, max_seconds, seconds_of
        As of `decode`.
    context : int
        Tokens that the model can see at once.
    sampling : Sampling
        As of `check_sampling`.

    Raises
    ------
    ValueError
        If a prompt fills the context, or an argument does not go with
        another.
    """
    beams = sampling.num_beams
    if beams > 1 and max_seconds is not None:
        raise ValueError(
            f"num_beams={beams} and max_seconds={max_seconds} do not go "
            "together; leave one out"
        )
    if max_seconds is not None and seconds_of is None:
        raise ValueError(
            "max_seconds needs seconds_of, which says how long speech is"
        )
    if sampling.temperature > 0 and (
        seeds is None or len(seeds) != len(prompts)
    ):
        raise ValueError(
            "sampling needs a seed for each prompt; give seeds, or "
            "temperature=0"
        )
    longest = max(map(len, prompts), default=0)
    if longest >= context:
        raise ValueError(
            f"a prompt of {longest} tokens leaves no room in the model's "
            f"context of {context}; shorten it"
        )
    return sampling


@contextmanager
def _without_defaults(model: GenerationMixin) -> Iterator[None]:
    """Keep generate from filling in settings of the model's folder.

    Threads may generate at the same time: the last puts back what there was.
    """
    with _SWAPPING:
        users, own = _SWAPPED.get(model, (0, model.generation_config))
        _SWAPPED[model] = users + 1, own
        if not users:
            model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        with _SWAPPING:
            users, own = _SWAPPED.pop(model)
            if users > 1:
                _SWAPPED[model] = users - 1, own
            else:
                model.generation_config = own


@contextmanager
def _positions_below(context: int, model: nn.Module) -> Iterator[None]:
    """Keep rows that have filled the context from asking for what is behind it.

    They run on until all rows have ended; a model that has learned its
    positions knows no others.
    """

    def clamp(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positions = kwargs.get("position_ids")
        if positions is not None:
            kwargs["position_ids"] = positions.clamp(max=context - 1)
        return args, kwargs

    hook = model.register_forward_pre_hook(clamp, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def cut(
    new: Tensor, eos_id: int, limits: Sequence[RowLimit], max_new_tokens: int
) -> list[Decoded]:
    """Cut each row of new tokens at its end and say why it ended.

    Arguments
    ---------
    new : Tensor
        Tokens behind the prompts, shape (batch, tokens); rows that have ended
        are padded with the end-of-sequence token.
    eos_id : int
        That token.
    limits : sequence of RowLimit
        That were asked at each token.
    max_new_tokens : int
        Tokens that could be added.
    """
    is_end = new == eos_id
    first = torch.where(is_end.any(1), is_end.long().argmax(1), _NEVER)
    # Of the end-of-sequence tokens the one that counts comes before any limit.
    ends = [first + 1]
    for limit in limits:  # the beams of a row reach it together
        assert limit.stopped_at is not None  # generate has asked it
        beams = len(limit.stopped_at) // len(new)
        ends.append(limit.stopped_at[::beams])
    ends.append(torch.full_like(first, max_new_tokens))
    reasons = ["end_of_sequence", *(limit.reason for limit in limits)]
    reasons.append("max_new_tokens")
    length, which = torch.stack(ends).cpu().min(0)
    length = length - (which == 0).long()
    return [
        Decoded(row[:end], reasons[reason])
        for row, end, reason in zip(new.cpu(), length, which)
    ]
