"""Alignment of modalities: how alike speech and text are in a model's layers.

Source: Nguyen et al., "SpiRit-LM: Interleaved Spoken and Written Language
Model", TACL 2025, figure 6.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from spiritlm_plugin.dataio.checkpoints import require_files
from spiritlm_plugin.dataio.corpus.manifests import ManifestError
from spiritlm_plugin.dataio.stream.utterances import DocumentError, Utterance
from spiritlm_plugin.dataio.units.segments import Segment, Speech, Text
from spiritlm_plugin.dataio.units.units import (
    PHONETIC_RATE,
    SpeechUnits,
    units_before,
)
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.evaluation.loop import (
    Items,
    UtteranceSettings,
    load_items,
)
from spiritlm_plugin.evaluation.predictions import Rows
from spiritlm_plugin.evaluation.reports import markdown_table, write_report
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.lobes.language_model import LanguageModel, pad_in_front
from spiritlm_plugin.metrics.modality_alignment import (
    WordSimilarity,
    mean_similarity,
    speech_token_words,
    text_token_words,
    word_similarity,
)
from spiritlm_plugin.pretrained.folders import local_folder

logger = logging.getLogger(__name__)

# What `load_model` is told of each model.
_MODEL: dict[str, Any] = {
    "model": None,
    "hparams_file": "hyperparams.yaml",
    "release": None,
    "variant": "base",
}
_PAIRS = {"matching": "same word", "other": "other words"}
_LINES = {"matching": "-", "other": "--"}


class AlignmentSettings(UtteranceSettings):
    """What the evaluation of the alignment of modalities reads."""

    models: dict[str, Any]
    dtype: str
    pooling: Literal["mean", "max"]


def load_models(hparams: AlignmentSettings) -> dict[str, dict[str, Any]]:
    """Return the settings of each model, with those that all share.

    Each has an ``output_folder`` of its own.

    Raises
    ------
    ValueError
        If there is no model, or one has no name or is not there.
    """
    if not hparams["models"]:
        raise ValueError(
            'name the models, as in --models "{base: FOLDER}"; got '
            f"{hparams['models']!r}"
        )
    shared = {key: v for key, v in hparams.items() if key != "models"}
    models = {}
    for name, named in hparams["models"].items():
        # It names a folder, too.
        if not re.fullmatch(r"\w[\w.-]*", str(name)):
            raise ValueError(
                f"{name!r} is no name for a model; give it one of letters, "
                "digits, '_', '-' and '.'"
            )
        if not isinstance(named, dict):
            named = {"model": named}
        folder = str(Path(hparams["output_folder"]) / str(name))
        models[str(name)] = {
            **shared,
            **_MODEL,
            **_checked(name, named),
            "output_folder": folder,
        }
    return models


def _checked(name: str, named: dict[str, Any]) -> dict[str, Any]:
    """Return how a model is named, if it is there."""
    found = _MODEL | named
    if set(found) != set(_MODEL) or bool(found["model"]) == bool(
        found["release"]
    ):
        raise ValueError(
            f"the model {name!r} should be FOLDER, {{model: FOLDER, "
            "hparams_file: FILE} or {release: FOLDER, variant: base}}; got "
            f"{named!r}"
        )
    try:
        if found["model"]:
            local_folder(found["model"], found["hparams_file"])
        else:
            lm = f"spiritlm_model/spirit-lm-{found['variant']}-7b"
            require_files(found["release"], ["speech_tokenizer", lm])
    except OSError as error:
        raise ValueError(f"the model {name!r} is not there: {error}") from error
    return named


def load_utterances(hparams: UtteranceSettings) -> Items:
    """Return the utterances, with the boundaries of their words.

    Raises
    ------
    FileNotFoundError, ManifestError
        If there is no such manifest, or no utterance in it with words.
    """
    items: Items = {}
    for name, item in load_items(hparams, ["words"]).items():
        try:
            items[name] = item | {"boundaries": boundaries(item)}
        except DocumentError as error:
            logger.warning("%s is left out: %s", name, error)
    if not items:
        raise ManifestError(
            f"no utterance of {hparams['split']} has words to compare; "
            "prepare a corpus that has, or align its words"
        )
    return items


def boundaries(item: Mapping[str, Any]) -> list[float | None]:
    """Return where the words are parted, as in interleaved documents."""
    words = words_of(item)
    if len(set(words)) < 2 or not all(map(str.strip, words)):
        raise DocumentError(f"{words} are not two different words at least")
    # Where words are parted depends on no unit.
    frames = int(units_before(item["duration"], PHONETIC_RATE))
    units = SpeechUnits(torch.zeros(frames, dtype=torch.int64))
    times = [(start, end) for _, start, end in item["words"]]
    return Utterance(units, words=words, times=times).boundaries()


def words_of(item: Mapping[str, Any]) -> list[str]:
    """Return the words of an utterance.

    Example
    -------
    >>> words_of({"words": [["two", 0.1, 0.3], ["boats", 0.3, 0.8]]})
    ['two', 'boats']
    """
    return [word for word, _, _ in item["words"]]


@dataclass(frozen=True)
class Encoded:
    """Token ids, and of each the number of its word, -1 if it is of none."""

    ids: list[int]
    places: list[int]


def encode(vocabulary: Vocabulary, segment: Segment, places: Tensor) -> Encoded:
    """Return the ids of a segment whose own tokens are of such words."""
    ids = vocabulary.encode([segment])
    return Encoded(ids, [-1] * (len(ids) - len(places)) + places.tolist())


def encode_both(
    vocabulary: Vocabulary, item: Mapping[str, Any], units: SpeechUnits
) -> tuple[Encoded, Encoded]:
    """Return an utterance as speech and as text."""
    places = speech_token_words(units, item["boundaries"])
    speech = encode(vocabulary, Speech(units), places)
    words = words_of(item)
    places = text_token_words(words, vocabulary.encode_text)
    return speech, encode(vocabulary, Text(" ".join(words)), places)


def hidden_states(
    lm: LanguageModel, batch: Sequence[Encoded]
) -> tuple[Sequence[Tensor], Tensor]:
    """Return the hidden states of all layers, and the word of each token.

    Arguments
    ---------
    lm : LanguageModel
        The model.
    batch : sequence of Encoded
        What it reads.

    Returns
    -------
    states : sequence of Tensor
        Each of shape (batch, tokens, size).
    places : Tensor
        Numbers of words, -1 where a token is of none, shape (batch, tokens).
    """
    ids, mask = pad_in_front([item.ids for item in batch], lm.vocabulary.eos_id)
    places, _ = pad_in_front([item.places for item in batch], -1)
    ids, mask, places = (x.to(lm.device) for x in (ids, mask, places))
    output = lm.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        output_hidden_states=True,
        logits_to_keep=1,
    )
    return output.hidden_states, places


def compare(lm: SpiritLM, items: Items, pooling: str) -> list[dict[str, Any]]:
    """Return a row for each utterance, as predictions are written.

    Arguments
    ---------
    lm : SpiritLM
        The model.
    items : dict
        As of `load_utterances`; a batch.
    pooling : str
        Over the tokens of a word.

    Raises
    ------
    ValueError
        If another engine than transformers holds the language model.
    """
    if getattr(lm.mods, "language_model", None) is None:
        raise ValueError(
            "hidden states are those of transformers, other engines do not "
            "give them; load the model without engine"
        )
    units = lm.encode_batch([item["wav"] for item in items.values()])
    encoded = {
        name: encode_both(lm.vocabulary, item, spoken)
        for (name, item), spoken in zip(items.items(), units)
    }
    context = lm.context
    fitting = {
        name: both
        for name, both in encoded.items()
        if all(len(part.ids) <= context for part in both)
    }
    found = {}
    if fitting:
        (speech, speech_places), (text, text_places) = (
            hidden_states(lm.mods.language_model, batch)
            for batch in zip(*fitting.values())
        )
        words = [words_of(items[name]) for name in fitting]
        similarities = word_similarity(
            speech, text, speech_places, text_places, words, pooling
        )
        found = dict(zip(fitting, similarities))
    nothing = WordSimilarity([], [], 0)
    return [
        {
            "id": name,
            "speech_tokens": len(speech.ids),
            "text_tokens": len(text.ids),
            "too_long": name not in fitting,
            **asdict(found.get(name, nothing)),
        }
        for name, (speech, text) in encoded.items()
    ]


class Comparison:
    """A model that reads utterances both ways; called with ids: rows.

    Arguments
    ---------
    lm : SpiritLM
        The model.
    items : dict
        As of `load_utterances`.
    pooling : str
        Over the tokens of a word.
    """

    def __init__(self, lm: SpiritLM, items: Items, pooling: str):
        self.lm, self.items, self.pooling = lm, items, pooling

    def __call__(self, names: list[str]) -> list[dict[str, Any]]:
        """Return a row for each of some utterances."""
        items = {name: self.items[name] for name in names}
        return compare(self.lm, items, self.pooling)


def summarize(
    options: Mapping[str, Any], rows: Rows, items: Items
) -> dict[str, Any]:
    """Return the figures of a model.

    Arguments
    ---------
    options : dict
        Of `load_models`.
    rows : dict
        Of `compare`, by utterance.
    items : dict
        As of `load_utterances`.
    """
    means: dict[str, Any] = mean_similarity(
        WordSimilarity(row["matching"], row["other"], row["words"])
        for row in rows.values()
    )
    words = sum(len(item["words"]) for item in items.values())
    return {
        "model": options["model"] or options["release"],
        **means,
        "words_left_out": words - means["words"],
        "too_long": sum(row["too_long"] for row in rows.values()),
    }


def report(
    hparams: AlignmentSettings,
    figures: Mapping[str, Mapping[str, Any]],
    utterances: int,
) -> None:
    """Write down the figures of all models.

    Arguments
    ---------
    hparams : AlignmentSettings
        The recipe's.
    figures : dict
        Of `summarize`, by the model's name.
    utterances : int
        How many were compared.
    """
    folder = Path(hparams["output_folder"])
    draw_similarity(figures, folder / "similarity.png")
    write_report(
        folder,
        {
            "split": hparams["split"],
            "pooling": hparams["pooling"],
            "utterances": utterances,
            "models": figures,
        },
        f"# Alignment of speech and text, {hparams['split']}",
        f"{utterances} utterances, read as speech and as text. Cosine "
        f"similarity, times 100, of the features of words ({hparams['pooling']} "
        "over their tokens): of the same word in both, and of a word and the "
        "other words of its utterance.",
        "![similarity](similarity.png)",
        overview(figures),
        "Layer 0 is the embeddings, the last one is behind the model's last "
        "normalization. `words left out` have no token of their own in speech, "
        "or are of utterances that the model has no room for (`too long`).",
        by_layer(figures),
    )


def overview(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of the models, by where speech and text are closest."""
    rows: list[list[Any]] = []
    for name, found in figures.items():
        gains = [a - b for a, b in zip(found["matching"], found["other"])]
        best = max(range(len(gains)), key=gains.__getitem__)
        counts = [found[k] for k in ("words", "words_left_out", "too_long")]
        rows.append([name, *counts, 100 * gains[best], best])
    header = ["model", "words", "words left out", "too long"]
    return markdown_table(header + ["largest difference", "in layer"], rows)


def by_layer(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of the layers; models may differ in depth."""
    curves = {
        f"{name}, {pair}": found[key]
        for name, found in figures.items()
        for key, pair in _PAIRS.items()
    }
    layers = range(max(map(len, curves.values())))
    rows = [
        [i, *(100 * c[i] if i < len(c) else None for c in curves.values())]
        for i in layers
    ]
    return markdown_table(["layer", *curves], rows)


def draw_similarity(
    figures: Mapping[str, Mapping[str, Any]], path: Path
) -> None:
    """Draw the similarities by layer, a colour for each model."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for i, (name, found) in enumerate(figures.items()):
        for key, pair in _PAIRS.items():
            axis.plot(
                found[key], _LINES[key], color=f"C{i}", label=f"{name}, {pair}"
            )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel="layer", ylabel="cosine similarity of speech and text")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=120)
