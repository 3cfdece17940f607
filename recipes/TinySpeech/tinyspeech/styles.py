"""The three styles, as any engine can speak them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """How a style differs: words per minute, pitch, range, and loudness.

    Pitch and range are those of eSpeak NG, 50 of 100 in the middle. `tempo`,
    `height` and `spread` say the same in ratios, for all other engines.

    Example
    -------
    >>> happy = STYLES["happy"]
    >>> round(happy.tempo, 2), round(happy.height, 2), happy.spread
    (1.11, 1.35, 1.6)
    """

    rate: int
    pitch: int
    range: int
    gain: float

    @property
    def tempo(self) -> float:
        """Of speech, against neutral speech."""
        return self.rate / 155

    @property
    def height(self) -> float:
        """Of the mean F0; eSpeak's has an octave in 56 steps."""
        return float(2 ** ((self.pitch - 50) / 56))

    @property
    def spread(self) -> float:
        """Of the deviation of F0 from its mean."""
        return self.range / 50


STYLES = {
    "neutral": Style(155, 50, 50, 1.0),
    "happy": Style(172, 74, 80, 1.25),
    "sad": Style(132, 27, 25, 0.7),
}
