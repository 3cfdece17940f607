"""Trained parts in the forms of other people's loaders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

from spiritlm_plugin.dataio.checkpoints import writing_model
from spiritlm_plugin.lobes.pitch import PitchQuantizer
from spiritlm_plugin.lobes.style import StyleTokenizer
from spiritlm_plugin.utils.files import write_file, writing


def export_pitch(
    folder: str | Path, arguments: Mapping[str, Any], quantizer: PitchQuantizer
) -> None:
    """Write a pitch quantizer as the released one is written.

    The decoder, which only training needs, is not in it.

    Arguments
    ---------
    folder : str or Path
        Is made; gets ``config.yaml`` and ``model.pt``.
    arguments : dict
        Of the `PitchQuantizer`, all of them, and ``"center"``.
    quantizer : PitchQuantizer
        The quantizer.

    Example
    -------
    >>> from spiritlm_plugin.lobes.pitch import PitchQuantizer
    >>> arguments = {"units": 8, "width": 4, "output_width": 4, "downs": 4,
    ...              "depth": 1, "block_ratio": 1.0, "dilation_growth": 3}
    >>> quantizer = PitchQuantizer(**arguments)
    >>> export_pitch(tmp, {"center": True, **arguments}, quantizer)
    >>> sorted(path.name for path in tmp.iterdir())
    ['config.yaml', 'model.pt']
    """
    downs = arguments["downs"]
    network = {
        "input_emb_width": 2,
        "output_emb_width": arguments["output_width"],
        "levels": 1,
        "downs_t": [downs],
        "strides_t": [2],
        "width": arguments["width"],
        "depth": arguments["depth"],
        "m_conv": arguments["block_ratio"],
        "dilation_growth_rate": arguments["dilation_growth"],
    }
    centred = "norm_" if arguments["center"] else ""
    config = {
        "features": f"{centred}f0_interp,vuv",
        "speaker_norm": False,
        "encoder_params": network,
        "vq_params": {
            "l_bins": arguments["units"],
            "emb_width": arguments["output_width"],
            "levels": 1,
        },
    }
    weights = {
        _released_name(name, downs): tensor.cpu()
        for name, tensor in quantizer.state_dict().items()
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(config, sort_keys=False)
    with writing(folder / "model.pt") as partial:
        torch.save({"model": weights}, partial)
    write_file(folder / "config.yaml", text)


def export_style(folder: str | Path, tokenizer: StyleTokenizer) -> None:
    """Write a style tokenizer as a stock transformers model.

    The model is a `transformers.Wav2Vec2ForSequenceClassification`, which
    averages over the utterance where `StyleTokenizer` averages over seconds.

    Arguments
    ---------
    folder : str or Path
        Is made; gets ``config.json`` and ``model.safetensors``.
    tokenizer : StyleTokenizer
        The tokenizer.

    Example
    -------
    >>> from spiritlm_plugin.lobes.style import StyleTokenizer
    >>> wav2vec2 = {"hidden_size": 16, "num_hidden_layers": 1,
    ...             "num_attention_heads": 2}
    >>> export_style(tmp, StyleTokenizer(wav2vec2, units=10))
    >>> model = Wav2Vec2ForSequenceClassification.from_pretrained(tmp)
    >>> model.classifier.out_features
    10
    """
    arguments = tokenizer.arguments
    config = Wav2Vec2Config(
        **{**arguments["wav2vec2"], "num_labels": arguments["units"]}
    )
    model = Wav2Vec2ForSequenceClassification(config)
    model.wav2vec2.load_state_dict(tokenizer.encoder.model.state_dict())
    model.projector.load_state_dict(tokenizer.projector.state_dict())
    model.classifier.load_state_dict(tokenizer.classifier.state_dict())
    with writing_model(folder) as partial:
        model.save_pretrained(partial)


_CONVOLUTIONS = {"dilated": 1, "pointwise": 3}


def _released_name(name: str, downs: int) -> str:
    stem = "encoder.level_blocks.0.model"
    match name.split("."):
        case ["codebook"]:
            return "vq.level_blocks.0.k"
        case ["output", kind]:
            return f"{stem}.{downs}.{kind}"
        case ["stages", stage, "0", kind]:
            return f"{stem}.{stage}.0.{kind}"
        case ["stages", stage, block, convolution, kind]:
            block = f"{stage}.1.model.{int(block) - 1}"
            index = _CONVOLUTIONS[convolution]
            return f"{stem}.{block}.model.{index}.{kind}"
    raise ValueError(f"a pitch quantizer has no {name!r}")
