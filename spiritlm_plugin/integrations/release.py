"""Reader of the released Spirit LM checkpoints.

Turns the layout that Meta publishes into this package's modules: their
arguments, as the text of a ``hyperparams.yaml``, and their weights.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from spiritlm_plugin.dataio.checkpoints import (
    CheckpointError,
    read_pickle,
    require_files,
)
from spiritlm_plugin.integrations.parts import Parts
from spiritlm_plugin.lobes.style import WAV2VEC2_KEYS

VARIANTS = ("base", "expressive")
State = dict[str, Tensor]

# The released HuBERT is quantized after this layer.
_HUBERT_LAYER = 11
_LONGEST_EXPRESSION = 1000
_MOST_LAYERS = 64
_SPEAKER = 2
_GLOBAL_STYLE = 8


def read_release(folder: str | Path, variant: str) -> Parts:
    """Read the released checkpoints.

    Arguments
    ---------
    folder : str or Path
        With ``speech_tokenizer`` and ``spiritlm_model`` in it.
    variant : str
        ``"base"`` or ``"expressive"``.

    Raises
    ------
    FileNotFoundError
        Naming all files that are missing.
    CheckpointError
        If a file is damaged or not of the released form.
    ValueError
        If there is no such variant.

    Example
    -------
    >>> release = read_release(checkpoints, "base")
    >>> sorted(release.states)
    ['phonetic', 'vocoder']
    """
    if variant not in VARIANTS:
        raise ValueError(
            f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}"
        )
    folder = Path(folder)
    expressive = variant == "expressive"
    vocoder = "hifigan_spiritlm_base"
    if expressive:
        vocoder = "hifigan_spiritlm_expressive_w2v2"
    tokenizer = folder / "speech_tokenizer"
    lm = folder / "spiritlm_model" / f"spirit-lm-{variant}-7b"
    needed = [
        tokenizer / "hubert_25hz" / "mhubert_base_25hz.pt",
        tokenizer / "hubert_25hz" / "L11_quantizer_500.pt",
        tokenizer / vocoder / "config.json",
        tokenizer / vocoder / "generator.pt",
        tokenizer / vocoder / "speakers.txt",
        lm / "config.json",
        lm / "tokenizer.model",
    ]
    if not any(lm.glob("*.bin")) and not any(lm.glob("*.safetensors")):
        needed.append(lm / "pytorch_model.bin")
    if expressive:
        needed += [
            tokenizer / "vqvae_f0_quantizer" / "config.yaml",
            tokenizer / "vqvae_f0_quantizer" / "model.pt",
            tokenizer / "style_encoder_w2v2" / "config.json",
            tokenizer / "style_encoder_w2v2" / "pytorch_model.bin",
        ]
    require_files(folder, [str(p.relative_to(folder)) for p in needed])

    readers = {
        "phonetic": (_read_phonetic, tokenizer / "hubert_25hz"),
        "vocoder": (_read_vocoder, tokenizer / vocoder),
    }
    if expressive:
        readers["pitch"] = (_read_pitch, tokenizer / "vqvae_f0_quantizer")
        readers["style"] = (_read_style, tokenizer / "style_encoder_w2v2")
    arguments, states, places = {}, {}, {}
    for name, (read, path) in readers.items():
        try:
            arguments[name], states[name] = read(path)
        except CheckpointError:
            raise
        except Exception as error:  # whatever another form leads to
            raise CheckpointError(
                f"{path} is not of the released form: {error!r}"
            ) from error
        places[name] = path
    return Parts(folder, arguments, states, lm, places)


def rename(state: State, rules: list[tuple[str, str]]) -> State:
    r"""Rename tensors by the first rule that matches; others are dropped.

    Example
    -------
    >>> rename({"a.0.w": 1, "b": 2}, [(r"a\.(\d)", r"layers.\1")])
    {'layers.0.w': 1}
    """
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in rules:
            if re.match(pattern, name):
                renamed[re.sub(f"^{pattern}", replacement, name)] = tensor
                break
    return renamed


_WEIGHT_NORM = [
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
]


def _modern_weight_norm(state: State) -> State:
    """Give weight norms the names of torch's parametrizations."""
    for pattern, replacement in _WEIGHT_NORM:
        state = {re.sub(pattern, replacement, k): v for k, v in state.items()}
    return state


def parse_conv_layers(expression: str) -> list[tuple[int, int, int]]:
    """Read fairseq's list of convolutions without evaluating it.

    Arguments
    ---------
    expression : str
        Lists of (channels, kernel, stride), added and multiplied.

    Raises
    ------
    CheckpointError
        If there is anything else in it.

    Example
    -------
    >>> parse_conv_layers("[(8,10,5)] + [(8, 3, 2)] * 2")
    [(8, 10, 5), (8, 3, 2), (8, 3, 2)]
    """

    def read(node: ast.AST) -> Any:
        match node:
            case ast.Expression(body=body):
                return read(body)
            case ast.Constant(value=int(value)) if value < 2**16:
                return value
            case ast.Tuple(elts=[a, b, c]):
                return (read(a), read(b), read(c))
            case ast.List(elts=elements):
                return [read(element) for element in elements]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return [*read(left), *read(right)]
            case ast.BinOp(
                left=left, op=ast.Mult(), right=ast.Constant(value=int(times))
            ) if len(layers := [*read(left)]) * times <= _MOST_LAYERS:
                return layers * times
        raise ValueError(ast.dump(node)[:80])

    try:
        if len(expression) > _LONGEST_EXPRESSION:
            raise ValueError("too long")
        layers = read(ast.parse(expression.strip(), mode="eval"))
        return [(int(a), int(b), int(c)) for a, b, c in layers]
    except (
        ValueError,
        TypeError,
        SyntaxError,
        RecursionError,
        MemoryError,
        AttributeError,
    ) as error:
        raise CheckpointError(
            f"conv_feature_layers is not a list of (channels, kernel, "
            f"stride): {expression!r:.200}"
        ) from error


def _read_config(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise CheckpointError(
            f"cannot read {path}: {error}; download it again"
        ) from error


def _read_phonetic(path: Path) -> tuple[dict, State]:
    checkpoint = read_pickle(path / "mhubert_base_25hz.pt")
    config = checkpoint["model_cfg"]
    if config["layer_norm_first"] or config["extractor_mode"] != "default":
        raise CheckpointError(
            f"{path}: only post-norm HuBERT with group norm is supported"
        )
    layers = parse_conv_layers(config["conv_feature_layers"])
    hubert = {
        "hidden_size": config["encoder_embed_dim"],
        "intermediate_size": config["encoder_ffn_embed_dim"],
        "num_hidden_layers": min(_HUBERT_LAYER, config["encoder_layers"]),
        "num_attention_heads": config["encoder_attention_heads"],
        "hidden_act": config["activation_fn"],
        "conv_dim": [layer[0] for layer in layers],
        "conv_kernel": [layer[1] for layer in layers],
        "conv_stride": [layer[2] for layer in layers],
        "conv_bias": config["conv_bias"],
        "num_conv_pos_embeddings": config["conv_pos"],
        "num_conv_pos_embedding_groups": config["conv_pos_groups"],
    }
    weights = dict(checkpoint["model_weight"])
    dim = hubert["hidden_size"]
    # fairseq has no projection where the sizes are equal.
    weights.setdefault("post_extract_proj.weight", torch.eye(dim))
    weights.setdefault("post_extract_proj.bias", torch.zeros(dim))
    weights = {
        name: tensor
        for name, tensor in weights.items()
        if not (m := re.match(r"encoder\.layers\.(\d+)\.", name))
        or int(m[1]) < hubert["num_hidden_layers"]
    }
    conv, layer = r"feature_extractor\.conv_layers\.(\d+)", r"encoder\.layers"
    new_layer = r"encoder.model.encoder.layers.\1"
    state = rename(
        weights,
        [
            ("mask_emb", "encoder.model.masked_spec_embed"),
            (
                rf"{conv}\.0\.",
                r"encoder.model.feature_extractor.conv_layers.\1.conv.",
            ),
            (
                rf"{conv}\.2\.",
                r"encoder.model.feature_extractor.conv_layers.\1.layer_norm.",
            ),
            (
                "post_extract_proj",
                "encoder.model.feature_projection.projection",
            ),
            (r"layer_norm\.", "encoder.model.feature_projection.layer_norm."),
            (
                r"encoder\.pos_conv\.0",
                "encoder.model.encoder.pos_conv_embed.conv",
            ),
            (r"encoder\.layer_norm", "encoder.model.encoder.layer_norm"),
            (rf"{layer}\.(\d+)\.self_attn\.", rf"{new_layer}.attention."),
            (
                rf"{layer}\.(\d+)\.self_attn_layer_norm",
                rf"{new_layer}.layer_norm",
            ),
            (
                rf"{layer}\.(\d+)\.fc1",
                rf"{new_layer}.feed_forward.intermediate_dense",
            ),
            (
                rf"{layer}\.(\d+)\.fc2",
                rf"{new_layer}.feed_forward.output_dense",
            ),
            (rf"{layer}\.(\d+)\.", rf"{new_layer}."),
        ],
    )
    quantizer, quantizer_state = _read_quantizer(path / "L11_quantizer_500.pt")
    state = _modern_weight_norm(state)
    state.update({f"quantizer.{k}": v for k, v in quantizer_state.items()})
    arguments = {
        "hubert": hubert,
        "quantizer": quantizer,
        "normalize": bool(checkpoint["task_cfg"]["normalize"]),
    }
    return arguments, state


def _read_quantizer(path: Path) -> tuple[dict, State]:
    checkpoint = read_pickle(path)
    if "cluster_centers" in checkpoint:
        centres = torch.as_tensor(checkpoint["cluster_centers"]).float()
        units, dim = centres.shape
        return {"input_dim": dim, "units": units}, {"centres": centres}
    config = checkpoint["model_cfg"]
    units, dim = config["vocab_size"], config["dim"]
    step = config["upstream_dim"] - (units + 1)
    arguments = {
        "input_dim": dim,
        "units": units,
        "hidden_dims": [dim - step // 4, dim - step // 2],
    }
    return arguments, rename(checkpoint["model_weight"], [("", "layers.")])


def _read_pitch(path: Path) -> tuple[dict, State]:
    config = _read_config(path / "config.yaml", yaml.safe_load)
    encoder = config["encoder_params"]
    supported = (
        config["features"] in ("norm_f0_interp,vuv", "f0_interp,vuv")
        and not config.get("speaker_norm")
        and encoder["levels"] == 1
        and encoder["strides_t"] == [2]
        and encoder["input_emb_width"] == 2
    )
    if not supported:
        raise CheckpointError(
            f"{path / 'config.yaml'}: only a one-level quantizer of "
            "interpolated F0 and voicing with strides of 2 is supported, got "
            f"features {config['features']!r}, levels {encoder['levels']}, "
            f"strides_t {encoder['strides_t']}"
        )
    [downs] = encoder["downs_t"]
    arguments = {
        "units": config["vq_params"]["l_bins"],
        "width": encoder["width"],
        "output_width": encoder["output_emb_width"],
        "downs": downs,
        "depth": encoder["depth"],
        "block_ratio": encoder["m_conv"],
        "dilation_growth": encoder["dilation_growth_rate"],
        "center": config["features"].startswith("norm_"),
    }
    weights = read_pickle(path / "model.pt")["model"]
    stem = r"encoder\.level_blocks\.0\.model"

    def block(name: str) -> str:
        # Stage i is a convolution, then the residual blocks.
        return re.sub(
            r"BLOCK\.(\d+)", lambda m: str(int(m[1]) + 1), name, count=1
        )

    state = rename(
        weights,
        [
            (rf"{stem}\.{downs}\.", "output."),
            (rf"{stem}\.(\d+)\.0\.", r"stages.\1.0."),
            (
                rf"{stem}\.(\d+)\.1\.model\.(\d+)\.model\.1\.",
                r"stages.\1.BLOCK.\2.dilated.",
            ),
            (
                rf"{stem}\.(\d+)\.1\.model\.(\d+)\.model\.3\.",
                r"stages.\1.BLOCK.\2.pointwise.",
            ),
            (r"vq\.level_blocks\.0\.k$", "codebook"),
        ],
    )
    return arguments, {block(name): v for name, v in state.items()}


def _read_style(path: Path) -> tuple[dict, State]:
    config = _read_config(path / "config.json", json.loads)
    weights = read_pickle(path / "pytorch_model.bin")
    state = rename(
        _modern_weight_norm(weights),
        [
            (r"wav2vec2\.", "encoder.model."),
            (r"projector\.", "projector."),
            (r"classifier\.", "classifier."),
        ],
    )
    arguments = {
        "wav2vec2": {k: config[k] for k in WAV2VEC2_KEYS if k in config},
        "units": len(weights["classifier.weight"]),
    }
    return arguments, state


def _read_vocoder(path: Path) -> tuple[dict, State]:
    config = _read_config(path / "config.json", json.loads)
    if str(config["resblock"]) != "1":
        raise CheckpointError(
            f"{path / 'config.json'}: only resblock '1' is supported, got "
            f"{config['resblock']!r}"
        )
    predictor = config.get("dur_predictor_params")
    arguments = {
        "phonetic_units": config["num_embeddings"],
        "embedding_dim": config["embedding_dim"],
        "speakers": _read_config(path / "speakers.txt", str.split),
        "generator": {
            "channels": config["upsample_initial_channel"],
            "upsample_rates": config["upsample_rates"],
            "upsample_kernels": config["upsample_kernel_sizes"],
            "resblock_kernels": config["resblock_kernel_sizes"],
            "resblock_dilations": config["resblock_dilation_sizes"],
        },
        "pitch_units": config.get("num_f0_tokens") or 0,
        "style_units": config.get("num_style_tokens") or 0,
        "duration_dim": predictor and predictor["var_pred_hidden_dim"],
        "default_speaker": _SPEAKER,
    }
    if config.get("multistyle"):
        arguments["global_styles"] = config["num_styles"]
        arguments["default_global_style"] = _GLOBAL_STYLE
    per_stage = len(config["resblock_kernel_sizes"])
    weights = {}
    for name, tensor in read_pickle(path / "generator.pt")["generator"].items():
        # Blocks of all stages are counted through.
        name = re.sub(
            r"^resblocks\.(\d+)\.",
            lambda m: "stages.{}.blocks.{}.".format(
                *divmod(int(m[1]), per_stage)
            ),
            name,
        )
        is_generator = re.match("conv_|ups|stages", name)
        if is_generator and tensor.dim() == 3:
            tensor = tensor.unsqueeze(2)  # convolutions have a height of one
        weights[name] = tensor
    state = rename(
        weights,
        [
            (r"dict\.", "embeddings.phonetic."),
            (r"f0_dict\.", "embeddings.pitch."),
            (r"style_dict\.", "embeddings.style."),
            (r"spkr\.", "embeddings.speaker."),
            (r"style\.", "embeddings.global_style."),
            (r"dur_predictor\.conv(\d)\.0\.", r"duration_predictor.conv\1."),
            (r"dur_predictor\.ln(\d)\.", r"duration_predictor.norm\1."),
            (r"dur_predictor\.proj\.", "duration_predictor.output."),
            (r"conv_pre\.", "generator.input."),
            (r"conv_post\.", "generator.output."),
            (r"ups\.(\d+)\.", r"generator.stages.\1.upsampler."),
            (r"(stages.*)\.convs1\.", r"generator.\1.dilated."),
            (r"(stages.*)\.convs2\.", r"generator.\1.plain."),
        ],
    )
    return arguments, _modern_weight_norm(state)
