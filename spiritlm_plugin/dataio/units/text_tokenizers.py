"""Text tokenizers behind one small interface.

A text tokenizer here turns plain text into ids and back, never yields a
control or speech token, and says which ids stand in front of a prompt.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, cast

import sentencepiece
from tokenizers import Tokenizer

from spiritlm_plugin.utils.files import read_lines

_SPEECH_TOKEN = re.compile(r"\[(Text|Speech|ASR|TTS|(Hu|Pi|St)\d+)\]")
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
    eos_id: int

    def __len__(self) -> int:
        """Return the number of ids, added tokens included."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without prefix or control tokens."""

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""

    def token_id(self, token: str) -> int | None:
        """Return the id of an added token such as ``[Hu3]``, if it has one."""

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files."""


class SentencePieceText:
    """A SentencePiece model, such as Llama 2's ``tokenizer.model``.

    Spirit LM's models list their speech tokens as user-defined symbols, which
    SentencePiece finds in any text. Here they are turned into control pieces,
    which it never finds, so that ``[Hu12]`` in a text is six characters.

    Arguments
    ---------
    model_file : str or Path
        The SentencePiece model.

    Raises
    ------
    ValueError
        If the file is no SentencePiece model.
    """

    def __init__(self, model_file: str | Path):
        self._proto = Path(model_file).read_bytes()
        self._added: dict[str, int] = {}
        try:
            self._load()
        except Exception as error:  # protobuf's own, or RuntimeError
            raise ValueError(
                f"{model_file} is not a SentencePiece model; download it again"
            ) from error
        if self.eos_id < 0:
            raise ValueError(
                f"{model_file} has no end-of-sequence piece; train it with one"
            )

    def _load(self) -> None:
        """Load the model with its user-defined symbols out of reach."""
        from sentencepiece import sentencepiece_model_pb2

        model = sentencepiece_model_pb2.ModelProto()
        model.ParseFromString(self._proto)
        piece_type = sentencepiece_model_pb2.ModelProto.SentencePiece
        for index, piece in enumerate(model.pieces):
            if piece.type == piece_type.USER_DEFINED:
                piece.type = piece_type.CONTROL
                self._added[piece.piece] = index
        has_prefix = model.normalizer_spec.add_dummy_prefix
        model.normalizer_spec.add_dummy_prefix = False
        model.normalizer_spec.remove_extra_whitespaces = False
        self._pieces = sentencepiece.SentencePieceProcessor(
            model_proto=model.SerializeToString()
        )
        self.eos_id = self._pieces.eos_id()
        bos_id = self._pieces.bos_id()
        self.prompt_start = [] if bos_id < 0 else [bos_id]
        if has_prefix:
            self.prompt_start.append(self._pieces.piece_to_id("▁"))

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text."""
        return self._pieces.encode(text)

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""
        return self._pieces.decode(ids)

    def token_id(self, token: str) -> int | None:
        """Return the id of a user-defined symbol."""
        return self._added.get(token)

    def save(self, folder: Path) -> None:
        """Copy the model as it was read."""
        (Path(folder) / "tokenizer.model").write_bytes(self._proto)


class HubText:
    """A fast tokenizer of transformers, from a folder or the Hub.

    Arguments
    ---------
    source : str or Path
        Folder or Hub name.

    Raises
    ------
    ValueError
        If the tokenizer has no fast backend or no end-of-sequence token.
    """

    def __init__(self, source: str | Path):
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(
            source, trust_remote_code=False
        )
        if not self._tokenizer.is_fast:
            raise ValueError(
                f"the tokenizer of {source} has no fast backend; convert it "
                "to tokenizer.json first"
            )
        if self._tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of {source} has no end-of-sequence token"
            )
        self.eos_id = self._tokenizer.eos_token_id
        bos_id = self._tokenizer.bos_token_id
        self.prompt_start = [] if bos_id is None else [bos_id]
        self._backend = self._without_speech_tokens()

    def _without_speech_tokens(self) -> Tokenizer:
        """Return the tokenizer such that speech tokens in a text are text."""
        backend = json.loads(self._tokenizer.backend_tokenizer.to_str())
        kept = []
        for token in backend["added_tokens"]:
            if _SPEECH_TOKEN.fullmatch(token["content"]):
                if token["content"] in backend["model"]["vocab"]:
                    continue
                # Ids behind it hang on its being there: make it untypable.
                token["content"] = f"\U0010fffd{token['content']}\U0010fffd"
            kept.append(token)
        backend["added_tokens"] = kept
        backend["truncation"] = backend["padding"] = None
        plain = Tokenizer.from_str(json.dumps(backend))
        plain.encode_special_tokens = True
        return plain

    def __len__(self) -> int:
        """Return the number of tokens, added ones included."""
        return len(self._tokenizer)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; control tokens in it are characters."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""
        text = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return cast(str, text)  # a list comes of several lists of ids only

    def token_id(self, token: str) -> int | None:
        """Return the id of an added token."""
        return self._tokenizer.get_added_vocab().get(token)

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files."""
        self._tokenizer.save_pretrained(folder)


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
    """
    from transformers.utils import cached_file

    def find(name: str) -> str | None:
        return cached_file(
            str(source), name, _raise_exceptions_for_missing_entries=False
        )

    if (model_file := find("tokenizer.model")) is not None:
        return SentencePieceText(model_file)
    if find("tokenizer.json") is None:
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
