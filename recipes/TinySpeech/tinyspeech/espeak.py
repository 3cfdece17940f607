"""The library of eSpeak NG: samples, and the time of every phone."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import espeakng_loader
import numpy as np

_SYNCHRONOUS = 2
_PHONEME_EVENTS, _IPA, _NO_EXIT = 1, 2, 0x8000
_RATE, _PITCH, _RANGE = 1, 3, 4
_CHARACTERS = 1
_UTF8 = 1
_END, _PHONEME = 0, 7
NATIVE_RATE = 22050


class _Id(ctypes.Union):
    _fields_ = [
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_short),
    ctypes.c_int,
    ctypes.POINTER(_Event),
)


@dataclass(frozen=True)
class Phone:
    """A phone (empty for a pause), and where in samples and text it begins."""

    name: str
    sample: int
    character: int


class Espeak:
    """The one synthesizer of this process.

    What it says depends in small ways on what it said before, so a process
    should begin anew for each unit of work that must come out the same.
    """

    def __init__(self):
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        rate = self._library.espeak_Initialize(
            _SYNCHRONOUS,
            0,
            espeakng_loader.get_data_path().encode(),
            _PHONEME_EVENTS | _IPA | _NO_EXIT,
        )
        if rate != NATIVE_RATE:
            raise RuntimeError(f"eSpeak NG did not start (it said {rate})")
        self._blocks: list[np.ndarray] = []
        self._phones: list[Phone] = []
        self._callback = _Callback(self._receive)  # must outlive the library
        self._library.espeak_SetSynthCallback(self._callback)
        # The breath of some voices is random, from the time of the start.
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(0))

    def say(
        self, text: str, voice: str, rate: int, pitch: int, pitch_range: int
    ) -> tuple[np.ndarray, list[Phone]]:
        """Return a sentence as int16 samples, and its phones."""
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"eSpeak NG has no voice {voice!r}")
        settings = {_RATE: rate, _PITCH: pitch, _RANGE: pitch_range}
        for setting, value in settings.items():
            self._library.espeak_SetParameter(setting, value, 0)
        self._blocks, self._phones = [], []
        data = text.encode()
        size = ctypes.c_size_t(len(data) + 1)
        self._library.espeak_Synth(
            data, size, 0, _CHARACTERS, 0, _UTF8, None, None
        )
        return np.concatenate(self._blocks), self._phones

    def _receive(self, samples, count, events) -> int:
        index = 0
        while events[index].type != _END:
            event = events[index]
            if event.type == _PHONEME:
                name = event.id.string.decode("utf-8", "ignore")
                self._phones.append(
                    Phone(name, event.sample, event.text_position - 1)
                )
            index += 1
        if samples and count > 0:
            block = np.ctypeslib.as_array(samples, (count,))
            self._blocks.append(block.copy())
        return 0
