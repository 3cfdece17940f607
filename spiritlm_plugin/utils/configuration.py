"""A recipe's YAML file, checked before anything is made of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import ruamel.yaml
import yaml
from hyperpyyaml import resolve_references
from pydantic import ConfigDict, TypeAdapter, ValidationError
from speechbrain.utils.run_opts import RunOptions
from typing_extensions import NotRequired, TypedDict

# What HyperPyYAML raises where it resolves references.
_UNRESOLVED = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
)
_REFERENCE = re.compile(r"<(\w+)[^<>]*>")
# What stands for a value that HyperPyYAML builds, and for one that is missing.
_BUILT, _PLACEHOLDER = object(), object()


class ConfigurationError(ValueError):
    """A YAML file, or what overrides it, that a recipe cannot use."""


class Settings(TypedDict):
    """What every recipe reads of its YAML file.

    A recipe's own settings inherit from it and name their types; those that a
    file may leave out are `NotRequired`. Values that the file builds (``!new:``
    and the like) are not looked into.
    """

    seed: int
    output_folder: str


class TrainingSettings(Settings):
    """What a `TrainingBrain` reads; see there."""

    number_of_epochs: int
    best: dict[Literal["min", "max"], str]
    epoch_counter: Any
    train_logger: Any
    checkpointer: Any
    scheduler: NotRequired[Any]
    tensorboard_logger: NotRequired[Any]
    wandb_logger: NotRequired[Any]
    log_steps: NotRequired[int | None]


def check_configuration(
    path: str | Path,
    overrides: Mapping[str, Any],
    schema: type[Settings],
) -> dict[str, Any]:
    r"""Compare a YAML file and what overrides it with what a recipe reads.

    Nothing is built or imported, but for what ``!applyref:`` names, which
    HyperPyYAML calls where it resolves references.

    Arguments
    ---------
    path : str or Path
        The file, in the syntax of HyperPyYAML.
    overrides : dict
        Values that replace those of the file.
    schema : type
        A `TypedDict`, see `Settings`.

    Returns
    -------
    dict
        The plain values.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ConfigurationError
        If the file is no YAML; if a key is missing, has no value, or one of
        another type; or if a key or an override is read by nothing. It names
        them all, each with a remedy.

    Example
    -------
    >>> class Example(Settings):
    ...     shots: int
    >>> path = tmp / "evaluate.yaml"
    >>> _ = path.write_text("seed: 1\noutput_folder: results\nshotz: 10\n")
    >>> check_configuration(path, {}, Example)
    Traceback (most recent call last):
        ...
    spiritlm_plugin.utils.configuration.ConfigurationError: ...evaluate.yaml:
      shots is missing
      shotz is read by nothing; did you mean shots?
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such YAML file: {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8: {error}") from error
    hints = get_type_hints(schema, include_extras=True)
    values = _read(path, text)
    known = {*values, *_RUN_OPTIONS}
    faults = [
        f"--{name} overrides nothing{_nested(name, values)}"
        f"{'' if _nested(name, values) else _nearest(name, known)}"
        for name in overrides
        if name not in values
    ]
    faults += [
        f"{name} has no value; give one: --{name} VALUE"
        for name, value in values.items()
        if value is _PLACEHOLDER and name not in overrides
    ]
    if not faults:
        values = _read(path, text, overrides)
        faults = _wrong_values(values, hints)
    read = {*hints, *_REFERENCE.findall(text), *_RUN_OPTIONS}
    faults += [
        f"{name} is read by nothing"
        f"{_nearest(str(name), {*hints, *_RUN_OPTIONS} - values.keys())}"
        for name in values
        if name not in read and not str(name).startswith("__")
    ]
    if faults:
        raise ConfigurationError("\n  ".join([f"{path}:", *faults]))
    return values


def check_values(
    values: Mapping[str, Any], schema: type[Settings], name: str
) -> None:
    """Compare settings that stand inside of a YAML file with what reads them.

    Arguments
    ---------
    values : dict
        Plain values.
    schema : type
        A `TypedDict`, see `Settings`.
    name : str
        What they are called in the file.

    Raises
    ------
    ConfigurationError
        If one is missing, of another type, or read by nothing; names them all.

    Example
    -------
    >>> class Example(Settings):
    ...     shots: int
    >>> values = {"seed": 1, "output_folder": "results", "shotz": 10}
    >>> check_values(values, Example, "tasks: asr")
    Traceback (most recent call last):
        ...
    spiritlm_plugin.utils.configuration.ConfigurationError: tasks: asr:
      shots is missing
      shotz is read by nothing; did you mean shots?
    """
    hints = get_type_hints(schema, include_extras=True)
    faults = _wrong_values(values, hints)
    faults += [
        f"{key} is read by nothing{_nearest(key, hints.keys() - values.keys())}"
        for key in values
        if key not in hints
    ]
    if faults:
        raise ConfigurationError("\n  ".join([f"{name}:", *faults]))


def check_arguments(arguments: Iterable[str]) -> None:
    """Refuse arguments of a command line that would be misread silently.

    Arguments
    ---------
    arguments : iterable of str
        Of a recipe.

    Raises
    ------
    ConfigurationError
        If YAML would cut a value at " #", or SpeechBrain take a name for the
        beginning of a run option.

    Example
    -------
    >>> check_arguments(["train.yaml", "--debug", "--title='take #3'"])
    >>> check_arguments(["train.yaml", "--title=take #3"])
    Traceback (most recent call last):
        ...
    spiritlm_plugin.utils.configuration.ConfigurationError: --title=take #3 ...
    """
    places = 1  # for values behind a name; first, for the YAML file
    is_file = True
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            option = name[len("--") :]
            _check_name(option)
            places = 0 if equals else _PLACES.get(option, 1)
            is_file = False
        elif places:
            places -= 1
            value = "" if is_file else argument
        elif is_file:
            raise ConfigurationError(
                f"{argument!r} stands behind no --name; a recipe takes one YAML "
                "file, then options"
            )
        else:
            raise ConfigurationError(
                f"{argument!r} stands behind no --name that takes it; write "
                "--name=value, with quotes around what has blanks"
            )
        if _loses_its_end(value):
            raise ConfigurationError(
                f"{argument} is cut at ' #', where a comment of YAML begins; "
                "put the value into quotes of YAML: \"--name='a #b'\""
            )


def _check_name(name: str) -> None:
    begun = [o for o in sorted(_RUN_OPTIONS) if o.startswith(name)]
    if begun and name not in _RUN_OPTIONS:
        raise ConfigurationError(
            f"--{name} would be taken for the run option --{begun[0]}; write "
            "the name out, or rename the setting"
        )


def parse_overrides(text: str) -> dict[str, Any]:
    """Return what overrides a YAML file, of its text.

    Raises
    ------
    ConfigurationError
        If it is no YAML of names and values.

    Example
    -------
    >>> dict(parse_overrides("shots: 3"))
    {'shots': 3}
    """
    try:
        # With its tags, as HyperPyYAML reads it.
        values = ruamel.yaml.YAML().load(text) or {}
    except ruamel.yaml.constructor.DuplicateKeyError as error:
        found = re.search(r'duplicate key "([^"]*)"', str(error.problem))
        name = f"--{found[1]}" if found else "an option"
        raise ConfigurationError(
            f"{name} is given twice; once is enough"
        ) from None
    except ruamel.yaml.error.MarkedYAMLError as error:
        raise ConfigurationError(
            f"cannot read the overrides as YAML: {_where(error)}"
        ) from None
    if not isinstance(values, dict):
        raise ConfigurationError(
            f"overrides are of the form --name=value, got {text!r}"
        )
    return values


_RUN_OPTIONS = frozenset(field.name for field in fields(RunOptions))
# How many values run options take on the command line, where it is not one.
_PLACES = {
    field.name: 0
    for field in fields(RunOptions)
    if isinstance(field.default, bool)
} | {"jit_module_keys": 99, "compile_module_keys": 99}


class _PlainLoader(ruamel.yaml.SafeLoader):
    """Reads as HyperPyYAML does, and makes nothing of what that would build."""


def _tuple(loader: Any, node: Any) -> Any:
    """Return the values of a tuple, unless something is built in it."""
    text = loader.construct_scalar(node).strip()[1:-1]
    try:
        return tuple(yaml.safe_load(f"[{text}]"))
    except yaml.YAMLError:
        return _BUILT


_PlainLoader.add_multi_constructor("!", lambda *_: _BUILT)
_PlainLoader.add_multi_constructor(
    "tag:yaml.org,2002:python/", lambda *_: _BUILT
)
_PlainLoader.add_constructor("!PLACEHOLDER", lambda *_: _PLACEHOLDER)
_PlainLoader.add_constructor("!tuple", _tuple)
_PlainLoader.add_implicit_resolver("!tuple", re.compile(r"^\(.*\)$"), ["("])


def _read(
    path: Path, text: str, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read the plain values of a file, references resolved if overridden."""
    try:
        stream: Any = text
        if overrides is not None:
            with open(path, encoding="utf-8") as file:
                stream = resolve_references(file, dict(overrides))
        # ruamel.yaml's loader, which the types of yaml do not know.
        loader: Any = _PlainLoader
        values = yaml.load(stream, Loader=loader)
    except ruamel.yaml.error.MarkedYAMLError as error:
        raise ConfigurationError(
            f"cannot read {path} as YAML: {_where(error)}"
        ) from error
    except ruamel.yaml.YAMLError as error:
        raise ConfigurationError(
            f"cannot read {path} as YAML: {error}"
        ) from error
    except _UNRESOLVED as error:
        raise ConfigurationError(
            f"cannot resolve references and overrides of {path}: {error}"
        ) from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} holds no names with values")
    return values


def _wrong_values(
    values: Mapping[str, Any], hints: Mapping[str, Any]
) -> list[str]:
    """Return what is missing, and what is of another type."""
    faults = []
    for name, hint in hints.items():
        if name not in values:
            if get_origin(hint) is not NotRequired:
                faults.append(f"{name} is missing")
            continue
        if get_origin(hint) is NotRequired:
            [hint] = hint.__args__
        value = values[name]
        if value is _BUILT or hint is Any:
            continue
        try:
            TypeAdapter(hint, config=ConfigDict(strict=True)).validate_python(
                value
            )
        except ValidationError as error:
            faults.append(_say(name, value, hint, error))
    return faults


def _say(name: str, value: Any, hint: Any, error: ValidationError) -> str:
    """Return what is wrong with a value, and what would be right."""
    wanted = getattr(hint, "__name__", "") if isinstance(hint, type) else ""
    wanted = str(hint) if "[" in str(hint) else wanted or str(hint)
    words = f"{name} should be {wanted.replace('typing.', '')}, got {value!r}"
    kinds = {fault["type"] for fault in error.errors()}
    if "list_type" in kinds and isinstance(value, str):
        return f'{words}; write a list: "--{name}=[{value}]"'
    if "string_type" in kinds and not isinstance(value, (dict, list)):
        return f"{words}; put it into quotes of YAML: \"--{name}='...'\""
    places = {
        ".".join(map(str, fault["loc"])): fault["msg"]
        for fault in error.errors()
        if fault["loc"]
    }
    if isinstance(value, (dict, list)) and places:
        words += "".join(f"; {at}: {why}" for at, why in places.items())
    return words


def _nested(name: str, values: Mapping[str, Any]) -> str:
    """Return how a key inside of another is set, if a name is of such a one."""
    outer, *inner = str(name).split(".")
    if not inner or outer not in values:
        return ""
    words = "VALUE"
    for key in reversed(inner):
        words = f"{{{key}: {words}}}"
    return f'; keys inside of {outer} are set by --{outer} "{words}"'


def _nearest(name: str, names: Iterable[str]) -> str:
    found = get_close_matches(name, sorted(names), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _where(error: ruamel.yaml.error.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    line = "" if mark is None else f", line {mark.line + 1}"
    return f"{error.problem or error.context}{line}"


def _loses_its_end(value: str) -> bool:
    """Whether YAML takes the end of a value for a comment."""
    try:
        node = ruamel.yaml.YAML().compose(value)
    except ruamel.yaml.YAMLError:
        return False
    end = 0 if node is None else node.end_mark.index
    return "#" in value[end:]
