"""The start of a Spirit LM: a language model of text, or another Spirit LM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.text_tokenizers import load_text_tokenizer
from spiritlm_plugin.dataio.units.units import Kind
from spiritlm_plugin.dataio.units.vocabulary import CONTROL_KIND, Vocabulary
from spiritlm_plugin.lobes.language_model import (
    ROW_MULTIPLE,
    LanguageModel,
    load_language_model,
)
from spiritlm_plugin.lobes.language_model_config import (
    rope_theta_of,
    set_context,
    set_rope_theta,
    set_token_ids,
    token_layers,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def start_language_model(
    source: str | Path,
    units: Mapping[str, int],
    rope_theta: float | None = None,
    context: int | None = None,
    dtype: str = "float32",
    random_weights: bool = False,
) -> LanguageModel:
    """Start from a text language model: speech tokens join its vocabulary.

    Source: Nguyen et al., "SpiRit-LM", TACL 2025, section 3.3.

    Arguments
    ---------
    source : str or Path
        A folder, or a name on the Hub. A model that speaks these units goes on
        as it is. One that speaks others, and was trained by this package,
        keeps its text and the units that it has as many of as are asked for,
        so that a Base model can become an Expressive one.
    units : dict of str to int
        How many there are: ``phonetic`` and, of Expressive models, ``pitch``
        and ``style``.
    rope_theta : float, optional
        Base of the rotary embedding (100,000 in the paper), see
        `set_rope_theta`; by default the model's own.
    context : int, optional
        Tokens that it can see at once, see `context_of`; by default the
        model's own.
    dtype : str
        Of the weights.
    random_weights : bool
        Take its shape alone, for comparison.

    Returns
    -------
    LanguageModel
        The embeddings of new speech tokens are random.

    Raises
    ------
    OSError
        If there is no such model.
    ValueError
        If its tokenizer has other speech tokens among those of its text, its
        rotary embedding or context cannot be changed, its weights do not fit
        its configuration, or it has no layer that gives logits.

    Example
    -------
    >>> from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
    >>> text = train_text_tokenizer(["the cat sat on the mat"], 280)
    >>> from spiritlm_plugin.lobes.language_model import new_language_model
    >>> base = new_language_model(
    ...     {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1,
    ...      "num_attention_heads": 2, "intermediate_size": 16},
    ...     Vocabulary.extend(text, phonetic=50),
    ... )
    >>> base.save(tmp / "text_lm")
    >>> lm = start_language_model(tmp / "text_lm", {"phonetic": 90, "pitch": 8})
    >>> lm.vocabulary.expressive, len(lm.vocabulary) - len(text), lm.rows
    (True, 102, 384)
    """
    text = load_text_tokenizer(source)
    known = _speech_vocabulary(source)
    wanted = {kind: units.get(kind.name.lower(), 0) for kind in Kind}
    goes_on = known is not None and _unit_counts(known) == wanted
    if goes_on and not random_weights:
        return _go_on(source, rope_theta, context, dtype)
    if text.token_id("[Speech]") is not None:
        raise ValueError(
            f"the tokenizer of {source} has speech tokens among those of its "
            "text, and other ones than the speech tokenizer makes; train it "
            "on units of its own tokenizer"
        )
    vocabulary = Vocabulary.extend(text, **units)
    model = _text_model(
        source, vocabulary, rope_theta, context, dtype, random_weights
    )
    if model.get_output_embeddings() is None:
        raise ValueError(
            f"{type(model).__name__} of {source} has no layer that makes "
            "logits of hidden states; choose another architecture"
        )
    learned = []
    if known is not None and not random_weights:
        learned = [w.detach().clone() for w in _token_weights(model)]
    # First to the text alone, so that all other rows are new.
    model.resize_token_embeddings(len(text), mean_resizing=False)
    model.resize_token_embeddings(
        len(vocabulary), pad_to_multiple_of=ROW_MULTIPLE, mean_resizing=False
    )
    if known is not None and learned:
        old, new = _shared_tokens(known, vocabulary)
        with torch.no_grad():
            for weights, rows in zip(_token_weights(model), learned):
                weights[new] = rows[old]
    lm = LanguageModel(model, vocabulary)
    lm.new_tokens = True
    return lm


def _text_model(
    source: str | Path,
    vocabulary: Vocabulary,
    rope_theta: float | None,
    context: int | None,
    dtype: str,
    random_weights: bool,
) -> PreTrainedModel:
    """Load a model of text, its rows as they are."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if rope_theta is not None:
        set_rope_theta(config, rope_theta)
    if context is not None:
        set_context(config, context)
    set_token_ids(config, vocabulary)
    if random_weights:
        model = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype)
        )
    else:
        loaded = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            trust_remote_code=False,
        )
        # Its types know the model alone, not what it was asked for beside it.
        model, report = cast("tuple[PreTrainedModel, dict[str, Any]]", loaded)
        if missing := sorted(report["missing_keys"]):
            raise ValueError(
                f"{source} has no weights for {', '.join(missing[:8])}, which "
                f"{type(model).__name__} needs; download it again"
            )
    names = [name for name, _ in model.named_buffers()]
    if rope_theta is not None and not any("inv_freq" in n for n in names):
        raise ValueError(
            f"{source} has no rotary embedding whose base could be changed; "
            "leave rope_theta out"
        )
    return model


def _speech_vocabulary(source: str | Path) -> Vocabulary | None:
    """Load the vocabulary of a folder's model, if that speaks."""
    if not Path(source).is_dir():
        return None
    try:
        return Vocabulary.load(source)
    except ValueError:  # it has no speech tokens
        return None


def _unit_counts(vocabulary: Vocabulary) -> dict[Kind, int]:
    return {kind: vocabulary.unit_count(kind) for kind in Kind}


def _token_weights(model: PreTrainedModel) -> list[Tensor]:
    """Return the weights and biases that have a row for each token."""
    weights = (w for layer in token_layers(model) for w in layer.parameters())
    return list(dict.fromkeys(weights))  # tied ones once


def _shared_tokens(
    old: Vocabulary, new: Vocabulary
) -> tuple[list[int], list[int]]:
    """Return the ids of the speech tokens that mean the same in both."""
    counts = _unit_counts(new)
    same = {kind for kind, n in _unit_counts(old).items() if n == counts[kind]}
    old_ids = old.speech_tokens()
    pairs = [
        (old_ids[token], index)
        for token, index in new.speech_tokens().items()
        if token in old_ids and int(new.kinds[index]) in {CONTROL_KIND, *same}
    ]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _go_on(
    source: str | Path,
    rope_theta: float | None,
    context: int | None,
    dtype: str,
) -> LanguageModel:
    """Load a model that speaks, for further training."""
    lm = load_language_model(source, dtype, context=context)
    own = rope_theta_of(lm.model.config)
    if rope_theta not in (None, own):
        raise ValueError(
            f"{source} has learned to speak with a rotary base of {own}, which "
            f"cannot become {rope_theta} any more; leave rope_theta out"
        )
    return lm
