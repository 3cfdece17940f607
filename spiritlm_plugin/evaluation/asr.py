"""Few-shot speech recognition: how many words a model gets wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.evaluation.loop import (
    FewShotSettings,
    Items,
    answer_row,
    dropped_of,
    item_seeds,
    model_name,
    sampling_of,
)
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.reports import (
    markdown_table,
    percent,
    write_report,
)
from spiritlm_plugin.inference.few_shot import Transcriber
from spiritlm_plugin.inference.protocols import InterleavedModel
from spiritlm_plugin.metrics.recognition import WordErrorStats

_LONGEST_SHOWN = 60  # words, in the plot


class ASRSettings(FewShotSettings):
    """What the evaluation of speech recognition reads."""

    trained_asr: bool
    num_beams: int
    sample_count: int


class Transcription:
    """A model that transcribes utterances; called with ids, it gives rows.

    Arguments
    ---------
    hparams : ASRSettings
        The recipe's.
    lm : InterleavedModel
        The model.
    items : dict
        The utterances, by id.
    shots : dict
        The utterances that it is shown, by id.
    """

    def __init__(
        self,
        hparams: ASRSettings,
        lm: InterleavedModel,
        items: Items,
        shots: Items,
    ):
        self.seed = hparams["seed"]
        self.items, self.shots = items, shots
        self.transcribe = Transcriber(
            lm,
            [(item["wav"], item["text"]) for item in shots.values()],
            hparams["trained_asr"],
            num_beams=hparams["num_beams"],
            **sampling_of(hparams),
        )

    def __call__(self, names: list[str]) -> Iterator[dict[str, Any]]:
        """Yield what is heard in some utterances."""
        seeds = item_seeds(self.seed, names)
        wavs = [self.items[name]["wav"] for name in names]
        for name, seed, answer in zip(
            names, seeds, self.transcribe(wavs, seeds)
        ):
            yield answer_row(name, seed, self.shots, answer) | {
                "text": self.items[name]["text"],
                "transcript": answer.text,
                "answer": answer.generation.text,
            }


def report(hparams: ASRSettings, rows: Rows, shots: Items) -> None:
    """Count errors, and write them down.

    Arguments
    ---------
    hparams : ASRSettings
        The recipe's.
    rows : dict
        Of `Transcription`, by id.
    shots : dict
        What the model was to be shown.
    """
    folder = Path(hparams["output_folder"])
    errors = WordErrorStats()
    errors.append(
        list(rows),
        [row["transcript"] for row in rows.values()],
        [row["text"] for row in rows.values()],
    )
    figures = errors.summarize()
    with open(folder / "wer.txt", "w", encoding="utf-8") as file:
        errors.write_stats(file)
    summary = {
        "model": model_name(hparams),
        "split": hparams["split"],
        "utterances": len(rows),
        "shots": len(shots),
        "WER": figures["WER"],
        "words": figures["num_scored_tokens"],
        **{k: figures[k] for k in ("insertions", "deletions", "substitutions")},
        "complete": percent(row["complete"] for row in rows.values()),
        **dropped_of(rows.values(), len(shots)),
    }
    draw_errors(errors.scores, folder / "wer.png")
    shown = spread(rows, hparams["sample_count"])
    write_report(
        folder,
        summary,
        f"# Transcripts of {hparams['split']}",
        markdown_table(["", ""], summary.items()),
        "`complete`: percent of the transcripts that had an end. "
        "`shots_dropped`: shots that prompts had no room for. `too_long`: "
        "utterances that no prompt had room for; they count as empty.",
        "![words wrong](wer.png)",
        markdown_table(
            ["utterance", "said", "transcript"],
            [[n, rows[n]["text"], rows[n]["transcript"]] for n in shown],
        ),
    )


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
