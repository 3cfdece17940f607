"""The pretrained interface, also found as ``speechbrain.inference.SpiritLM``."""

from spiritlm_plugin.inference.codec import SpeechCodec
from spiritlm_plugin.inference.generation import Generation
from spiritlm_plugin.inference.spiritlm import SpiritLM

__all__ = ["Generation", "SpeechCodec", "SpiritLM"]
