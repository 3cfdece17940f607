"""Low-rank adapters for language models that are too large to train whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from spiritlm_plugin.lobes.language_model import LanguageModel
from spiritlm_plugin.lobes.language_model_config import token_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def add_adapters(lm: LanguageModel, lora: Mapping[str, Any]) -> None:
    """Put LoRA adapters into a model and freeze the rest.

    The embedding and the layer that makes logits learn as a whole where tokens
    are new, as after `start_language_model`: adapters could not give these
    rows of their own. Else they do if ``modules_to_save`` names them.

    Source: Hu et al., "LoRA", ICLR 2022, by peft.

    Arguments
    ---------
    lm : LanguageModel
        Is changed.
    lora : dict
        Arguments of `peft.LoraConfig`.

    Raises
    ------
    ImportError
        If peft is missing.
    ValueError
        If no module has a name that ``target_modules`` or ``modules_to_save``
        asks for.

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
    lora = dict(lora)
    _check_names(lm.model, "target_modules", lora.get("target_modules"))
    asked = lora.pop("modules_to_save", None) or []
    _check_names(lm.model, "modules_to_save", asked)
    tokens = token_layers(lm.model)
    layers = {n: m for n, m in lm.model.named_modules() if m in tokens}
    learned = [
        layer
        for module, layer in layers.items()
        if lm.new_tokens or any(_is_called(module, name) for name in asked)
    ]
    others = [n for n in asked if not any(_is_called(m, n) for m in layers)]
    config = LoraConfig(
        task_type="CAUSAL_LM", **lora, modules_to_save=others or None
    )
    # It is no subclass, and has all that a model has.
    lm.model = cast("PreTrainedModel", get_peft_model(lm.model, config))
    # Not by peft, whose copies of tied layers would have to be tied again.
    for layer in learned:
        layer.requires_grad_()


def _is_called(module: str, name: str) -> bool:
    """Return whether peft takes a module's full name for what it looks for."""
    return module == name or module.endswith(f".{name}")


def _check_names(model: nn.Module, argument: str, names: Any) -> None:
    """Refuse names that no module has; a string is an expression of peft's."""
    if names is None or isinstance(names, str):
        return
    modules = dict(model.named_modules())
    for name in names:
        if not any(_is_called(module, name) for module in modules):
            there = {
                full.rpartition(".")[2]
                for full, module in modules.items()
                if getattr(module, "weight", None) is not None
                and module.weight.ndim == 2
            }
            raise ValueError(
                f"{argument} of lora names {name!r}, which "
                f"{type(model).__name__} has not; it has "
                f"{', '.join(sorted(there))}"
            )


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
