"""What the answers to requests share."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

import anyio
from anyio import CapacityLimiter, to_thread
from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from torch import Tensor

from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text, text_of
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE, SpeechStream
from spiritlm_plugin.inference.streaming import StreamPiece
from spiritlm_plugin.serving.answers import Answer
from spiritlm_plugin.serving.audio import read_upload
from spiritlm_plugin.serving.errors import RequestError, refused
from spiritlm_plugin.serving.metrics import Metrics
from spiritlm_plugin.serving.settings import Settings
from spiritlm_plugin.serving.worker import ModelThread

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Recordings that are decoded at a time.
_DECODED = 2
# For which an answer can be referred to.
_REMEMBERED_SECONDS = 3600
# Of a request whose client did not wait; as nginx has it.
LEFT = 499


class Said:
    """Pieces of an output, joined to segments.

    Example
    -------
    >>> said = Said()
    >>> for text in ("the", " cat"):
    ...     said.add(StreamPiece(0, "text", text))
    >>> said.segments
    [Text(text='the cat')]
    """

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.wavs: list[Tensor] = []
        self.end_reason = ""

    def add(self, piece: StreamPiece) -> None:
        """Add what comes next."""
        last = self.segments[-1] if self.segments else None
        if piece.kind == "text":
            if isinstance(last, Text):
                self.segments[-1] = Text(last.text + piece.text)
            else:
                self.segments.append(Text(piece.text))
        if piece.units is not None:
            stream = piece.units
            if isinstance(last, Speech):
                stream = SpeechStream.concatenate([last.stream, stream])
                self.segments.pop()
            self.segments.append(Speech(stream))
        if piece.wav is not None:
            self.wavs.append(piece.wav)
        self.end_reason = piece.end_reason or ""

    @property
    def text(self) -> str:
        """Texts, joined."""
        return text_of(self.segments)


class _Remembered(NamedTuple):
    until: float
    model: str
    segments: list[Segment]


class Memory:
    """Answers that later requests may refer to, by ids nobody can guess.

    Example
    -------
    >>> memory = Memory(most=1)
    >>> first, _ = memory.keep("base", [Text("a")])
    >>> second, _ = memory.keep("base", [Text("b")])
    >>> memory.find(first), memory.find(second)
    (None, ('base', [Text(text='b')]))
    """

    def __init__(self, most: int):
        self.most = most
        self._kept: OrderedDict[str, _Remembered] = OrderedDict()

    def new_id(self) -> str:
        """Return an id that nobody can guess."""
        return f"audio_{secrets.token_hex(16)}"

    def keep(
        self, model: str, segments: list[Segment], key: str = ""
    ) -> tuple[str, int]:
        """Return the id of a model's answer, and until when it is known."""
        key = key or self.new_id()
        until = time.time() + _REMEMBERED_SECONDS
        self._kept[key] = _Remembered(until, model, segments)
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)
        return key, int(until)

    def find(self, key: str) -> tuple[str, list[Segment]] | None:
        """Return whose answer it was, and the answer, if it is known."""
        found = self._kept.get(key)
        if found is None or found.until <= time.time():
            return None
        return found.model, found.segments


@dataclass
class Server:
    """Models, and what they are used with."""

    settings: Settings
    metrics: Metrics
    models: Mapping[str, ModelThread]
    memory: Memory = field(init=False)
    started: int = field(default_factory=lambda: int(time.time()))
    _decoding: CapacityLimiter | None = None

    def __post_init__(self) -> None:
        self.memory = Memory(self.settings.remembered)

    def model(self, name: str) -> ModelThread:
        """Return a model by its name.

        Raises
        ------
        RequestError
            If there is none.
        """
        if name not in self.models:
            known = ", ".join(self.models)
            raise RequestError(
                404,
                f"there is no such model; here are {known}",
                "model",
                "model_not_found",
            )
        return self.models[name]

    async def read(
        self, model: ModelThread, content: bytes, most: float, param: str
    ) -> Tensor:
        """Return a recording that was sent, at 16 kHz.

        Raises
        ------
        RequestError
            If it cannot be used, or lasts longer than so many seconds.
        """
        if self._decoding is None:
            self._decoding = CapacityLimiter(_DECODED)
        try:
            wav = await to_thread.run_sync(
                read_upload, content, most, limiter=self._decoding
            )
        except ValueError as error:
            raise refused(error, param) from error
        seconds = len(wav) / SAMPLE_RATE
        self.metrics.audio.labels(model.name, "in").inc(seconds)
        return wav

    def check_length(self, text: str, param: str) -> None:
        """Raise RequestError if a text is too long."""
        if len(text) > self.settings.characters:
            raise RequestError(
                400,
                f"the text has {len(text)} characters; the limit here is "
                f"{self.settings.characters}",
                param,
                "string_above_max_length",
            )


def server_of(request: Request) -> Server:
    """Return the server that a request came to."""
    return cast(Server, request.app.state.server)


class Streamed(StreamingResponse):
    """An answer that is sent while it is made, and given up with its client."""

    def __init__(
        self,
        content: AsyncIterator[bytes],
        answer: Answer,
        media_type: str = "text/event-stream",
    ):
        super().__init__(content, media_type=media_type)
        self.headers["Cache-Control"] = "no-store"
        self._answer = answer

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.close()


async def events(
    messages: AsyncIterator[dict[str, Any]], last: bytes = b""
) -> AsyncIterator[bytes]:
    """Yield messages as server-sent events; an error is the last of them."""
    try:
        async for message in messages:
            yield b"data: " + json.dumps(message).encode() + b"\n\n"
    except RequestError as error:
        yield b"data: " + json.dumps(error.body()).encode() + b"\n\n"
    except Exception:
        logger.exception("an answer could not be made")
        fault = RequestError(500, "the server has failed", code="fault")
        yield b"data: " + json.dumps(fault.body()).encode() + b"\n\n"
    else:
        yield last


async def while_connected(
    request: Request, making: Coroutine[Any, Any, Response]
) -> Response:
    """Return an answer; one whose client has left is given up."""
    reply: Response = Response(status_code=LEFT)

    async def listen(scope: anyio.CancelScope) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    watching = anyio.CancelScope()
    listening = asyncio.ensure_future(listen(watching))
    try:
        with watching:
            reply = await making
    finally:
        listening.cancel()
    return reply
