"""Few-shot speech synthesis: how well a model reads texts aloud."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from matplotlib.figure import Figure
from speechbrain.utils.distributed import infer_device
from torch import Tensor

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.audio.writing import write_wav
from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.units.prompts import STOP_WORD
from spiritlm_plugin.dataio.units.units import SAMPLE_RATE
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
from spiritlm_plugin.evaluation.judges import (
    QualitySettings,
    load_quality,
    quality_table,
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
    markdown_table,
    percent,
    rates_table,
    settings_section,
    write_report,
)
from spiritlm_plugin.evaluation.resynthesis import load_judge, load_style_items
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.inference.few_shot import Answer, Reader
from spiritlm_plugin.inference.protocols import InterleavedModel
from spiritlm_plugin.lobes.pitch import FCPE
from spiritlm_plugin.metrics.intervals import ratio_interval
from spiritlm_plugin.metrics.recognition import (
    Recognizer,
    WordErrorStats,
    error_figures,
    load_recognizer,
    normalizers_of,
    transcript_errors,
)
from spiritlm_plugin.metrics.resynthesis import ResynthesisJudge, find_contours
from spiritlm_plugin.metrics.speech_quality import quality_figures
from spiritlm_plugin.utils.files import safe_file_name

T = TypeVar("T")
# How the names of rates end.
_RATES = ("CER", "WER", "WER_whisper")


class TTSSettings(FewShotSettings, QualitySettings):
    """What the evaluation of speech synthesis reads."""

    speaker: int | str | None
    style: int | str | None
    style_utterances: int
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
    path = Path(hparams["manifest_folder"]) / hparams["shot_split"]
    for item in load_manifest(path).values():
        for word, start, end in item.get("words") or ():
            if word == STOP_WORD:
                return {"wav": item["wav"], "start": start, "end": end}
    raise ValueError(
        f'no utterance of {path} has the word "{STOP_WORD}" with its times: '
        "name a recording of the word with --stop_speech"
    )


@torch.inference_mode()
def evaluate(
    hparams: TTSSettings, run_opts: Any, lm: SpiritLM | None = None
) -> None:
    """Read texts aloud behind shots, listen, and report.

    Arguments
    ---------
    hparams : TTSSettings
        The recipe's.
    run_opts : RunOptions
        As of `load_recipe`.
    lm : SpiritLM, optional
        The model; loaded as ``hparams`` says by default.

    Raises
    ------
    ValueError, FileNotFoundError, ManifestError
        As of `load_items`, `load_draws`, `find_stop` and `load_model`, or if
        the model has no such speaker.
    """
    items = load_items(hparams, ["text"])
    draws = load_draws(hparams, items)
    stop = find_stop(hparams)
    lm = lm or load_model(hparams, run_opts)
    lm.speaker_id(hparams["speaker"])  # if there is none, say so now
    lm.style_units(hparams["style"])
    style_items: Items = {}
    if hparams["style_utterances"]:
        style_items = load_style_items(hparams, items)
    settings = settings_of(hparams, run_opts, lm, items, *draws, style_items)
    settings["stop"] = stop
    device = str(run_opts["device"] or infer_device())
    asked = questions_of(hparams["seed"], items, len(draws))
    make = partial(
        Reading, hparams, lm, items, draws, stop, device, style_items
    )
    rows = predict(hparams, settings, asked, make, joined=True)
    if rows is not None:
        report(hparams, rows, draws)


class Reading(FewShotTask):
    """A model that reads texts, and who listens; called with ids: rows.

    Arguments
    ---------
    hparams : TTSSettings
        The recipe's; a `recognizer` that it names is loaded.
    lm : InterleavedModel
        The model.
    items : dict
        The utterances whose texts are read, by id.
    draws : sequence of dict
        The utterances that it is shown in each draw, by id.
    stop : dict, optional
        As of `find_stop`.
    device : str
        Of who listens.
    style_items : dict
        As of `load_style_items`.
    """

    def __init__(
        self,
        hparams: TTSSettings,
        lm: InterleavedModel,
        items: Items,
        draws: Sequence[Items],
        stop: dict[str, Any] | None,
        device: str,
        style_items: Items,
    ):
        super().__init__(hparams, items, draws)
        self.hparams, self.lm = hparams, lm
        self.recognize = None
        if hparams["recognizer"]:
            self.recognize = load_recognizer(hparams["recognizer"], device)
        self.quality = load_quality(hparams, device)
        self.style_judge = None
        if style_items:
            f0 = FCPE().to(device).eval()
            self.style_judge = load_judge(None, f0, style_items)
        self.stop = None
        if stop is not None:
            units = lm.encode_file(stop["wav"])
            self.stop = units.cut(stop["start"], stop["end"])
        self.folder = Path(hparams["output_folder"]) / "wavs"
        self._kept = set(spread(items, hparams["sample_count"]))

    def show(self, shots: Items) -> Reader:
        """Return the model, shown some texts with their utterances."""
        return Reader(
            self.lm,
            [(item["wav"], item["text"]) for item in shots.values()],
            self.stop,
            candidates=self.hparams["candidates"],
            style=self.hparams["style"],
            **sampling_of(self.hparams),
        )

    def ask(
        self, model: Reader, questions: Sequence[Question]
    ) -> Iterator[tuple[Answer, dict[str, Any]]]:
        """Yield what is heard of readings, and in the first draw of originals."""
        answers = model(
            [self.items[question.item]["text"] for question in questions],
            [question.seed for question in questions],
            self.hparams["speaker"],
        )
        size = self.hparams["batch_size"]
        for begin in range(0, len(answers), size):
            some = slice(begin, begin + size)
            yield from self._heard(questions[some], answers[some])

    def _heard(
        self, questions: Sequence[Question], answers: Sequence[Answer]
    ) -> Iterator[tuple[Answer, dict[str, Any]]]:
        """Yield what is heard of a batch."""
        items = [self.items[question.item] for question in questions]
        made = [answer.generation.wav for answer in answers]
        real = [read_audio(item["wav"]) for item in items]
        heard = listen(self.recognize, made)
        sounds = self.quality(made, real)
        styles = styles_heard(self.style_judge, made)
        heard_original: list[str | None] = [None] * len(real)
        sounds_original = self.quality([None] * len(real))
        if questions[0].draw == 0:
            self._keep([q.item for q in questions], made, real)
            heard_original = listen(self.recognize, real)
            sounds_original = self.quality(real)
        for i, answer in enumerate(answers):
            yield (
                answer,
                {
                    "text": items[i]["text"],
                    "seconds": seconds(made[i]),
                    "original_seconds": seconds(real[i]),
                    "heard": heard[i],
                    "heard_original": heard_original[i],
                    "style_heard": styles[i],
                    **sounds[i],
                    "original_mos": sounds_original[i]["mos"],
                },
            )

    def _keep(
        self,
        names: list[str],
        made: Sequence[Tensor | None],
        real: Sequence[Tensor],
    ) -> None:
        """Write the recordings of a batch that people are to hear."""
        for name, one, other in zip(names, made, real):
            if name not in self._kept:
                continue
            self.folder.mkdir(exist_ok=True)
            for label, wav in (("read", one), ("original", other)):
                if wav is not None and len(wav):
                    path = self.folder / f"{safe_file_name(name)}_{label}.wav"
                    write_wav(path, wav)


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
    return _of_spoken(recognize, wavs, "")


def styles_heard(
    judge: ResynthesisJudge | None, wavs: Sequence[Tensor | None]
) -> list[str | None]:
    """Return the style that is heard of each: none of silence, nor by nobody.

    Example
    -------
    >>> styles_heard(None, [torch.zeros(9)])
    [None]
    """
    if judge is None:
        return [None] * len(wavs)

    def hear(spoken: Sequence[Tensor]) -> list[str | None]:
        contours = find_contours(judge.f0, spoken)
        return [found["style"] for found in judge.hear(spoken, contours)]

    return _of_spoken(hear, wavs, None)


def _of_spoken(
    hear: Callable[[list[Tensor]], Iterable[T]],
    wavs: Sequence[Tensor | None],
    silent: T,
) -> list[T]:
    """Return what is heard of each recording, and something else of silence."""
    spoken = [wav for wav in wavs if wav is not None and len(wav)]
    found = iter(hear(spoken) if spoken else ())
    return [next(found) if seconds(wav) else silent for wav in wavs]


def styles_of(rows: Rows) -> dict[str, Any]:
    """Return how many percent of readings are heard in each style.

    Arguments
    ---------
    rows : dict
        Of `Reading`, by id.

    Example
    -------
    >>> heard = {"a": "sad", "b": "sad", "c": "glad", "d": None}
    >>> rows = {
    ...     name: {"utterance": name, "speaker": None, "style_heard": style}
    ...     for name, style in heard.items()
    ... }
    >>> [f"{k}: {v}" for k, v in styles_of(rows).items() if "_inter" not in k]
    ['heard_glad: 25.0', 'heard_sad: 50.0']
    """
    heard = [row["style_heard"] for row in rows.values()]
    figures: dict[str, Any] = {}
    for style in sorted(set(heard) - {None}):
        hits = [100.0 * (other == style) for other in heard]
        figures[f"heard_{style}"] = sum(hits) / len(hits)
        figures[f"heard_{style}_interval"] = ratio_interval(
            hits, groups=[*groups_of(rows).values()]
        )
    return figures


def style_table(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures of `styles_of` as Markdown, if there are any."""
    if figures:
        names = [name for name in figures if not name.endswith("_interval")]
        yield rates_table(figures, names)
        yield (
            "`heard_`: how many readings a classifier of F0, loudness and "
            "pauses hears in each style; it has learned from recordings."
        )


def errors_of(rows: Rows, key: str) -> dict[str, WordErrorStats]:
    """Return the errors of words and characters, in the forms of the field.

    Arguments
    ---------
    rows : dict
        With ``text`` and what was heard.
    key : str
        Of what was heard.

    Example
    -------
    >>> rows = {"a": {"text": "old cats", "heard": "old bats"}}
    >>> errors_of(rows, "heard")["CER"].rate()
    12.5
    """
    heard = [row[key] for row in rows.values()]
    texts = [row["text"] for row in rows.values()]
    return transcript_errors(list(rows), heard, texts, characters=True)


def figures_of(
    hparams: TTSSettings, rows: Rows, draws: Sequence[Items]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the figures of what was heard, and what they are counted on.

    Arguments
    ---------
    hparams : TTSSettings
        The recipe's; ``output_folder`` gets ``wer.txt``.
    rows : dict
        Of `Reading`, by id, with a recognizer.
    draws : sequence of dict
        What the model was to be shown.
    """
    first, *_ = by_draw = rows_by_draw(rows)
    errors, originals = (
        errors_of(rows, "heard"),
        errors_of(first, "heard_original"),
    )
    path = Path(hparams["output_folder"]) / "wer.txt"
    with open(path, "w", encoding="utf-8") as file:
        errors["WER"].write_stats(file)
    rates = [
        {name: stats.rate(some) for name, stats in errors.items()}
        for some in by_draw
    ]
    figures = error_figures(errors, groups_of(rows))
    original = error_figures(originals, groups_of(first))
    figures |= {f"original_{name}": value for name, value in original.items()}
    return figures | over_draws(draws, rates), normalizers_of(errors)


def qualities_of(rows: Rows) -> dict[str, dict[str, Any]]:
    """Return how readings and originals sound, as of `quality_figures`.

    Arguments
    ---------
    rows : dict
        Of `Reading`, by id.

    Example
    -------
    >>> row = {"utterance": "a", "speaker": None, "draw": 1, "mos": 3.0,
    ...        "speaker_similarity": None, "original_mos": 4.0}
    >>> qualities_of({"a": row})["original"]
    {'mos': 4.0, 'mos_interval': None}
    """
    first = rows_by_draw(rows)[0]
    originals = [{"mos": row["original_mos"]} for row in first.values()]
    return {
        "read": quality_figures(rows.values(), groups_of(rows).values()),
        "original": quality_figures(originals, groups_of(first).values()),
    }


def report(hparams: TTSSettings, rows: Rows, draws: Sequence[Items]) -> None:
    """Sum up, and write it down.

    Arguments
    ---------
    hparams : TTSSettings
        The recipe's.
    rows : dict
        Of `Reading`, by id.
    draws : sequence of dict
        What the model was to be shown.
    """
    folder = Path(hparams["output_folder"])
    answers, first = rows.values(), rows_by_draw(rows)[0]
    original = sum(row["original_seconds"] for row in answers)
    counts = {"utterances": len(first), "shots": len(draws[0])}
    answered = {
        "duration_ratio": sum(row["seconds"] for row in answers) / original,
        "not_stopped": percent(not row["complete"] for row in answers),
        "empty": percent(not row["seconds"] for row in answers),
        **dropped_of(answers, len(draws[0])),
    }
    figures = over_draws(draws, [{} for _ in draws])
    normalizers: dict[str, str] = {}
    words = ["No recognizer was named: nothing is known of the words."]
    if hparams["recognizer"]:
        figures, normalizers = figures_of(hparams, rows, draws)
        names = [n for n in figures if n.endswith(_RATES)]
        words = [
            rates_table(figures, names),
            f"{ERRORS} {RATES} `original`: of the recordings themselves.",
        ]
    answered |= {k: v for k, v in figures.items() if k.startswith("empty_")}
    styles = styles_of(rows)
    qualities = qualities_of(rows)
    original_quality = qualities["original"].items()
    summary = {
        "model": model_name(hparams),
        "split": hparams["split"],
        **counts,
        **answered,
        **figures,
        **styles,
        **qualities["read"],
        **{f"original_{name}": value for name, value in original_quality},
        "settings": settings_shown(
            hparams, **counts, draws=len(draws), **normalizers
        ),
    }
    draw_durations(rows, folder / "durations.png")
    write_report(
        folder,
        summary,
        f"# Readings of {hparams['split']}",
        *words,
        *quality_table(qualities),
        *style_table(styles),
        markdown_table(
            ["", ""],
            [
                [k, f"{v:.2f}" if k == "duration_ratio" else v]
                for k, v in answered.items()
            ],
        ),
        "`duration_ratio`: seconds read over seconds of the original audio. "
        "`not_stopped`, `empty`: percent of the readings. `shots_dropped`: "
        "shots that prompts had no room for. `too_long`: texts that no prompt "
        "had room for; they count as empty.",
        "![durations](durations.png)",
        heard_table([first[n] for n in spread(first, hparams["sample_count"])]),
        settings_section(summary["settings"]),
    )


def heard_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return what was heard of some readings as Markdown."""
    keys = ("utterance", "text", "heard", "heard_original")
    return markdown_table(
        ["utterance", "text", "heard", "heard of the original"],
        [[row[key] for key in keys] for row in rows],
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
