"""What a user asks for when a model is loaded, besides SpeechBrain's options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from spiritlm_plugin.utils.arguments import shown

# What can be quantized; a module says itself in which forms.
PARTS = ("language_model", "tokenizer")
_NAME = "quantize"


def split_run_opts(run_opts: Any) -> tuple[Any, dict[str, str]]:
    """Return the run options that are SpeechBrain's, and what to quantize.

    Arguments
    ---------
    run_opts : dict or RunOptions or None
        A dict may have an entry ``quantize``: names of parts and the form that
        each is quantized to.

    Returns
    -------
    run_opts : dict or RunOptions or None
        For `Pretrained`.
    forms : dict
        Of parts; empty where nothing is quantized.

    Raises
    ------
    TypeError
        If ``quantize`` is no dict of names.
    ValueError
        If it names a part that cannot be quantized.

    Example
    -------
    >>> split_run_opts({"device": "cpu", "quantize": {"tokenizer": "int8"}})
    ({'device': 'cpu'}, {'tokenizer': 'int8'})
    """
    if not isinstance(run_opts, Mapping) or _NAME not in run_opts:
        return run_opts, {}
    others = {name: v for name, v in run_opts.items() if name != _NAME}
    forms = run_opts[_NAME]
    if forms is None:
        return others, {}
    if not isinstance(forms, Mapping) or not all(
        isinstance(form, str) for form in forms.values()
    ):
        raise TypeError(
            f"quantize holds forms of parts, such as {{{PARTS[0]!r}: 'int8'}}, "
            f"got {shown(forms)}"
        )
    unknown = [str(part) for part in forms if part not in PARTS]
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)} cannot be quantized; what can is "
            f"{' and '.join(PARTS)}"
        )
    return others, dict(forms)


def with_quantize(run_opts: Any, forms: Mapping[str, str] | None) -> Any:
    """Return run options that also say what to quantize.

    Arguments
    ---------
    run_opts : dict or RunOptions
        Such as those of a command line.
    forms : dict, optional
        As of `split_run_opts`; nothing if None.

    Example
    -------
    >>> from speechbrain.utils.run_opts import RunOptions
    >>> given = RunOptions.from_dictionary({"device": "cpu"})
    >>> with_quantize(given, {"language_model": "int8"})
    {'device': 'cpu', 'quantize': {'language_model': 'int8'}}
    """
    if not forms:
        return run_opts
    names = getattr(run_opts, "overridden_args", run_opts)
    return {**{n: run_opts[n] for n in sorted(names)}, _NAME: dict(forms)}


def quantize(modules: Mapping[str, Any], forms: Mapping[str, str]) -> None:
    """Quantize modules in place, once, when they are where they will run.

    Arguments
    ---------
    modules : dict
        By their names.
    forms : dict
        As of `split_run_opts`.

    Raises
    ------
    ValueError
        If a module is not there, or does not know this form.

    Example
    -------
    >>> lm = SpiritLM.from_hparams(
    ...     "tinyspeech", run_opts={"quantize": {"language_model": "int8"}}
    ... )
    >>> lm.mods.language_model.quantized
    'int8'
    """
    able = [part for part in PARTS if _can(modules, part)]
    for part in forms:
        if part not in able:
            raise ValueError(
                f"this model has no {part} that could be quantized, but "
                f"{' and '.join(able) or 'nothing'}; leave it out of quantize. "
                "Another engine quantizes its language model by engine_options"
            )
    for part, form in forms.items():
        modules[part].quantize(form)


def _can(modules: Mapping[str, Any], part: str) -> bool:
    module: nn.Module | None = modules[part] if part in modules else None
    return hasattr(module, "quantize")
