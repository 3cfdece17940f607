"""Few-shot speech recognition: how many words a model gets wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.evaluation.draws import (
    FewShotSettings,
    FewShotTask,
    Question,
    load_draws,
    over_draws,
    questions_of,
    rows_by_draw,
    sampling_of,
)
from spiritlm_plugin.evaluation.loop import (
    Items,
    dropped_of,
    groups_of,
    load_items,
    load_model,
    model_name,
    predict,
    settings_of,
    settings_shown,
)
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.reports import (
    ERRORS,
    RATES,
    interval_cell,
    markdown_table,
    percent,
    rates_table,
    settings_section,
    write_report,
)
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.inference.few_shot import Answer, Transcriber
from spiritlm_plugin.inference.protocols import InterleavedModel
from spiritlm_plugin.metrics.recognition import (
    WordErrorStats,
    error_figures,
    normalizers_of,
    transcript_errors,
)

_LONGEST_SHOWN = 60  # words, in the plot


class ASRSettings(FewShotSettings):
    """What the evaluation of speech recognition reads."""

    trained_asr: bool
    num_beams: int
    sample_count: int


@torch.inference_mode()
def evaluate(
    hparams: ASRSettings, run_opts: Any, lm: SpiritLM | None = None
) -> None:
    """Transcribe utterances behind shots, and report.

    Arguments
    ---------
    hparams : ASRSettings
        The recipe's.
    run_opts : RunOptions
        As of `load_recipe`.
    lm : SpiritLM, optional
        The model; loaded as ``hparams`` says by default.

    Raises
    ------
    ValueError, FileNotFoundError, ManifestError
        As of `load_items`, `load_draws` and `load_model`.
    """
    items = load_items(hparams, ["text"])
    draws = load_draws(hparams, items)
    lm = lm or load_model(hparams, run_opts)
    settings = settings_of(hparams, run_opts, lm, items, *draws)
    asked = questions_of(hparams["seed"], items, len(draws))
    make = partial(Transcription, hparams, lm, items, draws)
    rows = predict(hparams, settings, asked, make, joined=True)
    if rows is not None:
        report(hparams, rows, draws)


class Transcription(FewShotTask):
    """A model that transcribes utterances; called with ids, it gives rows.

    Arguments
    ---------
    hparams : ASRSettings
        The recipe's.
    lm : InterleavedModel
        The model.
    items : dict
        The utterances, by id.
    draws : sequence of dict
        The utterances that it is shown in each draw, by id.
    """

    def __init__(
        self,
        hparams: ASRSettings,
        lm: InterleavedModel,
        items: Items,
        draws: Sequence[Items],
    ):
        super().__init__(hparams, items, draws)
        self.hparams, self.lm = hparams, lm

    def show(self, shots: Items) -> Transcriber:
        """Return the model, shown some utterances with their texts."""
        return Transcriber(
            self.lm,
            [(item["wav"], item["text"]) for item in shots.values()],
            self.hparams["trained_asr"],
            num_beams=self.hparams["num_beams"],
            **sampling_of(self.hparams),
        )

    def ask(
        self, model: Transcriber, questions: Sequence[Question]
    ) -> Iterator[tuple[Answer, dict[str, Any]]]:
        """Yield what is heard in some utterances."""
        items = [self.items[question.item] for question in questions]
        answers = model(
            [item["wav"] for item in items], [q.seed for q in questions]
        )
        for item, answer in zip(items, answers):
            yield (
                answer,
                {
                    "text": item["text"],
                    "transcript": answer.text,
                    "answer": answer.generation.text,
                },
            )


def report(hparams: ASRSettings, rows: Rows, draws: Sequence[Items]) -> None:
    """Count errors, and write them down.

    Arguments
    ---------
    hparams : ASRSettings
        The recipe's.
    rows : dict
        Of `Transcription`, by id.
    draws : sequence of dict
        What the model was to be shown.
    """
    folder = Path(hparams["output_folder"])
    first, *_ = by_draw = rows_by_draw(rows)
    counts = {"utterances": len(first), "shots": len(draws[0])}
    errors = transcript_errors(
        list(rows),
        [row["transcript"] for row in rows.values()],
        [row["text"] for row in rows.values()],
    )
    found = errors["WER"].summarize()
    with open(folder / "wer.txt", "w", encoding="utf-8") as file:
        errors["WER"].write_stats(file)
    figures = error_figures(errors, groups_of(rows))
    answered = {
        "words": found["num_scored_tokens"],
        **{k: found[k] for k in ("insertions", "deletions", "substitutions")},
        **{k: v for k, v in figures.items() if k.startswith("empty_")},
        "complete": percent(row["complete"] for row in rows.values()),
        **dropped_of(rows.values(), len(draws[0])),
    }
    rates = [
        {name: stats.rate(some) for name, stats in errors.items()}
        for some in by_draw
    ]
    voices = speaker_figures(errors["WER"], rows)
    summary = {
        "model": model_name(hparams),
        "split": hparams["split"],
        **counts,
        **figures,
        **answered,
        "speakers": voices,
        **over_draws(draws, rates),
        "settings": settings_shown(
            hparams, **counts, draws=len(draws), **normalizers_of(errors)
        ),
    }
    draw_errors(errors["WER"].scores, folder / "wer.png")
    write_report(
        folder,
        summary,
        f"# Transcripts of {hparams['split']}",
        rates_table(summary, errors),
        markdown_table(["", ""], answered.items()),
        f"{ERRORS} {RATES} `complete`: percent of the transcripts that had an "
        "end. `shots_dropped`: shots that prompts had no room for. `too_long`: "
        "utterances that no prompt had room for; they count as empty. Counts "
        "are of all draws.",
        *speakers_section(voices),
        "![words wrong](wer.png)",
        markdown_table(
            ["utterance", "said", "transcript"],
            [
                [first[n][k] for k in ("utterance", "text", "transcript")]
                for n in spread(first, hparams["sample_count"])
            ],
        ),
        settings_section(summary["settings"]),
    )


def speaker_figures(
    errors: WordErrorStats, rows: Rows
) -> dict[str, dict[str, Any]]:
    """Return how many words of each speaker are wrong.

    Arguments
    ---------
    errors : WordErrorStats
        Of all rows.
    rows : dict
        Of `Transcription`, by id.

    Returns
    -------
    dict
        By speaker ``utterances``, ``WER`` in percent, and its 95% interval
        over utterances; empty where no speakers are known.
    """
    found = {}
    known = {row["speaker"] for row in rows.values()} - {None}
    for speaker in sorted(known, key=str):
        of_speaker = {
            name: row["utterance"]
            for name, row in rows.items()
            if row["speaker"] == speaker
        }
        found[speaker] = {
            "utterances": len(set(of_speaker.values())),
            "WER": errors.rate(of_speaker),
            "WER_interval": errors.interval(of_speaker),
        }
    return found


def speakers_section(voices: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the Markdown of `speaker_figures`, where there are several."""
    if len(voices) > 1:
        cells = [
            [name, v["utterances"], v["WER"], interval_cell(v["WER_interval"])]
            for name, v in voices.items()
        ]
        yield markdown_table(["speaker", "utterances", "WER", "95%"], cells)
        yield "By speaker, over all draws; intervals over utterances."


def draw_errors(scores: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Draw the word error rate by the length of utterances.

    Arguments
    ---------
    scores : iterable of dict
        As of SpeechBrain's `ErrorRateStats`.
    path : Path
        The picture.
    """
    by_length: dict[int, tuple[int, int]] = {}
    for score in scores:
        words = min(score["num_ref_tokens"], _LONGEST_SHOWN)
        wrong, total = by_length.get(words, (0, 0))
        wrong += score["num_edits"] or 0
        by_length[words] = wrong, total + score["num_ref_tokens"]
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    lengths = [words for words in sorted(by_length) if words]
    rates = [100 * by_length[n][0] / by_length[n][1] for n in lengths]
    axis.bar(lengths, rates)
    axis.set(xlabel="words of the utterance", ylabel="WER (%)")
    figure.savefig(path, dpi=120)
