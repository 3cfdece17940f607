"""Fine-tuning of a whole Spirit LM, on answers to questions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from speechbrain import Stage
from speechbrain.utils.distributed import run_on_main
from torch import Tensor

from spiritlm_plugin.dataio.stream.packed_loader import PackedBatch
from spiritlm_plugin.dataio.units.units import Kind, SpeechStream
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes.language_model import (
    LanguageModel,
    load_language_model,
)
from spiritlm_plugin.pretrained.folders import local_folder
from spiritlm_plugin.pretrained.trust import read_hyperparams
from spiritlm_plugin.training.pretraining import (
    LanguageModelBrain,
    make_language_model,
)
from spiritlm_plugin.training.pretraining_stream import (
    StreamSettings,
    shares_of,
)

_LANGUAGE_MODEL = re.compile(r"<pretrained_path>/(language_model\w*)")
# What a task's marker is like before it is trained, as what stands behind it is.
_LIKE = {"asr": "text", "tts": "speech"}


class FinetuningSettings(StreamSettings):
    """What fine-tuning reads."""

    model: str
    hparams_file: str
    lora: dict[str, Any]
    activation_checkpointing: bool
    fsdp: bool
    loss_weights: dict[str, float]
    sample_count: int
    judged_count: int
    export_dtype: str | None
    opt_class: Any


class FinetuningBrain(LanguageModelBrain):
    """Trains a `LanguageModel` on the answers of packed rows of documents."""

    def compute_forward(
        self, batch: PackedBatch, stage: Stage
    ) -> tuple[Tensor, dict[str, tuple[int, float, float]]]:
        """Return the summed loss of the answers, and its figures."""
        labels = batch.labels
        answers = labels >= 0
        if not answers.any():
            answers[0, 0] = True  # of a label that says nothing
        score = partial(
            self._score,
            answers=answers.to(self.device, non_blocking=True),
            labels=labels[answers].to(self.device, non_blocking=True),
        )
        ids = batch.ids.to(self.device, non_blocking=True)
        return self.modules.model(ids, positions=batch.positions, score=score)

    def _score(
        self,
        hidden: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        answers: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, dict[str, tuple[int, float, float]]]:
        # Most tokens are those of questions: no logits are made of them.
        return self.figures(hidden[answers], weight, bias, labels)

    def compute_objectives(
        self,
        predictions: tuple[Tensor, dict[str, tuple[int, float, float]]],
        batch: PackedBatch,
        stage: Stage,
    ) -> Tensor:
        """Return the loss, so that all answers' tokens of a step count alike."""
        targets = torch.tensor(batch.own_targets, device=self.device)
        if dist.is_initialized():
            dist.all_reduce(targets)
        batch = replace(batch, step_targets=max(int(targets), 1))
        return super().compute_objectives(predictions, batch, stage)


def make_start(hparams: FinetuningSettings) -> dict[str, Any]:
    """Find a model, and what `make_language_model` reads to start from it.

    A model that has no markers of the tasks that it is trained on, such as the
    released ones, gets them first, and is written to the output folder.

    Arguments
    ---------
    hparams : FinetuningSettings
        The recipe's.

    Returns
    -------
    dict
        Settings of pretraining, ``codec`` and ``pretrained`` among them.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    ValueError
        If it has no language model, or no room for the markers.

    Example
    -------
    >>> shares = {"mode": "all", "shares": {"all": {"asr": 1}}}
    >>> start = make_start(
    ...     {"model": "tinyspeech", "hparams_file": "hyperparams.yaml", **shares}
    ... )
    >>> start["codec"], Path(start["pretrained"]).name
    ('tinyspeech', 'language_model')
    """
    source = _language_model_of(hparams["model"], hparams["hparams_file"])
    known = Vocabulary.load(source).markers
    forms = {form.partition("_")[0] for form in shares_of(hparams)}
    missing = sorted(forms & _LIKE.keys() - known.keys())
    if missing:
        start = Path(hparams["output_folder"]) / "start"
        run_on_main(_write_with_markers, args=[source, start])
        source = start
    return {
        "codec": hparams["model"],
        "codec_hparams": hparams["hparams_file"],
        "pretrained": str(source),
        "random_weights": False,
        "rope_theta": None,
        "context": None,
    }


def _language_model_of(model: str, hparams_file: str) -> Path:
    folder = local_folder(model, hparams_file)
    found = _LANGUAGE_MODEL.search(read_hyperparams(folder / hparams_file))
    if not found:
        raise ValueError(
            f"{folder / hparams_file} has no language model to be trained on; "
            "name a model that spiritlm-convert or a recipe has written"
        )
    return folder / found[1]


def _write_with_markers(source: Path, folder: Path) -> None:
    lm = load_language_model(source)
    add_task_markers(lm)
    lm.save(folder)


def add_task_markers(lm: LanguageModel) -> None:
    """Give a model the markers of transcribing and reading, in spare rows.

    They begin as what stands behind them has its own: ``[ASR]`` as ``[Text]``
    and ``[TTS]`` as ``[Speech]``.

    Arguments
    ---------
    lm : LanguageModel
        Is changed. The released models have a few hundred spare rows.

    Raises
    ------
    ValueError
        If it has no row to spare.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> add_task_markers(lm)
    >>> sorted(lm.vocabulary.markers)
    ['asr', 'speech', 'text', 'tts']
    """
    old = lm.vocabulary
    new = [name for name in _LIKE if name not in old.markers]
    if old.size + len(new) > lm.rows:
        raise ValueError(
            f"the model's embedding has {lm.rows} rows for {old.size} tokens, "
            f"and none to spare for {len(new)} more; train on few_shot_asr or "
            "other forms without [ASR] and [TTS]"
        )
    markers = {name: old.size + i for i, name in enumerate(new)}
    layers = lm.model.get_input_embeddings(), lm.model.get_output_embeddings()
    with torch.no_grad():
        # Tied weights are changed twice, to the same.
        for weight in chain.from_iterable(x.parameters() for x in layers):
            for name, row in markers.items():
                weight[row] = weight[old.markers[_LIKE[name]]]
    units = {
        kind: old.encode_speech(SpeechStream([int(kind)] * count, range(count)))
        for kind in Kind
        if (count := old.unit_count(kind))
    }
    lm.vocabulary = Vocabulary(old.text, old.markers | markers, units)


def make_finetuned(
    hparams: Mapping[str, Any], units: Mapping[str, int]
) -> LanguageModel:
    """Load the model that is trained on, whole or with adapters.

    Arguments
    ---------
    hparams : dict
        The recipe's, with what `make_start` has found.
    units : dict
        How many there are of each stream of its tokenizer.

    Raises
    ------
    ValueError
        If the tokenizer has other units than the language model, or as of
        `make_language_model`.
    """
    settings: Any = hparams
    known = Vocabulary.load(hparams["pretrained"])
    for kind in Kind:
        count = units.get(kind.name.lower(), 0)
        if known.unit_count(kind) != count:
            raise ValueError(
                f"the language model of {hparams['codec']} has "
                f"{known.unit_count(kind)} {kind.name.lower()} units, and its "
                f"tokenizer {count}; choose the hparams_file that fits"
            )
    return make_language_model(settings, units)
