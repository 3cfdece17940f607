"""A trained language model, put together with its tokenizer and vocoder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from spiritlm_plugin.integrations.parts import add_language_model
from spiritlm_plugin.integrations.training_record import write_record
from spiritlm_plugin.lobes.language_model import LanguageModel
from spiritlm_plugin.pretrained.folders import local_folder
from spiritlm_plugin.utils.files import read_text, write_file, writing

_FILE = re.compile(r"<pretrained_path>/([\w.-]+)")
_LANGUAGE_MODEL = re.compile(r"(?<=<pretrained_path>/)language_model\w*")


def export_model(
    lm: LanguageModel,
    folder: str | Path,
    codec: str | Path,
    codec_hparams: str = "hyperparams.yaml",
    state: dict[str, Tensor] | None = None,
    dtype: str | None = None,
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Write a SpeechBrain pretrained folder.

    Arguments
    ---------
    lm : LanguageModel
        Trained on units of the codec; goes to ``language_model``, a stock
        folder of transformers.
    folder : str or Path
        Is made, or its files are replaced.
    codec : str or Path
        As of `SpeechCodec.from_hparams`; its files are copied.
    codec_hparams : str
        In that folder.
    state, dtype
        As of `LanguageModel.save`.
    training : dict, optional
        As of `training_record`; goes to ``training.json``, of which
        `push_to_hub` makes the model card.

    Returns
    -------
    Path
        The folder, for `SpiritLM.from_hparams`.

    Example
    -------
    >>> from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
    >>> from spiritlm_plugin.lobes.language_model import new_language_model
    >>> text = train_text_tokenizer(["the cat sat on the mat"], 280)
    >>> vocabulary = Vocabulary.extend(text, phonetic=201, pitch=64, style=24)
    >>> lm = new_language_model(
    ...     {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1,
    ...      "num_attention_heads": 2, "intermediate_size": 16}, vocabulary
    ... )
    >>> folder = export_model(lm, tmp / "model", "tinyspeech")
    >>> SpiritLM.from_hparams(folder).expressive
    True
    """
    source, folder = local_folder(codec, codec_hparams), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    yaml = read_text(source / codec_hparams)
    # Without it the folder is no model's.
    (folder / "hyperparams.yaml").unlink(missing_ok=True)
    for name in set(_FILE.findall(yaml)):
        if (source / name).is_file():
            with writing(folder / name) as partial:
                shutil.copy(source / name, partial)
    write_record(folder, training)
    lm.save(folder / "language_model", state, dtype)
    has_one = _LANGUAGE_MODEL.search(yaml)
    yaml = _LANGUAGE_MODEL.sub("language_model", yaml)
    write_file(folder / "hyperparams.yaml", yaml)
    if not has_one:
        add_language_model(folder)
    return folder
