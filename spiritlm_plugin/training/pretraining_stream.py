"""What a language model is trained on: the recipe's stream and its loaders."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from spiritlm_plugin.dataio.stream.mixing import Mixture
from spiritlm_plugin.dataio.stream.packed_loader import PackedLoader
from spiritlm_plugin.dataio.stream.sources import (
    load_corpora,
    load_texts,
    make_sources,
)
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.utils.configuration import TrainingSettings
from spiritlm_plugin.utils.processes import rank_and_world_size


class StreamSettings(TrainingSettings):
    """What the stream of a language model's training reads."""

    corpus_folders: list[str] | None
    text_files: list[str] | None
    valid_text_files: list[str] | None
    mode: str
    shares: dict[str, dict[str, float | None]]
    documents: Any
    epoch_steps: int
    valid_steps: int
    step_rows: int
    row_tokens: int
    attend_across: bool
    workers: int


def shares_of(hparams: StreamSettings) -> dict[str, float]:
    """Return the share of each form of document in the mode that is named.

    Example
    -------
    >>> shares = {"all": {"text": 1, "speech": 2, "asr": None}}
    >>> shares_of({"mode": "all", "shares": shares})
    {'text': 1, 'speech': 2}
    """
    mode, modes = hparams["mode"], hparams["shares"]
    if mode not in modes:
        raise ValueError(
            f"no such mode: {mode!r}; there are {', '.join(modes)}"
        )
    # An override can leave a form out by null, and by nothing else.
    return {form: share for form, share in modes[mode].items() if share}


def make_mixture(
    hparams: StreamSettings,
    vocabulary: Vocabulary,
    parts: Mapping[str, str],
    split: str,
) -> Mixture:
    """Return the stream of a split.

    Arguments
    ---------
    hparams : StreamSettings
        The recipe's.
    vocabulary : Vocabulary
        Of the language model.
    parts : dict
        `fingerprints` of the tokenizer that the corpora must come from.
    split : str
        ``"train"`` or ``"valid"``.
    """
    shares = shares_of(hparams)
    files = {
        "train": hparams["text_files"],
        "valid": hparams["valid_text_files"],
    }[split]
    texts = load_texts(files) if files else None
    corpus = None
    if texts is None or set(shares) != {"text"}:
        corpus = load_corpora(hparams["corpus_folders"] or (), split, parts)
    return Mixture(
        make_sources(shares, corpus, texts),
        vocabulary,
        hparams["documents"],
        hparams["row_tokens"],
        hparams["seed"],
        hparams["attend_across"],
    )


def stream_settings(hparams: StreamSettings) -> dict[str, str]:
    """Return what the stream of a training is made by, as text.

    Example
    -------
    >>> hparams = {"mode": "all", "shares": {"all": {"text": 1}}, "seed": 3}
    >>> hparams |= {"documents": None, "row_tokens": 64}
    >>> hparams |= {"attend_across": False, "corpus_folders": ["units"]}
    >>> settings = stream_settings(hparams | {"text_files": None})
    >>> settings["shares"], settings["seed"], settings["corpus_folders"]
    ("{'text': 1}", '3', "['units']")
    """
    settings = {
        "seed": hparams["seed"],
        "shares": shares_of(hparams),
        "row_tokens": hparams["row_tokens"],
        "attend_across": hparams["attend_across"],
        "corpus_folders": hparams["corpus_folders"],
        "text_files": hparams["text_files"],
    }
    documents = getattr(hparams["documents"], "__dict__", {})
    settings |= {
        f"documents: {key}": value
        for key, value in documents.items()
        if not key.startswith("_")
    }
    return {key: str(value) for key, value in settings.items()}


def make_loaders(
    hparams: StreamSettings,
    run_opts: Any,
    train_mixture: Mixture,
    valid_mixture: Mixture,
) -> tuple[PackedLoader, DataLoader]:
    """Return this process's share of the stream, and of its validation.

    Arguments
    ---------
    hparams : StreamSettings
        The recipe's.
    run_opts : RunOptions
        As of `load_recipe`.
    train_mixture, valid_mixture : Mixture
        Of `make_mixture`.
    """
    steps = hparams["number_of_epochs"] * hparams["epoch_steps"]
    last = getattr(hparams.get("scheduler"), "total_steps", steps)
    if last < steps:
        raise ValueError(
            f"the schedule of the rate ends after {last} steps, and there are "
            f"{steps}; correct total_steps in the YAML file"
        )
    rank, size = rank_and_world_size()
    rows = hparams["step_rows"]
    accumulation = run_opts.get("grad_accumulation_factor", 1)
    loader = PackedLoader(
        train_mixture,
        rows,
        hparams["epoch_steps"],
        accumulation,
        hparams["workers"],
        rank,
        size,
        stream_settings(hparams),
    )
    valid = PackedLoader(
        valid_mixture,
        rows,
        hparams["valid_steps"],
        accumulation,
        rank=rank,
        world_size=size,
    )
    # A list is a dataset, which torch's types do not know.
    batches: Any = list(islice(valid, len(valid)))
    return loader, DataLoader(batches, batch_size=None)
