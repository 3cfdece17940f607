"""Engines that are a command, which speaks a sentence into a file."""

from __future__ import annotations

import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
from scipy.signal import resample_poly

from ..language import Language, Voice
from ..styles import Style
from . import SAMPLE_RATE, Spoken, trimmed
from .espeak import phones_of
from .listening import PhoneListener

_RHVOICE = Path("/usr/share/RHVoice/voices/clb")


class CommandEngine(ABC):
    """A command that tells no times: they are heard, of the phones of eSpeak NG."""

    program: str

    def __init__(self) -> None:
        if shutil.which(self.program) is None:
            raise OSError(f"no command {self.program}")
        self._listen = PhoneListener()

    @abstractmethod
    def command(self, text: str, voice: str, style: Style) -> list[str]:
        """Return what follows the program, for the file ``said.wav``."""

    def say(
        self, text: str, voice: Voice, style: Style, language: Language
    ) -> Spoken:
        """Return a sentence."""
        command = [self.program, *self.command(text, voice.name, style)]
        with TemporaryDirectory() as folder:
            done = subprocess.run(
                command, cwd=folder, input=text, capture_output=True, text=True
            )
            path = Path(folder) / "said.wav"
            if done.returncode or not path.exists():
                raise OSError(f"{self.program} ended: {done.stderr.strip()}")
            samples, rate = soundfile.read(path)
        samples = np.asarray(resample_poly(samples, SAMPLE_RATE, rate))
        times = self._listen(text, samples, phones_of(text), language)
        return trimmed(samples, *times)


class RHVoiceEngine(CommandEngine):
    """RHVoice: statistical voices of recorded people. It reads what it is given."""

    program = "RHVoice-test"

    def __init__(self) -> None:
        super().__init__()
        if not _RHVOICE.is_dir():  # it would speak with another one
            raise OSError(f"no voices in {_RHVOICE.parent}")

    def command(self, text: str, voice: str, style: Style) -> list[str]:
        """Return the options for a voice in a style, in percent.

        Example
        -------
        >>> engine = object.__new__(RHVoiceEngine)
        >>> " ".join(engine.command("No.", "clb", Style(155, 50, 50, 1.0)))
        '--profile clb --rate 100 --pitch 100 --output said.wav'
        """
        rate, pitch = (str(round(100 * r)) for r in (style.tempo, style.height))
        options = {"--profile": voice, "--rate": rate, "--pitch": pitch}
        listed = [part for option in options.items() for part in option]
        return [*listed, "--output", "said.wav"]


class PicoEngine(CommandEngine):
    """SVOX Pico: voices of recorded people, as in the telephones of 2010."""

    program = "pico2wave"

    def command(self, text: str, voice: str, style: Style) -> list[str]:
        """Return the options, and the sentence in its marks for a style.

        Example
        -------
        >>> engine = object.__new__(PicoEngine)
        >>> engine.command("No.", "en-US", Style(155, 50, 50, 1.0))[-1]
        "<speed level='100'><pitch level='100'>No.</pitch></speed>"
        """
        speed, pitch = (round(100 * r) for r in (style.tempo, style.height))
        marked = f"<pitch level='{pitch}'>{text}</pitch>"
        marked = f"<speed level='{speed}'>{marked}</speed>"
        return [f"--lang={voice}", "--wave=said.wav", marked]
