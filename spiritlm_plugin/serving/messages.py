"""What the two sides of a conversation tell each other, as JSON."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field, StrictInt, ValidationError

from spiritlm_plugin.dataio.audio.resampling import LOWEST_RATE
from spiritlm_plugin.dataio.units.units import (
    RATES,
    Kind,
    SpeechStream,
    SpeechUnits,
)
from spiritlm_plugin.serving.errors import RequestError, of_validation
from spiritlm_plugin.serving.forms import Form, Heat, Seed, Share
from spiritlm_plugin.serving.state import Server

# Of microphones.
_HIGHEST_RATE = 96_000


class Configure(Form):
    """How answers are made."""

    type: Literal["configure"] = "configure"
    model: str = ""
    output: Literal["any", "text", "speech"] = "any"
    speaker: StrictInt | str | None = None
    style: StrictInt | str | None = None
    temperature: Heat = 0.8
    top_p: Share = 0.95
    max_new_tokens: int = Field(default=200, ge=1)
    seed: Seed | None = None
    min_speech_units: int = Field(default=25, ge=0)


class Written(Form):
    """A turn in writing."""

    type: Literal["text"]
    text: str = Field(min_length=1)


class AudioBegin(Form):
    """Binary frames of samples follow."""

    type: Literal["audio.begin"]
    sample_rate: int = Field(ge=LOWEST_RATE, le=_HIGHEST_RATE)


class Plain(Form):
    """What needs no more words."""

    type: Literal["audio.end", "continue", "cancel", "clear", "undo"]


def read_message(content: str) -> dict[str, Any]:
    """Return what a text frame says.

    Raises
    ------
    RequestError
        If it is no object.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, "a message is no JSON") from error
    if not isinstance(values, dict):
        raise RequestError(400, "a message is an object with a type")
    return values


def checked(form: type[Any], values: dict[str, Any]) -> Any:
    """Return a message of a form.

    Raises
    ------
    RequestError
        If it is not of that form.
    """
    try:
        return form.model_validate(values)
    except ValidationError as error:
        raise of_validation(error) from error


def ready_message(server: Server) -> dict[str, Any]:
    """Return what a client is told of the models and the limits."""
    models = []
    for name, model in server.models.items():
        vocabulary = model.lm.vocabulary
        kinds = [
            kind.name.lower()
            for kind in sorted(Kind, reverse=True)
            if vocabulary.unit_count(kind)
        ]
        models.append(
            {
                "id": name,
                "speakers": model.lm.speakers,
                "styles": model.lm.styles,
                "context": model.lm.context,
                "kinds": kinds,
                "rates": {kind: RATES[kind] for kind in kinds},
            }
        )
    limits = {
        "audio_seconds": server.settings.audio_seconds,
        "text_characters": server.settings.characters,
        "new_tokens": server.settings.new_tokens,
    }
    return {"type": "ready", "models": models, "limits": limits}


def units_message(
    units: SpeechUnits, start: float, final: bool
) -> dict[str, Any]:
    """Return the message of units that have become known, from a time on."""
    streams = {
        name: None if stream is None else stream.tolist()
        for name, stream in (
            ("phonetic", units.phonetic),
            ("pitch", units.pitch),
            ("style", units.style),
        )
    }
    return {
        "type": "units",
        "role": "user",
        "start": start,
        **streams,
        "final": final,
    }


def tokens_of(stream: SpeechStream) -> list[list[Any]]:
    """Return the kind and the number of each speech token."""
    names = {int(kind): kind.name.lower() for kind in Kind}
    return [
        [names[kind], value]
        for kind, value in zip(stream.kinds.tolist(), stream.values.tolist())
    ]
