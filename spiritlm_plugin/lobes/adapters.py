"""Low-rank adapters for language models that are too large to train whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from spiritlm_plugin.lobes.language_model import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def add_adapters(lm: LanguageModel, lora: Mapping[str, Any]) -> None:
    """Put LoRA adapters into a model and freeze the rest.

    Source: Hu et al., "LoRA", ICLR 2022, by peft.

    Arguments
    ---------
    lm : LanguageModel
        Is changed.
    lora : dict
        Arguments of `peft.LoraConfig`. New tokens are learned only if
        ``modules_to_save`` names the embedding and the output layer, in Llama
        ``["embed_tokens", "lm_head"]``.

    Raises
    ------
    ImportError
        If peft is missing.
    ValueError
        If no module has a name that ``target_modules`` asks for.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> add_adapters(lm, {"r": 2, "target_modules": ["q_proj", "v_proj"]})
    >>> trained = [n for n, p in lm.named_parameters() if p.requires_grad]
    >>> all("lora" in name for name in trained)
    True
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError as error:
        raise ImportError("LoRA needs peft: pip install peft") from error
    config = LoraConfig(task_type="CAUSAL_LM", **lora)
    # It is no subclass, and has all that a model has.
    lm.model = cast("PreTrainedModel", get_peft_model(lm.model, config))


def merge_adapters(lm: LanguageModel) -> None:
    """Add adapters, if a model has any, to the weights that they adapt.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> add_adapters(lm, {"r": 2, "target_modules": ["q_proj"]})
    >>> merge_adapters(lm)
    >>> type(lm.model).__name__
    'LlamaForCausalLM'
    """
    merge = getattr(lm.model, "merge_and_unload", None)
    if merge is not None:
        lm.model = merge()
