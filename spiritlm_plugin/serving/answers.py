"""A request to a model, and its answer as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import anyio

from spiritlm_plugin.dataio.units.segments import Segment
from spiritlm_plugin.inference.streaming import Output, StreamPiece
from spiritlm_plugin.serving.errors import busy


class Options(NamedTuple):
    """As of `SpiritLM.generate`, and whether the answer is sent as it comes."""

    output: str
    max_new_tokens: int = 200
    temperature: float = 0.8
    top_p: float = 0.95
    speaker: int | str | None = None
    seed: int = 0
    min_speech_units: int = 0
    vocode: bool = True
    stream: bool = True
    style: int | str | None = None


@dataclass(eq=False)
class Job:
    """A request that waits, or whose output is made."""

    prompt: Sequence[Segment]
    options: Options
    deliver: Callable[[Any], None]
    cancelled: bool = False
    prompt_tokens: int = 0
    tokens: int = 0
    unseen: list[int] = field(default_factory=list)
    output: Output | None = None
    spoken: bool = False
    asked: float = field(default_factory=time.perf_counter)


class Answer:
    """Pieces of an output as they come; iterate once, and close.

    Made in the event loop where it is read.

    Arguments
    ---------
    prompt : sequence of Segment
        What is asked.
    options : Options
        How.
    seconds : float
        That it may take.
    cancel : callable
        Gives a job up.

    Attributes
    ----------
    job : Job
        For the thread that makes the answer.
    """

    def __init__(
        self,
        prompt: Sequence[Segment],
        options: Options,
        seconds: float,
        cancel: Callable[[Job], None],
    ):
        loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Any] = asyncio.Queue()
        self.job = Job(prompt, options, partial(put, loop, self._pieces))
        self._cancel = cancel
        self._seconds = seconds
        self._deadline = loop.time() + seconds
        self._ended = False

    @property
    def prompt_tokens(self) -> int:
        """Tokens of what was asked."""
        return self.job.prompt_tokens

    @property
    def tokens(self) -> int:
        """Tokens made so far."""
        return self.job.tokens

    async def begun(self) -> None:
        """Wait until the request has been looked at."""
        await self._next()

    async def __aiter__(self) -> AsyncIterator[StreamPiece]:
        while not self._ended:
            piece = await self._next()
            self._ended = piece.kind == "end"
            yield piece

    async def _next(self) -> Any:
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            # Before Python 3.12 asyncio.wait_for can lose that it is cancelled.
            with anyio.fail_after(max(left, 0)):
                item = await self._pieces.get()
        except TimeoutError as error:
            raise busy(
                f"the answer took more than {self._seconds:g} s; ask for less, "
                "or later",
                "timeout",
            ) from error
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Give up what has not been made."""
        self._cancel(self.job)

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()


def put(
    loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Any], item: Any
) -> None:
    """Put something into a queue of another thread, if that still runs."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(queue.put_nowait, item)
