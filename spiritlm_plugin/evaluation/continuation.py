"""Continuations: what a model makes of the first seconds of an utterance.

The model goes on in speech and in text, from speech and from text; language
models, predicted opinions, a speaker encoder and a classifier of toxicity judge
what it says. Beside it stand the utterances themselves, behind the same seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from matplotlib.figure import Figure
from speechbrain.utils.distributed import infer_device
from torch import Tensor

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.audio.writing import write_wav
from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.corpus.stsp import DIRECTIONS
from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text
from spiritlm_plugin.dataio.units.units import MIN_SAMPLES, SAMPLE_RATE
from spiritlm_plugin.evaluation.judges import (
    QUALITY_COLUMNS,
    Judges,
    JudgeSettings,
    figures_of,
)
from spiritlm_plugin.evaluation.loop import (
    Items,
    ModelSettings,
    UtteranceSettings,
    item_seeds,
    load_model,
    model_name,
    predict,
    settings_of,
    settings_shown,
)
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.reports import (
    markdown_table,
    settings_section,
    with_interval,
    write_report,
)
from spiritlm_plugin.evaluation.tts import listen
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.inference.continuation import Continuer
from spiritlm_plugin.inference.protocols import InterleavedModel
from spiritlm_plugin.utils.files import safe_file_name

# The utterances themselves, as a direction.
ORIGINAL = "original"
# The title of each figure in the report, and its digits.
_COLUMNS = {
    "GenPPL": ("GenPPL", 1),
    "GenPPL_prompted": ("behind prompt", 1),
    "auto_bleu": ("auto-BLEU", 3),
    "self_bleu": ("self-BLEU", 3),
    "vert": ("VERT", 3),
    **QUALITY_COLUMNS,
    "added_toxicity": ("added toxicity", 1),
    "toxicity": ("toxicity", 1),
    "prompt_toxicity": ("of prompts", 1),
}
_DRAWN = ("GenPPL", "auto_bleu", "mos", "added_toxicity")
# What decides about the figures beside what all evaluations name.
_DECISIVE = (
    "prompt_seconds",
    "shortest",
    "judge",
    "mos",
    "speaker_encoder",
    "toxicity_classifier",
    "toxic_labels",
    "toxicity_threshold",
)


class ContinuationSettings(ModelSettings, UtteranceSettings, JudgeSettings):
    """What the evaluation of continuations reads."""

    directions: list[Literal["t2t", "t2s", "s2s", "s2t"]]
    prompt_seconds: float
    shortest: float
    context: int | None
    max_new_tokens: dict[str, int]
    temperature: float
    top_p: float
    speaker: int | str | None
    sample_count: int


class Question(NamedTuple):
    """What is continued in which direction, or `ORIGINAL`."""

    direction: str
    utterance: str


@torch.inference_mode()
def evaluate(
    hparams: ContinuationSettings, run_opts: Any, lm: SpiritLM | None = None
) -> None:
    """Continue utterances, have it judged, and report.

    Arguments
    ---------
    hparams : ContinuationSettings
        The recipe's.
    run_opts : RunOptions
        As of `load_recipe`.
    lm : SpiritLM, optional
        The model; loaded as ``hparams`` says by default.

    Raises
    ------
    ValueError, FileNotFoundError, ManifestError
        As of `load_utterances` and `load_model`, or if the model has no such
        speaker.
    """
    items = load_utterances(hparams)
    lm = lm or load_model(hparams, run_opts)
    lm.speaker_id(hparams["speaker"])  # if there is none, say so now
    settings = settings_of(hparams, run_opts, lm, items)
    device = str(run_opts["device"] or infer_device())
    make = partial(Continuation, hparams, lm, items, device)
    rows = predict(hparams, settings, questions_of(hparams, items), make)
    if rows is not None:
        report(hparams, rows)


def load_utterances(hparams: ContinuationSettings) -> Items:
    """Return the utterances that are long enough, so many as asked for.

    Raises
    ------
    FileNotFoundError, ManifestError
        As of `load_manifest`.
    ValueError
        If none is long enough, or the settings are at odds.
    """
    _check(hparams)
    path = Path(hparams["manifest_folder"]) / hparams["split"]
    items = load_manifest(path, ["text"])
    long = {
        name: item
        for name, item in items.items()
        if item["duration"] >= hparams["shortest"]
    }
    if not long:
        raise ValueError(
            f"no utterance of {path} has {hparams['shortest']:g} s, the "
            f"longest has {max(i['duration'] for i in items.values()):g} s; "
            "lower --shortest and --prompt_seconds"
        )
    return {name: long[name] for name in spread(long, hparams["utterances"])}


def _check(hparams: ContinuationSettings) -> None:
    directions, limits = hparams["directions"], hparams["max_new_tokens"]
    missing = [name for name in directions if name not in limits]
    if missing or not directions:
        raise ValueError(
            f"max_new_tokens names no limit of {', '.join(missing)}"
            if missing
            else f"directions are some of {', '.join(DIRECTIONS)}, got none"
        )
    heard = hparams["prompt_seconds"]
    left = hparams["shortest"] - heard
    if min(heard, left) * SAMPLE_RATE < MIN_SAMPLES:
        raise ValueError(
            f"prompt_seconds is {heard:g} and shortest "
            f"{hparams['shortest']:g}: a prompt and what is left behind it "
            "have 0.08 s at least"
        )


def questions_of(
    hparams: ContinuationSettings, items: Items
) -> dict[str, Question]:
    """Return what is asked, by id: the originals, then each direction.

    Example
    -------
    >>> list(questions_of({"directions": ["s2s"]}, {"a": {}}))
    ['original/a', 's2s/a']
    """
    return {
        f"{direction}/{name}": Question(direction, name)
        for direction in (ORIGINAL, *hparams["directions"])
        for name in items
    }


def split_text(item: Mapping[str, Any], heard: float) -> tuple[str, str]:
    """Return what is said in the first seconds of an utterance, and after.

    Words that end in time, where their times are known; otherwise as large a
    share of all words; one at least.

    Arguments
    ---------
    item : dict
        Of a manifest: ``text``, ``duration`` and perhaps ``words``.
    heard : float
        Seconds.

    Example
    -------
    >>> split_text({"text": "the old man walked", "duration": 4.0}, 2.0)
    ('the old', 'man walked')
    >>> times = [["the", 0.1, 0.3], ["old", 0.3, 0.9], ["man", 0.9, 1.1]]
    >>> split_text({"text": "the old man", "words": times}, 1.0)
    ('the old', 'man')
    """
    if item.get("words"):
        words = [word for word, _, _ in item["words"]]
        count = sum(end <= heard for _, _, end in item["words"])
    else:
        words = item["text"].split()
        count = round(len(words) * heard / item["duration"])
    count = max(count, 1)
    return " ".join(words[:count]), " ".join(words[count:])


class Continuation:
    """A model that goes on, and its judges; called with ids, it gives rows.

    Arguments
    ---------
    hparams : ContinuationSettings
        The recipe's; the judges that it names are loaded.
    lm : InterleavedModel
        The model.
    items : dict
        The utterances, by id.
    device : str
        Of the judges.
    """

    def __init__(
        self,
        hparams: ContinuationSettings,
        lm: InterleavedModel,
        items: Items,
        device: str,
    ):
        self.hparams, self.lm, self.items = hparams, lm, items
        self.judges = Judges(hparams, device)
        self.questions = questions_of(hparams, items)
        self.folder = Path(hparams["output_folder"]) / "wavs"
        self.folder.mkdir(exist_ok=True)
        self._cut = round(hparams["prompt_seconds"] * SAMPLE_RATE)
        self._shown = set(spread(items, hparams["sample_count"]))

    def __call__(self, ids: list[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of some questions."""
        for direction, group in groupby(
            ids, key=lambda name: self.questions[name].direction
        ):
            some = list(group)
            if direction == ORIGINAL:
                yield from self._original(some)
            else:
                yield from self._continue(direction, some)

    def _continue(
        self, direction: str, ids: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        """Yield what the model makes of prompts."""
        hparams, (_, prompt, output) = self.hparams, DIRECTIONS[direction]
        names = [self.questions[name].utterance for name in ids]
        seeds = item_seeds(hparams["seed"], ids)
        said = [self._said(name)[0] for name in names]
        heard = [self._heard(name)[0] for name in names]
        prompts: list[Segment] = [Text(text) for text in said]
        if prompt == "speech":
            prompts = [Speech(wav) for wav in heard]
        answers = self._continuer(direction)(prompts, seeds, hparams["speaker"])
        texts: Sequence[str | None] = [answer.text for answer in answers]
        wavs: list[Tensor | None] = [None] * len(ids)
        voices: list[Tensor | None] = [None] * len(ids)
        if output == "speech":
            # Of who says nothing, too, it is speech.
            wavs = [_spoken(answer.generation.wav) for answer in answers]
            texts = listen(self.judges.recognize, wavs)
            self._keep(direction, names, wavs)
        if prompt == output == "speech":
            voices = [*heard]
        rows = self.judges(said, texts, wavs, voices)
        for i, row in enumerate(rows):
            reason = answers[i].generation.end_reason
            yield self._row(ids[i], seeds[i], reason) | row

    def _original(self, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield how the utterances themselves go on."""
        names = [self.questions[name].utterance for name in ids]
        prompts, wavs = zip(*map(self._heard, names))
        said, texts = zip(*map(self._said, names))
        if self.judges.recognize is not None:
            texts = tuple(listen(self.judges.recognize, wavs))
        self._keep("prompt", names, prompts)
        self._keep(ORIGINAL, names, wavs)
        for name, row in zip(ids, self.judges(said, texts, wavs, prompts)):
            yield self._row(name, None, None) | row

    def _row(
        self, name: str, seed: int | None, reason: str | None
    ) -> dict[str, Any]:
        question = self.questions[name]
        return {
            "id": name,
            **question._asdict(),
            "speaker": self.items[question.utterance].get("speaker"),
            "seed": seed,
            "end_reason": reason,
        }

    def _said(self, name: str) -> tuple[str, str]:
        return split_text(self.items[name], self.hparams["prompt_seconds"])

    def _heard(self, name: str) -> tuple[Tensor, Tensor]:
        wav = read_audio(self.items[name]["wav"])
        return wav[: self._cut], wav[self._cut :]

    def _continuer(self, direction: str) -> Continuer:
        hparams = self.hparams
        return Continuer(
            self.lm,
            [],
            DIRECTIONS[direction].output,
            hparams["max_new_tokens"][direction],
            temperature=hparams["temperature"],
            context=hparams["context"],
            top_p=hparams["top_p"],
            batch_size=hparams["batch_size"],
        )

    def _keep(
        self, label: str, names: Sequence[str], wavs: Sequence[Tensor | None]
    ) -> None:
        """Write the recordings of a batch that people are to hear."""
        for name, wav in zip(names, wavs):
            if name in self._shown and wav is not None and len(wav):
                path = self.folder / f"{safe_file_name(name)}_{label}.wav"
                write_wav(path, wav)


def _spoken(wav: Tensor | None) -> Tensor:
    return Tensor() if wav is None else wav


def report(hparams: ContinuationSettings, rows: Rows) -> None:
    """Sum up, and write it down.

    Arguments
    ---------
    hparams : ContinuationSettings
        The recipe's.
    rows : dict
        Of `Continuation`, by id.
    """
    folder = Path(hparams["output_folder"])
    values: Mapping[str, Any] = hparams
    directions = (ORIGINAL, *hparams["directions"])
    by_direction = {
        direction: {
            n: r for n, r in rows.items() if r["direction"] == direction
        }
        for direction in directions
    }
    figures = {
        direction: figures_of(some, hparams["toxicity_threshold"])
        for direction, some in by_direction.items()
    }
    count = len(by_direction[ORIGINAL])
    summary: dict[str, Any] = {
        "model": model_name(hparams),
        "split": hparams["split"],
        "utterances": count,
        "settings": settings_shown(
            hparams, utterances=count, **{n: values.get(n) for n in _DECISIVE}
        ),
        "directions": figures,
    }
    draw_figures(figures, folder / "continuations.png")
    shown = spread(by_direction[ORIGINAL].values(), hparams["sample_count"])
    write_report(
        folder,
        summary,
        f"# Continuations of {hparams['split']}",
        f"From the first {hparams['prompt_seconds']:g} s of "
        f"{count} utterances, heard (S) or read (T), on in "
        "speech or in text. In brackets the 95% interval over utterances, those "
        "of a speaker drawn together where speakers are known.",
        figures_table(figures),
        "`GenPPL`: perplexity to the judge of the continuations alone, over "
        "all tokens; `behind prompt`: with the text of the prompt before them. "
        "`auto-BLEU`: of bigrams; `VERT`: with self-BLEU. `MOS`: predicted. "
        "`speaker similarity`: to the prompt's voice. `added toxicity`: percent "
        "of the continuations that are toxic while the prompt is not. `empty`, "
        "`too long`: percent that say nothing, and of prompts that the model "
        "has no room for. `original`: how the utterances go on themselves.",
        "![figures](continuations.png)",
        *(
            samples_table(by_direction, row["utterance"], row["prompt"])
            for row in shown
        ),
        settings_section(summary["settings"]),
    )


def title_of(direction: str) -> str:
    """Return what a direction is called in reports.

    Example
    -------
    >>> title_of("t2s"), title_of("original")
    ('T→S', 'original')
    """
    return DIRECTIONS[direction].name if direction != ORIGINAL else direction


def figures_table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a row for each direction, with the figures that there are.

    Example
    -------
    >>> found = {"continuations": 2, "seconds": 1.5, "empty": 0.0,
    ...          "too_long": 0.0, "mos": 3.14159, "mos_interval": [3, 4]}
    >>> print(figures_table({"s2s": found}).splitlines()[-1])
    | S→S | 3.14 (3.00 to 4.00) | 1.5 | 0.0 | 0.0 |
    """
    columns = {
        name: column
        for name, column in _COLUMNS.items()
        if any(name in found for found in figures.values())
    }
    rows = [
        [
            title_of(direction),
            *(
                with_interval(found, name, digits)
                for name, (_, digits) in columns.items()
            ),
            *(found[name] for name in ("seconds", "empty", "too_long")),
        ]
        for direction, found in figures.items()
    ]
    titles = [title for title, _ in columns.values()]
    return markdown_table(["", *titles, "seconds", "empty", "too long"], rows)


def samples_table(
    by_direction: Mapping[str, Rows], utterance: str, prompt: str
) -> str:
    """Return what is made of one prompt in each direction."""
    rows = [
        [title_of(direction), rows[f"{direction}/{utterance}"]["text"]]
        for direction, rows in by_direction.items()
    ]
    return markdown_table([utterance, prompt], rows)


def draw_figures(figures: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw the main figures by direction, with their intervals."""
    names = [n for n in _DRAWN if any(n in f for f in figures.values())]
    names = names or ["empty"]
    figure = Figure(figsize=(3.2 * len(names), 3.2), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names):
        for direction, found in figures.items():
            if found.get(name) is not None:
                low, high = found.get(f"{name}_interval") or [found[name]] * 2
                axis.plot([title_of(direction)] * 2, [low, high], color="grey")
                axis.plot([title_of(direction)], [found[name]], "o")
        axis.set(ylabel=_COLUMNS.get(name, (f"{name} (%)", 0))[0])
    figure.savefig(path, dpi=120)
