"""What the integration tests compare with."""

from __future__ import annotations

import json

import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
)

from spiritlm_plugin import Text

RATE = 16000


VARIANTS = ("base", "expressive")


# Recordings of these many samples; 1280 are the fewest.
LENGTHS = (20000, 1280, 31000, 1281, 16000)


def shown(generation) -> tuple:
    """Return what a generation holds, comparable."""
    segments = [
        s.text if isinstance(s, Text) else s.stream.to_string()
        for s in generation
    ]
    return segments, generation.end_reason


def assert_same_wavs(actual, expected) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= 1e-4 * float(
        expected.abs().max()
    )


def script_ids(vocabulary, script: str) -> list[int]:
    """Return ids of a string in which brackets and ``</s>`` are tokens."""
    tokens = {**vocabulary.speech_tokens(), "</s>": vocabulary.eos_id}
    ids = []
    for part in (
        script.replace("[", "\0[").replace("</s>", "\0</s>").split("\0")
    ):
        end = part.find("]") + 1 or (4 if part.startswith("</s>") else 0)
        if part[:end]:
            ids.append(tokens[part[:end]])
        ids += vocabulary.encode_text(part[end:])
    return ids


def units_string(first: int, count: int) -> str:
    return "".join(f"[Hu{i}]" for i in range(first, first + count))


def greedily(lm, prompt, output, **options):
    options = {"temperature": 0, "min_speech_units": 0, **options}
    return lm.generate(prompt, output, **options)


def save_recognizer(folder, seed=0):
    """Make a recognizer with random weights, as the Hub's are laid out."""
    folder.mkdir(parents=True)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|"]
    tokens += "ABCDEFGHIJKLMNOPQRSTUVWXYZ'"
    vocabulary = folder / "vocabulary.json"
    vocabulary.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    Wav2Vec2CTCTokenizer(str(vocabulary)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    torch.manual_seed(seed)
    config = Wav2Vec2Config(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    return folder
