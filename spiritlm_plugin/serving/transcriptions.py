"""What is said in a recording: ``/v1/audio/transcriptions``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from spiritlm_plugin.dataio.units.prompts import asr_query
from spiritlm_plugin.dataio.units.segments import Speech
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.serving.answers import Answer, Options
from spiritlm_plugin.serving.errors import RequestError
from spiritlm_plugin.serving.forms import Transcription
from spiritlm_plugin.serving.state import (
    Server,
    Streamed,
    events,
    server_of,
    while_connected,
)

router = APIRouter()
# As of `Transcriber`.
_NEW_TOKENS = 200


@router.post("/v1/audio/transcriptions", response_model=None)
async def transcribe(
    request: Request, form: Annotated[Transcription, Form()]
) -> Response:
    """Answer with a transcript, which is that of `transcribe_file`."""
    server = server_of(request)
    _check_language(server, form.language)
    return await while_connected(request, _transcript(server, form))


async def _transcript(server: Server, form: Transcription) -> Response:
    model = server.model(form.model)
    model.require("asr", "transcribe")
    content = await form.file.read()
    most = server.settings.audio_seconds
    wav = await server.read(model, content, most, "file")
    options = Options(
        "asr",
        min(_NEW_TOKENS, server.settings.new_tokens),
        form.temperature,
        vocode=False,
        stream=form.stream,
    )
    answer = await model.ask(asr_query(Speech(wav)), options)
    seconds = len(wav) / SAMPLE_RATE
    if form.stream:
        return Streamed(events(_deltas(answer, seconds)), answer)
    async with answer:
        text = "".join([piece.text async for piece in answer]).strip()
    if form.response_format == "text":
        return PlainTextResponse(f"{text}\n")
    found: dict[str, Any] = {"text": text, "usage": _usage(seconds)}
    if form.response_format == "verbose_json":
        found |= {
            "task": "transcribe",
            "language": server.settings.language,
            "duration": seconds,
        }
    return JSONResponse(found)


async def _deltas(
    answer: Answer, seconds: float
) -> AsyncIterator[dict[str, Any]]:
    """Yield a transcript as it comes, without white space around it."""
    text, shown = "", 0
    async for piece in answer:
        text = (text + piece.text).lstrip()
        if new := text.rstrip()[shown:]:
            shown += len(new)
            yield {"type": "transcript.text.delta", "delta": new}
    yield {
        "type": "transcript.text.done",
        "text": text.rstrip(),
        "usage": _usage(seconds),
    }


def _usage(seconds: float) -> dict[str, Any]:
    return {"type": "duration", "seconds": seconds}


def _check_language(server: Server, language: str | None) -> None:
    known = server.settings.language
    if language and language.lower().split("-")[0] != known:
        raise RequestError(
            400,
            f"the models here know the language {known} alone",
            "language",
            "unsupported_language",
        )
