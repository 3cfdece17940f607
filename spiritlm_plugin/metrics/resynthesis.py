"""Measures of what units cost and of what a vocoder makes of them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from speechbrain.lobes.models.HifiGAN import L1SpecLoss
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spiritlm_plugin.dataio.batching import length_batches
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE, SpeechUnits
from spiritlm_plugin.lobes.pitch import FCPE
from spiritlm_plugin.metrics.intervals import percent_interval, ratio_interval
from spiritlm_plugin.metrics.pitch import PitchErrorStats, pitch_errors
from spiritlm_plugin.metrics.recognition import (
    Recognizer,
    error_figures,
    transcript_errors,
)
from spiritlm_plugin.metrics.style import StyleClassifier
from spiritlm_plugin.metrics.units import unit_edits

Contour = tuple[Tensor, Tensor]

# Recordings whose F0 is found together, padding included.
_F0_SAMPLES = 60 * SAMPLE_RATE


class ResynthesisJudge:
    """Who listens to recordings, and compares them with what was said.

    Arguments
    ---------
    f0 : FCPE
        On the device to run it on.
    recognize : callable, optional
        As of `load_recognizer`; without one nothing is known of words.
    style : StyleClassifier, optional
        Trained; without one nothing is known of styles.

    Example
    -------
    >>> wav = torch.sin(torch.arange(16000) * 2 * torch.pi * 200 / 16000)
    >>> judge = ResynthesisJudge(FCPE(), lambda wavs: ["oh"] * len(wavs))
    >>> contours = find_contours(judge.f0, [wav, wav / 2])
    >>> judge.hear([wav], contours[:1])
    [{'transcript': 'oh'}]
    >>> [row] = judge.compare([wav / 2], contours[1:], [wav], contours[:1])
    >>> row["pitch_errors"][1], row["mel_distance"] > 0
    (0.0, True)
    """

    def __init__(
        self,
        f0: FCPE,
        recognize: Recognizer | None = None,
        style: StyleClassifier | None = None,
    ):
        self.f0 = f0
        self.recognize = recognize
        self.style = style
        self._mel_distance = L1SpecLoss(SAMPLE_RATE, win_length=1024)

    def hear(
        self, wavs: Sequence[Tensor], contours: Sequence[Contour] | None = None
    ) -> list[dict[str, Any]]:
        """Say what is heard.

        Arguments
        ---------
        wavs : sequence of Tensor
            16 kHz, each of shape (samples,).
        contours : sequence of (Tensor, Tensor), optional
            Of `find_contours`; without them styles are not asked for.

        Returns
        -------
        list of dict
            For each recording ``transcript`` and ``style``, where known.
        """
        rows: list[dict[str, Any]] = [{} for _ in wavs]
        if self.recognize is not None:
            for row, transcript in zip(rows, self.recognize(wavs)):
                row["transcript"] = transcript
        if self.style is not None and contours is not None:
            for row, style in zip(rows, self.style.predict(wavs, contours)):
                row["style"] = style
        return rows

    def compare(
        self,
        made: Sequence[Tensor],
        made_contours: Sequence[Contour],
        wavs: Sequence[Tensor],
        contours: Sequence[Contour],
    ) -> list[dict[str, Any]]:
        """Compare resyntheses with the originals, as far as both go.

        Arguments
        ---------
        made, wavs : sequence of Tensor
            Resyntheses with the durations of the originals, and originals.
        made_contours, contours : sequence of (Tensor, Tensor)
            Of `find_contours`.

        Returns
        -------
        list of dict
            For each ``pitch_errors``, the counts of that function, and
            ``mel_distance``.
        """
        rows = []
        for one, other, one_f0, other_f0 in zip(
            made, wavs, made_contours, contours
        ):
            frames = min(len(one_f0[0]), len(other_f0[0]))
            f0, voiced, true_f0, true_voiced = (
                x[None, :frames] for x in (*one_f0, *other_f0)
            )
            errors = pitch_errors(
                f0, voiced, true_f0, true_voiced, torch.tensor([frames])
            )
            samples = min(len(one), len(other))
            distance = self._mel_distance(one[:samples], other[:samples])
            rows.append(
                {
                    "pitch_errors": errors[0].tolist(),
                    "mel_distance": float(distance),
                }
            )
        return rows


def find_contours(f0: FCPE, wavs: Sequence[Tensor]) -> list[Contour]:
    """Return F0 in Hz and voicing of recordings, each of shape (frames,).

    Example
    -------
    >>> [(f0, voiced)] = find_contours(FCPE(), [torch.zeros(16000)])
    >>> f0.shape, int(voiced.sum())
    (torch.Size([201]), 0)
    """
    device = next(f0.parameters()).device
    contours: list[Any] = [None] * len(wavs)
    for batch in length_batches([len(wav) for wav in wavs], _F0_SAMPLES):
        padded = pad_sequence([wavs[i] for i in batch], True).to(device)
        samples = torch.tensor([len(wavs[i]) for i in batch], device=device)
        hertz, voiced, frames = f0(padded, samples)
        for row, i in enumerate(batch):
            n = int(frames[row])
            contours[i] = hertz[row, :n].cpu(), voiced[row, :n].cpu()
    return contours


def resynthesis_figures(
    rows: Sequence[Mapping[str, Any]],
    texts: Sequence[str | None],
    styles: Sequence[str | None],
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """Sum up what was found in the recordings of all utterances.

    Arguments
    ---------
    rows : sequence of dict
        Of each what `ResynthesisJudge` says, and ``counts`` for
        `pool_ratios`; all have the same keys.
    texts, styles : sequence of str
        What was to be said, and how; None counts for nothing.
    groups : sequence, optional
        What utterances are drawn with, as of `ratio_interval`.

    Returns
    -------
    dict
        Those of `error_figures` and ``style_accuracy`` in percent, those of
        `PitchErrorStats`, the mean ``mel_distance`` and the ratios of the
        counts, as far as there are; of rates and ``unit_edit_distance`` the 95%
        interval as ``WER_interval`` and so on.

    Example
    -------
    >>> rows = [{"transcript": "oh no", "style": "sad"}, {"transcript": "so",
    ...         "style": "sad"}]
    >>> found = resynthesis_figures(rows, ["oh no", "so low"], ["sad", None])
    >>> found["WER"], found["style_accuracy"]
    (25.0, 100.0)
    """
    groups = range(len(rows)) if groups is None else groups
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    figures: dict[str, Any] = {}
    if "counts" in columns:
        figures |= _count_figures(columns["counts"], groups)
    if "transcript" in columns:
        figures |= _word_figures(columns["transcript"], texts, groups)
    if "style" in columns:
        hits = {
            i: one == other
            for i, (one, other) in enumerate(zip(columns["style"], styles))
            if other is not None
        }
        figures["style_accuracy"] = 100 * sum(hits.values()) / len(hits)
        figures["style_accuracy_interval"] = percent_interval(
            list(hits.values()), groups=[groups[i] for i in hits]
        )
    if "pitch_errors" in columns:
        figures |= _pitch_figures(columns["pitch_errors"], groups)
        figures["mel_distance"] = sum(columns["mel_distance"]) / len(rows)
    return figures


def _count_figures(
    counts: Sequence[Mapping[str, Sequence[float]]],
    groups: Sequence[Hashable],
) -> dict[str, Any]:
    name = "unit_edit_distance"
    figures: dict[str, Any] = {**pool_ratios(counts)}
    if name in figures:
        edits, units = zip(*(item[name] for item in counts))
        figures[f"{name}_interval"] = ratio_interval(edits, units, groups)
    return figures


def _word_figures(
    heard: Sequence[str],
    texts: Sequence[str | None],
    groups: Sequence[Hashable],
) -> dict[str, Any]:
    known = [
        (str(i), transcript, text)
        for i, (transcript, text) in enumerate(zip(heard, texts))
        if text is not None
    ]
    ids, transcripts, said = zip(*known) if known else ((), (), ())
    errors = transcript_errors(ids, transcripts, said)
    return error_figures(errors, {str(i): g for i, g in enumerate(groups)})


def _pitch_figures(
    errors: list[list[float]], groups: Sequence[Hashable]
) -> dict[str, Any]:
    stats = PitchErrorStats()
    stats.scores = errors
    frames, voicing, both, gross, *_ = zip(*errors)
    wrong = [sum(pair) for pair in zip(voicing, gross)]
    return {
        **stats.summarize(),
        "f0_frame_error_interval": ratio_interval(wrong, frames, groups),
        "voicing_decision_error_interval": ratio_interval(
            voicing, frames, groups
        ),
        "gross_pitch_error_interval": ratio_interval(gross, both, groups),
    }


def unit_agreement(
    units: Sequence[SpeechUnits], others: Sequence[SpeechUnits]
) -> dict[str, float]:
    """Compare the units of some audio with those of its resynthesis.

    Arguments
    ---------
    units, others : sequence of SpeechUnits
        Of each utterance, at full rate, with the same streams.

    Returns
    -------
    dict
        ``unit_edit_distance`` of the phonetic units, and for each stream the
        share of frames with the same unit, as in ``same_phonetic``.

    Example
    -------
    >>> one, other = SpeechUnits([1, 1, 2, 3]), SpeechUnits([1, 1, 4])
    >>> unit_agreement([one], [other])["same_phonetic"]
    0.6666666666666666
    """
    return pool_ratios(map(agreement_counts, units, others))


def agreement_counts(
    units: SpeechUnits, others: SpeechUnits
) -> dict[str, tuple[int, int]]:
    """Count in one utterance what `unit_agreement` measures.

    Arguments
    ---------
    units, others : SpeechUnits
        At full rate.

    Returns
    -------
    dict
        For each figure what it counts, and among how many units; of the
        streams that both have.

    Example
    -------
    >>> one, other = SpeechUnits([1, 1, 2, 3]), SpeechUnits([1, 1, 4])
    >>> agreement_counts(one, other)
    {'unit_edit_distance': (2, 3), 'same_phonetic': (2, 3)}
    """
    counts = {"unit_edit_distance": unit_edits(units.phonetic, others.phonetic)}
    for stream in ("phonetic", "pitch", "style"):
        one, other = getattr(units, stream), getattr(others, stream)
        if one is None or other is None:
            continue
        same = _equal_frames(one, other)
        counts[f"same_{stream}"] = int(same.sum()), len(same)
    return counts


def pool_ratios(
    counts: Iterable[Mapping[str, Sequence[float]]],
) -> dict[str, float]:
    """Return the ratios of what was counted in all utterances.

    Arguments
    ---------
    counts : iterable of dict
        Of each utterance, by the figure's name, a part and its whole.

    Returns
    -------
    dict
        The summed parts over the summed wholes, NaN where there is nothing;
        of the figures that all utterances have.

    Example
    -------
    >>> pool_ratios([{"same_pitch": (1, 1)}, {"same_pitch": (1, 3)}])
    {'same_pitch': 0.5}
    """
    first, *others = counts = list(counts)
    figures = {}
    for name in first:
        if all(name in other for other in others):
            part, whole = map(sum, zip(*(item[name] for item in counts)))
            figures[name] = part / whole if whole else math.nan
    return figures


def bit_rate(
    units: Sequence[SpeechUnits], sizes: Mapping[str, int]
) -> dict[str, float]:
    """Return the bits a second of the tokens that a language model reads.

    Each token of a stream costs ``log2(size)`` bits: phonetic and pitch
    tokens without repeats, style tokens one a second.

    Arguments
    ---------
    units : sequence of SpeechUnits
        At full rate.
    sizes : dict of str to int
        Of the streams' codebooks, by name; the streams named here count.

    Returns
    -------
    dict
        By stream, and ``total``.

    Example
    -------
    >>> units = SpeechUnits([0] * 10 + [1] * 15, pitch=[2] * 12)
    >>> bit_rate([units], {"phonetic": 256, "pitch": 64})
    {'phonetic': 16.0, 'pitch': 6.0, 'total': 22.0}
    """
    return pool_ratios(bit_counts(item, sizes) for item in units)


def bit_counts(
    units: SpeechUnits, sizes: Mapping[str, int]
) -> dict[str, tuple[float, float]]:
    """Count in one utterance what `bit_rate` measures.

    Returns
    -------
    dict
        By stream, and ``total``: bits and seconds.

    Example
    -------
    >>> bit_counts(SpeechUnits([0] * 10 + [1] * 15), {"phonetic": 256})
    {'phonetic': (16.0, 1.0), 'total': (16.0, 1.0)}
    """
    counts = {}
    for stream, size in sizes.items():
        values = getattr(units, stream)
        if stream != "style":
            values = values.unique_consecutive()
        counts[stream] = len(values) * math.log2(size), units.duration
    total = sum(bits for bits, _ in counts.values())
    return counts | {"total": (total, units.duration)}


def _equal_frames(one: Tensor, other: Tensor) -> Tensor:
    """Compare as many frames as both have."""
    frames = min(len(one), len(other))
    return one[:frames] == other[:frames]
