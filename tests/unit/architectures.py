"""Small folders of language models of many architectures, weights drawn at random.

Each has a tokenizer as models of its kind have: a SentencePiece model, or byte-level
pairs in tokenizer.json, with the tokens that it begins and ends with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer

TEXTS = ["the cat sat on the mat", "a dog, 12 birds and the cat"]
CONTEXT = 128
PACKED, APART = "packed", "apart"


def _rotary(kind: str, **settings: Any) -> dict[str, Any]:
    return {
        "rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **settings}
    }


# With less, so small a model turns by one frequency, whatever the base.
_HALF = _rotary("default", partial_rotary_factor=0.5)
_SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "max_position_embeddings": CONTEXT,
}
_GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT}
_WINDOWS = {
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"],
}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "head_dim": 8,
    **_HALF,
}
_MAMBA = {
    "mamba_n_heads": 4,
    "mamba_d_head": 8,
    "mamba_d_state": 4,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
_EYES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


@dataclass
class Kind:
    """An architecture, and what comes of it.

    Arguments
    ---------
    name : str
        As people call it.
    model_type : str
        As transformers calls it.
    config : dict
        What its configuration says beside that.
    result : str
        ``PACKED`` if it keeps the documents of a row apart by itself,
        ``APART`` if they have to run by themselves, or why it is refused.
    pieces : bool
        Whether its tokenizer is a SentencePiece model.
    adapts : list of str, or str
        What LoRA adapts, or an expression for it.
    context, base : str
        Whether another context, and another base of the rotary embedding,
        ``"can"`` be had; or what the refusal says.
    """

    name: str
    model_type: str
    config: dict[str, Any]
    result: str = PACKED
    pieces: bool = False
    adapts: list[str] | str = field(
        default_factory=lambda: ["q_proj", "v_proj"]
    )
    context: str = "can"
    base: str = "can"


_LEARNED = "has learned its 128 positions"
_STRETCHED = "depends on its context"
_NO_ROTARY = "no rotary embedding"
_PADDING = "depends on the padding in front"
KINDS = [
    Kind("Llama", "llama", _SIZES, pieces=True),
    Kind(
        "Llama 3",
        "llama",
        _SIZES
        | _rotary(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=16,
        ),
    ),
    Kind("SmolLM2", "llama", _SIZES | {"tie_word_embeddings": True}),
    Kind("SmolLM3", "smollm3", _SIZES | {"no_rope_layers": [1, 0]}),
    Kind("Mistral", "mistral", _SIZES | {"sliding_window": 8}, pieces=True),
    Kind("Mixtral", "mixtral", _SIZES | _EXPERTS, pieces=True),
    Kind("Qwen2", "qwen2", _SIZES),
    Kind("Qwen3", "qwen3", _SIZES | {"head_dim": 8}),
    Kind(
        "Gemma 2",
        "gemma2",
        _SIZES | {"head_dim": 8, "sliding_window": 8},
        pieces=True,
    ),
    Kind("Gemma 3", "gemma3_text", _SIZES | _WINDOWS | {"head_dim": 8}),
    Kind(
        "Gemma 3, multimodal",
        "gemma3",
        {
            "text_config": _SIZES | _WINDOWS | {"head_dim": 8},
            "vision_config": _EYES,
            "mm_tokens_per_image": 4,
        },
    ),
    Kind(
        "Gemma 4, multimodal",
        "gemma4",
        {
            "text_config": _SIZES
            | _WINDOWS
            | {
                "head_dim": 8,
                "global_head_dim": 16,
                "vocab_size_per_layer_input": 320,
                "hidden_size_per_layer_input": 8,
                "num_kv_shared_layers": 0,
            },
            "vision_config": _EYES,
        },
        adapts=r".*language_model.*\.[qv]_proj",
    ),
    Kind("OLMo 2", "olmo2", _SIZES),
    Kind("Phi-2", "phi", _SIZES),
    Kind(
        "Phi-3",
        "phi3",
        _SIZES
        | {"original_max_position_embeddings": 64}
        | _rotary(
            "longrope",
            short_factor=[1.0] * 4,
            long_factor=[2.0] * 4,
            original_max_position_embeddings=64,
        ),
        pieces=True,
        adapts=["qkv_proj"],
        context=_STRETCHED,
    ),
    Kind("Granite", "granite", _SIZES),
    Kind("StableLM", "stablelm", _SIZES | _HALF),
    Kind("StarCoder2", "starcoder2", _SIZES),
    Kind("Cohere", "cohere", _SIZES),
    Kind(
        "Llama 4",
        "llama4_text",
        _SIZES
        | {
            "head_dim": 8,
            "intermediate_size_mlp": 24,
            "attention_chunk_size": 8,
            "no_rope_layers": [1, 0],
            "num_local_experts": 2,
        },
    ),
    Kind(
        "GPT-2",
        "gpt2",
        _GPT,
        adapts=["c_attn"],
        context=_LEARNED,
        base=_NO_ROTARY,
    ),
    Kind("GPT-J", "gptj", _GPT | {"rotary_dim": 4}, base=_NO_ROTARY),
    Kind(
        "GPT-NeoX, Pythia",
        "gpt_neox",
        _SIZES | _HALF,
        adapts=["query_key_value"],
    ),
    Kind(
        "OPT",
        "opt",
        _SIZES | {"ffn_dim": 24, "word_embed_proj_dim": 8},
        context=_LEARNED,
        base=_NO_ROTARY,
    ),
    Kind(
        "BLOOM",
        "bloom",
        {"hidden_size": 16, "n_layer": 2, "n_head": 2},
        APART,
        adapts=["query_key_value"],
        base=_NO_ROTARY,
    ),
    Kind(
        "MPT",
        "mpt",
        {"d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": CONTEXT},
        APART,
        adapts=["Wqkv"],
        base=_NO_ROTARY,
    ),
    Kind(
        "BioGPT",
        "biogpt",
        _SIZES,
        APART,
        context=_LEARNED,
        base=_NO_ROTARY,
    ),
    Kind(
        "XGLM",
        "xglm",
        {
            "d_model": 16,
            "num_layers": 2,
            "attention_heads": 2,
            "ffn_dim": 24,
            "max_position_embeddings": CONTEXT,
            "pad_token_id": 1,
        },
        APART,
        base=_NO_ROTARY,
    ),
    Kind(
        "GPT-OSS",
        "gpt_oss",
        _SIZES | _WINDOWS | _EXPERTS | {"head_dim": 8} | _rotary("default"),
        APART,
    ),
    Kind(
        "Mamba",
        "mamba",
        {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
        APART,
        adapts=["in_proj", "x_proj"],
        base=_NO_ROTARY,
    ),
    Kind(
        "Mamba 2",
        "mamba2",
        {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "state_size": 4,
            "num_heads": 4,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 8,
        },
        APART,
        adapts=["in_proj"],
        base=_NO_ROTARY,
    ),
    Kind(
        "Falcon-H1", "falcon_h1", _SIZES | _MAMBA | {"mamba_d_ssm": 32}, APART
    ),
    Kind(
        "Granite 4, hybrid",
        "granitemoehybrid",
        _SIZES
        | _MAMBA
        | _EXPERTS
        | {
            "layer_types": ["mamba", "attention"],
            "shared_intermediate_size": 24,
            "position_embedding_type": "rope",
        },
        APART,
    ),
    Kind(
        "LFM2",
        "lfm2",
        _SIZES | {"layer_types": ["conv", "full_attention"]},
        APART,
    ),
    Kind(
        "Qwen3-Next",
        "qwen3_next",
        _SIZES
        | _LINEAR
        | {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 8,
        },
        APART,
    ),
    Kind("Qwen3.5", "qwen3_5_text", _SIZES | _LINEAR, APART),
    Kind(
        "AFMoE, Trinity",
        "afmoe",
        {
            **_SIZES,
            **_WINDOWS,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "num_shared_experts": 1,
            "num_dense_layers": 1,
            "moe_intermediate_size": 8,
        },
        APART,
    ),
    Kind("Doge", "doge", _SIZES),
    Kind(
        "RecurrentGemma",
        "recurrent_gemma",
        {
            "hidden_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "head_dim": 8,
            "intermediate_size": 48,
            "lru_width": 16,
            "attention_window_size": 64,
        },
        _PADDING,
    ),
    Kind(
        "RWKV-4",
        "rwkv",
        {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "attention_hidden_size": 16,
            "intermediate_size": 24,
            "context_length": CONTEXT,
        },
        _PADDING,
    ),
]


def byte_level_tokenizer(folder):
    """Train byte-level pairs, and save them as SmolLM2's are."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|start|>", "<|end|>", "<|chat|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|start|>",
        eos_token="<|end|>",
        pad_token="<|end|>",
    ).save_pretrained(folder)


def make_folder(kind, folder):
    """Write a model of text: more rows than pieces, and ids of a chat's end."""
    if kind.pieces:
        train_text_tokenizer(TEXTS, 280, folder)
    else:
        byte_level_tokenizer(folder)
    ids = {"bos_token_id": 1, "eos_token_id": [2, 310], "pad_token_id": 305}
    settings = ids | {"vocab_size": 320}
    if "text_config" in kind.config:
        text = settings | kind.config["text_config"]
        settings = kind.config | {"text_config": text}
    else:
        settings |= kind.config
    config = AutoConfig.for_model(kind.model_type, **settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        if weight.ndim == 2 or name.endswith("bias"):
            weight.data.normal_(0, 0.3, generator=generator)
    model.generation_config = GenerationConfig(
        eos_token_id=[2, 310], pad_token_id=305, repetition_penalty=1.1
    )
    model.save_pretrained(folder)
    return model.eval()


def table():
    """Return the lines of the table in the documentation."""
    words = {
        "can": "yes",
        PACKED: "packed",
        APART: "apart",
        _LEARNED: "no: learned positions",
        _STRETCHED: "no: longrope",
        _NO_ROTARY: "no: no such base",
    }
    lines = [
        "| Architecture | `model_type` | Documents | `context` | `rope_theta` |",
        "|---|---|---|---|---|",
    ]
    for kind in KINDS:
        cells = [kind.name, f"`{kind.model_type}`"]
        if kind.result in words:
            found = (kind.result, kind.context, kind.base)
            cells += [words[result] for result in found]
        else:
            cells += [f"refused: {kind.result} of a prompt", "", ""]
        lines.append(f"| {' | '.join(cells)} |".replace("|  |  |", "| | |"))
    return lines
