"""Draw the pictures of concepts.md: the streams of units, and interleaving.

    python docs/draw_concepts.py data/tinyspeech/test.json test_sentence_00001

The first argument is a manifest of TinySpeech (as ``tinyspeech_prepare.py``
writes it, ``--size debug``), the second an utterance. The units are those of
the model that ships with the package. Writes to docs/images.
"""

from __future__ import annotations

import colorsys
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.stream.interleaving import (
    SpokenWords,
    draw_spans,
    interleave,
)
from spiritlm_plugin.dataio.stream.utterances import Utterance
from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text
from spiritlm_plugin.dataio.units.units import (
    PHONETIC_RATE,
    PITCH_RATE,
    SAMPLE_RATE,
    STYLE_RATE,
    Kind,
    SpeechStream,
    SpeechUnits,
)
from spiritlm_plugin.inference import SpeechCodec

IMAGES = Path(__file__).parent / "images"
STREAMS = (
    ("style", Kind.STYLE, STYLE_RATE, "1 a second"),
    ("pitch", Kind.PITCH, PITCH_RATE, "12.5 a second"),
    ("phonetic", Kind.PHONETIC, PHONETIC_RATE, "25 a second"),
)
PREFIXES = {Kind.STYLE: "St", Kind.PITCH: "Pi", Kind.PHONETIC: "Hu"}
HUES = {Kind.STYLE: 0.04, Kind.PITCH: 0.12, Kind.PHONETIC: 0.58}
TEXT_COLOUR, MARKER_COLOUR, INK = "#d9ead3", "#d0d0d0", "#1d2733"
WIDTH = 12.0
TOKENS_A_LINE = 30
# Words of a span in the picture; the paper has 10 to 30 and 5 to 15.
TEXT_WORDS, SPEECH_WORDS = (2, 3), (2, 3)
SEED = 2
# Room for the frame of the last box.
EDGE = 1.002


class Box(NamedTuple):
    """A token as it is drawn."""

    label: str
    colour: str


def colour_of(kind: Kind, value: int) -> str:
    """Return a light colour: the hue tells the kind, the shade the unit."""
    lightness = 0.74 + 0.18 * (value * 0.618 % 1)
    red, green, blue = colorsys.hls_to_rgb(HUES[kind], lightness, 0.75)
    return matplotlib.colors.to_hex((red, green, blue))


def boxes_of(stream: SpeechStream) -> list[Box]:
    """Return the tokens of a stream."""
    return [
        Box(f"{PREFIXES[Kind(kind)]}{value}", colour_of(Kind(kind), value))
        for kind, value in zip(stream.kinds.tolist(), stream.values.tolist())
    ]


def boxes_of_document(segments: Iterable[Segment]) -> list[Box]:
    """Return the tokens of a document, its words as one token each."""
    boxes = []
    for segment in segments:
        if isinstance(segment, Text):
            boxes.append(Box("[Text]", MARKER_COLOUR))
            boxes += [Box(word, TEXT_COLOUR) for word in segment.text.split()]
        elif isinstance(segment, Speech):
            boxes.append(Box("[Speech]", MARKER_COLOUR))
            boxes += boxes_of(segment.stream)
    return boxes


def draw_box(
    axes: Axes, box: Box, left: float, bottom: float, width: float
) -> None:
    """Draw a box of height 1 with its label."""
    axes.add_patch(
        Rectangle((left, bottom), width, 1, fc=box.colour, ec=INK, lw=0.4)
    )
    place = (left + width / 2, bottom + 0.48)
    axes.annotate(box.label, place, ha="center", va="center", fontsize=6)


def draw_tokens(axes: Axes, title: str, boxes: Sequence[Box]) -> None:
    """Draw tokens in lines, one behind the other."""
    lines = -(-len(boxes) // TOKENS_A_LINE)
    for index, box in enumerate(boxes):
        line, column = divmod(index, TOKENS_A_LINE)
        draw_box(axes, box, column, -1.3 * line, 1)
    axes.set_xlim(0, TOKENS_A_LINE * EDGE)
    axes.set_ylim(-1.3 * (lines - 1) - 0.2, 1.2)
    axes.set_axis_off()
    axes.set_title(title, loc="left", fontsize=8)


def draw_words(axes: Axes, words: Sequence[tuple[str, float, float]]) -> None:
    """Write words at their times, each on its own ground."""
    for word, start, end in words:
        axes.axvspan(start, end, color="#e3e9f0", lw=0, zorder=0)
        place = ((start + end) / 2, 1.04)
        axes.annotate(
            word,
            place,
            xycoords=("data", "axes fraction"),
            ha="center",
            fontsize=8,
        )


def draw_streams(item: dict, units: SpeechUnits) -> None:
    """Draw the sound, the three streams on its clock, and both sequences."""
    base, expressive = boxes_of(units.base().merge()), boxes_of(units.merge())
    heights = [1.6, 0.45, 0.45, 0.45]
    heights += [
        0.4 * -(-len(b) // TOKENS_A_LINE) + 0.1 for b in (base, expressive)
    ]
    figure, panels = plt.subplots(
        6,
        figsize=(WIDTH, sum(heights) + 1),
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    wav = read_audio(item["wav"])[: int(units.duration * SAMPLE_RATE)]
    # The loudest of each 5 ms is as good to look at, and small.
    peaks = wav.unfold(0, 80, 80).abs().amax(1).numpy()
    times = [i * 80 / SAMPLE_RATE for i in range(len(peaks))]
    panels[0].fill_between(times, -peaks, peaks, color=INK, lw=0)
    draw_words(panels[0], item["words"])
    panels[0].set_yticks([])
    panels[0].set_xlim(0, units.duration * EDGE)
    panels[0].tick_params(labelsize=6)
    for axes, (name, kind, rate, how_many) in zip(panels[1:], STREAMS):
        for index, value in enumerate(getattr(units, name).tolist()):
            box = Box(str(value), colour_of(kind, value))
            left = index / rate
            width = min(1 / rate, units.duration - left)
            draw_box(axes, box, left, 0, width)
        axes.set_xlim(0, units.duration * EDGE)
        axes.set_ylim(0, 1)
        axes.set_axis_off()
        axes.set_title(f"{name}, {how_many}", loc="left", fontsize=8)
    draw_tokens(
        panels[4],
        f"Base reads the phonetic units without repeats: {len(base)} tokens",
        base,
    )
    draw_tokens(
        panels[5],
        "Expressive reads all three, in the order of their times: "
        f"{len(expressive)} tokens",
        expressive,
    )
    save(figure, "streams.svg")


def draw_interleaving(item: dict, units: SpeechUnits) -> None:
    """Draw a document of the utterance in which the modality changes."""
    words = [word for word, _, _ in item["words"]]
    times = [(start, end) for _, start, end in item["words"]]
    utterance = Utterance(units.base(), item["text"], words, times)
    spans = draw_spans(len(words), TEXT_WORDS, SPEECH_WORDS, Random(SEED))
    boxes = boxes_of_document(interleave(SpokenWords([utterance]), spans))
    heights = [0.5, 0.4 * -(-len(boxes) // TOKENS_A_LINE) + 0.1]
    figure, panels = plt.subplots(
        2,
        figsize=(WIDTH, sum(heights) + 0.5),
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    edges = utterance.boundaries()[:-1] + [units.duration]
    for is_text, first, end in spans:
        colour = TEXT_COLOUR if is_text else colour_of(Kind.PHONETIC, 0)
        label = " ".join(words[first:end])
        label += " (text)" if is_text else " (speech)"
        width = edges[end] - edges[first]
        draw_box(panels[0], Box(label, colour), edges[first], 0, width)
    panels[0].set_xlim(0, units.duration * EDGE)
    panels[0].set_axis_off()
    panels[0].set_title(
        "Spans of words, parted in the middle of what lies between two words",
        loc="left",
        fontsize=8,
    )
    draw_tokens(panels[1], "The document", boxes)
    save(figure, "interleaving.svg")


def save(figure: plt.Figure, name: str) -> None:
    """Write a picture, the same at each run."""
    figure.savefig(IMAGES / name, metadata={"Date": None})
    plt.close(figure)


def main(manifest: str, name: str) -> None:
    """Draw both pictures."""
    plt.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "spiritlm"}
    item = load_manifest(manifest, needs=["words"])[name]
    codec = SpeechCodec.from_hparams("tinyspeech")
    units = codec.encode_file(item["wav"])
    draw_streams(item, units)
    draw_interleaving(item, units)


if __name__ == "__main__":
    main(*sys.argv[1:])
