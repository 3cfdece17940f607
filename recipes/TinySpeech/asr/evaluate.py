"""Measure how well a language model transcribes speech.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER --model MODEL

Shows the model some utterances with their transcripts, or asks behind [ASR] a
model that was trained on it (--trained_asr true --shots 0), and counts the words
that it gets wrong. Writes predictions.jsonl, wer.txt (alignments), summary.json,
report.md and wer.png. Runs under torchrun, and goes on where it was stopped.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.evaluation.loop import (
    answer_row,
    item_seeds,
    load_items,
    load_model,
    load_shots,
    sampling_of,
    settings_of,
)
from spiritlm_plugin.evaluation.predictions import Predictions
from spiritlm_plugin.evaluation.reports import (
    markdown_table,
    percent,
    write_report,
)
from spiritlm_plugin.inference.few_shot import TOO_LONG, Transcriber
from spiritlm_plugin.metrics.recognition import WordErrorStats
from spiritlm_plugin.utils.recipes import load_recipe, run

LONGEST_SHOWN = 60  # words, in the plot


def predict(hparams, lm, items, shots, predictions):
    """Let the model transcribe what is not transcribed yet."""
    transcribe = Transcriber(
        lm,
        [(item["wav"], item["text"]) for item in shots.values()],
        hparams["trained_asr"],
        num_beams=hparams["num_beams"],
        **sampling_of(hparams),
    )
    for names in predictions.batches(hparams["batch_size"]):
        seeds = item_seeds(hparams["seed"], names)
        answers = transcribe([items[name]["wav"] for name in names], seeds)
        predictions.add(
            answer_row(name, seed, shots, answer)
            | {
                "text": items[name]["text"],
                "transcript": answer.text,
                "answer": answer.generation.text,
            }
            for name, seed, answer in zip(names, seeds, answers)
        )


def report(hparams, rows, shots):
    """Count errors, and write them down."""
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
    asked = len(shots)
    summary = {
        "model": hparams["model"] or hparams["release"],
        "split": hparams["split"],
        "utterances": len(rows),
        "shots": asked,
        "WER": figures["WER"],
        "words": figures["num_scored_tokens"],
        **{k: figures[k] for k in ("insertions", "deletions", "substitutions")},
        "complete": percent(row["complete"] for row in rows.values()),
        "shots_dropped": sum(asked - len(r["shots"]) for r in rows.values()),
        "too_long": sum(r["end_reason"] == TOO_LONG for r in rows.values()),
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


def draw_errors(scores, path):
    """Draw the word error rate by the length of utterances."""
    by_length = {}
    for score in scores:
        words = min(score["num_ref_tokens"], LONGEST_SHOWN)
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


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    items = load_items(hparams, ["text"])
    shots = load_shots(hparams, items)
    lm = load_model(hparams, run_opts)
    settings = settings_of(hparams, run_opts, lm, items, shots)
    predictions = Predictions(hparams["output_folder"], settings, items)
    predict(hparams, lm, items, shots, predictions)
    rows = predictions.gather()
    if rows is not None:
        report(hparams, rows, shots)


if __name__ == "__main__":
    run(main)
