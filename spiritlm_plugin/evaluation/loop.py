"""What the evaluation recipes share: what is asked of whom, and reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.checkpoints import digest_values, digest_weights
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.units.prompts import draw_shots
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.inference.few_shot import Answer
from spiritlm_plugin.utils.seeds import derive_seed

Items = dict[str, dict[str, Any]]

# Settings that do not change what is predicted.
_NO_SETTINGS = ("output_folder", "batch_size", "sample_count")


def load_items(hparams: Mapping[str, Any], needs: Iterable[str] = ()) -> Items:
    """Read the utterances of ``split``, so many as ``utterances``, all if null.

    Raises
    ------
    FileNotFoundError, ManifestError
        As of `load_manifest`.
    """
    path = Path(hparams["manifest_folder"]) / f"{hparams['split']}.json"
    items = load_manifest(path, needs)
    return {name: items[name] for name in spread(items, hparams["utterances"])}


def load_shots(
    hparams: Mapping[str, Any],
    tested: Iterable[str],
    needs: str = "text",
    balanced: bool = False,
) -> Items:
    """Return the utterances that are shown, of ``shot_split``.

    They are those of ``shot_ids``, or else so many as ``shots``, drawn by the
    seed from utterances not longer than ``longest_shot`` seconds.

    Arguments
    ---------
    hparams : dict
        The recipe's.
    tested : iterable of str
        Ids that are not shown.
    needs : str
        Key that they have.
    balanced : bool
        Whether to balance them over the values of that key.

    Raises
    ------
    ValueError
        If there are too few, or none of such an id.
    """
    if not hparams["shots"] and not hparams["shot_ids"]:
        return {}
    tested = set(tested)
    path = Path(hparams["manifest_folder"]) / f"{hparams['shot_split']}.json"
    items = {
        name: item
        for name, item in load_manifest(path).items()
        if item.get(needs) and name not in tested
    }
    names = hparams["shot_ids"]
    if names is None:
        longest = hparams["longest_shot"] or float("inf")
        labels = {
            name: item[needs]
            for name, item in items.items()
            if item["duration"] <= longest
        }
        names = draw_shots(
            labels,
            hparams["shots"],
            hparams["seed"],
            labels if balanced else None,
        )
    unknown = [name for name in names if name not in items]
    if unknown:
        raise ValueError(
            f"{path} has no utterance {unknown[0]!r} with a {needs} that is not "
            "tested itself; correct shot_ids"
        )
    return {name: items[name] for name in names}


def load_model(hparams: Mapping[str, Any], run_opts: Any) -> SpiritLM:
    """Load ``model`` with ``hparams_file``, or ``release`` with ``variant``.

    Raises
    ------
    ValueError
        Unless one of the two is named.
    """
    if bool(hparams["model"]) == bool(hparams["release"]):
        raise ValueError(
            "name one model: --model FOLDER for one of SpiritLM.from_hparams, "
            "or --release FOLDER --variant base for Meta's checkpoints"
        )
    dtype = hparams["dtype"]
    if hparams["release"]:
        return SpiritLM.from_release(
            hparams["release"], hparams["variant"], dtype, run_opts=run_opts
        )
    return SpiritLM.from_hparams(
        hparams["model"],
        hparams["hparams_file"],
        overrides={"language_model_dtype": dtype},
        run_opts=run_opts,
    )


def settings_of(
    hparams: Mapping[str, Any], run_opts: Any, lm: SpiritLM, *items: Items
) -> dict[str, Any]:
    """Return all that decides what a model answers.

    Arguments
    ---------
    hparams : dict
        The recipe's, of plain values.
    run_opts : RunOptions
        As of `load_recipe`.
    lm : SpiritLM
        The model; another training of it is another model.
    *items : dict
        What it is asked and shown.
    """
    settings = {k: v for k, v in hparams.items() if k not in _NO_SETTINGS}
    settings["precision"] = run_opts["precision"]
    settings["weights"] = digest_weights(lm.mods)
    asked = [
        {name: {**item, "wav": None} for name, item in some.items()}
        for some in items
    ]
    settings["utterances_digest"] = digest_values(asked)
    return settings


def sampling_of(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `FewShot` that the YAML names."""
    keys = ("max_new_tokens", "context", "temperature", "top_p", "batch_size")
    return {key: hparams[key] for key in keys}


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
