"""Report what is heard of speech units: the paper's Table 9.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER \
    --model MODEL --recognizer WHISPER

or, of parts that the recipes have trained,

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER \
    --phonetic PART --pitch PART --style PART \
    --base PART --expressive PART --recognizer WHISPER

Resynthesizes a test set from its units with each vocoder and compares the
sound with the original: intelligibility to an independent recognizer, style to
a classifier of original recordings, F0, spectrum and units. Writes
predictions.jsonl, summary.json, report.md, f0.png and some recordings (wavs/).
Runs under torchrun, and goes on where it was stopped.
"""

from dataclasses import replace
from pathlib import Path

import soundfile
import torch
from matplotlib.figure import Figure
from speechbrain.utils.distributed import if_main_process, infer_device
from torch.nn.functional import pad
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.checkpoints import digest_weights
from spiritlm_plugin.dataio.corpus.unit_store import STREAMS
from spiritlm_plugin.dataio.units.units import MIN_SAMPLES, SAMPLE_RATE
from spiritlm_plugin.evaluation.loop import load_items, settings_of
from spiritlm_plugin.evaluation.predictions import Predictions
from spiritlm_plugin.evaluation.reports import markdown_table, write_report
from spiritlm_plugin.inference import SpeechCodec
from spiritlm_plugin.integrations.parts import build, read_parts
from spiritlm_plugin.integrations.release import VARIANTS, read_release
from spiritlm_plugin.lobes.pitch import F0_HOP, FCPE
from spiritlm_plugin.metrics.recognition import load_recognizer
from spiritlm_plugin.metrics.resynthesis import (
    ResynthesisJudge,
    agreement_counts,
    bit_counts,
    find_contours,
    resynthesis_figures,
)
from spiritlm_plugin.metrics.style import StyleClassifier
from spiritlm_plugin.utils.recipes import load_recipe, run

PREDICTED = ", durations predicted"
# The title of each figure in the report, and its digits.
COLUMNS = {
    "bits_per_second": ("bits/s", 0),
    "WER": ("WER", 1),
    "style_accuracy": ("style accuracy", 1),
    "f0_frame_error": ("F0 frame error", 2),
    "mel_distance": ("mel distance", 2),
    "unit_edit_distance": ("unit edit distance", 2),
}


def load_codecs(hparams, run_opts):
    """Return tokenizers with their vocoders, by variant."""
    parts = [hparams[name] for name in (*STREAMS, *VARIANTS)]
    vocoders = [hparams[name] for name in VARIANTS if hparams[name]]
    complete = bool(hparams["phonetic"] and vocoders)
    named = hparams["model"], hparams["release"], any(parts)
    if sum(map(bool, named)) != 1 or complete != any(parts):
        raise ValueError(
            "name what is measured: --model FOLDER; --release FOLDER --variant "
            "base for Meta's checkpoints; or parts, --phonetic PART with "
            "--base PART, --expressive PART or both"
        )
    if hparams["model"]:
        names = hparams["model"], hparams["hparams_file"]
        codecs = [SpeechCodec.from_hparams(*names, run_opts=run_opts)]
    else:
        codecs = [
            SpeechCodec(build(found)["modules"], {}, run_opts)
            for found in read_weights(hparams, vocoders)
        ]
    variants = [variant_of(codec) for codec in codecs]
    if len(set(variants)) < len(codecs):
        raise ValueError(
            f"the vocoders of --base and --expressive are both {variants[0]}; "
            "name one of each kind"
        )
    for variant, codec in zip(variants, codecs):
        check_counts(variant, codec)
    return dict(zip(variants, codecs))


def read_weights(hparams, vocoders):
    """Return the parts of Meta's release, or those of each vocoder."""
    if hparams["release"]:
        release = read_release(hparams["release"], hparams["variant"])
        return [replace(release, language_model=None)]
    streams = {name: hparams[name] for name in STREAMS}
    return [read_parts(**streams, vocoder=folder) for folder in vocoders]


def variant_of(codec):
    return "expressive" if codec.mods.vocoder.expressive else "base"


def unit_counts(vocoder):
    """Return how many units a vocoder has of each stream that it reads."""
    return {
        name: embedding.num_embeddings
        for name, embedding in vocoder.embeddings.items()
        if name in STREAMS
    }


def check_counts(variant, codec):
    """Raise unless a vocoder was made for the tokenizer's units."""
    found = codec.mods.tokenizer.unit_counts()
    for name, expects in unit_counts(codec.mods.vocoder).items():
        has = found.get(name, 0)
        # A linear quantizer has a blank.
        if has != expects and (name, has) != ("phonetic", expects + 1):
            raise ValueError(
                f"the {variant} vocoder was made for {expects} {name} units "
                f"and the tokenizer has {has}: name the tokenizer that it was "
                "trained with"
            )


def find_voices(hparams, codec, items):
    """Return the number of each utterance's voice, None where it is unknown."""
    voice = hparams["speaker"]
    return {
        name: codec.mods.vocoder.speaker_id(
            item.get("speaker") if voice is None else voice
        )
        for name, item in items.items()
    }


def load_style_items(hparams, items):
    """Return utterances to learn styles from, none without styles."""
    if len({item.get("style") for item in items.values()}) < 2:
        return {}
    asked = {"split": "train", "utterances": hparams["style_utterances"]}
    return load_items(hparams | asked, ["style"])


def load_judge(hparams, f0, style_items):
    """Return who listens; styles are learned from original recordings."""
    recognize = style = None
    if hparams["recognizer"]:
        device = str(next(f0.parameters()).device)
        recognize = load_recognizer(hparams["recognizer"], device)
    if style_items:
        items, is_main = style_items.values(), if_main_process()
        wavs = (read_audio(item["wav"]) for item in items)
        contours = (
            find_contours(f0, [read_audio(item["wav"])])[0]
            for item in tqdm(items, "learning styles", disable=not is_main)
        )
        labels = [item["style"] for item in items]
        style = StyleClassifier().fit(wavs, contours, labels)
    return ResynthesisJudge(f0, recognize, style)


def speak(codec, units, voices, keep_durations=True):
    """Return recordings of units, long enough to be judged."""
    vocoder = codec.mods.vocoder
    if not vocoder.expressive:
        units = [item.base() for item in units]
    if not keep_durations:
        units = [item.deduplicate() for item in units]
    with codec.inference_ctx:
        wavs = vocoder.synthesize(units, voices)
    return [pad(wav, (0, max(MIN_SAMPLES - len(wav), 0))) for wav in wavs]


def resynthesize(codec, voices, judge, wavs, contours):
    """Return recordings and rows, with durations kept and predicted."""
    units = codec.encode_batch(wavs)
    sizes = unit_counts(codec.mods.vocoder)
    bits = [bit_counts(item, sizes)["total"] for item in units]
    made = speak(codec, units, voices)
    made_contours = find_contours(judge.f0, made)
    again = codec.encode_batch(made)
    heard = judge.hear(made, made_contours)
    compared = judge.compare(made, made_contours, wavs, contours)
    rows = []
    for i, row in enumerate(heard):
        counts = agreement_counts(units[i], again[i])
        counts["bits_per_second"] = bits[i]
        rows.append(row | compared[i] | {"counts": counts})
    found = {"": (made, rows)}
    if codec.mods.vocoder.duration_predictor is not None:
        timed = speak(codec, units, voices, keep_durations=False)
        timed_rows = [
            row | {"counts": {"bits_per_second": bits[i]}}
            for i, row in enumerate(judge.hear(timed))
        ]
        found[PREDICTED] = timed, timed_rows
    return found


def predict(hparams, codecs, voices, judge, items, predictions):
    """Resynthesize what is not there yet, and judge it."""
    folder = Path(hparams["output_folder"]) / "wavs"
    shown = set(spread(items, hparams["sample_count"]))
    for names in predictions.batches(hparams["batch_size"]):
        wavs = [read_audio(items[name]["wav"]) for name in names]
        contours = find_contours(judge.f0, wavs)
        systems = {"original": (wavs, judge.hear(wavs, contours))}
        for variant, codec in codecs.items():
            speakers = [voices[variant][name] for name in names]
            made = resynthesize(codec, speakers, judge, wavs, contours)
            systems |= {variant + way: both for way, both in made.items()}
        write_recordings(names, systems, shown, folder)
        predictions.add(
            {
                "id": name,
                **{k: items[name].get(k) for k in ("speaker", "text", "style")},
                "systems": {s: rows[i] for s, (_, rows) in systems.items()},
            }
            for i, name in enumerate(names)
        )


def recording_path(folder, utterance, system):
    return folder / f"{utterance}_{system.replace(' ', '_')}.wav"


def write_recordings(names, systems, shown, folder):
    """Write the recordings of a batch that people are to hear."""
    for i, name in enumerate(names):
        if name not in shown:
            continue
        folder.mkdir(exist_ok=True)
        for system, (wavs, _) in systems.items():
            path = recording_path(folder, name, system)
            soundfile.write(path, wavs[i].numpy(), SAMPLE_RATE)


def sum_up(rows):
    """Return the figures of each system."""
    utterances = list(rows.values())
    texts, styles = ([u[key] for u in utterances] for key in ("text", "style"))
    return {
        system: resynthesis_figures(
            [u["systems"][system] for u in utterances], texts, styles
        )
        for system in utterances[0]["systems"]
    }


def report(hparams, rows, f0):
    """Sum up, and write it down."""
    folder = Path(hparams["output_folder"])
    summary = sum_up(rows)
    shown = spread(rows, hparams["sample_count"])
    draw_contours(f0, summary, shown, folder)
    words = "No recognizer was named: nothing is known of the words."
    if hparams["recognizer"]:
        words = transcripts_table(rows, shown)
    write_report(
        folder,
        summary,
        f"# Resynthesis of {hparams['split']}",
        figures_table(summary),
        words,
        "![F0](f0.png)",
    )


def figures_table(summary):
    """Return the figures that there are as Markdown."""
    columns = [c for c in COLUMNS if any(c in f for f in summary.values())]
    rows = [
        [system]
        + [
            f"{figures[c]:.{COLUMNS[c][1]}f}" if c in figures else None
            for c in columns
        ]
        for system, figures in summary.items()
    ]
    titles = [COLUMNS[c][0] for c in columns]
    return markdown_table(["resynthesis", *titles], rows)


def transcripts_table(rows, shown):
    """Return what is heard of some utterances as Markdown."""
    systems = list(rows[shown[0]]["systems"])
    lines = []
    for name in shown:
        found = rows[name]["systems"]
        heard = [found[system]["transcript"] for system in systems]
        lines.append([name, rows[name]["text"], *heard])
    return markdown_table(["utterance", "text", *systems], lines)


def draw_contours(f0, systems, shown, folder):
    """Draw the F0 of originals and of resyntheses with their durations."""
    size = (12, 2.2 * len(shown))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(shown), squeeze=False)[:, 0]
    for axis, utterance in zip(axes, shown):
        for system in systems:
            path = recording_path(folder / "wavs", utterance, system)
            if system.endswith(PREDICTED) or not path.exists():
                continue
            [(hertz, voiced)] = find_contours(f0, [read_audio(path)])
            seconds = torch.arange(len(hertz)) * F0_HOP / SAMPLE_RATE
            shape = hertz.masked_fill(voiced == 0, torch.nan)
            axis.plot(seconds, shape, label=system)
        axis.set(title=utterance, ylabel="Hz")
    axes[0].legend()
    axes[-1].set_xlabel("seconds")
    figure.savefig(folder / "f0.png", dpi=120)


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    items = load_items(hparams, ["text"] if hparams["recognizer"] else [])
    style_items = load_style_items(hparams, items)
    codecs = load_codecs(hparams, run_opts)
    voices = {v: find_voices(hparams, c, items) for v, c in codecs.items()}
    settings = settings_of(
        hparams, run_opts, next(iter(codecs.values())), items, style_items
    )
    settings["weights"] = {
        variant: {
            name: digest_weights(codec.mods[name])
            for name in codec.MODULES_NEEDED
        }
        for variant, codec in codecs.items()
    }
    predictions = Predictions(hparams["output_folder"], settings, items)
    f0 = FCPE().to(run_opts["device"] or infer_device()).eval()
    if predictions.missing(hparams["batch_size"]):
        judge = load_judge(hparams, f0, style_items)
        predict(hparams, codecs, voices, judge, items, predictions)
    rows = predictions.gather()
    if rows is not None:
        report(hparams, rows, f0)


if __name__ == "__main__":
    run(main)
