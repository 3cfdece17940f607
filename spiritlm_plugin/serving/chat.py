"""Conversations in one request: ``/v1/chat/completions``.

A model that continues knows no roles: the messages are one prompt, in their
order.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import torch
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text, text_of
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.serving.answers import Answer, Options
from spiritlm_plugin.serving.audio import ChunkEncoder, decode_base64, encode
from spiritlm_plugin.serving.errors import RequestError, refused
from spiritlm_plugin.serving.forms import (
    Chat,
    Message,
    Part,
    TextPart,
    voice_name,
)
from spiritlm_plugin.serving.state import (
    Said,
    Server,
    Streamed,
    events,
    server_of,
    while_connected,
)
from spiritlm_plugin.serving.worker import ModelThread
from spiritlm_plugin.utils.seeds import draw_seeds

router = APIRouter()
_NEW_TOKENS = 200
# Shorter speech among text is left out, as `generate` does.
_LEAST_UNITS = 25


@router.post("/v1/chat/completions", response_model=None)
async def complete(request: Request, form: Chat) -> Response:
    """Answer with what the messages go on with, in text or speech."""
    return await while_connected(request, _completed(server_of(request), form))


async def _completed(server: Server, form: Chat) -> Response:
    model = server.model(form.model)
    spoken = form.audio
    if spoken is not None and form.output == "text":
        raise RequestError(400, 'audio goes with the modality "audio"', "audio")
    if form.stream and spoken is not None and spoken.format != "pcm16":
        raise RequestError(
            400,
            "a stream has audio of the format pcm16",
            "audio.format",
            "unsupported_value",
        )
    prompt = await _Prompt(server, model).of(form.messages)
    wanted = form.max_completion_tokens or form.max_tokens or _NEW_TOKENS
    options = Options(
        form.output,
        min(wanted, server.settings.new_tokens),
        form.temperature,
        form.top_p,
        voice_name(spoken.voice if spoken else None),
        draw_seeds(form.seed, 1)[0],
        _LEAST_UNITS if form.output == "any" else 0,
        stream=form.stream,
        style=voice_name(spoken.style if spoken else None),
    )
    answer = await model.ask(prompt, options)
    if form.stream:
        chunks = _Chunks(server, form, answer)
        return Streamed(events(chunks.all(), b"data: [DONE]\n\n"), answer)
    said = Said()
    async with answer:
        async for piece in answer:
            said.add(piece)
    kind = spoken.format if spoken else "wav"
    message = _message(server, form.model, said, kind)
    return JSONResponse(
        {
            **_head("chat.completion", form.model),
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "finish_reason": _reason(said.end_reason),
                    "logprobs": None,
                }
            ],
            "usage": _usage(answer),
        }
    )


class _Prompt:
    """The prompt of messages."""

    def __init__(self, server: Server, model: ModelThread):
        self.server, self.model = server, model
        self.seconds = 0.0
        self.segments: list[Segment] = []

    async def of(self, messages: list[Message]) -> list[Segment]:
        """Return the segments of some messages."""
        for index, message in enumerate(messages):
            begun = len(self.segments)
            place = f"messages.{index}"
            if message.audio is not None:
                self._earlier(message.audio.id, message.content, place)
            else:
                await self._add(message, f"{place}.content")
            self._keep_apart(begun)
        self.server.check_length(text_of(self.segments), "messages")
        return self.segments

    def _earlier(
        self, key: str, content: Sequence[Part] | None, param: str
    ) -> None:
        """Add an answer that was given before; `content` may repeat its text."""
        found = self.server.memory.find(key)
        if found is None:
            raise RequestError(
                400,
                "there is no such answer, or no longer",
                f"{param}.audio.id",
                "unknown_audio",
            )
        model, segments = found
        if model != self.model.name:
            raise RequestError(
                400,
                f"this is an answer of {model}, whose units {self.model.name} "
                "may not know: ask the same model, or send it as input_audio",
                f"{param}.audio.id",
                "unknown_audio",
            )
        texts = [p.text for p in content or () if isinstance(p, TextPart)]
        is_text = len(texts) == len(content or ())
        if not is_text or "".join(texts) not in ("", text_of(segments)):
            raise RequestError(
                400,
                "a message has an earlier answer or content of its own: send "
                "the content in a message beside it",
                f"{param}.content",
                "invalid_value",
            )
        self.segments += segments

    async def _add(self, message: Message, param: str) -> None:
        for number, part in enumerate(message.content or ()):
            place = f"{param}.{number}"
            if isinstance(part, TextPart):
                self.segments.append(_text(part.text, f"{place}.text"))
                continue
            place = f"{place}.input_audio.data"
            try:
                content = decode_base64(part.input_audio.data)
            except ValueError as error:
                raise refused(error, place) from error
            most = self.server.settings.audio_seconds
            wav = await self.server.read(self.model, content, most, place)
            self.seconds += len(wav) / SAMPLE_RATE
            if self.seconds > most:
                raise RequestError(
                    400,
                    f"the recordings of a request last {self.seconds:.1f} s "
                    f"together; the limit here is {most:g}",
                    place,
                    "invalid_value",
                )
            self.segments.append(Speech(wav))

    def _keep_apart(self, begun: int) -> None:
        """Put a space between texts of two messages that would touch."""
        if not 0 < begun < len(self.segments):
            return
        first, second = self.segments[begun - 1 : begun + 1]
        if isinstance(first, Text) and isinstance(second, Text):
            if first.text[-1:].strip() and second.text[:1].strip():
                self.segments[begun] = Text(f" {second.text}")


def _text(text: str, param: str) -> Text:
    try:
        return Text(text)
    except ValueError as error:
        raise refused(error, param) from error


class _Chunks:
    """An answer as chunks, as they come."""

    def __init__(self, server: Server, form: Chat, answer: Answer):
        self.server, self.form, self.answer = server, form, answer
        self.head = _head("chat.completion.chunk", form.model)
        self.said = Said()
        self.encoder = ChunkEncoder("pcm")
        self.audio_id = ""

    async def all(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the chunks."""
        yield self._chunk({"role": "assistant", "content": ""})
        async for piece in self.answer:
            self.said.add(piece)
            if piece.text:
                yield self._chunk({"content": piece.text})
            if piece.wav is not None:
                yield self._audio(self.encoder.push(piece.wav))
        if self.audio_id:
            yield self._audio(self.encoder.finish())
            _, until = self.server.memory.keep(
                self.form.model, self.said.segments, self.audio_id
            )
            yield self._chunk({"audio": {"expires_at": until}})
        yield self._chunk({}, _reason(self.said.end_reason))
        options = self.form.stream_options
        if options is not None and options.include_usage:
            usage = _usage(self.answer)
            yield {**self.head, "choices": [], "usage": usage}

    def _audio(self, content: bytes) -> dict[str, Any]:
        self.audio_id = self.audio_id or self.server.memory.new_id()
        data = base64.b64encode(content).decode()
        return self._chunk({"audio": {"id": self.audio_id, "data": data}})

    def _chunk(
        self, delta: dict[str, Any], reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {**self.head, "choices": [choice]}


def _message(
    server: Server, model: str, said: Said, form: str
) -> dict[str, Any]:
    audio = None
    if said.wavs:
        key, until = server.memory.keep(model, said.segments)
        kind = "pcm" if form == "pcm16" else form
        content = encode(torch.cat(said.wavs), kind)
        audio = {
            "id": key,
            "data": base64.b64encode(content).decode(),
            "expires_at": until,
            "transcript": "",
        }
    return {
        "role": "assistant",
        "content": said.text or (None if audio else ""),
        "refusal": None,
        "audio": audio,
    }


def _head(kind: str, model: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def _reason(end: str) -> str:
    return "stop" if end == "end_of_sequence" else "length"


def _usage(answer: Answer) -> dict[str, int]:
    asked, made = answer.prompt_tokens, answer.tokens
    return {
        "prompt_tokens": asked,
        "completion_tokens": made,
        "total_tokens": asked + made,
    }
