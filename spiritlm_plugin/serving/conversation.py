"""Talking to a model: the WebSocket ``/v1/conversation``.

Text frames are JSON with a ``type``; binary frames are samples of 16 bits,
little-endian, of one channel.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, cast

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text, text_of
from spiritlm_plugin.dataio.units.units import PHONETIC_RATE
from spiritlm_plugin.serving.answers import Answer, Options
from spiritlm_plugin.serving.errors import RequestError, refused
from spiritlm_plugin.serving.forms import voice_name
from spiritlm_plugin.serving.gate import SUBPROTOCOL, offered_protocols
from spiritlm_plugin.serving.listening import Listener
from spiritlm_plugin.serving.messages import (
    AudioBegin,
    Configure,
    Plain,
    Written,
    checked,
    read_message,
    ready_message,
    units_message,
)
from spiritlm_plugin.serving.state import Server
from spiritlm_plugin.serving.turns import AnswerTurn
from spiritlm_plugin.serving.worker import ModelThread
from spiritlm_plugin.utils.seeds import draw_seeds

# Messages that may come while a recording is taken.
_IN_RECORDINGS = ("audio.end", "clear")
logger = logging.getLogger(__name__)

router = APIRouter()
# Codes with which a WebSocket is closed.
_TRY_LATER, _FAULT = 1013, 1011


@router.websocket("/v1/conversation")
async def converse(socket: WebSocket) -> None:
    """Hold a conversation."""
    server = cast(Server, socket.app.state.server)
    offered = offered_protocols(socket.headers)
    await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    talk = _Conversation(socket, server)
    with suppress(WebSocketDisconnect):
        await talk.hold()


class _Conversation:
    """One client's turns and settings."""

    def __init__(self, socket: WebSocket, server: Server):
        self.socket = socket
        self.server = server
        self.settings = server.settings
        self.options = Configure(model=next(iter(server.models)))
        self.turns: list[list[Segment]] = []
        self.recording: Listener | None = None
        self.told = 0  # units of it
        self.answering: asyncio.Task[None] | None = None
        self.sending = asyncio.Lock()

    async def hold(self) -> None:
        """Take messages until the client leaves or is silent for too long."""
        try:
            await self.tell(ready_message(self.server))
            while (message := await self._receive()) is not None:
                try:
                    await self._take(message)
                except RequestError as error:
                    await self._complain(str(error.detail))
        except RequestError as error:  # before there is a model
            await self._complain(str(error.detail), fatal=True)
            await self.socket.close(_TRY_LATER)
        except WebSocketDisconnect:
            raise
        except Exception:
            logger.exception("a conversation has failed")
            await self._complain("the server has failed", fatal=True)
            await self.socket.close(_FAULT)
        finally:
            if self.answering is not None:
                self.answering.cancel()

    async def _receive(self) -> MutableMapping[str, Any] | None:
        """Return the next message; None at the end."""
        while True:
            try:
                message = await asyncio.wait_for(
                    self.socket.receive(), self.settings.idle_seconds
                )
            except (TimeoutError, asyncio.TimeoutError):
                if self._is_answering:
                    continue
                await self._complain("nothing has come for long", fatal=True)
                await self.socket.close()
                return None
            return message if message["type"] == "websocket.receive" else None

    @property
    def _is_answering(self) -> bool:
        return self.answering is not None and not self.answering.done()

    async def _take(self, message: MutableMapping[str, Any]) -> None:
        """Do what a message asks for."""
        content = message.get("text")
        if content is None:
            await self._hear(message.get("bytes") or b"")
            return
        values = read_message(content)
        kind = values.get("type")
        if kind == "cancel":
            await self._cancel()
            return
        if self._is_answering:
            raise RequestError(
                409, "an answer is being made: wait for its end, or cancel it"
            )
        if self.recording is not None and kind not in _IN_RECORDINGS:
            raise RequestError(
                409, "a recording is taken: audio.end, or clear, comes first"
            )
        if kind == "configure":
            await self._configure(checked(Configure, values))
        elif kind == "text":
            self._add([Text(checked(Written, values).text)])
        elif kind == "audio.begin":
            rate = checked(AudioBegin, values).sample_rate
            self.told = 0
            self.recording = Listener(
                self._model.lm, rate, self.settings.audio_seconds
            )
        else:
            await self._command(checked(Plain, values).type)

    async def _command(self, kind: str) -> None:
        if kind == "audio.end":
            await self._end_recording()
        elif kind == "continue":
            await self._answer()
        elif kind == "clear":
            self.turns, self.recording = [], None
        elif kind == "undo":
            if not self.turns:
                raise RequestError(409, "there is no turn to take back")
            self.turns.pop()

    async def _configure(self, options: Configure) -> None:
        if not options.model:
            options = options.model_copy(update={"model": self.options.model})
        lm = self.server.model(options.model).lm
        before = self.options.model
        if options.model != before and any(
            isinstance(segment, Speech) for segment in self._prompt
        ):
            raise RequestError(
                409,
                f"speech in this conversation is in units of {before}: clear "
                "it before another model goes on",
            )
        try:
            lm.speaker_id(voice_name(options.speaker))
        except ValueError as error:
            raise refused(error, "speaker") from error
        try:
            lm.style_units(voice_name(options.style))
        except ValueError as error:
            raise refused(error, "style") from error
        most = self.settings.new_tokens
        if options.max_new_tokens > most:
            raise RequestError(400, f"max_new_tokens can be {most} at most")
        self.options = options
        await self.tell({**options.model_dump(), "type": "configured"})

    @property
    def _model(self) -> ModelThread:
        return self.server.model(self.options.model)

    @property
    def _prompt(self) -> list[Segment]:
        return [segment for turn in self.turns for segment in turn]

    def _add(self, turn: list[Segment]) -> None:
        """Add a turn, if there is room for it."""
        self.server.check_length(text_of(turn), "text")
        lm = self._model.lm
        try:
            count = len(lm.vocabulary.encode([*self._prompt, *turn]))
        except ValueError as error:
            raise refused(error) from error
        if count >= lm.context:
            raise RequestError(
                400,
                f"the conversation would have {count} tokens, and the model's "
                f"context has {lm.context}: clear it, or take turns back",
            )
        self.turns.append(turn)

    async def _hear(self, content: bytes) -> None:
        recording = self.recording
        if recording is None:
            raise RequestError(409, "samples come after audio.begin")
        try:
            recording.add(content)
        except RequestError:
            self.recording = None
            raise
        if recording.is_due:
            await self._tell_units(recording)

    async def _end_recording(self) -> None:
        recording = self.recording
        if recording is None:
            raise RequestError(409, "audio.end comes after audio.begin")
        try:
            await self._tell_units(recording, final=True)
        finally:
            self.recording = None

    async def _tell_units(
        self, recording: Listener, final: bool = False
    ) -> None:
        """Tell the units that are new; those of a whole recording are a turn."""
        model = self._model
        try:
            parts = await model.call(lambda lm: recording.take(final))
        except (ValueError, TypeError) as error:
            self.recording = None
            raise refused(error) from error
        if final:
            seconds = recording.seconds
            self.server.metrics.audio.labels(model.name, "in").inc(seconds)
            self._add([Speech(recording.units)])
            parts = parts or [recording.units.cut(0, 0)]
        for part in parts:
            is_last = final and part is parts[-1]
            start = self.told / PHONETIC_RATE
            self.told = 0 if is_last else self.told + len(part)
            await self.tell(units_message(part, start, is_last))

    async def _answer(self) -> None:
        """Begin to make an answer."""
        options = self.options
        prompt = self._prompt
        if not prompt:
            raise RequestError(409, "say or write something first")
        seed = draw_seeds(options.seed, 1)[0]
        asked = Options(
            options.output,
            options.max_new_tokens,
            options.temperature,
            options.top_p,
            voice_name(options.speaker),
            seed,
            options.min_speech_units if options.output == "any" else 0,
            style=voice_name(options.style),
        )
        turn = AnswerTurn(self, seed)
        self.answering = asyncio.create_task(turn.make(prompt, asked))
        await asyncio.sleep(0)  # One that has not begun could not tell its end.

    async def _cancel(self) -> None:
        if self._is_answering and self.answering is not None:
            self.answering.cancel()
            with suppress(asyncio.CancelledError):
                await self.answering

    async def _complain(self, message: str, fatal: bool = False) -> None:
        await self.tell({"type": "error", "message": message, "fatal": fatal})

    async def tell(
        self, message: dict[str, Any], binary: bytes | None = None
    ) -> None:
        """Send a message and the samples that belong to it: both, or none."""
        await asyncio.shield(self._send_both(message, binary))

    async def _send_both(
        self, message: dict[str, Any], binary: bytes | None
    ) -> None:
        async with self.sending:
            await self.socket.send_text(json.dumps(message))
            if binary is not None:
                await self.socket.send_bytes(binary)

    def remember(self, turn: list[Segment]) -> None:
        """Keep what the model has said as a turn."""
        if turn:
            self.turns.append(turn)

    async def ask(self, prompt: list[Segment], options: Options) -> Answer:
        """Return the model's answer."""
        return await self._model.ask(prompt, options)
