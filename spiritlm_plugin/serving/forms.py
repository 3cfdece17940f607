"""What a request may ask for, in OpenAI's names.

Source: the reference of OpenAI's API. What cannot be done here is refused by
name, but for values that ask for nothing.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

# Parameters with the values that change nothing.
_NOTHING: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "instructions": ("",),
    "logit_bias": ({},),
    "logprobs": (False,),
    "metadata": ({},),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "prompt": ("",),
    "speed": (1,),
    "stop": ([], ""),
    "store": (False,),
    "tools": ([],),
}
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Heat = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
# Of messages, and of their parts.
_MOST_PARTS = 512


class Form(BaseModel):
    """Parameters, of which others are refused."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {
            name: value
            for name, value in values.items()
            if value is not None and not _asks_nothing(name, value)
        }


def _asks_nothing(name: str, value: Any) -> bool:
    return any(
        value == other and isinstance(value, bool) == isinstance(other, bool)
        for other in _NOTHING.get(name, ())
    )


class Transcription(Form):
    """Of ``/v1/audio/transcriptions``."""

    file: UploadFile
    model: str
    language: str | None = None
    response_format: Literal["json", "text", "verbose_json"] = "json"
    temperature: Heat = 0.0
    stream: bool = False
    user: str | None = None


class Voice(Form):
    """A voice by its id."""

    id: str


class Reading(Form):
    """Of ``/v1/audio/speech``; ``seed`` and ``style`` are additions."""

    model: str
    input: str = Field(min_length=1)
    voice: str | Voice | None = None
    response_format: Literal["wav", "pcm", "flac", "mp3", "opus"] = "mp3"
    stream_format: Literal["audio", "sse"] = "audio"
    seed: Seed = 0
    style: str | None = None
    user: str | None = None


class TextPart(Form):
    """Text in a message."""

    type: Literal["text"]
    text: str


class InputAudio(Form):
    """A recording, of any format of libsndfile."""

    data: str
    format: str | None = None


class AudioPart(Form):
    """Speech in a message."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class Earlier(Form):
    """An answer that was given before, by its id."""

    id: str


Modality = Literal["text", "audio"]
Part = Annotated[TextPart | AudioPart, Field(discriminator="type")]


class Message(Form):
    """One of a conversation; all are continued as one prompt."""

    role: Literal["system", "developer", "user", "assistant"]
    content: list[Part] | None = Field(default=None, max_length=_MOST_PARTS)
    audio: Earlier | None = None
    name: str | None = None
    refusal: None = None

    @field_validator("content", mode="before")
    @classmethod
    def _as_parts(cls, content: Any) -> Any:
        if isinstance(content, str):
            return [{"type": "text", "text": content}]
        return content


class Spoken(Form):
    """How an answer is spoken; ``style`` is an addition."""

    voice: str | Voice | None = None
    style: str | None = None
    format: Literal["wav", "flac", "mp3", "opus", "pcm16"] = "wav"


class StreamOptions(Form):
    """What a stream tells at its end."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class Chat(Form):
    """Of ``/v1/chat/completions``."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=_MOST_PARTS)
    modalities: list[Modality] = Field(default=["text"], min_length=1)
    audio: Spoken | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    seed: Seed | None = None
    temperature: Heat = 0.8
    top_p: Share = 0.95
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    user: str | None = None

    @property
    def output(self) -> str:
        """What `SpiritLM.generate` is asked for."""
        wanted = set(self.modalities)
        if len(wanted) == 2:
            return "any"
        return "text" if wanted == {"text"} else "speech"


def voice_name(voice: int | str | Voice | None) -> int | str | None:
    """Return a voice as `SpiritLM` takes it; None is the one that fits.

    Example
    -------
    >>> voice_name("2"), voice_name("anna"), voice_name("auto")
    (2, 'anna', None)
    """
    name = voice.id if isinstance(voice, Voice) else voice
    if name == "auto":
        return None
    if isinstance(name, str) and re.fullmatch(r"\d{1,9}", name, re.ASCII):
        return int(name)
    return name
