"""Festival: one process that is told sentence after sentence."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
from scipy.signal import resample_poly

from ..language import Language, Voice
from ..prosody import repitch
from ..styles import Style
from . import SAMPLE_RATE, Spoken, trimmed
from .radio import Segment, spans, written

# Diphones, whose pitch is chosen: Hz, and their deviation.
_DIPHONES = {"ked_diphone": (105.0, 15.0)}
_VOICES = {"ked_diphone", "cmu_us_slt_arctic_hts"}
_END = "said"
_NO_DIPHONE = "UniSyn: using default diphone"
_SAY = """
(define (tell text path)
  (let ((utterance (SynthText text)) (number 0))
    (mapcar
      (lambda (token)
        (if (item.daughter1 token)
          (begin
            (set! number (+ 1 number))
            (item.set_feat token 'number number))))
      (utt.relation.items utterance 'Token))
    (mapcar
      (lambda (segment)
        (format t "%s %f %s %s\\n"
          (item.name segment)
          (item.feat segment 'end)
          (item.feat segment
            "R:SylStructure.parent.parent.R:Token.parent.number")
          (item.feat segment "R:SylStructure.parent.stress")))
      (utt.relation.items utterance 'Segment))
    (utt.save.wave utterance path 'riff)))
"""
# Apart from what may fail.
_CLOSE = f'(begin (format t "{_END}\\n") (fflush nil))'


class FestivalEngine:
    """Diphones of recorded people, and a voice of HTS."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["festival", "--pipe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        self._voice = ""
        self._send(_SAY)
        listed = '(mapcar (lambda (name) (format t "%s\\n" name)) (voice.list))'
        missing = _VOICES.difference(self._ask(listed))
        if missing:
            raise OSError(f"no voice {', '.join(sorted(missing))}")

    def say(
        self, text: str, voice: Voice, style: Style, language: Language
    ) -> Spoken:
        """Return a sentence."""
        if voice.name != self._voice:
            self._send(f"(voice_{voice.name})")
            self._voice = voice.name
        self._send(manner(voice.name, style))
        with TemporaryDirectory() as folder:
            path = Path(folder) / "said.wav"
            answer = self._ask(f'(tell "{quoted(text)}" "{path}")')
            words, phones = spans(text, segments(answer))
            samples, rate = soundfile.read(path)
        samples = resample_poly(samples, SAMPLE_RATE, rate)
        if voice.name not in _DIPHONES:
            samples = repitch(samples, SAMPLE_RATE, style)
        return trimmed(np.asarray(samples), words, phones)

    def _ask(self, command: str) -> list[str]:
        """Give a command, and return the lines of its answer."""
        self._send(command)
        self._send(_CLOSE)
        stream = self._process.stdout
        assert stream is not None
        lines: list[str] = []
        for line in stream:
            if line.strip() == _END:
                return lines
            lines.append(line.strip())
        raise OSError(f"festival ended: {' '.join(lines[-3:])}")

    def _send(self, command: str) -> None:
        stream = self._process.stdin
        assert stream is not None
        stream.write(f"{command}\n")
        stream.flush()


def quoted(text: str) -> str:
    r"""Return a sentence that can stand between quotation marks.

    Example
    -------
    >>> print(quoted('A "good" ice-cream.'))
    A good ice cream.
    """
    return written(text).replace("\\", "").replace('"', "")


def manner(voice: str, style: Style) -> str:
    """Return the commands that set tempo and, of diphones, pitch.

    Example
    -------
    >>> print(manner("cmu_us_slt_arctic_hts", Style(155, 50, 50, 1.0)))
    (set! hts_engine_params (append cmu_us_slt_arctic_hts::hts_engine_params \
'(("-r" 1.0000))))
    """
    if voice not in _DIPHONES:
        return (
            f"(set! hts_engine_params (append {voice}::hts_engine_params "
            f'\'(("-r" {style.tempo:.4f}))))'
        )
    mean, deviation = _DIPHONES[voice]
    return (
        f"(Parameter.set 'Duration_Stretch {1 / style.tempo:.4f})"
        f"(set! int_lr_params '((target_f0_mean {mean * style.height:.1f}) "
        f"(target_f0_std {deviation * style.height * style.spread:.1f}) "
        "(model_f0_mean 170) (model_f0_std 34)))"
    )


def segments(lines: Iterable[str]) -> Iterator[Segment]:
    """Yield what the lines of an answer tell.

    Pairs of phones that no one recorded, in some non-words, are told as well;
    there is silence between them.

    Raises
    ------
    ValueError
        If a line is something else, as an error.

    Example
    -------
    >>> list(segments(["pau 0.22 0 0", "n 0.30 1 1"]))
    [('pau', 0.22, None, False), ('n', 0.3, 0, True)]
    """
    for line in lines:
        if line.startswith(_NO_DIPHONE):
            continue
        try:
            name, end, word, stress = line.split()
            index = int(word) - 1 if int(word) else None
            yield name, float(end), index, stress == "1"
        except ValueError as error:
            raise ValueError(f"Festival says {line!r}") from error
