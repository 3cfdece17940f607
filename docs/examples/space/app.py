"""A Gradio Space: say or write a beginning, and hear the model go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch

from spiritlm_plugin import Speech, SpiritLM, Text

OUTPUTS = ["any", "speech", "text"]
NEW_TOKENS = 200
LONGEST_SECONDS = 30


@cache
def load() -> SpiritLM:
    """Return the model."""
    return SpiritLM.from_hparams(os.environ.get("MODEL", "tinyspeech"))


def prompt_of(recording: tuple[int, np.ndarray] | None, text: str) -> list:
    """Return what is continued: what is written, then what is said.

    Arguments
    ---------
    recording : tuple of int and numpy.ndarray, or None
        Sample rate in Hz, and samples of shape (time,) or (time, channels).
    text : str
        Of any length.

    Raises
    ------
    ValueError
        If there is neither, or the recording is too long.
    """
    prompt: list[Any] = [Text(text)] if text.strip() else []
    if recording is not None:
        rate, samples = recording
        if len(samples) > LONGEST_SECONDS * rate:
            raise ValueError(f"say no more than {LONGEST_SECONDS} s")
        if samples.ndim > 1:
            samples = samples.mean(1).astype(samples.dtype)
        [units] = load().encode_batch([samples], sample_rate=rate)
        prompt.append(Speech(units))
    if not prompt:
        raise ValueError("say or write the beginning of something")
    return prompt


def go_on(
    recording: tuple[int, np.ndarray] | None,
    text: str,
    output: str,
    speaker: str,
    temperature: float,
    seed: int,
) -> Iterator[tuple[str, tuple[int, np.ndarray] | None, str]]:
    """Yield the text, the speech and the tokens so far."""
    written, tokens, chunks = "", "", []
    for piece in load().generate_stream(
        prompt_of(recording, text),
        output,
        max_new_tokens=NEW_TOKENS,
        temperature=temperature,
        speaker=speaker,
        seed=int(seed),
    ):
        if piece.text:
            written += piece.text
            tokens += f" {piece.text}"
        if piece.units is not None:
            tokens += piece.units.to_string()
        if piece.wav is not None:
            chunks.append(piece.wav)
            continue
        yield written, None, tokens
    sound = None
    if chunks:
        samples = torch.cat(chunks).clamp(-1, 1) * (2**15 - 1)
        sound = (16000, samples.short().numpy())
    yield written, sound, tokens


def build() -> Any:
    """Return the page."""
    import gradio

    def told(*arguments: Any) -> Iterator[Any]:
        try:
            yield from go_on(*arguments)
        except ValueError as error:
            raise gradio.Error(str(error)) from error

    speakers = list(load().speakers)
    return gradio.Interface(
        told,
        [
            gradio.Audio(sources=["microphone", "upload"], label="Say"),
            gradio.Textbox(label="or write", placeholder="the old man saw"),
            gradio.Radio(OUTPUTS, value="any", label="Continue in"),
            gradio.Dropdown(speakers, value=speakers[0], label="Voice"),
            gradio.Slider(0, 1.5, value=0.8, step=0.05, label="Temperature"),
            gradio.Number(0, precision=0, label="Seed"),
        ],
        [
            gradio.Textbox(label="Text"),
            gradio.Audio(label="Speech"),
            gradio.Textbox(label="Tokens", lines=6),
        ],
        title="Spirit LM",
        description="The model continues what it hears; it is no assistant.",
    )


if __name__ == "__main__":
    build().launch()
