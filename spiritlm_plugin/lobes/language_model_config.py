"""What the configuration of a language model says, whatever names it uses."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from spiritlm_plugin.dataio.units.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# Of the limit on positions; `max_position_embeddings` stands for more names,
# such as `n_positions`, in the configurations that know it.
_LIMITS = ("max_position_embeddings", "max_seq_len", "seq_length")
# Where no limit is named, as of BLOOM and Mamba: what they were trained on.
_CONTEXT_WITHOUT_LIMIT = 2048


def context_of(config: PreTrainedConfig) -> int:
    """Return how many tokens a model can see at once.

    Arguments
    ---------
    config : transformers.PreTrainedConfig
        Of a causal LM, or of a model that has one for its text.

    Returns
    -------
    int
        The limit that it names. Of a longrope model no more than it saw
        before it was stretched: beyond, its rotary embedding is another, of
        all that is in the batch. 2,048 of a model that names no limit.

    Example
    -------
    >>> from transformers import GPT2Config, MambaConfig
    >>> context_of(GPT2Config(n_positions=64)), context_of(MambaConfig())
    (64, 2048)
    """
    text = config.get_text_config()
    name = _limit_name(text)
    limits = [
        rotary["original_max_position_embeddings"]
        for rotary in _rotaries(text)
        if rotary.get("rope_type") == "longrope"
    ]
    return min([getattr(text, name, _CONTEXT_WITHOUT_LIMIT), *limits])


def set_context(config: PreTrainedConfig, context: int) -> None:
    """Let a model see another number of tokens at once.

    Raises
    ------
    ValueError
        If what it has learned would not be the same any more.

    Example
    -------
    >>> from transformers import GPT2Config, LlamaConfig
    >>> config = LlamaConfig()
    >>> set_context(config, 64)
    >>> context_of(config)
    64
    >>> set_context(GPT2Config(n_layer=1), 64)
    Traceback (most recent call last):
    ...
    ValueError: a gpt2 model has learned its 1024 positions, and cannot get a ...
    """
    own = context_of(config)
    if context == own:
        return
    text = config.get_text_config()
    reason = ""
    if any(_stretched_by_limit(rotary) for rotary in _rotaries(text)):
        reason = "has a rotary embedding that depends on its context"
    before = deepcopy(config)
    setattr(text, _limit_name(text), context)
    if not reason and _shapes(before) != _shapes(config):
        reason = f"has learned its {own} positions"
    if reason:
        raise ValueError(
            f"a {config.model_type} model {reason}, and cannot get a context "
            f"of {context} instead of {own}; leave context out (null)"
        )


def set_rope_theta(config: PreTrainedConfig, base: float) -> None:
    """Change the base of the rotary embedding.

    Where layers of several types have bases of their own, as in Gemma 3, it is
    that of the layers which see the whole context.

    Raises
    ------
    ValueError
        If there is none to be changed.

    Example
    -------
    >>> from transformers import LlamaConfig
    >>> config = LlamaConfig()
    >>> set_rope_theta(config, 1e5)
    >>> config.rope_parameters["rope_theta"]
    100000.0
    """
    text = config.get_text_config()
    rotary = getattr(text, "rope_parameters", None) or {}
    rotary = rotary.get("full_attention", rotary)
    if "rope_theta" not in rotary:
        raise ValueError(
            f"a {config.model_type} model has no rotary embedding whose base "
            "could be changed; leave rope_theta out"
        )
    rotary["rope_theta"] = base


def rope_theta_of(config: PreTrainedConfig) -> float | None:
    """Return the base of the rotary embedding, of which `set_rope_theta` tells.

    Example
    -------
    >>> from transformers import GPT2Config, LlamaConfig
    >>> rope_theta_of(LlamaConfig()), rope_theta_of(GPT2Config())
    (10000.0, None)
    """
    text = config.get_text_config()
    rotary = getattr(text, "rope_parameters", None) or {}
    return rotary.get("full_attention", rotary).get("rope_theta")


def set_token_ids(config: PreTrainedConfig, vocabulary: Vocabulary) -> None:
    """Name the ids that a sequence begins and ends with, and no other ones.

    Those of a text model may be speech tokens by now. There is no padding,
    whose row of the embedding would not learn; but of a model that also sees
    or hears, which cannot be without.

    Example
    -------
    >>> from transformers import LlamaConfig
    >>> config = LlamaConfig(eos_token_id=[7, 8], pad_token_id=9)
    >>> set_token_ids(config, Vocabulary.extend(example_text_tokenizer()))
    >>> config.bos_token_id, config.eos_token_id, config.pad_token_id
    (1, 2, None)
    """
    speech = set(vocabulary.speech_tokens().values())
    text = config.get_text_config()
    for part in (config,) if text is config else (config, text):
        part.bos_token_id = vocabulary.text.bos_id
        part.eos_token_id = vocabulary.eos_id
        part.pad_token_id = None if text is config else vocabulary.eos_id
        for name, index in list(vars(part).items()):
            named = name.endswith(("_token_id", "_token_index"))
            if named and isinstance(index, int) and index in speech:
                setattr(part, name, -1)  # such as an image's


def settle_generation(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    """Let plain ``generate`` end where a vocabulary does, and nowhere else.

    What a text model's makers set for it, such as the sampling of a chat, goes.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> lm.model.generation_config.eos_token_id = [2, 3]
    >>> settle_generation(lm.model, lm.vocabulary)
    >>> lm.model.generation_config.eos_token_id
    2
    """
    from transformers import GenerationConfig

    set_token_ids(model.config, vocabulary)
    embedding: Any = model.get_input_embeddings()
    embedding.padding_idx = None
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=vocabulary.eos_id,
        pad_token_id=vocabulary.eos_id,
    )


def token_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the layers that have a row for each token.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> token_layers(lm.model)
    [Embedding(1112, 64), Linear(in_features=64, out_features=1112, bias=False)]
    """
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    if getattr(
        model.config.get_text_config(), "hidden_size_per_layer_input", 0
    ):
        layers.append(cast(Any, model).get_per_layer_input_embeddings())
    return layers


def freeze_other_senses(model: PreTrainedModel) -> None:
    """Let what a model has for images, and the like, learn nothing.

    It is never called: processes would wait for its gradients.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> freeze_other_senses(lm.model)
    >>> all(weight.requires_grad for weight in lm.parameters())
    True
    """
    if model.config.get_text_config() is model.config:
        return
    parts = [model.get_decoder(), model.get_output_embeddings()]
    language = {weight for part in parts for weight in part.parameters()}
    for weight in model.parameters():
        weight.requires_grad_(weight in language)


def _limit_name(text: PreTrainedConfig) -> str:
    named = (n for n in _LIMITS if getattr(text, n, None) is not None)
    return next(named, _LIMITS[0])


def _rotaries(text: PreTrainedConfig) -> list[dict[str, Any]]:
    """Return the settings of all rotary embeddings."""
    rotary = getattr(text, "rope_parameters", None) or {}
    nested = [part for part in rotary.values() if isinstance(part, dict)]
    return nested or [rotary]


def _stretched_by_limit(rotary: dict[str, Any]) -> bool:
    """Return whether the limit on positions is part of the embedding."""
    kind = rotary.get("rope_type")
    return kind == "longrope" or (
        kind == "yarn" and rotary.get("factor") is None
    )


def _shapes(config: PreTrainedConfig) -> dict[str, torch.Size]:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {name: weight.shape for name, weight in model.named_parameters()}
