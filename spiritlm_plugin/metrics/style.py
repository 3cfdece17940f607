"""A judge of speaking style that hears nothing but prosody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE

_FRAME = SAMPLE_RATE // 50
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Frames this far below the loudest, in decibels, are pauses.
_PAUSE = 35.0


class StyleClassifier:
    """Logistic regression on the F0, loudness and pauses of a recording.

    It is trained on original recordings and judges any: it reads no units,
    and knows neither speaker nor text.

    Example
    -------
    >>> low, high = (
    ...     (torch.full((200,), hertz), torch.ones(200)) for hertz in (90.0, 300.0)
    ... )
    >>> wavs = [torch.sin(torch.arange(16000.0))] * 4
    >>> judge = StyleClassifier()
    >>> judge.fit(wavs, [low, high] * 2, ["sad", "happy"] * 2).predict(
    ...     wavs[:1], [high]
    ... )
    ['happy']
    """

    def __init__(self) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import (
            PolynomialFeatures,
            StandardScaler,
        )

        self._model = make_pipeline(
            StandardScaler(),
            PolynomialFeatures(2),
            LogisticRegression(C=0.1, max_iter=2000, random_state=0),
        )

    def fit(
        self,
        wavs: Iterable[Tensor],
        contours: Iterable[tuple[Tensor, Tensor]],
        styles: Sequence[str],
    ) -> StyleClassifier:
        """Learn from recordings.

        Arguments
        ---------
        wavs : iterable of Tensor
            16 kHz, each of shape (samples,); taken one after the other.
        contours : iterable of (Tensor, Tensor)
            F0 in Hz and voicing of each, of shape (frames,).
        styles : sequence of str
            Of each.
        """
        self._model.fit(_features(wavs, contours), list(styles))
        return self

    def predict(
        self,
        wavs: Iterable[Tensor],
        contours: Iterable[tuple[Tensor, Tensor]],
    ) -> list[str]:
        """Return the style of each recording; the arguments are `fit`'s."""
        return self._model.predict(_features(wavs, contours)).tolist()


def _features(
    wavs: Iterable[Tensor], contours: Iterable[tuple[Tensor, Tensor]]
) -> np.ndarray:
    rows = [_describe(wav, *contour) for wav, contour in zip(wavs, contours)]
    return torch.stack(rows).double().numpy()


def _describe(wav: Tensor, f0: Tensor, voiced: Tensor) -> Tensor:
    """Return quantiles of log F0 and of loudness, and shares of frames."""
    is_voiced = voiced > 0
    heard = f0[is_voiced].clamp(min=1.0).log()
    if not len(heard):
        heard = f0.new_zeros(1)
    quantiles = f0.new_tensor(_QUANTILES)
    pitch = heard.quantile(quantiles)
    slope = heard.diff().abs().mean() if len(heard) > 1 else heard.sum() * 0
    frames = wav[: len(wav) // _FRAME * _FRAME].view(-1, _FRAME)
    level = 10 * (frames.square().mean(1) + 1e-8).log10()
    speaking = level > level.max() - _PAUSE
    loudness = level[speaking].quantile(quantiles)
    shares = torch.stack([is_voiced.float().mean(), speaking.float().mean()])
    return torch.cat([pitch, slope[None], loudness, shares])
