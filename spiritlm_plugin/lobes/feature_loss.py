"""Distance of waveforms as a phonetic tokenizer hears them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spiritlm_plugin.lobes.phonetic import PhoneticTokenizer


class PhoneticFeatureLoss(nn.Module):
    """Distance in the features that a tokenizer makes its units of.

    What the tokenizer cannot tell apart costs nothing; what turns one phone
    into another does, however small it is in a spectrogram.

    Arguments
    ---------
    tokenizer : PhoneticTokenizer
        Held still.

    Example
    -------
    >>> from spiritlm_plugin.lobes.phonetic import KMeansQuantizer
    >>> tokenizer = PhoneticTokenizer(
    ...     {"hidden_size": 16, "num_hidden_layers": 1,
    ...      "num_attention_heads": 2},
    ...     KMeansQuantizer(16, 50),
    ... )
    >>> loss = PhoneticFeatureLoss(tokenizer)
    >>> wav = torch.randn(2, 4000)
    >>> float(loss(wav, wav)), bool(loss(wav, wav.roll(999, 1)) > 0)
    (0.0, True)
    """

    def __init__(self, tokenizer: PhoneticTokenizer):
        super().__init__()
        self.tokenizer = tokenizer.eval().requires_grad_(False)

    def forward(self, wavs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean absolute difference of the features.

        Arguments
        ---------
        wavs, targets : Tensor
            16 kHz, shape (batch, samples); the gradient goes to ``wavs``.
        """
        samples = torch.full((len(wavs),), wavs.shape[1], device=wavs.device)
        with torch.no_grad():
            true, _ = self.tokenizer.features(targets, samples)
        made, _ = self.tokenizer.features(wavs, samples)
        return F.l1_loss(made.float(), true.float())
