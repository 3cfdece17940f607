"""Fast tokenizers of transformers as text tokenizers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from spiritlm_plugin.dataio.units.tokenizer_files import (
    SPEECH_TOKEN,
    find_in,
    read_named_tokens,
    write_added_tokens,
    write_configuration,
    write_tokenizer,
)

_SPACE = "▁"
# What transformers makes of SentencePiece's care for spaces around a text.
_AROUND = [r"\A▁", r"\A +| +\z", " {2,}"]


class HubText:
    """A fast tokenizer of transformers, from a folder or the Hub.

    Speech tokens behind all others are not those of the text, so that it can be
    extended anew. Where the tokenizer puts a sign for a space in front of each
    text, as those made of SentencePiece models do, that stands in front of a
    prompt and nowhere else, as `SentencePieceText` has it.

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

        tokenizer = AutoTokenizer.from_pretrained(
            source, trust_remote_code=False
        )
        if not tokenizer.is_fast:
            raise ValueError(
                f"the tokenizer of {source} has no fast backend; convert it "
                "to tokenizer.json first"
            )
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of {source} has no end-of-sequence token"
            )
        self.eos_id = tokenizer.eos_token_id
        self._config = {
            name: str(token)
            for name, token in tokenizer.special_tokens_map.items()
            if name.endswith("_token")
        }
        named = read_named_tokens(find_in(source))
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content["truncation"] = content["padding"] = None
        self.tail = _take_tail(content, named.speech)
        ids = _ids(content)
        self._length = max(ids.values()) + 1
        self._added = {
            t: i for t, i in ids.items() if SPEECH_TOKEN.fullmatch(t)
        }
        self.special = _flag_special(
            content, {*named.special, *tokenizer.all_special_tokens}
        )
        # Models of ours that have learned with a space before each text were
        # saved with it, and their speech tokens in a file of their own.
        learned = "[Text]" in named.listed
        dropped = not learned and _SPACE in ids and _drop_spaces(content)
        self._content = content
        self._backend = Tokenizer.from_str(json.dumps(content))
        self._backend.encode_special_tokens = True
        self.bos_id: int | None = tokenizer.bos_token_id
        self.prompt_start = [] if self.bos_id is None else [self.bos_id]
        if dropped or _SPACE in self._in_front():
            self.prompt_start.append(ids[_SPACE])

    def _in_front(self) -> list[str | None]:
        """Return the tokens that stand in front of each text."""
        text, whole = (
            self._backend.encode("a", add_special_tokens=add).ids
            for add in (False, True)
        )
        front = whole[: len(whole) - len(text)]
        return [self._backend.id_to_token(index) for index in front]

    def __len__(self) -> int:
        """Return the number of ids, without those of speech behind them."""
        return self._length

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; control tokens in it are characters."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids."""
        return self._backend.decode(ids, skip_special_tokens=True)

    def token_id(self, token: str) -> int | None:
        """Return the id of a speech token that stands among those of text."""
        return self._added.get(token)

    def save(self, folder: Path, tokens: Mapping[str, int]) -> bool:
        """Write the tokenizer's files, with the speech tokens."""
        write_added_tokens(folder, tokens, self._added)
        write_configuration(folder, self._config)
        write_tokenizer(folder, self._content, tokens, self.prompt_start)
        return True


def _ids(content: Mapping[str, Any]) -> dict[str, int]:
    """Return the ids of all tokens of a tokenizer.json."""
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):  # of a unigram model, with scores
        vocabulary = {piece: i for i, (piece, _) in enumerate(vocabulary)}
    added = {t["content"]: t["id"] for t in content["added_tokens"]}
    return {**vocabulary, **added}


def _take_tail(
    content: dict[str, Any], listed: Mapping[str, int]
) -> dict[str, int]:
    """Take the speech tokens that stand behind all others out, by their ids."""
    ids = {**_ids(content), **listed}
    speech = {t: i for t, i in ids.items() if SPEECH_TOKEN.fullmatch(t)}
    last = max(i for t, i in ids.items() if t not in speech)
    tail = {t: i for t, i in speech.items() if i > last}
    content["added_tokens"] = [
        t for t in content["added_tokens"] if t["content"] not in tail
    ]
    model = content["model"]
    if isinstance(model["vocab"], list):
        model["vocab"] = [p for p in model["vocab"] if p[0] not in tail]
    else:
        model["vocab"] = {
            t: i for t, i in model["vocab"].items() if t not in tail
        }
    return tail


def _flag_special(content: dict[str, Any], special: set[str]) -> frozenset[str]:
    """Flag what no text may become; return it without speech tokens."""
    for token in content["added_tokens"]:
        if SPEECH_TOKEN.fullmatch(token["content"]):
            token["special"], token["normalized"] = True, False
        token["special"] |= token["content"] in special
    return frozenset(
        token["content"]
        for token in content["added_tokens"]
        if token["special"] and not SPEECH_TOKEN.fullmatch(token["content"])
    )


def _drop_spaces(content: dict[str, Any]) -> bool:
    """Keep a tokenizer from changing the spaces around a text, if it does."""
    found = False
    for part in _parts(content, "pre_tokenizer"):
        if part["type"] == "Metaspace" and part["prepend_scheme"] != "never":
            part["prepend_scheme"], found = "never", True
    normalizers = _parts(content, "normalizer")
    found |= any(part["type"] == "Prepend" for part in normalizers)
    if not found:
        return False
    _put(
        content,
        "normalizer",
        [
            part
            for part in normalizers
            if part["type"] not in ("Prepend", "Strip")
            and part.get("pattern", {}).get("Regex") not in _AROUND
        ],
    )
    decoders = [p for p in _parts(content, "decoder") if p["type"] != "Strip"]
    for part in decoders:
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
    _put(content, "decoder", decoders)
    return True


def _parts(content: Mapping[str, Any], step: str) -> list[dict[str, Any]]:
    """Return the parts of a step of a tokenizer.json, one or a sequence."""
    whole = content[step]
    if whole is None or whole["type"] != "Sequence":
        return [] if whole is None else [whole]
    return next(v for k, v in whole.items() if isinstance(v, list))


def _put(content: dict[str, Any], step: str, parts: list[dict]) -> None:
    names = {"normalizer": "normalizers", "decoder": "decoders"}
    content[step] = {"type": "Sequence", names[step]: parts} if parts else None
