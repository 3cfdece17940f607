"""Transcribing, reading and classifying, as users call it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.segments import Speech
from spiritlm_plugin.inference.codec import is_padded, pad_waveforms
from spiritlm_plugin.inference.few_shot import (
    TOO_LONG,
    Answer,
    Classifier,
    Reader,
    Transcriber,
    as_shots,
    to_speech,
    to_text,
)
from spiritlm_plugin.utils.arguments import as_list, as_texts
from spiritlm_plugin.utils.seeds import draw_seeds

if TYPE_CHECKING:
    from spiritlm_plugin.inference.protocols import InterleavedModel as _Model
else:  # a mixin: the class that it is mixed into has what the tasks ask of
    _Model = object

Shots = Sequence[tuple[Any, str]]


class Tasks(_Model):
    """What `SpiritLM` does behind a few shots, or as it was trained to.

    A shot is speech, as anything `Speech` takes, with its transcript or
    label. Options of the methods are those of
    `spiritlm_plugin.inference.few_shot.FewShot`: ``max_new_tokens``,
    ``context``, ``temperature``, ``top_p``, ``batch_size`` and ``num_beams``;
    of `synthesize` also ``candidates``, see
    `spiritlm_plugin.inference.few_shot.Reader`.
    """

    def transcribe_file(
        self, path: Any, shots: Shots | None = None, **options: Any
    ) -> str:
        """Return what is said in a file; see `transcribe_batch`.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "base")
        >>> text = lm.transcribe_file(recording, [(recording, "two boats")])
        >>> isinstance(text, str)
        True
        """
        units = self.encode_file(path)
        return self.transcribe_batch([units], shots=shots, **options)[0]

    def transcribe_batch(
        self,
        wavs: Tensor | Sequence[Any],
        wav_lens: Tensor | None = None,
        shots: Shots | None = None,
        seed: int = 0,
        **options: Any,
    ) -> list[str]:
        """Return what is said in recordings.

        Arguments
        ---------
        wavs : Tensor or sequence
            A padded batch, shape (batch, time), or a list of recordings or
            units.
        wav_lens : Tensor, optional
            Relative lengths of a padded batch, shape (batch,).
        shots : sequence of (recording, str), optional
            Speech with transcripts. Without them the model is asked behind
            ``[ASR]``, as it was trained.
        seed : int
            Where a ``temperature`` is given; recording i gets seed + i.
        **options
            See `Tasks`.

        Returns
        -------
        list of str

        Raises
        ------
        ValueError
            If there are no shots and the model was not trained to
            transcribe, or a recording is longer than the context.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "base")
        >>> texts = lm.transcribe_batch(
        ...     [recording], shots=[(recording, "two boats")], max_new_tokens=9
        ... )
        >>> len(texts)
        1
        >>> lm.transcribe_batch([recording])
        Traceback (most recent call last):
            ...
        ValueError: this model was not trained on [ASR]; give shots
        """
        pairs = as_shots(shots, to_speech, to_text)
        trained = self._is_trained("asr", pairs)
        transcribe = Transcriber(self, pairs, trained, **options)
        speech = self._as_speech(wavs, wav_lens)
        answers = transcribe(speech, draw_seeds(seed, len(speech)))
        return [answer.text for answer in _checked(answers)]

    def synthesize(
        self,
        texts: Sequence[str],
        shots: Shots | None = None,
        stop: Any = None,
        speaker: int | str | None = None,
        seed: int = 0,
        style: int | str | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """Read texts aloud.

        Arguments
        ---------
        texts : sequence of str
            What to read.
        shots : sequence of (recording, str), optional
            Speech with transcripts. Without them the model is asked behind
            ``[TTS]``, as it was trained.
        stop : recording, optional
            Of the word "stop", which ends each shot and each reading.
        speaker : int or str, optional
            The voice.
        seed : int
            Text i gets seed + i.
        style : int or str, optional
            As of `SpiritLM.generate`.
        **options
            See `Tasks`.

        Returns
        -------
        wavs : Tensor
            16 kHz, shape (batch, time).
        wav_lens : Tensor
            Relative lengths, shape (batch,).

        Raises
        ------
        ValueError
            If there are shots without ``stop``; if there are none and the
            model was not trained to read; or if a text is longer than the
            context.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "expressive")
        >>> wavs, wav_lens = lm.synthesize(
        ...     ["all day long"], [(recording, "two boats")],
        ...     stop=recording, speaker="ex02", max_new_tokens=20
        ... )
        >>> wavs.shape[0], wav_lens
        (1, tensor([1.]))
        """
        texts = as_texts("texts", texts)
        self.style_units(style)
        pairs = as_shots(shots, to_speech, to_text)
        trained = self._is_trained("tts", pairs)
        if trained == (stop is not None):
            raise ValueError(
                'shots and stop, a recording of the word "stop", go together: '
                "give both, or none"
            )
        read = Reader(self, pairs, stop, style=style, **options)
        answers = read(texts, draw_seeds(seed, len(texts)), speaker)
        wavs = [answer.generation.wav for answer in _checked(answers)]
        return pad_waveforms(
            [torch.zeros(0) if wav is None else wav for wav in wavs]
        )

    def classify(
        self,
        wavs: Tensor | Sequence[Any],
        labels: Sequence[str],
        shots: Shots,
        wav_lens: Tensor | None = None,
        **options: Any,
    ) -> list[str]:
        """Return the likeliest label of each recording.

        Arguments
        ---------
        wavs : Tensor or sequence
            As of `transcribe_batch`.
        labels : sequence of str
            To choose from.
        shots : sequence of (recording, str)
            Speech with labels.
        wav_lens : Tensor, optional
            Relative lengths of a padded batch, shape (batch,).
        **options
            See `Tasks`.

        Returns
        -------
        list of str

        Raises
        ------
        ValueError
            If there are no labels, or a recording is longer than the context.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "base")
        >>> shots = [(recording, "boats"), (recording, "cars")]
        >>> [label] = lm.classify([recording], ["boats", "cars"], shots)
        >>> label in ("boats", "cars")
        True
        """
        classifier = Classifier(self, shots, labels, **options)
        speech = self._as_speech(wavs, wav_lens)
        answers = classifier(speech, [0] * len(speech))
        return [answer.text for answer in _checked(answers)]

    def _is_trained(self, marker: str, shots: Shots | None) -> bool:
        """Tell whether to ask behind the task's marker."""
        if shots:
            return False
        if marker not in self.vocabulary.markers:
            raise ValueError(
                f"this model was not trained on [{marker.upper()}]; give shots"
            )
        return True

    def _as_speech(
        self, wavs: Tensor | Sequence[Any], wav_lens: Tensor | None
    ) -> list[Speech]:
        if wav_lens is None and not is_padded(wavs):
            return [*map(to_speech, as_list("wavs", wavs, "recordings"))]
        return [Speech(units) for units in self.encode_batch(wavs, wav_lens)]


def _checked(answers: list[Answer]) -> list[Answer]:
    """Raise ValueError where a query left no room for an answer."""
    for index, answer in enumerate(answers):
        if answer.generation.end_reason == TOO_LONG:
            raise ValueError(
                f"item {index} is longer than the model's context; cut it"
            )
    return answers
