"""Recognizers: what a listener understands of speech, and what is wrong in it."""

from __future__ import annotations

import logging
import math
import unicodedata
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from speechbrain.utils.metric_stats import ErrorRateStats
from torch import Tensor

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
from spiritlm_plugin.metrics.intervals import percent_interval

logger = logging.getLogger(__name__)

Recognizer = Callable[[Sequence[Tensor]], list[str]]
# A text that shrinks by so much when it is compressed repeats itself.
_LOOPS = 2.4
# What each figure is counted on, as reports say it.
_NORMALIZERS = {
    "WER": "lower case, no punctuation but apostrophes within words",
    "WER_whisper": "Whisper's for English, with its table of spellings",
}
_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ＇", "'"))


def load_recognizer(
    source: str | Path | Mapping[str, str],
    device: str = "cpu",
    batch_size: int = 16,
) -> Recognizer:
    """Load a recognizer that knows nothing of the speaker.

    Arguments
    ---------
    source : str, Path or dict
        A folder with a Whisper model in CTranslate2's format (it needs the
        package faster-whisper), which listens for English; or any speech
        recognizer of transformers, as a folder or by its name on the Hub, of
        which a multilingual Whisper finds the language by itself. In
        ``{"source": "small", "language": "es"}`` the language is said.
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
    ValueError
        If a language is said to a recognizer that knows but one.
    """
    language = None
    if isinstance(source, Mapping):
        language, source = source.get("language"), source["source"]
    if (Path(source) / "model.bin").is_file():
        return _load_faster_whisper(str(source), device, language or "en")
    from transformers import pipeline

    # Its types know one recording at a time.
    recognize: Any = pipeline(
        "automatic-speech-recognition",
        str(source),
        device=device,
        trust_remote_code=False,
    )

    longest = math.inf
    options: dict[str, Any] = {}
    if recognize.type == "seq2seq_whisper":
        longest = recognize.feature_extractor.chunk_length * SAMPLE_RATE
    if language is not None:
        known = getattr(recognize.model.generation_config, "lang_to_id", None)
        if not known:
            raise ValueError(
                f"{source} is no multilingual Whisper, and takes no language, "
                f"got {language!r}; leave it away"
            )
        options = {"generate_kwargs": {"language": language}}

    def transcribe(wavs: Sequence[Tensor]) -> list[str]:
        inputs = [
            {"raw": wav.cpu().numpy(), "sampling_rate": SAMPLE_RATE}
            for wav in wavs
        ]
        long = [i for i, wav in enumerate(wavs) if len(wav) > longest]
        short = [i for i in range(len(wavs)) if i not in set(long)]
        found = []
        if short:
            found = recognize(
                [inputs[i] for i in short], batch_size=batch_size, **options
            )
        # Whisper goes on from time to time; other lengths cannot be batched.
        found += [
            recognize(inputs[i], return_timestamps=True, **options)
            for i in long
        ]
        texts = dict(zip([*short, *long], found))
        return [texts[i]["text"].strip() for i in range(len(wavs))]

    return transcribe


def _load_faster_whisper(folder: str, device: str, language: str) -> Recognizer:
    try:
        from faster_whisper import WhisperModel
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{folder} holds a model of CTranslate2: pip install faster-whisper"
        ) from error
    kind, _, index = device.partition(":")
    model = WhisperModel(folder, device=kind, device_index=int(index or 0))

    def transcribe(wavs: Sequence[Tensor]) -> list[str]:
        return [_join(model, wav, language) for wav in wavs]

    return transcribe


def _join(model: Any, wav: Tensor, language: str) -> str:
    """Transcribe; again, where the words repeat themselves without end.

    Whisper's authors know such transcripts by the same sign, and draw from the
    model again and again until they get another one. This is not up to chance.
    """

    def decode(**options: Any) -> list[Any]:
        segments, _ = model.transcribe(
            wav.cpu().numpy(),
            language=language,
            temperature=0.0,
            condition_on_previous_text=False,
            **options,
        )
        return list(segments)

    segments = decode()
    if any(s.compression_ratio > _LOOPS for s in segments):
        segments = decode(no_repeat_ngram_size=3)
    return " ".join(segment.text.strip() for segment in segments)


def normalize_transcript(text: str) -> str:
    """Write a transcript as the references of LibriSpeech are written.

    Lower case; letters of any script with their marks, digits, and apostrophes
    within words are kept, all else separates words.

    Example
    -------
    >>> normalize_transcript("“The TEACHER’S twenty-three apples, señor!”")
    "the teacher's twenty three apples señor"
    """
    text = unicodedata.normalize("NFC", text.lower()).translate(_APOSTROPHES)
    words = "".join(map(_kept, text)).split()
    stripped = (word.strip("'") for word in words)
    return " ".join(word for word in stripped if word)


def _kept(character: str) -> str:
    """Return a character of a word, a space, or nothing if it is unseen."""
    category = unicodedata.category(character)
    if category[0] in "LMN" or character == "'":
        return character
    return "" if category == "Cf" else " "


def normalize_english(text: str) -> str:
    """Write a transcript as Whisper's authors do before they count.

    Lower case, no punctuation, American spelling, contractions in full, numbers
    as digits.

    Source: Radford et al., "Robust speech recognition via large-scale weak
    supervision", 2022, appendix C.

    Raises
    ------
    ModuleNotFoundError
        If whisper-normalizer is not installed.

    Example
    -------
    >>> normalize_english("The teacher's twenty-three colours, please!")
    'the teacher is 23 colors please'
    """
    return _whisper_normalizer()(text).strip()


@cache
def _whisper_normalizer() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


class WordErrorStats(ErrorRateStats):
    """Errors of transcripts, by SpeechBrain's counts.

    An utterance whose reference has no words is apart, in ``apart``: what is
    heard of it has nothing to be divided by.

    Arguments
    ---------
    normalize : callable
        What both are written by before they are compared.
    characters : bool
        Whether characters are counted, spaces included, instead of words.

    Example
    -------
    >>> stats = WordErrorStats()
    >>> stats.append(["a", "b"], ["Two cats.", "Oh no"], ["two cats sat", "-"])
    >>> round(stats.summarize("WER"), 1), stats.apart
    (33.3, {'b': ['oh', 'no']})
    """

    def __init__(
        self,
        normalize: Callable[[str], str] = normalize_transcript,
        characters: bool = False,
    ):
        super().__init__(split_tokens=characters)
        self.normalize = normalize

    def clear(self) -> None:
        """Forget all."""
        super().clear()
        self.apart: dict[str, list[str]] = {}

    def append(
        self, ids: Sequence[str], predict: Sequence[str], target: Sequence[str]
    ) -> None:
        """Add transcripts, and the texts that were said."""
        scored = []
        for name, heard, text in zip(ids, predict, target):
            words, true = (self.normalize(t).split() for t in (heard, text))
            # Whisper's form leaves "." of "..." as a word.
            if any(map(str.isalnum, "".join(true))):
                scored.append((name, words, true))
            else:
                self.apart[name] = words
        if scored:
            super().append(*map(list, zip(*scored)))

    def summarize(self, field: str | None = None) -> Any:
        """Return SpeechBrain's summary, or one value of it.

        The error rate is NaN where nothing was said.
        """
        if self.scores:
            return super().summarize(field)
        names = ("insertions", "deletions", "substitutions")
        self.summary = {
            **dict.fromkeys((*names, "num_scored_tokens"), 0),
            **dict.fromkeys(("WER", "error_rate"), math.nan),
        }
        return self.summary if field is None else self.summary[field]

    def write_stats(self, filestream: IO[str]) -> None:
        """Write the error rate, and the alignments of all utterances."""
        if self.scores:
            super().write_stats(filestream)
        for name, words in self.apart.items():
            heard = " ".join(words)
            filestream.write(f"{name}, apart, without words; heard: {heard}\n")

    def rate(self, ids: Collection[str] | None = None) -> float | None:
        """Return the percentage of errors, None where nothing was said.

        Arguments
        ---------
        ids : collection of str, optional
            Of the utterances that count; all by default.
        """
        chosen = [s for s in self.scores if ids is None or s["key"] in ids]
        said = sum(s["num_ref_tokens"] for s in chosen)
        wrong = sum(s["num_edits"] for s in chosen)
        return 100 * wrong / said if said else None

    def interval(self, groups: Mapping[str, Hashable]) -> list[float] | None:
        """Return the 95% interval of the rate, in percent.

        Arguments
        ---------
        groups : dict
            By utterance what it is drawn with, as of `ratio_interval`; only
            these count.
        """
        chosen = [s for s in self.scores if s["key"] in groups]
        return percent_interval(
            [s["num_edits"] for s in chosen],
            [s["num_ref_tokens"] for s in chosen],
            [groups[s["key"]] for s in chosen],
        )


def transcript_errors(
    ids: Sequence[str],
    heard: Sequence[str],
    texts: Sequence[str],
    characters: bool = False,
) -> dict[str, WordErrorStats]:
    """Compare transcripts with what was said, in the forms of the field.

    Arguments
    ---------
    ids : sequence of str
        Of the utterances.
    heard, texts : sequence of str
        Transcripts, and what was said.
    characters : bool
        Whether characters are counted, too.

    Returns
    -------
    dict
        ``WER``, of `normalize_transcript`; ``CER``, of the same, if asked for;
        ``WER_whisper``, of `normalize_english`, if whisper-normalizer is
        installed.

    Example
    -------
    >>> errors = transcript_errors(["a"], ["old bats"], ["old cats"], True)
    >>> errors["WER"].rate(), errors["CER"].rate()
    (50.0, 12.5)
    """
    errors = {"WER": WordErrorStats()}
    if characters:
        errors["CER"] = WordErrorStats(characters=True)
    if find_spec("whisper_normalizer"):
        errors["WER_whisper"] = WordErrorStats(normalize_english)
    else:
        logger.warning(
            "without Whisper's normalizer there is no second WER: pip install "
            "whisper-normalizer"
        )
    for stats in errors.values():
        stats.append(ids, heard, texts)
    return errors


def error_figures(
    errors: Mapping[str, WordErrorStats], groups: Mapping[str, Hashable]
) -> dict[str, Any]:
    """Return the rates of errors with their intervals, in percent.

    Arguments
    ---------
    errors : dict
        As of `transcript_errors`.
    groups : dict
        By utterance what it is drawn with, as of `ratio_interval`.

    Returns
    -------
    dict
        Of each its rate, None where nothing was said, and as
        ``WER_interval`` and so on the 95% interval. The numbers of utterances
        without words, and of words that are heard of them, are
        ``empty_references`` and ``empty_insertions``, and those of Whisper's
        form ``empty_references_whisper`` and so on.

    Example
    -------
    >>> ids, heard = ["a", "b"], ["Old bats", "uh"]
    >>> errors = transcript_errors(ids, heard, ["old cats", "..."])
    >>> figures = error_figures(errors, {"a": "ann", "b": "bob"})
    >>> figures["WER"], figures["empty_references"], figures["empty_insertions"]
    (50.0, 1, 1)
    """
    figures: dict[str, Any] = {}
    for name, stats in errors.items():
        figures[name] = stats.rate()
        figures[f"{name}_interval"] = stats.interval(groups)
    for name in [n for n in errors if n.startswith("WER")]:
        form = name.removeprefix("WER")
        apart = errors[name].apart.values()
        figures[f"empty_references{form}"] = len(apart)
        figures[f"empty_insertions{form}"] = sum(map(len, apart))
    return figures


def normalizers_of(names: Collection[str]) -> dict[str, str]:
    """Return what rates of these names are counted on, in words.

    Example
    -------
    >>> normalizers_of(["WER", "CER"])
    {'normalizer': 'lower case, no punctuation but apostrophes within words'}
    """
    return {
        f"normalizer{name.removeprefix('WER')}": words
        for name, words in _NORMALIZERS.items()
        if name in names
    }
