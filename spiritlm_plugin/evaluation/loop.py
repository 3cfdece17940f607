"""What the evaluations share: what is asked of whom, in which settings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from typing_extensions import NotRequired

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.checkpoints import digest_values, digest_weights
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.evaluation.predictions import Predictions, Rows
from spiritlm_plugin.inference import SpeechCodec, SpiritLM
from spiritlm_plugin.inference.few_shot import TOO_LONG, Answer
from spiritlm_plugin.inference.run_options import with_quantize
from spiritlm_plugin.metrics.intervals import speaker_groups
from spiritlm_plugin.utils.configuration import Settings
from spiritlm_plugin.utils.seeds import derive_seed

Items = dict[str, dict[str, Any]]
# Answers to a batch of ids, as rows of `Predictions`.
Respondent = Callable[[list[str]], Iterable[Mapping[str, Any]]]

# Settings that do not change what is predicted.
_NO_SETTINGS = ("output_folder", "batch_size", "sample_count")
# What decides about figures, as reports say it.
_DECISIVE = (
    "variant",
    "split",
    "utterances",
    "seed",
    "label",
    "method",
    "trained_asr",
    "trained_tts",
    "shots",
    "draws",
    "shot_ids",
    "shot_split",
    "longest_shot",
    "stop_speech",
    "context",
    "max_new_tokens",
    "temperature",
    "top_p",
    "num_beams",
    "candidates",
    "speaker",
    "recognizer",
    "mos",
    "speaker_encoder",
    "style_utterances",
    "dtype",
    "quantize",
)


class EvaluationSettings(Settings):
    """What all evaluations with predictions read."""

    split: str
    batch_size: int


class UtteranceSettings(EvaluationSettings):
    """Which utterances are asked about; see `load_items`."""

    manifest_folder: str
    utterances: int | None


class CodecSettings(EvaluationSettings):
    """Whose folder is loaded."""

    model: str | None
    hparams_file: str
    release: str | None
    variant: Literal["base", "expressive"]


class ModelSettings(CodecSettings):
    """Which model is asked; see `load_model`."""

    dtype: str
    quantize: NotRequired[dict[str, str] | None]


def load_items(hparams: UtteranceSettings, needs: Iterable[str] = ()) -> Items:
    """Read the utterances of ``split``, so many as ``utterances``, all if null.

    Raises
    ------
    FileNotFoundError, ManifestError
        As of `load_manifest`.
    """
    path = Path(hparams["manifest_folder"]) / hparams["split"]
    items = load_manifest(path, needs)
    return {name: items[name] for name in spread(items, hparams["utterances"])}


def load_model(hparams: ModelSettings, run_opts: Any) -> SpiritLM:
    """Load ``model`` with ``hparams_file``, or ``release`` with ``variant``.

    Parts that ``quantize`` names are quantized, as by `split_run_opts`.

    Raises
    ------
    ValueError
        Unless one of the two is named.
    """
    model, release = hparams["model"], hparams["release"]
    if bool(model) == bool(release):
        raise ValueError(
            "name one model: --model FOLDER for one of SpiritLM.from_hparams, "
            "or --release FOLDER --variant base for Meta's checkpoints"
        )
    dtype = hparams["dtype"]
    run_opts = with_quantize(run_opts, hparams.get("quantize"))
    if not model:
        return SpiritLM.from_release(
            release, hparams["variant"], dtype, run_opts=run_opts
        )
    return SpiritLM.from_hparams(
        model,
        hparams["hparams_file"],
        overrides={"language_model_dtype": dtype},
        run_opts=run_opts,
    )


def settings_of(
    hparams: Mapping[str, Any], run_opts: Any, lm: SpeechCodec, *items: Items
) -> dict[str, Any]:
    """Return all that decides what a model answers.

    Arguments
    ---------
    hparams : dict
        The recipe's, of plain values.
    run_opts : RunOptions
        As of `load_recipe`.
    lm : SpeechCodec
        The model; another training of it is another model.
    *items : dict
        What it is asked and shown.
    """
    settings = plain_settings(hparams, run_opts, *items)
    return settings | {"weights": digest_weights(lm.mods)}


def plain_settings(
    hparams: Mapping[str, Any], run_opts: Any, *items: Items
) -> dict[str, Any]:
    """Return what decides about answers besides the model itself."""
    settings = {k: v for k, v in hparams.items() if k not in _NO_SETTINGS}
    if not settings.get("quantize"):  # as if it were not there
        settings.pop("quantize", None)
    settings["precision"] = run_opts["precision"]
    asked = [
        {name: {**item, "wav": None} for name, item in some.items()}
        for some in items
    ]
    settings["utterances_digest"] = digest_values(asked)
    return settings


def predict(
    hparams: EvaluationSettings,
    settings: Mapping[str, Any],
    ids: Iterable[str],
    make: Callable[[], Respondent],
    joined: bool = False,
) -> Rows | None:
    """Ask what is not answered yet, and return all answers.

    Arguments
    ---------
    hparams : EvaluationSettings
        The recipe's; predictions are kept in its ``output_folder``.
    settings : dict
        All that decides about the answers.
    ids : iterable of str
        Of what is asked.
    make : callable
        Returns who answers a batch of ids; called if there is anything to ask.
    joined : bool
        Whether to ask for several batches at once, of who batches by itself:
        shots are read once for all of them, and a row whose output has ended
        makes room for the next. See `Predictions.batches`.

    Returns
    -------
    dict or None
        The rows by id on the main process, None on the others.

    Raises
    ------
    PredictionsError
        As of `Predictions`.

    Example
    -------
    >>> hparams = {"output_folder": tmp, "batch_size": 2}
    >>> def make():
    ...     return lambda ids: [{"id": i, "text": i.upper()} for i in ids]
    >>> predict(hparams, {}, ["a", "b", "c"], make)["c"]
    {'id': 'c', 'text': 'C'}
    """
    size = hparams["batch_size"]
    predictions = Predictions(hparams["output_folder"], settings, ids)
    if predictions.missing(size):
        answer = make()
        for names in predictions.batches(size, joined):
            predictions.add(answer(names))
    return predictions.gather()


def groups_of(rows: Rows) -> dict[str, Hashable]:
    """Return of each row what it is drawn with for an interval.

    Those of a speaker where speakers are known, else those of an utterance.

    Example
    -------
    >>> rows = {"1": {"utterance": "a", "speaker": "ann"},
    ...         "2": {"utterance": "b", "speaker": "bob"}}
    >>> groups_of(rows)
    {'1': 'ann', '2': 'bob'}
    """
    speakers = {r["utterance"]: r["speaker"] for r in rows.values()}
    groups = speaker_groups(speakers)
    return {name: groups[row["utterance"]] for name, row in rows.items()}


def settings_shown(hparams: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """Return what decides about figures, by the names of the options.

    Arguments
    ---------
    hparams : dict
        The recipe's.
    **others
        What else decides, or takes the place of an option.

    Example
    -------
    >>> hparams = {"model": "tinyspeech", "release": None, "variant": "base",
    ...            "shots": 10, "batch_size": 16}
    >>> settings_shown(hparams, shots=2, recognizer="whisper")
    {'model': 'tinyspeech', 'shots': 2, 'recognizer': 'whisper'}
    """
    shown = {n: hparams[n] for n in _DECISIVE if n in hparams}
    if not shown.get("quantize"):
        shown.pop("quantize", None)
    if not hparams["release"]:
        # Of Meta's weights.
        shown.pop("variant", None)
    return {"model": model_name(hparams), **shown, **others}


def item_seeds(seed: int, names: Iterable[str]) -> list[int]:
    """Return a seed for each item, whatever else is asked.

    Example
    -------
    >>> item_seeds(1, ["a", "b"])[1] == item_seeds(1, ["b"])[0]
    True
    """
    return [derive_seed(seed, name) for name in names]


def answer_row(
    name: str, seed: int, shots: Iterable[str], answer: Answer
) -> dict[str, Any]:
    """Return what is kept of an answer, with what it takes to repeat it.

    Example
    -------
    >>> from spiritlm_plugin.inference.generation import Generation
    >>> answer = Answer(Generation([], "end_of_sequence"), shots=1)
    >>> answer_row("a", 7, ["b", "c"], answer)["shots"]
    ['c']
    """
    shots = list(shots)
    return {
        "id": name,
        "seed": seed,
        # Those that the prompt had room for: the last ones.
        "shots": shots[len(shots) - answer.shots :],
        "end_reason": answer.generation.end_reason,
        "complete": answer.complete,
    }


def dropped_of(rows: Iterable[Mapping[str, Any]], shots: int) -> dict[str, int]:
    """Return what prompts had no room for: shots, and what was asked itself.

    Example
    -------
    >>> rows = [{"shots": ["a"], "end_reason": "end_of_sequence"}]
    >>> dropped_of(rows, 2)
    {'shots_dropped': 1, 'too_long': 0}
    """
    rows = list(rows)
    return {
        "shots_dropped": sum(shots - len(row["shots"]) for row in rows),
        "too_long": sum(row["end_reason"] == TOO_LONG for row in rows),
    }


def model_name(hparams: Mapping[str, Any]) -> str | None:
    """Return the folder or name of the model that is measured."""
    return hparams["model"] or hparams["release"]
