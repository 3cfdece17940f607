"""Report what is heard of speech units: the paper's Table 9.

python evaluate.py hparams/evaluate.yaml --manifest_folder FOLDER \
    --phonetic PART --pitch PART --style PART \
    --base PART --expressive PART --recognizer MODEL

Resynthesizes a test set from its units with each vocoder and compares the
sound with the original: intelligibility to an independent recognizer, style to
a classifier of original recordings, F0, spectrum and units. Writes summary.json,
table.md, predictions.jsonl, f0.png and some recordings (wavs/).
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure
from speechbrain.utils.distributed import infer_device
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from spiritlm_plugin.core import load_recipe, run
from spiritlm_plugin.dataio.audio import read_audio
from spiritlm_plugin.dataio.batching import length_batches, spread
from spiritlm_plugin.dataio.corpus import STREAMS
from spiritlm_plugin.dataio.manifests import load_manifest
from spiritlm_plugin.dataio.units import SAMPLE_RATE
from spiritlm_plugin.integrations.parts import load_part, load_tokenizer
from spiritlm_plugin.lobes.pitch import F0_HOP
from spiritlm_plugin.metrics.pitch import PitchErrorStats
from spiritlm_plugin.metrics.recognition import WordErrorStats, load_recognizer
from spiritlm_plugin.metrics.resynthesis import bit_rate, unit_agreement
from spiritlm_plugin.metrics.style import StyleClassifier

BATCH_SAMPLES = 60 * SAMPLE_RATE
COLUMNS = {
    "bits_per_second": "bits/s",
    "WER": "WER",
    "style_accuracy": "style accuracy",
    "f0_frame_error": "F0 frame error",
    "mel_distance": "mel distance",
    "unit_edit_distance": "unit edit distance",
}


@dataclass
class System:
    """What one way of making the recordings gave, and its figures."""

    wavs: list[torch.Tensor]
    on_time: bool = True  # has the original's durations
    figures: dict[str, float] = field(default_factory=dict)
    predictions: dict[str, list] = field(default_factory=dict)
    contours: list[tuple] = field(default_factory=list)


class Evaluation:
    """The test set, the tokenizer and the judges."""

    def __init__(self, hparams, device):
        self.hparams = hparams
        self.device = device
        folder = Path(hparams["manifest_folder"])
        needs = ["text"] if hparams["recognizer"] else []
        self.items = some(
            load_manifest(folder / f"{hparams['split']}.json", needs),
            hparams["utterances"],
        )
        folders = {name: hparams[name] for name in STREAMS if hparams[name]}
        self.tokenizer = load_tokenizer(**folders).to(device)
        self.f0 = hparams["f0"].to(device).eval()
        self.wavs = [read_audio(i["wav"]) for i in self.items.values()]
        self.units = self.tokenizer(self.wavs)
        self.contours = find_contours(self.f0, self.wavs, device)
        self.style = self.train_style_classifier(folder)
        self.recognize = None
        if hparams["recognizer"]:
            self.recognize = load_recognizer(hparams["recognizer"], str(device))

    def train_style_classifier(self, folder):
        """Learn styles from original recordings of the training set."""
        styles = {item.get("style") for item in self.items.values()}
        if len(styles) < 2:
            return None
        items = load_manifest(folder / "train.json", ["style"])
        items = some(items, self.hparams["style_utterances"]).values()
        wavs = [read_audio(item["wav"]) for item in items]
        contours = find_contours(self.f0, wavs, self.device)
        labels = [item["style"] for item in items]
        return StyleClassifier().fit(wavs, contours, labels)

    def resynthesize(self, kind, durations_given):
        """Return the recordings that a vocoder makes of the units."""
        vocoder = load_part("vocoder", self.hparams[kind]).to(self.device)
        vocoder.prepare_for_inference()
        units = self.units
        if not vocoder.expressive:
            units = [item.base() for item in units]
        if not durations_given:
            units = [item.deduplicate() for item in units]
        voice = self.hparams["speaker"]
        speakers = [
            vocoder.speaker_id(voice or item.get("speaker"))
            for item in self.items.values()
        ]
        wavs = vocoder.synthesize(units, speakers)
        system = System(wavs, durations_given)
        sizes = {
            name: vocoder.embeddings[name].num_embeddings
            for name in STREAMS
            if name in vocoder.embeddings
        }
        rates = bit_rate(self.units, sizes)
        system.figures["bits_per_second"] = rates["total"]
        return system

    def judge(self, system):
        """Add the figures of a system."""
        names = list(self.items)
        if self.recognize is not None:
            errors = WordErrorStats()
            found = self.recognize(system.wavs)
            texts = [item["text"] for item in self.items.values()]
            errors.append(names, found, texts)
            system.figures["WER"] = errors.summarize("WER")
            system.predictions["transcript"] = found
        if not system.on_time:
            return
        system.contours = find_contours(self.f0, system.wavs, self.device)
        if self.style is not None:
            found = self.style.predict(system.wavs, system.contours)
            styles = [item["style"] for item in self.items.values()]
            hits = [one == other for one, other in zip(found, styles)]
            system.figures["style_accuracy"] = 100 * float(np.mean(hits))
            system.predictions["style"] = found
        if system.wavs is not self.wavs:
            self.compare(system)

    def compare(self, system):
        """Add how far a resynthesis is from the originals."""
        errors = PitchErrorStats()
        for name, made, true in zip(self.items, system.contours, self.contours):
            frames = min(len(made[0]), len(true[0]))
            cut = [x[None, :frames] for x in (*made, *true)]
            errors.append([name], *cut, torch.tensor([frames]))
        system.figures |= errors.summarize()
        distances = [
            float(self.hparams["mel_distance"](made, true[: len(made)]))
            for made, true in zip(system.wavs, self.wavs)
        ]
        system.figures["mel_distance"] = float(np.mean(distances))
        again = self.tokenizer(system.wavs)
        system.figures |= unit_agreement(self.units, again)


def some(items, count):
    """Return so many of the utterances, evenly spread; all if None."""
    return {name: items[name] for name in spread(items, count or None)}


def find_contours(f0, wavs, device):
    """Return F0 and voicing of each recording."""
    contours = [None] * len(wavs)
    batches = length_batches([len(wav) for wav in wavs], BATCH_SAMPLES)
    for batch in tqdm(batches, desc="F0", leave=False):
        padded = pad_sequence([wavs[i] for i in batch], True).to(device)
        samples = torch.tensor([len(wavs[i]) for i in batch], device=device)
        hertz, voiced, frames = f0(padded, samples)
        for row, i in enumerate(batch):
            n = int(frames[row])
            contours[i] = hertz[row, :n].cpu(), voiced[row, :n].cpu()
    return contours


def write_report(evaluation, systems, folder):
    """Write figures, predictions, a table, recordings and contours."""
    summary = {name: system.figures for name, system in systems.items()}
    text = json.dumps(summary, indent=2)
    (folder / "summary.json").write_text(text, encoding="utf-8")
    table = make_table(summary)
    (folder / "table.md").write_text(table, encoding="utf-8")
    print(table)
    with open(folder / "predictions.jsonl", "w", encoding="utf-8") as file:
        for i, (utterance, item) in enumerate(evaluation.items.items()):
            for name, system in systems.items():
                row = {"id": utterance, "system": name}
                row |= {k: item.get(k) for k in ("speaker", "text", "style")}
                for key, values in system.predictions.items():
                    row[f"heard_{key}"] = values[i]
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    count = evaluation.hparams["sample_count"]
    shown = list(some(evaluation.items, count))
    write_recordings(evaluation, systems, shown, folder / "wavs")
    draw_contours(evaluation, systems, shown, folder / "f0.png")


def make_table(summary):
    """Return the report as Markdown."""
    columns = [c for c in COLUMNS if any(c in f for f in summary.values())]
    lines = [["resynthesis", *(COLUMNS[c] for c in columns)]]
    lines.append(["---"] * len(lines[0]))
    for name, figures in summary.items():
        digits = {"bits_per_second": 0, "WER": 1, "style_accuracy": 1}
        lines.append(
            [name]
            + [
                f"{figures[c]:.{digits.get(c, 2)}f}" if c in figures else ""
                for c in columns
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write_recordings(evaluation, systems, shown, folder):
    folder.mkdir(exist_ok=True)
    names = list(evaluation.items)
    for utterance in shown:
        for name, system in systems.items():
            path = folder / f"{utterance}_{name.replace(' ', '_')}.wav"
            wav = system.wavs[names.index(utterance)]
            soundfile.write(path, wav.numpy(), SAMPLE_RATE)


def draw_contours(evaluation, systems, shown, path):
    """Draw the F0 of originals and of their resyntheses."""
    names = list(evaluation.items)
    figure = Figure(figsize=(12, 2.2 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), squeeze=False)[:, 0]
    for axis, utterance in zip(axes, shown):
        for name, system in systems.items():
            if not system.contours:
                continue
            hertz, voiced = system.contours[names.index(utterance)]
            seconds = torch.arange(len(hertz)) * F0_HOP / SAMPLE_RATE
            shape = hertz.masked_fill(voiced == 0, torch.nan)
            axis.plot(seconds, shape, label=name)
        axis.set(title=utterance, ylabel="Hz")
    axes[0].legend()
    axes[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=120)


@torch.inference_mode()
def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    evaluation = Evaluation(hparams, run_opts["device"] or infer_device())
    systems = {"original": System(evaluation.wavs)}
    for kind in ("base", "expressive"):
        if hparams[kind]:
            systems[kind] = evaluation.resynthesize(kind, True)
            name = f"{kind}, durations predicted"
            systems[name] = evaluation.resynthesize(kind, False)
    for system in tqdm(systems.values(), desc="judging"):
        evaluation.judge(system)
    if evaluation.recognize is None:
        print("no recognizer was named: the report has no word errors")
    write_report(evaluation, systems, Path(hparams["output_folder"]))


if __name__ == "__main__":
    run(main)
