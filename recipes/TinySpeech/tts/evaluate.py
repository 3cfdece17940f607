"""Measure how well a language model reads texts aloud.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER \
    --model MODEL --recognizer WHISPER

Shows the model some transcripts with their utterances, each ended by the word
"stop", or asks behind [TTS] a model that was trained on it (--trained_tts true
--shots 0). What it says is judged by an independent recognizer, and so is the
corpus' own audio. Writes predictions.jsonl, wer.txt (alignments), summary.json,
report.md, durations.png and some recordings (wavs/). Runs under torchrun, and
goes on where it was stopped.
"""

from pathlib import Path

import soundfile
import torch
from matplotlib.figure import Figure
from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.units.prompts import STOP_WORD
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
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
from spiritlm_plugin.inference.few_shot import TOO_LONG, Reader
from spiritlm_plugin.metrics.recognition import WordErrorStats, load_recognizer
from spiritlm_plugin.utils.recipes import load_recipe, run


def find_stop(hparams):
    """Return a recording with the word "stop", and where it is."""
    if hparams["trained_tts"]:
        return None
    if hparams["stop_speech"]:
        samples = len(read_audio(hparams["stop_speech"]))
        return {
            "wav": hparams["stop_speech"],
            "start": 0.0,
            "end": samples / SAMPLE_RATE,
        }
    path = Path(hparams["manifest_folder"]) / f"{hparams['shot_split']}.json"
    for item in load_manifest(path).values():
        for word, start, end in item.get("words") or ():
            if word == STOP_WORD:
                return {"wav": item["wav"], "start": start, "end": end}
    raise ValueError(
        f'no utterance of {path} has the word "{STOP_WORD}" with its times: '
        "name a recording of the word with --stop_speech"
    )


def make_reader(hparams, lm, shots, stop):
    """Return the model with its shots."""
    if stop is not None:
        stop = lm.encode_file(stop["wav"]).cut(stop["start"], stop["end"])
    return Reader(
        lm,
        [(item["wav"], item["text"]) for item in shots.values()],
        stop,
        candidates=hparams["candidates"],
        **sampling_of(hparams),
    )


def predict(hparams, read, recognize, items, shots, predictions):
    """Let the model read what is not read yet, and listen to it."""
    folder = Path(hparams["output_folder"]) / "wavs"
    shown = set(spread(items, hparams["sample_count"]))
    for names in predictions.batches(hparams["batch_size"]):
        seeds = item_seeds(hparams["seed"], names)
        texts = [items[name]["text"] for name in names]
        answers = read(texts, seeds, hparams["speaker"])
        made = [answer.generation.wav for answer in answers]
        real = [read_audio(items[name]["wav"]) for name in names]
        write_recordings(names, made, real, shown, folder)
        heard = listen(recognize, made), listen(recognize, real)
        predictions.add(
            answer_row(name, seed, shots, answer)
            | {
                "text": items[name]["text"],
                "seconds": seconds(made[i]),
                "original_seconds": seconds(real[i]),
                "heard": heard[0][i],
                "heard_original": heard[1][i],
            }
            for i, (name, seed, answer) in enumerate(zip(names, seeds, answers))
        )


def seconds(wav):
    return 0.0 if wav is None else len(wav) / SAMPLE_RATE


def listen(recognize, wavs):
    """Return transcripts: of silence an empty one, without recognizer none."""
    if recognize is None:
        return [None] * len(wavs)
    spoken = [wav for wav in wavs if seconds(wav)]
    found = iter(recognize(spoken) if spoken else ())
    return [next(found) if seconds(wav) else "" for wav in wavs]


def write_recordings(names, made, real, shown, folder):
    """Write the recordings of a batch that people are to hear."""
    for name, one, other in zip(names, made, real):
        if name not in shown:
            continue
        folder.mkdir(exist_ok=True)
        for label, wav in (("read", one), ("original", other)):
            if seconds(wav):
                path = folder / f"{name}_{label}.wav"
                soundfile.write(path, wav.cpu().numpy(), SAMPLE_RATE)


def error_rates(rows, key):
    """Return the word errors, and the rates of words and characters."""
    heard = [row[key] for row in rows.values()]
    texts = [row["text"] for row in rows.values()]
    words, characters = WordErrorStats(), WordErrorStats(split_tokens=True)
    for stats in (words, characters):
        stats.append(list(rows), heard, texts)
    rates = {"CER": characters.summarize("WER"), "WER": words.summarize("WER")}
    return words, rates


def report(hparams, rows, shots):
    """Sum up, and write it down."""
    folder = Path(hparams["output_folder"])
    asked, answers = len(shots), rows.values()
    original = sum(row["original_seconds"] for row in answers)
    summary = {
        "model": hparams["model"] or hparams["release"],
        "split": hparams["split"],
        "utterances": len(rows),
        "shots": asked,
        "duration_ratio": sum(row["seconds"] for row in answers) / original,
        "not_stopped": percent(not row["complete"] for row in answers),
        "empty": percent(not row["seconds"] for row in answers),
        "shots_dropped": sum(asked - len(r["shots"]) for r in answers),
        "too_long": sum(r["end_reason"] == TOO_LONG for r in answers),
    }
    table = []
    if hparams["recognizer"]:
        for key, prefix in (("heard_original", "original_"), ("heard", "")):
            words, rates = error_rates(rows, key)
            summary |= {f"{prefix}{n}": rate for n, rate in rates.items()}
            table.append([prefix.strip("_") or "read", *rates.values()])
        with open(folder / "wer.txt", "w", encoding="utf-8") as file:
            words.write_stats(file)
    draw_durations(rows, folder / "durations.png")
    shown = spread(rows, hparams["sample_count"])
    write_report(
        folder,
        summary,
        f"# Readings of {hparams['split']}",
        markdown_table(["audio", "CER", "WER"], table)
        if table
        else "No recognizer was named: nothing is known of the words.",
        markdown_table(
            ["", ""],
            [
                [k, f"{v:.2f}" if k == "duration_ratio" else v]
                for k, v in summary.items()
                if not k.endswith("ER")
            ],
        ),
        "`duration_ratio`: seconds read over seconds of the original audio. "
        "`not_stopped`, `empty`: percent of the readings. `shots_dropped`: "
        "shots that prompts had no room for. `too_long`: texts that no prompt "
        "had room for; they count as empty.",
        "![durations](durations.png)",
        markdown_table(
            ["utterance", "text", "heard", "heard of the original"],
            [
                [n, *(rows[n][k] for k in ("text", "heard", "heard_original"))]
                for n in shown
            ],
        ),
    )


def draw_durations(rows, path):
    """Draw how long readings and originals are."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    for complete, label in ((True, "stopped"), (False, "not stopped")):
        some = [r for r in rows.values() if r["complete"] == complete]
        axis.scatter(
            [row["original_seconds"] for row in some],
            [row["seconds"] for row in some],
            s=12,
            label=label,
        )
    axis.axline((0, 0), slope=1, color="grey", linewidth=1)
    axis.set(xlabel="original (s)", ylabel="reading (s)")
    axis.legend()
    figure.savefig(path, dpi=120)


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    items = load_items(hparams, ["text"])
    shots = load_shots(hparams, items)
    stop = find_stop(hparams)
    lm = load_model(hparams, run_opts)
    lm.speaker_id(hparams["speaker"])
    settings = settings_of(hparams, run_opts, lm, items, shots)
    settings["stop"] = stop
    predictions = Predictions(hparams["output_folder"], settings, items)
    recognize = None
    if hparams["recognizer"]:
        device = run_opts["device"] or infer_device()
        recognize = load_recognizer(hparams["recognizer"], str(device))
    read = make_reader(hparams, lm, shots, stop)
    predict(hparams, read, recognize, items, shots, predictions)
    rows = predictions.gather()
    if rows is not None:
        report(hparams, rows, shots)


if __name__ == "__main__":
    run(main)
