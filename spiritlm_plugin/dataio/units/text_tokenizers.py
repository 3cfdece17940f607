"""Text tokenizers behind one small interface.

A text tokenizer here turns plain text into ids and back, never yields a
control or speech token, and says which ids stand in front of a prompt.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import sentencepiece

from spiritlm_plugin.dataio.units.hub_text import HubText
from spiritlm_plugin.dataio.units.sentencepiece_text import SentencePieceText
from spiritlm_plugin.dataio.units.tokenizer_files import (
    find_in,
    read_named_tokens,
)
from spiritlm_plugin.utils.files import read_lines

__all__ = [
    "HubText",
    "SentencePieceText",
    "TextTokenizer",
    "load_text_tokenizer",
    "train_text_tokenizer",
]

# As Llama 2's tokenizer was trained; one thread, so that it is deterministic.
_TRAINING: dict[str, Any] = {
    "model_type": "bpe",
    "byte_fallback": True,
    "character_coverage": 0.99995,
    "split_digits": True,
    "allow_whitespace_only_pieces": True,
    "normalization_rule_name": "identity",
    "add_dummy_prefix": True,
    "remove_extra_whitespaces": False,
    "max_sentence_length": 2**20,
    "num_threads": 1,
    "minloglevel": 2,
}


class TextTokenizer(Protocol):
    """What `Vocabulary` needs of a text tokenizer."""

    prompt_start: list[int]
    """Ids in front of each prompt."""
    bos_id: int | None
    """Id of the beginning of a sequence, if there is one."""
    eos_id: int
    """Id of the end of a sequence."""
    special: frozenset[str]
    """Tokens that no text becomes, other than speech tokens."""
    tail: dict[str, int]
    """Ids of speech tokens that its files put behind those of the text."""

    def __len__(self) -> int:
        """Return the number of ids of the text, without the tail."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without prefix or control tokens."""

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""

    def token_id(self, token: str) -> int | None:
        """Return the id of a speech token that is among those of the text."""

    def save(self, folder: Path, tokens: Mapping[str, int]) -> bool:
        """Write the files, and tell whether transformers can read them."""


def load_text_tokenizer(source: str | Path) -> TextTokenizer:
    """Load the text tokenizer of a language model.

    Arguments
    ---------
    source : str or Path
        A folder, or a name on the Hub, with ``tokenizer.model``
        (SentencePiece) or else ``tokenizer.json``.

    Raises
    ------
    FileNotFoundError
        If it has neither.
    ValueError
        If a file is damaged, or cannot be used.
    """
    find = find_in(source)
    other = find("tokenizer.json")
    if (model_file := find("tokenizer.model")) is not None:
        named = read_named_tokens(find)
        # Models of version 0.1, which wrote no configuration, have learned
        # with all user-defined pieces out of reach.
        early = "[Text]" in named.listed and not named.settings
        special = None if early else named.special
        try:
            return SentencePieceText(model_file, special, named.speech)
        except ValueError:
            # That of Llama 3 and others is of another kind, and not read.
            if other is None or named.speech:
                raise
    if other is None:
        raise FileNotFoundError(
            f"no tokenizer in {source}: expected tokenizer.model or "
            "tokenizer.json"
            + ("" if Path(source).is_dir() else ", or the Hub is out of reach")
        )
    return HubText(source)


def train_text_tokenizer(
    texts: Iterable[str] | str | Path,
    vocabulary_size: int,
    folder: str | Path | None = None,
) -> SentencePieceText:
    """Train a SentencePiece model of the kind that Llama 2 uses.

    Byte-pair encoding with bytes for what it has not seen, one digit a piece
    and no normalization, so that texts come back as they were. It has no
    speech tokens; `Vocabulary.extend` puts them behind its own. The same
    texts give the same model.

    Arguments
    ---------
    texts : iterable of str, or path
        To learn from; of a file, each line.
    vocabulary_size : int
        Pieces, the 256 bytes and 3 control pieces among them.
    folder : str or Path, optional
        Where ``tokenizer.model`` is written; nowhere by default.

    Returns
    -------
    SentencePieceText

    Raises
    ------
    ValueError
        If the texts are empty, or too few or too many for that size.

    Example
    -------
    >>> tokenizer = train_text_tokenizer(["the cat sat on the mat"], 280)
    >>> tokenizer.decode(tokenizer.encode("the  hat: été"))
    'the  hat: été'
    """
    if isinstance(texts, (str, Path)):
        texts = read_lines(texts)
    texts = list(texts)
    if not any(texts):
        raise ValueError("cannot train a text tokenizer: there are no texts")
    proto = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=proto,
            vocab_size=vocabulary_size,
            **_TRAINING,
        )
    except RuntimeError as error:
        raise ValueError(
            f"cannot train a text tokenizer of {vocabulary_size} pieces on "
            f"{len(texts)} texts: {error}"
        ) from error
    with tempfile.TemporaryDirectory() as temporary:
        model_file = Path(folder or temporary) / "tokenizer.model"
        model_file.parent.mkdir(parents=True, exist_ok=True)
        model_file.write_bytes(proto.getvalue())
        return SentencePieceText(model_file)
