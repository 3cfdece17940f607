"""Spirit LM as a SpeechBrain plugin.

Spirit LM (Nguyen et al., 2024, https://arxiv.org/abs/2402.05755) is a language
model over text and speech, interleaved in one stream of tokens. This package
brings its speech tokenizers, its language model and its vocoder as SpeechBrain
modules, and the whole as a pretrained interface::

    from speechbrain.inference import SpiritLM

The names below are imported on first use: Python imports this package whenever
it starts (see :mod:`spiritlm_plugin.registration`), so it must cost nothing.
"""

from spiritlm_plugin.registration import load, register

TYPE_CHECKING = False
if TYPE_CHECKING:
    from spiritlm_plugin.dataio.units.segments import (
        Reading,
        Speech,
        Text,
        Transcript,
    )
    from spiritlm_plugin.dataio.units.units import SpeechUnits
    from spiritlm_plugin.inference import SpeechCodec, SpiritLM

__version__ = "0.2.0"

_LAZY = {
    "Reading": "spiritlm_plugin.dataio.units.segments",
    "Speech": "spiritlm_plugin.dataio.units.segments",
    "SpeechCodec": "spiritlm_plugin.inference",
    "SpeechUnits": "spiritlm_plugin.dataio.units.units",
    "SpiritLM": "spiritlm_plugin.inference",
    "Text": "spiritlm_plugin.dataio.units.segments",
    "Transcript": "spiritlm_plugin.dataio.units.segments",
}

__all__ = [
    "Reading",
    "Speech",
    "SpeechCodec",
    "SpeechUnits",
    "SpiritLM",
    "Text",
    "Transcript",
    "register",
]


def __getattr__(name: str) -> object:
    """Import a public class when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(load(_LAZY[name]), name)


def __dir__() -> list[str]:
    """List the lazy names too."""
    return sorted({*globals(), *__all__})
