"""LibriSpeech, Expresso and models of the Hub, small, laid out as they are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import soundfile
import soxr
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from tests.integration.helpers import RATE, save_recognizer

AUDIO = Path(__file__).parents[3] / "shared" / "audio"
SPLITS = (
    "train-clean-100",
    "train-clean-360",
    "train-other-500",
    "dev-clean",
    "test-clean",
    "test-other",
)
SENTENCES = (
    "THE CHILD ALMOST HURT THE SMALL DOG",
    "THEY STOP AT NOON AND IT'S A LONG DAY",
    "DROP THE TWO WHEN YOU ADD THE FIGURES",
)
STYLES = ("default", "happy", "sad")
DIALOGUE = "ex01-ex02_happy-sad_001"

Write = Callable[..., None]


def speech(other: Path) -> np.ndarray:
    """Return speech at 16 kHz: of people where it is at hand."""
    files = sorted(AUDIO.glob("*.wav")) + sorted(AUDIO.glob("*.flac"))
    return np.concatenate(
        [soundfile.read(f, dtype="float32")[0] for f in files or [other]]
    )


def writer(samples: np.ndarray) -> Write:
    """Return a function that writes files, each of its own piece of speech."""
    starts = count(0, 7919)

    def piece(seconds: float) -> np.ndarray:
        rolled = np.roll(samples, -next(starts) % len(samples))
        return np.resize(rolled, int(seconds * RATE))

    def write(
        path: Path, seconds: float, rate: int = RATE, channels: int = 1
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        wav = np.stack([piece(seconds) for _ in range(channels)], 1)
        soundfile.write(path, soxr.resample(wav, RATE, rate), rate)

    return write


def put(path: Path, *lines: str) -> None:
    """Write a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def write_librispeech(root: Path, write: Write) -> None:
    """Write all splits; three have word times, in both forms and in none."""
    for name in ("BOOKS", "CHAPTERS", "LICENSE", "README", "SPEAKERS"):
        put(root / f"{name}.TXT", "; as the corpus has them")
    for number, split in enumerate(SPLITS):
        for speaker, book in ((19 + number, 198), (80 + number, 1272)):
            name = f"{speaker}-{book}"
            chapter = root / split / str(speaker) / str(book)
            lines, aligned = [], []
            for index, text in enumerate(SENTENCES):
                write(chapter / f"{name}-{index:04}.flac", 2.4)
                lines.append(f"{name}-{index:04} {text}")
                words = ["", *text.split(), ""]
                ends = np.linspace(0.2, 2.4, len(words))
                aligned.append(
                    f'{name}-{index:04} ",{",".join(words[1:])}" '
                    f'"{",".join(f"{end:.2f}" for end in ends)}"'
                )
            put(chapter / f"{name}.trans.txt", *lines)
            if number == 0:
                put(chapter / f"{name}.alignment.txt", *aligned)
            if number == 1:
                for index, text in enumerate(SENTENCES):
                    grid = chapter / f"{name}-{index:04}.TextGrid"
                    put(grid, *text_grid(text.lower().split(), 2.4))


def text_grid(words: list[str], seconds: float) -> list[str]:
    """Return the lines of a TextGrid of the Montreal Forced Aligner."""
    ends = [f"{end:.2f}" for end in np.linspace(0.2, seconds, len(words) + 1)]
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["0", str(seconds), "<exists>", "2"]
    for tier in ("words", "phones"):
        lines += ['"IntervalTier"', f'"{tier}"', "0", str(seconds)]
        lines.append(str(len(ends)))
        for start, end, word in zip(["0", *ends], ends, ["", *words]):
            label = word if tier == "words" else word and "spn"
            lines += [start, end, f'"{label}"']
    return lines


def write_expresso(root: Path, write: Write) -> None:
    """Write sentences in each style, a longform reading and a dialogue."""
    texts, vad = [], ["# name<TAB>segments"]
    splits: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    audio = root / "audio_48khz"
    for speaker in ("ex01", "ex02", "ex03", "ex04"):
        for style in STYLES:
            for index, names in enumerate(splits.values(), 1):
                name = f"{speaker}_{style}_{index:05}"
                path = f"read/{speaker}/{style}/base/{name}.wav"
                write(audio / path, 2.0, 48000)
                texts.append(f"{name}\tWhat a *long* day!")
                names.append(name)
    name = "ex04_sad_longform_00001"
    write(audio / f"read/ex04/sad/longform/{name}.wav", 5, 48000)
    vad.append(f"{name}\t(0.1, 2.3) (3.1, 4.9)")
    splits["train"].append(name)
    path = f"conversational/ex01-ex02/happy-sad/{DIALOGUE}.wav"
    write(audio / path, 6, 48000, channels=2)
    vad.append(f"{DIALOGUE}/channel1\t(0.1, 1.9) (3.1, 5.8)")
    vad.append(f"{DIALOGUE}/channel2\t(0.5, 2.8)")
    splits["train"].append(f"{DIALOGUE}\t(,3.0s)")
    splits["dev"].append(f"{DIALOGUE}\t(3.0s,)")
    put(root / "read_transcriptions.txt", *texts)
    put(root / "VAD_segments.txt", *vad)
    for split, names in splits.items():
        put(root / "splits" / f"{split}.txt", *names)


def write_texts(path: Path) -> None:
    """Write texts as Parquet."""
    texts = [f"{line.lower()} {i}" for i in range(20) for line in SENTENCES]
    pyarrow.parquet.write_table(pa.table({"text": texts}), path)


def save_text_model(folder: Path) -> None:
    """Write a causal language model of byte pairs, with random weights."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator([line.lower() for line in SENTENCES], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
    )
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def save_wav2vec2(folder: Path) -> None:
    """Write a wav2vec 2.0 with random weights."""
    config = Wav2Vec2Config(
        conv_dim=[8] * 7,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)


def save_hub_models(folder: Path) -> None:
    """Write what the recipes name on the Hub, where its names are folders."""
    save_recognizer(folder / "facebook" / "wav2vec2-base-960h")
    save_recognizer(folder / "openai" / "whisper-large-v3-turbo")
    save_wav2vec2(folder / "facebook" / "wav2vec2-base")
    save_text_model(folder / "HuggingFaceTB" / "SmolLM2-360M")
    save_text_model(folder / "meta-llama" / "Llama-3.2-1B")
