"""Flite: its libraries, and the voices that come with them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np

from ..language import Language, Voice
from ..prosody import repitch
from ..styles import Style
from . import SAMPLE_RATE, Spoken, trimmed
from .radio import Segment, spans, written

# The library keeps the addresses of these names.
_STRETCH = b"duration_stretch"
_MEAN, _DEVIATION = b"int_f0_target_mean", b"int_f0_target_stddev"
_WORD = b"R:SylStructure.parent.parent.R:Token.parent"
_STRESS = b"R:SylStructure.parent.stress"
_SHIFT = b"f0_shift"
# Diphones have the pitch that is chosen (its mean in Hz, and the deviation);
# of some others its mean can be changed.
_DIPHONES = {"kal16": (95.0, 11.0)}
_SHIFTED = {"awb", "slt"}

_Address, _Text, _Float = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float


class _Wave(ctypes.Structure):
    _fields_ = [
        ("type", _Text),
        ("rate", ctypes.c_int),
        ("count", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


class _Voice(ctypes.Structure):
    _fields_ = [("name", _Text), ("features", _Address)]


_FUNCTIONS = {
    "flite_init": (ctypes.c_int, ()),
    "flite_synth_text": (_Address, (_Text, ctypes.POINTER(_Voice))),
    "flite_feat_set_float": (None, (_Address, _Text, _Float)),
    "flite_ffeature_string": (_Text, (_Address, _Text)),
    "flite_ffeature_float": (_Float, (_Address, _Text)),
    "flite_path_to_item": (_Address, (_Address, _Text)),
    "utt_relation": (_Address, (_Address, _Text)),
    "utt_wave": (ctypes.POINTER(_Wave), (_Address,)),
    "relation_head": (_Address, (_Address,)),
    "item_next": (_Address, (_Address,)),
    "delete_utterance": (None, (_Address,)),
}


class FliteEngine:
    """Voices made of recordings, by statistics (rms, slt, awb) or diphones."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libflite.so.1")
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        self._library.flite_init()
        self._voices: dict[str, ctypes._Pointer] = {}

    def say(
        self, text: str, voice: Voice, style: Style, language: Language
    ) -> Spoken:
        """Return a sentence."""
        known = self._voice(voice.name)
        for feature, value in features(voice.name, style).items():
            address = known.contents.features
            self._library.flite_feat_set_float(address, feature, value)
        utterance = self._library.flite_synth_text(
            written(text).encode(), known
        )
        try:
            samples = self._samples(utterance)
            words, phones = spans(text, self._segments(utterance))
        finally:
            self._library.delete_utterance(utterance)
        if voice.name not in _SHIFTED | set(_DIPHONES):
            samples = repitch(samples, SAMPLE_RATE, style)
        return trimmed(samples, words, phones)

    def _voice(self, name: str) -> ctypes._Pointer:
        if name not in self._voices:
            library = ctypes.CDLL(f"libflite_cmu_us_{name}.so.1")
            register = getattr(library, f"register_cmu_us_{name}")
            register.restype = ctypes.POINTER(_Voice)
            register.argtypes = (_Text,)
            self._voices[name] = register(None)
        return self._voices[name]

    def _samples(self, utterance: int) -> np.ndarray:
        wave = self._library.utt_wave(utterance).contents
        if wave.rate != SAMPLE_RATE:
            raise ValueError(f"Flite spoke at {wave.rate} Hz, not 16000")
        return np.ctypeslib.as_array(wave.samples, (wave.count,)) / 2**15

    def _segments(self, utterance: int) -> Iterator[Segment]:
        library = self._library
        tokens = {t: i for i, t in enumerate(self._items(utterance, b"Token"))}
        for item in self._items(utterance, b"Segment"):
            yield (
                library.flite_ffeature_string(item, b"name").decode(),
                library.flite_ffeature_float(item, b"end"),
                tokens.get(library.flite_path_to_item(item, _WORD)),
                library.flite_ffeature_string(item, _STRESS) == b"1",
            )

    def _items(self, utterance: int, relation: bytes) -> Iterator[int]:
        library = self._library
        found = library.utt_relation(utterance, relation)
        item = library.relation_head(found)
        while item:
            yield item
            item = library.item_next(item)


def features(voice: str, style: Style) -> dict[bytes, float]:
    """Return the features of a voice that make a style.

    Example
    -------
    >>> features("awb", Style(155, 50, 50, 1.0))
    {b'duration_stretch': 1.0, b'f0_shift': 1.0}
    """
    found = {_STRETCH: 1 / style.tempo}
    if voice in _SHIFTED:
        found[_SHIFT] = style.height
    if voice in _DIPHONES:
        mean, deviation = _DIPHONES[voice]
        found[_MEAN] = mean * style.height
        found[_DEVIATION] = deviation * style.height * style.spread
    return found
