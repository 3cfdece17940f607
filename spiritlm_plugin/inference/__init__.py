"""The pretrained interface, also found as ``speechbrain.inference.SpiritLM``."""

from spiritlm_plugin.inference.spiritlm import Generation, SpiritLM

__all__ = ["Generation", "SpiritLM"]
