"""SentencePiece models as text tokenizers, and as transformers reads them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sentencepiece

from spiritlm_plugin.dataio.units.tokenizer_files import (
    SPEECH_TOKEN,
    added_token,
    write_added_tokens,
    write_configuration,
    write_tokenizer,
)
from spiritlm_plugin.utils.files import write_bytes

if TYPE_CHECKING:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

_SPACE = "▁"
# Of pieces, in the format of the model's file.
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_BPE = 2  # of models


class SentencePieceText:
    """A SentencePiece model, such as Llama 2's ``tokenizer.model``.

    Spirit LM's models list their speech tokens as user-defined symbols, which
    SentencePiece finds in any text. Here they are turned into control pieces,
    which it never finds, so that ``[Hu12]`` in a text is six characters. Other
    user-defined symbols, such as Gemma's line breaks, are text.

    Arguments
    ---------
    model_file : str or Path
        The SentencePiece model.
    special : collection of str, optional
        Other pieces that no text may become; None for all that are
        user-defined.
    tail : dict of str to int, optional
        Ids of speech tokens that stand behind the pieces.

    Raises
    ------
    ValueError
        If the file is no SentencePiece model.
    """

    def __init__(
        self,
        model_file: str | Path,
        special: Collection[str] | None = (),
        tail: Mapping[str, int] | None = None,
    ):
        self._proto = Path(model_file).read_bytes()
        self._added: dict[str, int] = {}
        try:
            self._load(special)
        except Exception as error:  # protobuf's own, or RuntimeError
            raise ValueError(
                f"{model_file} is not a SentencePiece model; download it again"
            ) from error
        if self.eos_id < 0:
            raise ValueError(
                f"{model_file} has no end-of-sequence piece; train it with one"
            )
        self.tail = {
            token: index
            for token, index in (tail or {}).items()
            if token not in self._added
        }

    def _load(self, special: Collection[str] | None) -> None:
        """Load the model with what no text may become out of reach."""
        from sentencepiece import sentencepiece_model_pb2

        model = sentencepiece_model_pb2.ModelProto()
        model.ParseFromString(self._proto)
        for index, piece in enumerate(model.pieces):
            if piece.type != _USER_DEFINED:
                continue
            if SPEECH_TOKEN.fullmatch(piece.piece):
                self._added[piece.piece] = index
            elif special is not None and piece.piece not in special:
                continue
            piece.type = _CONTROL
        has_prefix = model.normalizer_spec.add_dummy_prefix
        model.normalizer_spec.add_dummy_prefix = False
        model.normalizer_spec.remove_extra_whitespaces = False
        self._pieces = sentencepiece.SentencePieceProcessor(
            model_proto=model.SerializeToString()
        )
        self.eos_id = self._pieces.eos_id()
        bos_id = self._pieces.bos_id()
        self.bos_id = None if bos_id < 0 else bos_id
        self.prompt_start = [] if self.bos_id is None else [self.bos_id]
        if has_prefix:
            self.prompt_start.append(self._pieces.piece_to_id(_SPACE))
        self.special = frozenset(
            piece.piece
            for piece in model.pieces
            if piece.type in (_UNKNOWN, _CONTROL)
            and piece.piece not in self._added
        )

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
        """Return the id of a speech token that is a piece."""
        return self._added.get(token)

    def save(self, folder: Path, tokens: Mapping[str, int]) -> bool:
        """Write the model as it was read, and the same for transformers."""
        write_bytes(folder / "tokenizer.model", self._proto)
        write_added_tokens(folder, tokens, self._added)
        config: dict[str, Any] = {
            f"{name}_token": self._pieces.id_to_piece(index)
            for name in ("bos", "eos", "unk", "pad")
            if (index := getattr(self._pieces, f"{name}_id")()) >= 0
        }
        if others := self.special - {*config.values()}:
            config["extra_special_tokens"] = sorted(others)
        write_configuration(folder, config)
        try:
            backend = _as_backend(self._pieces.serialized_model_proto())
            write_tokenizer(folder, backend, tokens, self.prompt_start)
        except ValueError as error:
            (folder / "tokenizer.json").unlink(missing_ok=True)
            warnings.warn(
                "there will be no tokenizer.json, as it would give other ids "
                f"than tokenizer.model: {error}. Give engines ids, not texts",
                stacklevel=3,
            )
            return False
        return True


def _as_backend(proto: bytes) -> dict[str, Any]:
    """Return a SentencePiece model as the tokenizers library has it.

    Both merge the pair of the best piece first, of equal ones the leftmost.

    Raises
    ------
    ValueError
        If it would give other ids.
    """
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(proto)
    _check_convertible(model)
    special = {_UNKNOWN, _CONTROL}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added_token(index, piece.piece, piece.type in special)
            for index, piece in enumerate(model.pieces)
            if piece.type in {*special, _USER_DEFINED}
        ],
        "normalizer": _replace(" ", _SPACE),
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                _replace(_SPACE, " "),
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "vocab": {p.piece: index for index, p in enumerate(model.pieces)},
            "merges": _merges(model),
            "unk_token": model.trainer_spec.unk_piece,
            "fuse_unk": True,
            "byte_fallback": model.trainer_spec.byte_fallback,
            "ignore_merges": False,
        },
    }


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def _merges(model: ModelProto) -> list[tuple[str, str]]:
    """Return the pairs that make a piece, in the order of their merging."""
    scores = {p.piece: p.score for p in model.pieces if p.type == _NORMAL}
    ranked = []
    for piece, score in scores.items():
        for cut in range(1, len(piece)):
            if piece[:cut] in scores and piece[cut:] in scores:
                # Of two ways to make it that overlap in a text, this one is
                # the left one.
                repeats = piece.startswith(piece[cut:])
                ranked.append((-score, not repeats, cut, piece))
    return [(piece[:cut], piece[cut:]) for *_, cut, piece in sorted(ranked)]


def _check_convertible(model: ModelProto) -> None:
    """Raise ValueError where the tokenizers library would give other ids."""
    normal = [p for p in model.pieces if p.type == _NORMAL]
    single = {
        p.piece
        for p in model.pieces
        if len(p.piece) == 1 and p.type in (_NORMAL, _USER_DEFINED)
    }
    longer = [p for p in normal if len(p.piece) > 1]
    scores = Counter(p.score for p in longer)
    reasons = {
        "it is not of the type BPE": model.trainer_spec.model_type != _BPE,
        "it normalizes text": bool(model.normalizer_spec.precompiled_charsmap),
        "it keeps spaces": not model.normalizer_spec.escape_whitespaces,
        "it has unused pieces": any(p.type == _UNUSED for p in model.pieces),
        "two pieces have one score": max(scores.values(), default=1) > 1,
        "it has pieces of characters that it does not have": any(
            not single.issuperset(p.piece) for p in longer
        ),
        "a special piece is a single character": any(
            len(p.piece) == 1 and p.type in (_UNKNOWN, _CONTROL, _BYTE)
            for p in model.pieces
        ),
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise ValueError(", and ".join(found))
