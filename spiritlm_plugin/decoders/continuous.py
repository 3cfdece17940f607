"""Continuing prompts so that no row waits for another.

A row whose output has ended makes room for the next prompt. What a row gives
is what it gives alone, but for the rounding of sums of other shapes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spiritlm_plugin.decoders.constrained import (
    SECONDS_EVERY,
    Decoded,
    check_decoding,
    check_sampling,
    drawn,
    uniform,
    warpers,
)
from spiritlm_plugin.decoders.llama_steps import LlamaSteps, Past
from spiritlm_plugin.decoders.row_cache import RowCache
from spiritlm_plugin.decoders.shared_prefix import Group, groups_of_prompts
from spiritlm_plugin.lobes.language_model import LanguageModel, pad_in_front
from spiritlm_plugin.lobes.quantized_weights import HalfLinear, Int8Linear
from spiritlm_plugin.utils.arguments import whole_number

# Tokens of prompts that are read at a time, with padding.
_READ_TOGETHER = 2048
# Tokens that a group has to save: rows of two groups do not mix, and few rows
# cost about as much as many.
_WORTH = 2048
# Steps between two looks at the tokens, where a look has to wait for a GPU.
_STEPS_UNSEEN = 8


class Piece(NamedTuple):
    """New tokens of a prompt.

    Arguments
    ---------
    prompt : int
        The number of the prompt.
    ids : list of int
        What its output goes on with.
    end_reason : str or None
        As of `Decoded`, with the last of them.
    """

    prompt: int
    ids: list[int]
    end_reason: str | None


@dataclass
class _Row:
    """A prompt that is continued."""

    index: int
    room: int
    limit: int
    ids: list[int] = field(default_factory=list)
    end_reason: str | None = None


class AllowedScores:
    """Scores of the tokens that an output may contain, and of no others.

    Arguments
    ---------
    lm : LanguageModel
        Whose last layer gives them.
    allowed : Tensor
        Of bool, shape (rows of the embedding,).

    Attributes
    ----------
    tokens : Tensor
        The ids of those tokens, shape (allowed,).
    """

    def __init__(self, lm: LanguageModel, allowed: Tensor):
        self.tokens = allowed.nonzero().flatten().to(lm.device)
        self.head = cast(nn.Module, lm.model.get_output_embeddings())
        self.few: Callable[[Tensor], Tensor] | None = None
        if 2 * len(self.tokens) < len(allowed):
            self.few = _part(self.head, self.tokens)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return scores in float32, (rows, allowed), of (rows, width)."""
        if self.few is not None:
            return self.few(hidden).float()
        return self.head(hidden).float()[:, self.tokens]


def _part(
    head: nn.Module, outputs: Tensor
) -> Callable[[Tensor], Tensor] | None:
    """Return what gives some outputs of a head, if others can be left out."""
    if isinstance(head, (HalfLinear, Int8Linear)):
        return head.take(outputs)
    if type(head) is not nn.Linear:
        return None
    bias = None if head.bias is None else head.bias[outputs]
    return partial(F.linear, weight=head.weight[outputs], bias=bias)


class Continuous:
    """New tokens of prompts, as they come.

    Arguments
    ---------
    lm : LanguageModel
        For which `is_llama` is true.
    prompts, output, max_new_tokens, temperature, top_p, seeds, stop, \
max_seconds, seconds_of, style_units
        As of `spiritlm_plugin.decoders.constrained.decode`.
    rows : int
        Prompts to continue at a time.

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
    >>> pieces = list(Continuous(lm, [prompt], "text", 3, temperature=0))
    >>> sum(len(piece.ids) for piece in pieces), pieces[-1].end_reason
    (3, 'max_new_tokens')
    """

    def __init__(
        self,
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
        rows: int = 16,
        style_units: Sequence[int] | None = None,
    ):
        sampling = check_decoding(
            prompts,
            lm.context,
            check_sampling(max_new_tokens, temperature, top_p),
            seeds,
            max_seconds,
            seconds_of,
        )
        self.lm = lm
        self.prompts: Sequence[Sequence[int]] | Mapping[int, list[int]] = (
            prompts
        )
        self.rows = min(whole_number("batch_size", rows), len(prompts))
        shortest = min(map(len, prompts), default=0)
        # No more random numbers are drawn than there can be tokens.
        self.most = min(sampling.max_new_tokens, lm.context - shortest)
        self.max_new_tokens = sampling.max_new_tokens
        self.seeds: Sequence[int] | Mapping[int, int] | None = seeds
        if not sampling.temperature:
            self.seeds = None
        self.shaping = warpers(sampling.temperature or 1.0, sampling.top_p)
        self.max_seconds = max_seconds
        self.seconds_of = seconds_of
        self.steps = LlamaSteps(lm)
        allowed = lm.vocabulary.allowed(output, lm.rows, stop, style_units)
        self.scores = AllowedScores(lm, allowed)

    def limit(self, index: int) -> int:
        """Return how many tokens a prompt gets at most."""
        return self.max_new_tokens

    @torch.inference_mode()
    def __iter__(self) -> Iterator[Piece]:
        """Yield new tokens as they are known, in the order of their making."""
        prompts = cast("Sequence[Sequence[int]]", self.prompts)
        for group in groups_of_prompts(prompts, _WORTH):
            rows = min(self.rows, len(group.members))
            yield from _Rows(self, group, rows).run()


class _Rows:
    """The rows that continue prompts of a group, and what is left of these."""

    def __init__(self, task: Continuous, group: Group, most: int):
        self.task = task
        self.shared = group.shared
        # Those of like length are read together.
        self.queue = deque(
            sorted(group.members, key=lambda i: -len(task.prompts[i]))
        )
        self.rows: list[_Row] = []
        device = task.lm.device
        self.most = most
        self.cache = RowCache(most, device)
        # Of each row its last token, where that stands, and how many are new.
        self.last = torch.zeros(most, dtype=torch.int64, device=device)
        self.positions = torch.zeros_like(self.last)
        self.counts = torch.zeros_like(self.last)
        columns = 0 if task.seeds is None else task.most
        self.numbers = torch.zeros(most, columns, device=device)
        self.past: Past | None = None
        self.unseen = 1 if device.type == "cpu" else _STEPS_UNSEEN

    def run(self) -> Iterator[Piece]:
        """Yield new tokens."""
        if self.shared:
            self._read_shared()
        while self.queue or self.rows:
            yield from self.go_on()

    def go_on(self) -> Iterator[Piece]:
        """Read prompts if there are rows for them; else make a few tokens."""
        if self.queue and len(self.rows) < self.most:
            yield from self._look([self._admit()])
        else:
            left = min(
                min(row.room, row.limit) - len(row.ids) for row in self.rows
            )
            steps = range(min(left, self.unseen))
            yield from self._look([self._step() for _ in steps])

    def _read_shared(self) -> None:
        """Read what all prompts begin with, some of it at a time."""
        ids = self.task.prompts[self.queue[0]][: self.shared]
        for begin in range(0, self.shared, _READ_TOGETHER):
            own, mask = self._batch([ids[begin : begin + _READ_TOGETHER]])
            _, new = self.task.steps.read(own, mask, self.past)
            before, self.past = self.past, new
            if before is not None:
                self.past = _joined(before, new)

    def _batch(self, items: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        ids, mask = pad_in_front(items, self.task.lm.vocabulary.eos_id)
        return ids.to(self.last.device), mask.to(self.last.device)

    def _admit(self) -> Tensor:
        """Read prompts into rows that are free; return their first tokens."""
        task, begin = self.task, len(self.rows)
        longest = len(task.prompts[self.queue[0]]) - self.shared
        free = min(self.most - begin, len(self.queue))
        chosen = [
            self.queue.popleft()
            for _ in range(max(1, min(free, _READ_TOGETHER // longest)))
        ]
        lengths = [len(task.prompts[i]) for i in chosen]
        items = [task.prompts[i][self.shared :] for i in chosen]
        hidden, past = task.steps.read(*self._batch(items), self.past)
        self.cache.place(past, [n - self.shared for n in lengths])
        self.rows += [
            _Row(i, task.lm.context - n, task.limit(i))
            for i, n in zip(chosen, lengths)
        ]
        new = slice(begin, len(self.rows))
        self.positions[new] = torch.tensor(lengths, device=self.last.device)
        self.counts[new] = 0
        if task.seeds is not None:
            drawn = [uniform(task.seeds[i], task.most) for i in chosen]
            self.numbers[new] = torch.stack(drawn).to(self.last.device)
        return self._choose(hidden, new)

    def _step(self) -> Tensor:
        """Let each row go on by a token; return the tokens."""
        rows = slice(len(self.rows))
        self.cache.begin_step()
        hidden = self.task.steps.step(
            self.last[rows],
            self.positions[rows],
            self.cache.store,
            self.cache.mask,
            self.past,
        )
        self.positions[rows] += 1
        return self._choose(hidden, rows)

    def _choose(self, hidden: Tensor, rows: slice) -> Tensor:
        """Return the next tokens of some rows, and keep them as the last."""
        scores = self.task.scores(hidden)
        if self.task.seeds is None:
            places = scores.argmax(-1)
        else:
            numbers = self.numbers[rows].gather(1, self.counts[rows, None])
            places = drawn(scores, numbers, self.task.shaping).squeeze(1)
        self.counts[rows] += 1
        self.last[rows] = self.task.scores.tokens[places]
        return self.last[rows].clone()

    def _look(self, steps: Sequence[Tensor]) -> Iterator[Piece]:
        """Take new tokens of the last rows, and give up those that ended."""
        rows = self.rows[len(self.rows) - len(steps[0]) :]
        before = [len(row.ids) for row in rows]
        for tokens in torch.stack(list(steps)).tolist():
            self._extend(rows, tokens)
        for row, length in zip(rows, before):
            yield Piece(row.index, row.ids[length:], row.end_reason)
        for place in reversed(range(len(self.rows))):
            if self.rows[place].end_reason:
                self.drop(place)

    def _extend(self, rows: Sequence[_Row], tokens: Sequence[int]) -> None:
        """Add a token to each row that goes on, and say which have ended."""
        task, eos_id = self.task, self.task.lm.vocabulary.eos_id
        due: dict[int, list[_Row]] = {}
        for row, token in zip(rows, tokens):
            if row.end_reason:
                continue
            if token == eos_id:
                row.end_reason = "end_of_sequence"
                continue
            row.ids.append(token)
            count = len(row.ids)
            if count == row.room:
                row.end_reason = "context_full"
            elif task.max_seconds is not None and count % SECONDS_EVERY == 0:
                due.setdefault(count, []).append(row)
            elif count == row.limit:
                row.end_reason = "max_new_tokens"
        for count, spoken in due.items():
            assert task.seconds_of is not None  # as was checked
            seconds = task.seconds_of(torch.tensor([r.ids for r in spoken]))
            for row, duration in zip(spoken, seconds.tolist()):
                if duration >= task.max_seconds:
                    row.end_reason = "max_seconds"
                elif count == row.limit:
                    row.end_reason = "max_new_tokens"

    def drop(self, place: int) -> None:
        """Give up a row; the last one takes its place."""
        self.cache.drop(place)
        for kept in (self.last, self.positions, self.counts, self.numbers):
            kept[place] = kept[len(self.rows) - 1]
        self.rows[place] = self.rows[-1]
        self.rows.pop()


def _joined(first: Past, second: Past) -> Past:
    """Return what was computed of tokens, and of those behind them."""
    pairs = [
        (torch.cat([a[0], b[0]], 2), torch.cat([a[1], b[1]], 2))
        for a, b in zip(first.pairs, second.pairs)
    ]
    return Past(pairs, torch.cat([first.mask, second.mask], 1))


def decode_continuously(
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
    rows: int = 16,
    style_units: Sequence[int] | None = None,
) -> list[Decoded]:
    """Continue prompts, so many at a time; see `Continuous`.

    Returns
    -------
    list of Decoded

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> prompt = lm.vocabulary.encode([("text", "the cat")])
    >>> [out] = decode_continuously(lm, [prompt], "text", 3, temperature=0)
    >>> len(out.ids), out.end_reason
    (3, 'max_new_tokens')
    """
    ids: list[list[int]] = [[] for _ in prompts]
    reasons = [""] * len(ids)
    for piece in Continuous(
        lm,
        prompts,
        output,
        max_new_tokens,
        temperature,
        top_p,
        seeds,
        stop,
        max_seconds,
        seconds_of,
        rows,
        style_units,
    ):
        ids[piece.prompt] += piece.ids
        reasons[piece.prompt] = piece.end_reason or ""
    return [
        Decoded(torch.tensor(new, dtype=torch.int64), reason)
        for new, reason in zip(ids, reasons)
    ]
