"""Resynthesis: what is heard of speech units (the paper's Table 9).

A test set is spoken from its units with each vocoder, and the sound compared
with the original: intelligibility to an independent recognizer, style to a
classifier of original recordings, F0, spectrum and units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from speechbrain.utils.distributed import if_main_process, infer_device
from torch import Tensor
from torch.nn.functional import pad
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.audio.writing import write_wav
from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.checkpoints import digest_weights
from spiritlm_plugin.dataio.corpus.shards import STREAMS
from spiritlm_plugin.dataio.units.units import (
    MIN_SAMPLES,
    SAMPLE_RATE,
    SpeechUnits,
)
from spiritlm_plugin.evaluation.judges import (
    QUALITY_COLUMNS,
    QualitySettings,
    load_quality,
)
from spiritlm_plugin.evaluation.loop import (
    CodecSettings,
    Items,
    UtteranceSettings,
    load_items,
    plain_settings,
    predict,
    settings_shown,
)
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.reports import (
    ERRORS,
    markdown_table,
    settings_section,
    with_interval,
    write_report,
)
from spiritlm_plugin.inference import SpeechCodec
from spiritlm_plugin.integrations.parts import Parts, build, read_parts
from spiritlm_plugin.integrations.release import VARIANTS, read_release
from spiritlm_plugin.lobes.pitch import F0_HOP, FCPE
from spiritlm_plugin.metrics.intervals import speaker_groups
from spiritlm_plugin.metrics.recognition import load_recognizer, normalizers_of
from spiritlm_plugin.metrics.resynthesis import (
    Contour,
    ResynthesisJudge,
    agreement_counts,
    bit_counts,
    find_contours,
    resynthesis_figures,
)
from spiritlm_plugin.metrics.speech_quality import quality_figures
from spiritlm_plugin.metrics.style import StyleClassifier
from spiritlm_plugin.utils.files import safe_file_name

_PREDICTED = ", durations predicted"
# The title of each figure in the report, and its digits.
_COLUMNS = {
    "bits_per_second": ("bits/s", 0),
    "WER": ("WER", 1),
    "WER_whisper": ("WER_whisper", 1),
    "style_accuracy": ("style accuracy", 1),
    "f0_frame_error": ("F0 frame error", 2),
    "mel_distance": ("mel distance", 2),
    "unit_edit_distance": ("unit edit distance", 2),
    **QUALITY_COLUMNS,
}


# By the name of a system its recordings, and rows of what is heard of them.
_Systems = dict[str, tuple[Sequence[Tensor], list[dict[str, Any]]]]


class ResynthesisSettings(CodecSettings, UtteranceSettings, QualitySettings):
    """What the evaluation of resynthesis reads."""

    phonetic: str | None
    pitch: str | None
    style: str | None
    base: str | None
    expressive: str | None
    speaker: int | str | None
    recognizer: str | None
    style_utterances: int
    sample_count: int


@torch.inference_mode()
def evaluate(
    hparams: ResynthesisSettings, run_opts: Any, lm: SpeechCodec | None = None
) -> None:
    """Speak a test set from its units, listen, and report.

    Arguments
    ---------
    hparams : ResynthesisSettings
        The recipe's.
    run_opts : RunOptions
        As of `load_recipe`.
    lm : SpeechCodec, optional
        Tokenizer and vocoder, such as a `SpiritLM`; those that ``hparams``
        names by default.

    Raises
    ------
    ValueError, FileNotFoundError, ManifestError
        As of `load_items` and `load_codecs`.
    """
    items = load_items(hparams, ["text"] if hparams["recognizer"] else [])
    style_items = load_style_items(hparams, items)
    codecs = {_variant_of(lm): lm} if lm else load_codecs(hparams, run_opts)
    voices = {v: find_voices(hparams, c, items) for v, c in codecs.items()}
    settings = settings_of(hparams, run_opts, codecs, items, style_items)
    f0 = FCPE().to(run_opts["device"] or infer_device()).eval()

    def make() -> Resynthesis:
        judge = load_judge(hparams["recognizer"], f0, style_items)
        return Resynthesis(hparams, codecs, voices, judge, items)

    rows = predict(hparams, settings, items, make)
    if rows is not None:
        report(hparams, rows, f0)


def load_codecs(
    hparams: ResynthesisSettings, run_opts: Any
) -> dict[str, SpeechCodec]:
    """Return tokenizers with their vocoders, by variant.

    Raises
    ------
    FileNotFoundError
        If what is named is not there.
    ValueError
        Unless one model, or parts that fit, are named.
    """
    streams = _named(hparams, STREAMS)
    vocoders = _named(hparams, VARIANTS)
    parts = [*streams.values(), *vocoders.values()]
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
            for found in _read_weights(hparams, streams, vocoders)
        ]
    variants = [_variant_of(codec) for codec in codecs]
    if len(set(variants)) < len(codecs):
        raise ValueError(
            f"the vocoders of --base and --expressive are both {variants[0]}; "
            "name one of each kind"
        )
    for variant, codec in zip(variants, codecs):
        _check_counts(variant, codec)
    return dict(zip(variants, codecs))


def _named(hparams: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    return {name: hparams[name] for name in names if hparams[name]}


def _read_weights(
    hparams: ResynthesisSettings,
    streams: Mapping[str, str],
    vocoders: Mapping[str, str],
) -> list[Parts]:
    """Return the parts of Meta's release, or those of each vocoder."""
    if hparams["release"]:
        release = read_release(hparams["release"], hparams["variant"])
        return [replace(release, language_model=None)]
    return [read_parts(**streams, vocoder=path) for path in vocoders.values()]


def _variant_of(codec: SpeechCodec) -> str:
    return "expressive" if codec.mods.vocoder.expressive else "base"


def unit_counts(vocoder: Any) -> dict[str, int]:
    """Return how many units a vocoder has of each stream that it reads.

    Arguments
    ---------
    vocoder : UnitVocoder
        The vocoder.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "base")
    >>> list(unit_counts(lm.mods.vocoder))
    ['phonetic']
    """
    return {
        name: embedding.num_embeddings
        for name, embedding in vocoder.embeddings.items()
        if name in STREAMS
    }


def _check_counts(variant: str, codec: SpeechCodec) -> None:
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


def find_voices(
    hparams: ResynthesisSettings, codec: SpeechCodec, items: Items
) -> dict[str, int | None]:
    """Return the number of each utterance's voice, None where it is unknown."""
    voice = hparams["speaker"]
    return {
        name: codec.mods.vocoder.speaker_id(
            item.get("speaker") if voice is None else voice
        )
        for name, item in items.items()
    }


def load_style_items(hparams: Mapping[str, Any], items: Items) -> Items:
    """Return utterances to learn styles from, none without styles."""
    if len({item.get("style") for item in items.values()}) < 2:
        return {}
    count = hparams["style_utterances"]
    shown: Any = {**hparams, "split": "train", "utterances": count}
    return load_items(shown, ["style"])


def settings_of(
    hparams: ResynthesisSettings,
    run_opts: Any,
    codecs: Mapping[str, SpeechCodec],
    *items: Items,
) -> dict[str, Any]:
    """Return all that decides what is heard.

    Arguments
    ---------
    hparams : ResynthesisSettings
        The recipe's.
    run_opts : RunOptions
        As of `load_recipe`.
    codecs : dict
        As of `load_codecs`.
    *items : dict
        What is spoken, and what styles are learned from.
    """
    weights = {
        variant: {
            name: digest_weights(codec.mods[name])
            for name in codec.MODULES_NEEDED
        }
        for variant, codec in codecs.items()
    }
    return plain_settings(hparams, run_opts, *items) | {"weights": weights}


def load_judge(
    recognizer: str | None, f0: FCPE, style_items: Items
) -> ResynthesisJudge:
    """Return who listens; styles are learned from original recordings.

    Arguments
    ---------
    recognizer : str, optional
        As of `load_recognizer`.
    f0 : FCPE
        Finds F0; the recognizer runs on its device.
    style_items : dict
        As of `load_style_items`.
    """
    recognize = style = None
    if recognizer:
        device = str(next(f0.parameters()).device)
        recognize = load_recognizer(recognizer, device)
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


def speak(
    codec: SpeechCodec,
    units: Sequence[SpeechUnits],
    voices: Sequence[int | None],
    keep_durations: bool = True,
) -> list[Tensor]:
    """Return recordings of units, long enough to be judged."""
    vocoder = codec.mods.vocoder
    if not vocoder.expressive:
        units = [item.base() for item in units]
    if not keep_durations:
        units = [item.deduplicate() for item in units]
    with codec.inference_ctx:
        wavs = vocoder.synthesize(units, voices)
    return [pad(wav, (0, max(MIN_SAMPLES - len(wav), 0))) for wav in wavs]


def resynthesize(
    codec: SpeechCodec,
    voices: Sequence[int | None],
    judge: ResynthesisJudge,
    wavs: Sequence[Tensor],
    contours: Sequence[Contour],
) -> _Systems:
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
        counts = {
            **agreement_counts(units[i], again[i]),
            "bits_per_second": bits[i],
        }
        rows.append(row | compared[i] | {"counts": counts})
    found: _Systems = {"": (made, rows)}
    if codec.mods.vocoder.duration_predictor is not None:
        timed = speak(codec, units, voices, keep_durations=False)
        timed_rows = [
            row | {"counts": {"bits_per_second": bits[i]}}
            for i, row in enumerate(judge.hear(timed))
        ]
        found[_PREDICTED] = timed, timed_rows
    return found


class Resynthesis:
    """Vocoders, and who listens to them; called with ids, it gives rows.

    Arguments
    ---------
    hparams : ResynthesisSettings
        The recipe's.
    codecs : dict
        As of `load_codecs`.
    voices : dict
        By variant those of `find_voices`.
    judge : ResynthesisJudge
        Who listens.
    items : dict
        The utterances, by id.
    """

    def __init__(
        self,
        hparams: ResynthesisSettings,
        codecs: Mapping[str, SpeechCodec],
        voices: Mapping[str, Mapping[str, int | None]],
        judge: ResynthesisJudge,
        items: Items,
    ):
        self.codecs, self.voices, self.judge = codecs, voices, judge
        device = next(judge.f0.parameters()).device
        self.quality = load_quality(hparams, device)
        self.items = items
        self.folder = Path(hparams["output_folder"]) / "wavs"
        self._shown = set(spread(items, hparams["sample_count"]))

    def __call__(self, names: list[str]) -> Iterator[dict[str, Any]]:
        """Yield what is heard of some utterances."""
        wavs = [read_audio(self.items[name]["wav"]) for name in names]
        contours = find_contours(self.judge.f0, wavs)
        systems: _Systems = {
            "original": (wavs, self.judge.hear(wavs, contours))
        }
        for variant, codec in self.codecs.items():
            voices = [self.voices[variant][name] for name in names]
            made = resynthesize(codec, voices, self.judge, wavs, contours)
            systems |= {variant + way: both for way, both in made.items()}
        self._keep(names, systems)
        for system, (spoken, rows) in systems.items():
            real = None if system == "original" else wavs
            for row, sounds in zip(rows, self.quality(spoken, real)):
                row.update(sounds)
        for i, name in enumerate(names):
            item = self.items[name]
            yield {
                "id": name,
                **{key: item.get(key) for key in ("speaker", "text", "style")},
                "systems": {s: rows[i] for s, (_, rows) in systems.items()},
            }

    def _keep(self, names: list[str], systems: _Systems) -> None:
        """Write the recordings of a batch that people are to hear."""
        for i, name in enumerate(names):
            if name not in self._shown:
                continue
            self.folder.mkdir(exist_ok=True)
            for system, (wavs, _) in systems.items():
                path = recording_path(self.folder, name, system)
                write_wav(path, wavs[i])


def recording_path(folder: Path, utterance: str, system: str) -> Path:
    """Return where a recording of a system is kept."""
    name = safe_file_name(utterance)
    return folder / f"{name}_{system.replace(' ', '_')}.wav"


def sum_up(rows: Rows) -> dict[str, dict[str, Any]]:
    """Return the figures of each system."""
    utterances = list(rows.values())
    texts, styles = ([u[key] for u in utterances] for key in ("text", "style"))
    speakers = {name: row["speaker"] for name, row in rows.items()}
    groups = [*speaker_groups(speakers).values()]
    found = {}
    for system in utterances[0]["systems"]:
        heard = [u["systems"][system] for u in utterances]
        found[system] = {
            **resynthesis_figures(heard, texts, styles, groups),
            **quality_figures(heard, groups),
        }
    return found


def report(hparams: ResynthesisSettings, rows: Rows, f0: FCPE) -> None:
    """Sum up, and write it down.

    Arguments
    ---------
    hparams : ResynthesisSettings
        The recipe's.
    rows : dict
        Of `Resynthesis`, by id.
    f0 : FCPE
        For the picture.
    """
    folder = Path(hparams["output_folder"])
    systems = sum_up(rows)
    settings = settings_shown(
        hparams,
        utterances=len(rows),
        **_named(hparams, (*STREAMS, *VARIANTS)),
        **normalizers_of(systems["original"]),
    )
    shown = spread(rows, hparams["sample_count"])
    draw_contours(f0, list(systems), shown, folder)
    words = ["No recognizer was named: nothing is known of the words."]
    if hparams["recognizer"]:
        words = [ERRORS, *apart_table(systems), transcripts_table(rows, shown)]
    write_report(
        folder,
        {"settings": settings, "systems": systems},
        f"# Resynthesis of {hparams['split']}",
        figures_table(systems),
        "In brackets the 95% interval, by the bootstrap over speakers, or over "
        "utterances where the speakers are unknown or all the same.",
        *words,
        "![F0](f0.png)",
        settings_section(settings),
    )


def figures_table(systems: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures that there are as Markdown."""
    columns = [c for c in _COLUMNS if any(c in f for f in systems.values())]
    rows = [
        [system, *(with_interval(f, c, _COLUMNS[c][1]) for c in columns)]
        for system, f in systems.items()
    ]
    titles = [_COLUMNS[c][0] for c in columns]
    return markdown_table(["resynthesis", *titles], rows)


def apart_table(systems: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield what is in no error rate as Markdown, if there is anything."""
    names = [n for n in systems["original"] if n.startswith("empty_")]
    rows = [[system, *(f[n] for n in names)] for system, f in systems.items()]
    if any(any(counts) for _, *counts in rows):
        yield markdown_table(["", *names], rows)


def transcripts_table(rows: Rows, shown: Sequence[str]) -> str:
    """Return what is heard of some utterances as Markdown."""
    systems = list(rows[shown[0]]["systems"])
    lines = []
    for name in shown:
        found = rows[name]["systems"]
        heard = [found[system]["transcript"] for system in systems]
        lines.append([name, rows[name]["text"], *heard])
    return markdown_table(["utterance", "text", *systems], lines)


def draw_contours(
    f0: FCPE, systems: Sequence[str], shown: Sequence[str], folder: Path
) -> None:
    """Draw the F0 of originals and of resyntheses with their durations."""
    size = (12, 2.2 * len(shown))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(shown), squeeze=False)[:, 0]
    for axis, utterance in zip(axes, shown):
        for system in systems:
            path = recording_path(folder / "wavs", utterance, system)
            if system.endswith(_PREDICTED) or not path.exists():
                continue
            [(hertz, voiced)] = find_contours(f0, [read_audio(path)])
            seconds = torch.arange(len(hertz)) * F0_HOP / SAMPLE_RATE
            shape = hertz.masked_fill(voiced == 0, torch.nan)
            axis.plot(seconds, shape, label=system)
        axis.set(title=utterance, ylabel="Hz")
    axes[0].legend()
    axes[-1].set_xlabel("seconds")
    figure.savefig(folder / "f0.png", dpi=120)
