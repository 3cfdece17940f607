"""Pretrained folders, released checkpoints and those of training, damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from spiritlm_plugin import SpeechCodec, SpeechUnits, SpiritLM, Text
from spiritlm_plugin.pretrained import folders
from spiritlm_plugin.training.checkpointer import AtomicCheckpointer
from spiritlm_plugin.training.trainer import RunningMeans
from tests.fuzz.harness import Case, WrongResult
from tests.fuzz.manifests import damage_bytes

_SHIPPED = Path(folders.__file__).parent / "tinyspeech"
_RELEASE = Path(__file__).parents[1] / "conformance" / "small" / "checkpoints"
_YAML = "hyperparams.yaml"
_UNITS = SpeechUnits([5] * 50, [3] * 25, [1] * 2)
_VALUES = [None, True, -1, 0, 3, 0.5, 10**9, "a", "", [], {}, [1], {"a": 1}]


def prepare() -> None:
    """Nothing is shared: each case loads its own model."""
    torch.set_num_threads(1)


def make_case(rng: np.random.Generator, folder: Path) -> Case:
    """Damage a file of a folder."""
    kind = str(rng.choice(list(_KINDS)))
    return _KINDS[kind](rng, folder, kind)


def run_case(case: Case, tools: None) -> None:
    """Load it: it is whole, or what is not is named."""
    load, may_load = case.content
    load()
    if not may_load:
        raise WrongResult("a damaged file was loaded without a word")


def _link(source: Path, folder: Path) -> Path:
    """Return a folder of links, each of which can be replaced."""
    for path in source.rglob("*"):
        place = folder / source.name / path.relative_to(source)
        if path.is_dir():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path.resolve())
    return folder / source.name


def _damage(rng: np.random.Generator, path: Path) -> str:
    """Damage a file and return how."""
    hows = ["bytes"] * 4 + ["gone", "a folder"]
    hows += {
        ".json": ["values"] * 4,
        ".yaml": ["lines"] * 8,
        ".safetensors": ["numbers"] * 3,
    }.get(path.suffix, [])
    how = str(rng.choice(hows))
    content = path.read_bytes()
    path.unlink()
    if how == "bytes":
        how, content = damage_bytes(rng, content)
        path.write_bytes(content)
    elif how == "a folder":
        path.mkdir()
    elif how == "values":
        path.write_text(json.dumps(_other_values(rng, json.loads(content))))
    elif how == "lines":
        path.write_text(_other_lines(rng, content.decode()))
    elif how == "numbers":
        path.write_bytes(content)
        how = _other_numbers(rng, path)
    return how


def _other_values(rng: np.random.Generator, content: Any) -> Any:
    """Change, add or remove a value of JSON."""
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            return content
        key = keys[int(rng.integers(len(keys)))]
        inner = place[key]
        if rng.random() < 0.5 or not isinstance(inner, (dict, list)):
            break
        place = inner
    if rng.random() < 0.3:
        del place[key]
    else:
        place[key] = _VALUES[rng.integers(len(_VALUES))]
    return content


def _other_lines(rng: np.random.Generator, text: str) -> str:
    """Remove, repeat or change lines of YAML."""
    lines = text.split("\n")
    for _ in range(int(rng.integers(1, 3))):
        place = int(rng.integers(len(lines)))
        line = lines[place]
        key, colon, _ = line.partition(": ")
        value = _VALUES[rng.integers(len(_VALUES))]
        lines[place : place + 1] = [
            [],
            [line, line],
            [f"  {line}"],
            [line.strip()],
            [line[: int(rng.integers(len(line) + 1))]],
            [f"{key}{colon or ': '}{json.dumps(value)}"],
        ][rng.integers(6)]
    return "\n".join(lines)


def _other_numbers(rng: np.random.Generator, path: Path) -> str:
    """Spoil the values, types, shapes or names of weights."""
    state = load_file(path)
    floats = [
        n for n, t in state.items() if t.is_floating_point() and t.numel()
    ]
    name = floats[int(rng.integers(len(floats)))]
    how = str(rng.choice(["NaN", "infinite", "type", "shape", "name", "lack"]))
    tensor = state.pop(name)
    if how in ("NaN", "infinite"):
        tensor = tensor.clone()
        value = torch.nan if how == "NaN" else -torch.inf
        tensor.view(-1)[int(rng.integers(tensor.numel()))] = value
    elif how == "type":
        kinds = [torch.int8, torch.int64, torch.bool, torch.complex64]
        tensor = tensor.to(kinds[rng.integers(len(kinds))])
    elif how == "shape":
        tensor = tensor[None]
    if how == "name":
        name = f"{name}_"
    if how != "lack":
        state[name] = tensor
    save_file(state, path, {"format": "pt"})
    return how


# What may load: other numbers, and what a model does without.
_HARMLESS = {
    "flipped",
    "more",
    "values",
    "lines",
    "zeros",
    "truncated",
    "random",
}
_UNNEEDED = {
    "README.md",
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def _may_load(path: Path, how: str) -> bool:
    if path.name in _UNNEEDED or path.parent.name.endswith("_base"):
        return True
    if path.suffix == ".safetensors":
        # Bits of weights, and zeros for their end, are numbers.
        return how in ("flipped", "zeros")
    return how in _HARMLESS or how == "foreign"


def _pretrained(rng: np.random.Generator, folder: Path, kind: str) -> Case:
    """Damage the folder of the model that ships."""
    is_codec = kind == "a codec"
    model = _link(_SHIPPED, folder)
    files = [p for p in model.rglob("*") if p.is_file()]
    if is_codec:
        files = [p for p in files if p.parent == model]
    files = [p for p in files if "_base" not in str(p) and p.suffix != ".md"]
    files += [model / _YAML] * 3
    path = files[int(rng.integers(len(files)))]
    how = _damage(rng, path)
    load = _load_codec if is_codec else _load_model
    content = (lambda: load(model), _may_load(path, how))
    return Case(f"{kind}, {path.suffix}: {how}", content, (str(model),))


def _load_codec(folder: Path) -> None:
    codec = SpeechCodec.from_hparams(folder)
    wavs, _ = codec.decode_batch([_UNITS])
    if not wavs.isfinite().all():
        raise WrongResult("a sound that is no number")


def _load_model(folder: Path) -> None:
    lm = SpiritLM.from_hparams(folder)
    sums, _ = lm.log_likelihood([[Text("the cat")]], [[Text(" sat")]])
    if not sums.isfinite().all():
        raise WrongResult(f"a likelihood of {sums}")


def _release(rng: np.random.Generator, folder: Path, kind: str) -> Case:
    """Damage checkpoints in the released layout."""
    root = _link(_RELEASE, folder)
    files = [p for p in sorted(root.rglob("*")) if p.is_file()]
    files = [p for p in files if "base-7b" not in str(p)]
    files = [p for p in files if p.parent.name != "hifigan_spiritlm_base"]
    path = files[int(rng.integers(len(files)))]
    how = _damage(rng, path)
    load = lambda: SpiritLM.from_release(root, "expressive")  # noqa: E731
    may_load = path.name in _UNNEEDED or (
        how in _HARMLESS | {"foreign"}
        if path.suffix in (".json", ".yaml", ".txt", ".model")
        else how in ("flipped", "more", "zeros")
    )
    return Case(f"{kind}, {path.suffix}: {how}", (load, may_load), (str(root),))


def _training(rng: np.random.Generator, folder: Path, kind: str) -> Case:
    """Damage a checkpoint of training."""
    checkpointer, state = _checkpointer(folder)
    saved = checkpointer.save_checkpoint(meta={"loss": 1.0}).path
    files = sorted(saved.iterdir())
    path = files[int(rng.integers(len(files)))]
    how = _damage(rng, path)
    content = (lambda: _recover(folder), how in _HARMLESS | {"foreign"})
    if path.suffix == ".yaml" and how in ("gone", "a folder"):
        content = (lambda: _recover(folder), True)  # then it is none
    return Case(f"{kind}, {path.name}: {how}", content, (str(saved),))


def _checkpointer(folder: Path) -> tuple[AtomicCheckpointer, dict[str, Any]]:
    model = nn.Linear(9, 9)
    means = RunningMeans()
    means.add({"loss": 1.0})
    state = {
        "model": model,
        "optimizer": torch.optim.AdamW(model.parameters()),
        "means": means,
    }
    return AtomicCheckpointer(folder, state), state


def _recover(folder: Path) -> None:
    checkpointer, state = _checkpointer(folder)
    checkpointer.recover_if_possible()
    if not state["model"].weight.isfinite().all():
        raise WrongResult("weights that are no numbers")


_Maker = Callable[[np.random.Generator, Path, str], Case]
_KINDS: dict[str, _Maker] = {
    "a codec": _pretrained,
    "a model": _pretrained,
    "a release": _release,
    "training": _training,
}
