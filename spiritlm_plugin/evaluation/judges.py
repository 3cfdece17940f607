"""Who judges generated speech and text, and what they say of all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import NotRequired

from spiritlm_plugin.dataio.units.units import MIN_SAMPLES, SAMPLE_RATE
from spiritlm_plugin.evaluation.loop import EvaluationSettings, groups_of
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.reports import (
    markdown_table,
    percent,
    with_interval,
)
from spiritlm_plugin.inference.few_shot import TOO_LONG
from spiritlm_plugin.metrics.generative import (
    Surprise,
    auto_bleu,
    load_judge,
    perplexity_figures,
    self_bleu,
    vert,
)
from spiritlm_plugin.metrics.recognition import load_recognizer
from spiritlm_plugin.metrics.speech_quality import (
    SpeechQuality,
    mean_with_interval,
    quality_figures,
)
from spiritlm_plugin.metrics.toxicity import (
    added_toxicity,
    load_toxicity_classifier,
)

# The title of each quality in reports, and its digits.
QUALITY_COLUMNS = {
    "mos": ("MOS", 2),
    "speaker_similarity": ("speaker similarity", 2),
}


class QualitySettings(EvaluationSettings):
    """Who says how speech sounds; nobody by default."""

    mos: NotRequired[Literal["dnsmos"] | None]
    speaker_encoder: NotRequired[str | None]


class JudgeSettings(QualitySettings):
    """Who judges; see `Judges`."""

    recognizer: str | None
    judge: str | None
    toxicity_classifier: str | None
    text_tokenizer: str | None
    toxic_labels: list[str]
    toxicity_threshold: float


def load_quality(
    hparams: QualitySettings, device: str | torch.device
) -> SpeechQuality:
    """Load who says how speech sounds.

    Arguments
    ---------
    hparams : QualitySettings
        The recipe's.
    device : str or torch.device
        Of the speaker encoder.

    Raises
    ------
    ImportError, FileNotFoundError, ValueError, CheckpointError
        As of `SpeechQuality`.

    Example
    -------
    >>> load_quality({"mos": None}, "cpu")([None])
    [{'mos': None, 'speaker_similarity': None}]
    """
    return SpeechQuality(
        hparams.get("mos"), hparams.get("speaker_encoder"), device
    )


def quality_table(systems: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield how speech sounds as Markdown, if anybody has said it.

    Arguments
    ---------
    systems : dict
        By their names figures of `quality_figures`.

    Example
    -------
    >>> found = {"mos": 3.14159, "mos_interval": [3.0, 3.25]}
    >>> print(*quality_table({"read": found, "original": {"mos": 4.0}}))
    | audio | MOS |
    | --- | --- |
    | read | 3.14 (3.00 to 3.25) |
    | original | 4.00 |
    >>> list(quality_table({"read": {}}))
    []
    """
    columns = {
        name: column
        for name, column in QUALITY_COLUMNS.items()
        if any(name in figures for figures in systems.values())
    }
    if columns:
        rows = [
            [
                system,
                *(with_interval(f, n, d) for n, (_, d) in columns.items()),
            ]
            for system, f in systems.items()
        ]
        yield markdown_table(
            ["audio", *(title for title, _ in columns.values())], rows
        )


class Judges:
    """Who listens, reads and judges; those that are named are loaded.

    Arguments
    ---------
    hparams : JudgeSettings
        The recipe's.
    device : str
        To run on.
    """

    def __init__(self, hparams: JudgeSettings, device: str):
        size = hparams["batch_size"]
        self.recognize = self.surprise = self.toxicity = None
        if hparams["recognizer"]:
            self.recognize = load_recognizer(hparams["recognizer"], device)
        if hparams["judge"]:
            self.surprise = load_judge(hparams["judge"], device, size)
        if hparams["toxicity_classifier"]:
            self.toxicity = load_toxicity_classifier(
                hparams["toxicity_classifier"],
                hparams["toxic_labels"],
                device,
                hparams["text_tokenizer"],
                size,
            )
        self.quality = load_quality(hparams, device)

    def __call__(
        self,
        prompts: Sequence[str],
        texts: Sequence[str | None],
        wavs: Sequence[Tensor | None],
        voices: Sequence[Tensor | None],
    ) -> Iterator[dict[str, Any]]:
        """Yield what is kept of each continuation.

        Arguments
        ---------
        prompts : sequence of str
            What is continued.
        texts : sequence of str
            Continuations, None where nobody knows the words.
        wavs, voices : sequence of Tensor
            Of spoken continuations, and whose voice they should have.
        """
        read = [text or "" for text in texts]
        behind, after, toxic, before = (
            _asked(judge, *args)
            for judge, args in (
                (self.surprise, (read,)),
                (self.surprise, (read, prompts)),
                (self.toxicity, (read,)),
                (self.toxicity, (prompts,)),
            )
        )
        for i, quality in enumerate(self.quality(wavs, voices)):
            yield {
                "prompt": prompts[i],
                "text": texts[i],
                "seconds": _seconds(wavs[i]),
                "surprise": behind[i],
                "surprise_prompted": after[i],
                "toxicity": toxic[i],
                "prompt_toxicity": before[i],
                **quality,
            }


def _seconds(wav: Tensor | None) -> float | None:
    return None if wav is None else len(wav) / SAMPLE_RATE


def _asked(judge: Callable[..., Any] | None, *args: Sequence[str]) -> Any:
    return [None] * len(args[0]) if judge is None else judge(*args)


def figures_of(rows: Rows, threshold: float) -> dict[str, Any]:
    """Return the figures of one direction, those that somebody judged.

    Arguments
    ---------
    rows : dict
        With what `Judges` yields, and ``utterance``, ``speaker`` and
        ``end_reason``.
    threshold : float
        As of `added_toxicity`.

    Returns
    -------
    dict
        Figures with their intervals, as ``GenPPL`` and ``GenPPL_interval``;
        ``continuations``, of how many; ``seconds``, their mean; ``empty`` and
        ``too_long``, in percent of them.
    """
    answers = list(rows.values())
    groups = [*groups_of(rows).values()]
    spoken = [r["seconds"] for r in answers if r["seconds"] is not None]
    figures: dict[str, Any] = {
        "continuations": len(answers),
        "seconds": fmean(spoken) if spoken else None,
        "empty": percent(_is_empty(row) for row in answers),
        "too_long": percent(r["end_reason"] == TOO_LONG for r in answers),
    }
    for name, key in (
        ("GenPPL", "surprise"),
        ("GenPPL_prompted", "surprise_prompted"),
    ):
        judged = [row[key] and Surprise(*row[key]) for row in answers]
        figures |= perplexity_figures(judged, groups, name)
    texts = [row["text"] for row in answers if row["text"] is not None]
    if texts:
        repeated = [auto_bleu(row["text"] or "") for row in answers]
        found = mean_with_interval(repeated, groups)
        figures["auto_bleu"] = found["mean"]
        figures["auto_bleu_interval"] = found["interval"]
        figures["self_bleu"] = self_bleu(texts)
        figures["vert"] = vert(figures["self_bleu"], figures["auto_bleu"])
    if any(row["prompt_toxicity"] is not None for row in answers) and texts:
        figures |= added_toxicity(
            [row["prompt_toxicity"] for row in answers],
            [row["toxicity"] for row in answers],
            threshold,
            groups,
        )
    return figures | quality_figures(answers, groups)


def _is_empty(row: Mapping[str, Any]) -> bool:
    """Whether nothing is said."""
    if row["seconds"] is None:
        return not row["text"].strip()
    return row["seconds"] * SAMPLE_RATE < MIN_SAMPLES
