"""Texts read aloud: ``/v1/audio/speech``."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from spiritlm_plugin.dataio.units.prompts import tts_query
from spiritlm_plugin.inference.few_shot import READING_TEMPERATURE
from spiritlm_plugin.serving.answers import Answer, Options
from spiritlm_plugin.serving.audio import MEDIA_TYPES, ChunkEncoder
from spiritlm_plugin.serving.forms import Reading, voice_name
from spiritlm_plugin.serving.state import (
    Server,
    Streamed,
    events,
    server_of,
    while_connected,
)

router = APIRouter()
# As of `Reader`.
_NEW_TOKENS = 500


@router.post("/v1/audio/speech", response_model=None)
async def speak(request: Request, form: Reading) -> Response:
    """Answer with a recording, chunk by chunk; it is that of `synthesize`."""
    return await while_connected(request, _spoken(server_of(request), form))


async def _spoken(server: Server, form: Reading) -> Response:
    model = server.model(form.model)
    model.require("tts", "read texts aloud")
    server.check_length(form.input, "input")
    options = Options(
        "tts",
        min(_NEW_TOKENS, server.settings.new_tokens),
        READING_TEMPERATURE,
        speaker=voice_name(form.voice),
        seed=form.seed,
        style=voice_name(form.style),
    )
    answer = await model.ask(tts_query(form.input, trained=True), options)
    chunks = _chunks(answer, form.response_format)
    if form.stream_format == "sse":
        return Streamed(events(_deltas(answer, chunks)), answer)
    return Streamed(chunks, answer, MEDIA_TYPES[form.response_format])


async def _chunks(answer: Answer, form: str) -> AsyncIterator[bytes]:
    """Yield a recording as the content of a file."""
    encoder = ChunkEncoder(form)
    async for piece in answer:
        if piece.wav is not None and (chunk := encoder.push(piece.wav)):
            yield chunk
    yield encoder.finish()


async def _deltas(
    answer: Answer, chunks: AsyncIterator[bytes]
) -> AsyncIterator[dict[str, Any]]:
    async for chunk in chunks:
        audio = base64.b64encode(chunk).decode()
        yield {"type": "speech.audio.delta", "audio": audio}
    yield {"type": "speech.audio.done", "usage": usage_of(answer)}


def usage_of(answer: Answer) -> dict[str, int]:
    """Return the tokens of a request and of its answer."""
    asked, made = answer.prompt_tokens, answer.tokens
    return {
        "input_tokens": asked,
        "output_tokens": made,
        "total_tokens": asked + made,
    }
