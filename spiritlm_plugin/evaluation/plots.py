"""Pictures of speech units on the sound that they stand for."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchaudio
from torch import Tensor

from spiritlm_plugin.dataio.units.units import (
    PHONETIC_RATE,
    PITCH_RATE,
    SAMPLE_RATE,
    STYLE_RATE,
    SpeechUnits,
    unit_starts,
)

Span = tuple[float, float, int]

_INCHES_A_SECOND = 4.2
_WIDTH = (8.0, 26.0)
_MELS = 80
_HOP = 160
_KILOHERTZ = (0.5, 1, 2, 4, 8)
_LABEL_POINTS = 6.5
_DECIBELS = 70
_ROW_LABEL = {"rotation": 0, "ha": "right", "va": "center", "labelpad": 8}
_INK = "#1d2733"
_F0_COLOUR = "#c2410c"
_PITCH_COLOUR = "#1d4ed8"
_GOLDEN_RATIO = 0.618034


def plot_units(
    wav: Tensor,
    units: SpeechUnits,
    path: str | Path,
    f0: Tensor | None = None,
    title: str | None = None,
) -> None:
    """Draw a recording and its speech units, one above the other.

    From the top: style units, the log-mel spectrogram, F0 with the pitch
    units as steps, and phonetic units. A unit has the same colour wherever it
    stands; runs of a unit are one span, labelled where the label fits.

    Arguments
    ---------
    wav : Tensor
        16 kHz, shape (samples,).
    units : SpeechUnits
        At full rate; without pitch and style their rows are left out.
    path : str or Path
        The picture; its ending names the format.
    f0 : Tensor, optional
        In Hz, evenly spaced over the recording, shape (frames,); not finite
        or not positive where unvoiced.
    title : str, optional
        Above the picture.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If the units are not at full rate.

    Example
    -------
    >>> units = SpeechUnits([7, 7, 9, 9] * 6, pitch=[3, 4] * 6, style=[5])
    >>> plot_units(torch.randn(16000) / 9, units, tmp / "units.png")
    >>> (tmp / "units.png").stat().st_size > 10_000
    True
    """
    duration = max(len(wav) / SAMPLE_RATE, units.duration)
    rows = _rows(units, f0)
    figure, axes = _figure(rows, duration)
    _draw_spectrogram(axes["mel"], wav.detach().float().cpu())
    _draw_spans(axes["phonetic"], units.phonetic, PHONETIC_RATE, duration)
    if "pitch" in axes:
        _draw_pitch(axes["pitch"], f0, units.pitch, len(wav) / SAMPLE_RATE)
    if units.style is not None:
        _draw_spans(axes["style"], units.style, STYLE_RATE, duration)
    for name, axis in axes.items():
        axis.set_ylabel(rows[name][1], color=_INK, **_ROW_LABEL)
    if f0 is not None:
        axes["pitch"].yaxis.label.set_color(_F0_COLOUR)
    if title:
        figure.suptitle(title, fontsize=11, color=_INK)
    figure.savefig(path, dpi=110, facecolor="white")


def unit_spans(stream: Tensor, rate: float) -> list[Span]:
    """Return the runs of a stream as start, end (in seconds) and unit.

    Arguments
    ---------
    stream : Tensor
        Units from a recording's beginning, shape (frames,).
    rate : float
        As of `spiritlm_plugin.dataio.units.units.unit_starts`.

    Example
    -------
    >>> unit_spans(torch.tensor([7, 7, 9]), PITCH_RATE)
    [(0.0, 0.16, 7), (0.16, 0.24, 9)]
    """
    values, counts = torch.unique_consecutive(stream, return_counts=True)
    edges = unit_starts(np.append(0, counts.cumsum(0).numpy()), rate).tolist()
    return [*zip(edges, edges[1:], values.tolist())]


def _rows(
    units: SpeechUnits, f0: Tensor | None
) -> dict[str, tuple[float, str]]:
    """Return height (in inches) and label of each row, from the top."""
    rows = {"mel": (2.4, "kHz"), "phonetic": (0.5, "phonetic")}
    if f0 is not None or units.pitch is not None:
        label = "pitch unit" if f0 is None else "F0, Hz"
        rows = {
            "mel": rows["mel"],
            "pitch": (1.6, label),
            "phonetic": rows["phonetic"],
        }
    if units.style is not None:
        rows = {"style": (0.32, "style"), **rows}
    return rows


def _figure(
    rows: dict[str, tuple[float, str]], duration: float
) -> tuple[Any, dict[str, Any]]:
    """Return a figure with one row of axes for each stream."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'plots need matplotlib: pip install "spiritlm_plugin[demo]"'
        ) from error
    heights = [height for height, _ in rows.values()]
    low, high = _WIDTH
    width = min(max(duration * _INCHES_A_SECOND, low), high)
    figure = Figure((width, sum(heights) + 1.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), sharex=True, height_ratios=heights)
    for axis in axes:
        axis.tick_params(colors=_INK, labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(0, duration)
    axes[-1].set_xlabel("seconds", color=_INK)
    return figure, dict(zip(rows, axes))


def _draw_spectrogram(axis: Any, wav: Tensor) -> None:
    mel = torchaudio.transforms.MelSpectrogram(
        SAMPLE_RATE, 1024, 512, _HOP, n_mels=_MELS, mel_scale="slaney"
    )
    power = mel(wav).clamp(min=1e-10).log10() * 10
    # A click may be far louder than the speech.
    loudest = float(power.flatten().kthvalue(int(power.numel() * 0.998))[0])
    axis.imshow(
        power.numpy(),
        aspect="auto",
        origin="lower",
        cmap="magma",
        vmin=loudest - _DECIBELS,
        vmax=loudest,
        extent=(0, len(wav) / SAMPLE_RATE, 0, _MELS),
    )
    edge = _mel(SAMPLE_RATE / 2)
    axis.set_yticks(
        [_MELS * _mel(1000 * f) / edge for f in _KILOHERTZ],
        [f"{f:g}" for f in _KILOHERTZ],
    )


def _mel(hertz: float) -> float:
    """Return Slaney's mel value: linear below 1 kHz, logarithmic above."""
    if hertz < 1000:
        return hertz * 3 / 200
    return 15 + 27 * float(torch.tensor(hertz / 1000).log() / 1.8562979)


def _draw_pitch(
    axis: Any, f0: Tensor | None, pitch: Tensor | None, duration: float
) -> None:
    """Draw F0 on the left scale and pitch units on the right one."""
    step_axis = axis
    if f0 is not None:
        contour = f0.detach().float().cpu()
        contour = contour.where(contour > 0, torch.nan)
        times = torch.linspace(0, duration, len(contour))
        axis.plot(times, contour, color=_F0_COLOUR, lw=2.2, label="F0")
        axis.margins(y=0.15)
        axis.grid(axis="y", color="#e2e8f0", lw=0.8)
        step_axis = axis.twinx()
        step_axis.spines[["top", "left"]].set_visible(False)
        step_axis.set_ylabel("pitch unit", color=_PITCH_COLOUR, fontsize=9)
        step_axis.tick_params(colors=_PITCH_COLOUR, labelsize=8)
    if pitch is not None and len(pitch):
        edges = unit_starts(np.arange(len(pitch) + 1), PITCH_RATE)
        step_axis.stairs(
            pitch.tolist(),
            edges.tolist(),
            baseline=None,
            color=_PITCH_COLOUR,
            lw=1.2,
            label="pitch units",
        )
        step_axis.set_ylim(-3, max(66, int(pitch.max()) + 3))


def _draw_spans(
    axis: Any, stream: Tensor, rate: float, duration: float
) -> None:
    """Draw runs of units as coloured, labelled spans."""
    spans = [
        (start, min(end, duration), unit)
        for start, end, unit in unit_spans(stream, rate)
    ]
    axis.broken_barh(
        [(start, end - start) for start, end, _ in spans],
        (0, 1),
        facecolors=[_colour(unit) for _, _, unit in spans],
        edgecolor="white",
        linewidth=0.6,
    )
    inches = axis.get_figure().get_figwidth() * 0.88 / duration
    for start, end, unit in spans:
        rotation = _label_rotation(str(unit), (end - start) * inches)
        if rotation is not None:
            axis.text(
                (start + end) / 2,
                0.5,
                str(unit),
                rotation=rotation,
                fontsize=_LABEL_POINTS,
                ha="center",
                va="center_baseline",
                color=_INK,
            )
    axis.set_ylim(0, 1)
    axis.set_yticks([])
    axis.spines[["left", "bottom"]].set_visible(False)


def _label_rotation(label: str, inches: float) -> int | None:
    """Return how a label fits into a width, in degrees, or None."""
    line = _LABEL_POINTS / 72
    if len(label) * 0.62 * line + 0.5 * line < inches:
        return 0
    return 90 if 1.05 * line < inches else None


def _colour(unit: int) -> tuple[float, float, float]:
    """Return a light colour that differs from that of nearby units."""
    hue = unit * _GOLDEN_RATIO % 1
    return colorsys.hsv_to_rgb(hue, 0.25 + 0.1 * (unit % 3), 0.95)
