"""Few-shot speech synthesis: how well a model reads texts aloud."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import soundfile
from matplotlib.figure import Figure
from torch import Tensor

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.units.prompts import STOP_WORD
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
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
from spiritlm_plugin.inference.few_shot import Reader
from spiritlm_plugin.inference.protocols import InterleavedModel
from spiritlm_plugin.metrics.recognition import (
    Recognizer,
    WordErrorStats,
    load_recognizer,
)


class TTSSettings(FewShotSettings):
    """What the evaluation of speech synthesis reads."""

    speaker: int | str | None
    trained_tts: bool
    stop_speech: str | None
    candidates: int
    recognizer: str | None
    sample_count: int


def find_stop(hparams: TTSSettings) -> dict[str, Any] | None:
    """Return a recording with the word "stop", and where it is.

    Raises
    ------
    ValueError
        If no utterance of ``shot_split`` has the word with its times.
    """
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


class Reading:
    """A model that reads texts, and who listens; called with ids: rows.

    Arguments
    ---------
    hparams : TTSSettings
        The recipe's; a `recognizer` that it names is loaded.
    lm : InterleavedModel
        The model.
    items : dict
        The utterances whose texts are read, by id.
    shots : dict
        The utterances that it is shown, by id.
    stop : dict, optional
        As of `find_stop`.
    device : str
        Of the recognizer.
    """

    def __init__(
        self,
        hparams: TTSSettings,
        lm: InterleavedModel,
        items: Items,
        shots: Items,
        stop: dict[str, Any] | None,
        device: str,
    ):
        self.hparams, self.items, self.shots = hparams, items, shots
        self.recognize = None
        if hparams["recognizer"]:
            self.recognize = load_recognizer(hparams["recognizer"], device)
        said = None
        if stop is not None:
            said = lm.encode_file(stop["wav"]).cut(stop["start"], stop["end"])
        self.read = Reader(
            lm,
            [(item["wav"], item["text"]) for item in shots.values()],
            said,
            candidates=hparams["candidates"],
            **sampling_of(hparams),
        )
        self.folder = Path(hparams["output_folder"]) / "wavs"
        self._shown = set(spread(items, hparams["sample_count"]))

    def __call__(self, names: list[str]) -> Iterator[dict[str, Any]]:
        """Yield what is heard of some readings, and of the originals."""
        seeds = item_seeds(self.hparams["seed"], names)
        texts = [self.items[name]["text"] for name in names]
        answers = self.read(texts, seeds, self.hparams["speaker"])
        made = [answer.generation.wav for answer in answers]
        real = [read_audio(self.items[name]["wav"]) for name in names]
        self._keep(names, made, real)
        heard = listen(self.recognize, made)
        heard_original = listen(self.recognize, real)
        for i, (name, seed, answer) in enumerate(zip(names, seeds, answers)):
            yield answer_row(name, seed, self.shots, answer) | {
                "text": texts[i],
                "seconds": seconds(made[i]),
                "original_seconds": seconds(real[i]),
                "heard": heard[i],
                "heard_original": heard_original[i],
            }

    def _keep(
        self,
        names: list[str],
        made: Sequence[Tensor | None],
        real: Sequence[Tensor],
    ) -> None:
        """Write the recordings of a batch that people are to hear."""
        for name, one, other in zip(names, made, real):
            if name not in self._shown:
                continue
            self.folder.mkdir(exist_ok=True)
            for label, wav in (("read", one), ("original", other)):
                if wav is not None and len(wav):
                    path = self.folder / f"{name}_{label}.wav"
                    soundfile.write(path, wav.cpu().numpy(), SAMPLE_RATE)


def seconds(wav: Tensor | None) -> float:
    """Return how long a recording is, 0 of none."""
    return 0.0 if wav is None else len(wav) / SAMPLE_RATE


def listen(
    recognize: Recognizer | None, wavs: Sequence[Tensor | None]
) -> list[str | None]:
    """Return transcripts: of silence an empty one, without recognizer none.

    Example
    -------
    >>> listen(lambda wavs: ["boats"] * len(wavs), [None, torch.zeros(9)])
    ['', 'boats']
    """
    if recognize is None:
        return [None] * len(wavs)
    spoken = [wav for wav in wavs if wav is not None and len(wav)]
    found = iter(recognize(spoken) if spoken else ())
    return [next(found) if seconds(wav) else "" for wav in wavs]


def error_rates(
    rows: Rows, key: str
) -> tuple[WordErrorStats, dict[str, float]]:
    """Return the word errors, and the rates of characters and words.

    Arguments
    ---------
    rows : dict
        With ``text`` and what was heard.
    key : str
        Of what was heard.

    Example
    -------
    >>> rows = {"a": {"text": "old cats", "heard": "old bats"}}
    >>> error_rates(rows, "heard")[1]
    {'CER': 12.5, 'WER': 50.0}
    """
    heard = [row[key] for row in rows.values()]
    texts = [row["text"] for row in rows.values()]
    words, characters = WordErrorStats(), WordErrorStats(split_tokens=True)
    for stats in (words, characters):
        stats.append(list(rows), heard, texts)
    rates = {"CER": characters.summarize("WER"), "WER": words.summarize("WER")}
    return words, rates


def report(hparams: TTSSettings, rows: Rows, shots: Items) -> None:
    """Sum up, and write it down.

    Arguments
    ---------
    hparams : TTSSettings
        The recipe's.
    rows : dict
        Of `Reading`, by id.
    shots : dict
        What the model was to be shown.
    """
    folder = Path(hparams["output_folder"])
    answers = rows.values()
    original = sum(row["original_seconds"] for row in answers)
    summary: dict[str, Any] = {
        "model": model_name(hparams),
        "split": hparams["split"],
        "utterances": len(rows),
        "shots": len(shots),
        "duration_ratio": sum(row["seconds"] for row in answers) / original,
        "not_stopped": percent(not row["complete"] for row in answers),
        "empty": percent(not row["seconds"] for row in answers),
        **dropped_of(answers, len(shots)),
    }
    words = "No recognizer was named: nothing is known of the words."
    if hparams["recognizer"]:
        table = []
        for key, prefix in (("heard_original", "original_"), ("heard", "")):
            errors, rates = error_rates(rows, key)
            summary |= {f"{prefix}{n}": rate for n, rate in rates.items()}
            table.append([prefix.strip("_") or "read", *rates.values()])
        with open(folder / "wer.txt", "w", encoding="utf-8") as file:
            errors.write_stats(file)
        words = markdown_table(["audio", "CER", "WER"], table)
    draw_durations(rows, folder / "durations.png")
    shown = spread(rows, hparams["sample_count"])
    write_report(
        folder,
        summary,
        f"# Readings of {hparams['split']}",
        words,
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


def draw_durations(rows: Rows, path: Path) -> None:
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
