"""Independent recognizers: what a listener understands of speech."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from speechbrain.utils.metric_stats import ErrorRateStats
from torch import Tensor

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE

Recognizer = Callable[[Sequence[Tensor]], list[str]]
# A text that shrinks by so much when it is compressed repeats itself.
_LOOPS = 2.4


def load_recognizer(
    source: str | Path, device: str = "cpu", batch_size: int = 16
) -> Recognizer:
    """Load a recognizer of English that knows nothing of the speaker.

    Arguments
    ---------
    source : str or Path
        A folder with a Whisper model in CTranslate2's format (it needs the
        package faster-whisper); or any speech recognizer of transformers, as
        a folder or by its name on the Hub.
    device : str
        To run on.
    batch_size : int
        Recordings at a time, where transformers runs it.

    Returns
    -------
    callable
        Waveforms at 16 kHz, each of shape (samples,), to transcripts.

    Raises
    ------
    ImportError
        If faster-whisper is needed and missing.
    """
    if (Path(source) / "model.bin").is_file():
        return _load_faster_whisper(str(source), device)
    from transformers import pipeline

    # Its types know one recording at a time.
    recognize: Callable[..., list[dict[str, Any]]] = pipeline(
        "automatic-speech-recognition",
        str(source),
        device=device,
        trust_remote_code=False,
    )

    def transcribe(wavs: Sequence[Tensor]) -> list[str]:
        inputs = [
            {"raw": wav.cpu().numpy(), "sampling_rate": SAMPLE_RATE}
            for wav in wavs
        ]
        found = recognize(inputs, batch_size=batch_size)
        return [item["text"].strip() for item in found]

    return transcribe


def _load_faster_whisper(folder: str, device: str) -> Recognizer:
    try:
        from faster_whisper import WhisperModel
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{folder} holds a model of CTranslate2: pip install faster-whisper"
        ) from error
    kind, _, index = device.partition(":")
    model = WhisperModel(folder, device=kind, device_index=int(index or 0))

    def transcribe(wavs: Sequence[Tensor]) -> list[str]:
        return [_join(model, wav) for wav in wavs]

    return transcribe


def _join(model: Any, wav: Tensor) -> str:
    """Transcribe; again, where the words repeat themselves without end.

    Whisper's authors know such transcripts by the same sign, and draw from the
    model again and again until they get another one. This is not up to chance.
    """

    def decode(**options: Any) -> list[Any]:
        segments, _ = model.transcribe(
            wav.cpu().numpy(),
            language="en",
            temperature=0.0,
            condition_on_previous_text=False,
            **options,
        )
        return list(segments)

    segments = decode()
    if any(s.compression_ratio > _LOOPS for s in segments):
        segments = decode(no_repeat_ngram_size=3)
    return " ".join(segment.text.strip() for segment in segments)


def normalize_english(text: str) -> str:
    """Write a transcript so that only words count.

    Whisper's normalization: lower case, no punctuation, numbers as digits;
    and no apostrophes, since *teachers'* and *teacher's* sound the same.

    Example
    -------
    >>> normalize_english("The teacher's twenty-three apples, please!")
    'the teachers 23 apples please'
    """
    return _whisper_normalizer()(text.replace("'", "").replace("’", ""))


@cache
def _whisper_normalizer() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import (
        EnglishTextNormalizer,
    )

    return EnglishTextNormalizer({})


class WordErrorStats(ErrorRateStats):
    """Word errors after `normalize_english`, by SpeechBrain's counts.

    Example
    -------
    >>> stats = WordErrorStats()
    >>> stats.append(["a"], ["Two cats."], ["two cats sat"])
    >>> round(stats.summarize("WER"), 1)
    33.3
    """

    def append(
        self, ids: Sequence[str], predict: Sequence[str], target: Sequence[str]
    ) -> None:
        """Add transcripts and the texts that were read."""
        words = [
            [normalize_english(text).split() for text in texts]
            for texts in (predict, target)
        ]
        super().append(list(ids), *words)
