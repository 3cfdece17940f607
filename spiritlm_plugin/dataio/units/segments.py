"""Typed parts of a prompt: text that is text, and speech.

A prompt is a list of segments, `Text` and `Speech`, or of the tuples
``("text", ...)`` and ``("speech", ...)``; for models that are trained on
transcribing and reading, also of `Transcript` and `Reading`; and a `Break`
stands where a marker is wanted that would be left out. Only `parse_prompt` reads the bracket notation of the paper (``[Text]...[Speech][Hu3]...``); everywhere
else brackets in a text are characters like any others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from spiritlm_plugin.dataio.units.units import SpeechStream, SpeechUnits
from spiritlm_plugin.utils.arguments import listed, shown

_AUDIO_TYPES = (str, os.PathLike, bytes, bytearray, np.ndarray, Tensor)
# Of the dictionaries that `datasets` gives for a recording.
_AUDIO_KEYS = {"array", "bytes", "path"}
_MARKER = re.compile(r"\[(Text|Speech|ASR|TTS)\]")


@dataclass(frozen=True)
class Text:
    """A piece of text, taken literally.

    Arguments
    ---------
    text : str
        The text; ``[Speech]``, ``[Hu12]`` or ``</s>`` in it are characters.

    Raises
    ------
    TypeError
        If ``text`` is not a string.
    ValueError
        If it has half a surrogate pair, which is no character.

    Example
    -------
    >>> Text("the cat")
    Text(text='the cat')
    """

    text: str
    marker: ClassVar[str] = "text"

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(
                f"a text segment holds a str, got {type(self.text).__name__}"
            )
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"a text segment holds {self.text[error.start]!r} at "
                f"character {error.start}, half of a surrogate pair; decode "
                "the text anew, or leave it out"
            ) from error


@dataclass(frozen=True, eq=False)
class Speech:
    """A piece of speech: a recording, or units.

    Arguments
    ---------
    content : path, bytes, numpy.ndarray, Tensor, SpeechUnits, SpeechStream
        A recording (a file's path or its bytes, or samples of one or several
        channels, integer or float) or units. A recording of `datasets`, a
        dictionary or a decoder, is one as well.
    sample_rate : int
        Of samples given as an array, in Hz. Files say their own.
    wav : Tensor, optional
        What a model has spoken: 16 kHz samples, shape (time,).

    Raises
    ------
    TypeError
        If the content is none of these.

    Example
    -------
    >>> Speech(SpeechUnits([1, 2])).stream.to_string()
    '[Hu1][Hu2]'
    """

    content: Any
    sample_rate: int = 16000
    wav: Tensor | None = None
    marker: ClassVar[str] = "speech"

    def __post_init__(self) -> None:
        if not (self.has_units or _is_recording(self.content)):
            raise TypeError(
                "a speech segment holds a path, bytes, an array, a tensor, "
                f"SpeechUnits or SpeechStream, got "
                f"{type(self.content).__name__}"
            )

    @property
    def has_units(self) -> bool:
        """Whether the content is units rather than a recording."""
        return isinstance(self.content, (SpeechUnits, SpeechStream))

    @property
    def stream(self) -> SpeechStream:
        """The units merged into one stream.

        Raises
        ------
        ValueError
            If the segment holds a recording, which a tokenizer must read.
        """
        if isinstance(self.content, SpeechStream):
            return self.content
        if isinstance(self.content, SpeechUnits):
            return self.content.merge()
        raise ValueError(
            "this speech segment holds a recording, not units; encode it "
            "with SpiritLM.encode_batch or encode_file first"
        )

    @property
    def units(self) -> SpeechUnits:
        """The units; those of a stream have no durations."""
        if isinstance(self.content, SpeechUnits):
            return self.content
        return self.stream.split()

    def __repr__(self) -> str:
        """Show what the segment holds, briefly."""
        if self.has_units:
            content = f"{len(self.units)} phonetic units"
        elif isinstance(self.content, (str, os.PathLike)):
            content = repr(os.fspath(self.content))
        else:
            content = type(self.content).__name__
        spoken = "" if self.wav is None else f", {len(self.wav)} samples"
        return f"{type(self).__name__}({content}{spoken})"


@dataclass(frozen=True)
class Break(Text):
    r"""The end of a shot: what follows has its marker again.

    Its text, such as a line break, belongs to what stands before it, text or
    speech, and has no marker.

    Example
    -------
    >>> vocabulary = Vocabulary.extend(example_text_tokenizer(), phonetic=9)
    >>> prompt = [Text("a"), Break("\n"), Text("b")]
    >>> vocabulary.encode(prompt) == vocabulary.encode_string(
    ...     "[Text]a\n[Text]b"
    ... )
    True
    """

    text: str = ""
    marker: ClassVar[str] = "break"


class Transcript(Text):
    """Text that says what the speech before it says.

    It stands behind ``[ASR]`` instead of ``[Text]``.

    Example
    -------
    >>> Transcript("the cat")
    Transcript(text='the cat')
    """

    marker: ClassVar[str] = "asr"


class Reading(Speech):
    """Speech that says what the text before it says.

    It stands behind ``[TTS]`` instead of ``[Speech]``.

    Example
    -------
    >>> Reading(SpeechUnits([1, 2]))
    Reading(2 phonetic units)
    """

    marker: ClassVar[str] = "tts"


Segment = Text | Speech
_CLASSES: tuple[type[Segment], ...] = (Text, Speech, Transcript, Reading, Break)
SEGMENTS = {cls.marker: cls for cls in _CLASSES}


def as_segment(part: Segment | tuple) -> Segment:
    """Return a segment from a segment or a ``(kind, content)`` tuple.

    Raises
    ------
    TypeError
        If ``part`` is neither.

    Example
    -------
    >>> as_segment(("text", "hello"))
    Text(text='hello')
    """
    if isinstance(part, (Text, Speech)):
        return part
    if isinstance(part, tuple) and len(part) == 2:
        kind, content = part
        if isinstance(kind, str) and kind in SEGMENTS:
            return SEGMENTS[kind](content)
    raise TypeError(
        f"not a prompt segment: {shown(part)}; use Text(...), Speech(...), "
        '("text", ...) or ("speech", ...)'
    )


def as_prompt(prompt: Iterable | Segment) -> list[Segment]:
    """Return a prompt as a list of segments, checked.

    Raises
    ------
    ValueError
        If the prompt is empty, has nothing but empty texts, or starts with a
        `Break`.
    TypeError
        If it is not a list of segments.

    Example
    -------
    >>> as_prompt([("text", "a"), Text("b")])
    [Text(text='a'), Text(text='b')]
    """
    if isinstance(prompt, (Text, Speech)):
        prompt = [prompt]
    parts = listed(prompt)
    if parts is None:
        raise TypeError(
            f"a prompt is a list of segments, got {type(prompt).__name__}; "
            'wrap a text as [Text("...")]'
        )
    segments = [as_segment(part) for part in parts]
    if not any(isinstance(s, Speech) or s.text for s in segments):
        raise ValueError(
            "the prompt is empty: give at least one Text or Speech segment "
            "with content"
        )
    if isinstance(segments[0], Break):
        raise ValueError(
            f"a prompt starts with {shown(segments[0])}, which ends what "
            "stands before it; put Text or Speech there"
        )
    return segments


def as_prompts(prompts: Any) -> tuple[list[list[Segment]], bool]:
    """Return prompts, checked, and whether it was one alone.

    Arguments
    ---------
    prompts : iterable
        One prompt (a list of segments) or a list of prompts, also none.

    Raises
    ------
    ValueError, TypeError
        As of `as_prompt` and `is_single_prompt`.

    Example
    -------
    >>> as_prompts([Text("a")])
    ([[Text(text='a')]], True)
    """
    if not isinstance(prompts, (Text, Speech, tuple)):
        items = listed(prompts)
        prompts = prompts if items is None else items
    single = is_single_prompt(prompts)
    return [as_prompt(p) for p in ([prompts] if single else prompts)], single


def is_single_prompt(prompts: Any) -> bool:
    """Tell one prompt (a list of segments) from a list of prompts.

    Example
    -------
    >>> is_single_prompt([Text("a")]), is_single_prompt([[Text("a")]])
    (True, False)
    """
    if isinstance(prompts, (Text, Speech)):
        return True
    if not isinstance(prompts, (list, tuple)):
        raise ValueError(
            "prompts is a list of segments or a list of such lists, got "
            f"{shown(prompts)}"
        )
    if isinstance(prompts, tuple) and prompts and isinstance(prompts[0], str):
        raise TypeError(
            f"not a prompt: {shown(prompts)}; put the segment in a list"
        )
    if not prompts:
        return False
    first = prompts[0]
    if isinstance(first, tuple):
        return bool(first) and isinstance(first[0], str)
    return isinstance(first, (Text, Speech))


def parse_prompt(string: str) -> list[Segment]:
    """Read a prompt written in the bracket notation.

    Arguments
    ---------
    string : str
        As in ``[Text]he said[Speech][Hu3][Hu4]``; it starts with a marker.

    Returns
    -------
    list of Text or Speech

    Raises
    ------
    ValueError
        If there is no marker in front, or anything but speech tokens in a
        speech part.

    Example
    -------
    >>> parse_prompt("[Text]he said[Speech][Hu3]")
    [Text(text='he said'), Speech(1 phonetic units)]
    """
    before, *parts = _MARKER.split(string)
    if before or not parts:
        raise ValueError(
            f"a bracket prompt starts with [Text] or [Speech]: {string!r:.80}"
        )
    segments: list[Segment] = []
    for marker, content in zip(parts[::2], parts[1::2]):
        segment = SEGMENTS[marker.lower()]
        if issubclass(segment, Text):
            segments.append(segment(content))
            continue
        stream = SpeechStream.from_string(content)
        if stream.to_string() != content:
            raise ValueError(
                f"a [{marker}] part holds speech tokens alone: {content!r:.80}"
            )
        segments.append(segment(stream))
    return segments


def text_of(segments: Iterable[Segment]) -> str:
    """Return the text of segments, joined.

    Example
    -------
    >>> text_of([Text("the "), Speech("a.wav"), Text("cat")])
    'the cat'
    """
    return "".join(s.text for s in segments if isinstance(s, Text))


def _is_recording(content: Any) -> bool:
    """Tell whether a content is audio, in one of the forms that are read."""
    if isinstance(content, Mapping):
        return not _AUDIO_KEYS.isdisjoint(content)
    decodes = hasattr(content, "get_all_samples")
    return decodes or isinstance(content, _AUDIO_TYPES)
