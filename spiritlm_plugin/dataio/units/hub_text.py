"""Fast tokenizers of transformers as text tokenizers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import takewhile
from operator import itemgetter
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

_SPACES = ("▁", "Ġ")  # signs of a space: SentencePiece's, and of bytes
_LEARNED = "learned_with_spaces"  # in the configuration
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
        If the tokenizer has no fast backend or no end-of-sequence token, or
        its files do not tell what a model that speaks has learned with.
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
        self._config: dict[str, Any] = {
            name: str(token)
            for name, token in tokenizer.special_tokens_map.items()
            if name.endswith("_token")
        }
        named = read_named_tokens(find_in(source))
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content["truncation"] = content["padding"] = None
        # Models of ours that have learned with a space before each text were
        # saved with it, and their speech tokens in a file of their own.
        learned = named.settings.get(_LEARNED) or "[Text]" in named.listed
        if not learned:
            _check_known(content, source)
        self.tail = _take_tail(content, named.speech)
        ids = _ids(content)
        names = {index: token for token, index in ids.items()}
        if len(names) < len(ids):
            twice = next(t for t, i in ids.items() if names[i] != t)
            raise ValueError(
                f"the tokenizer of {source} has one id, {ids[twice]}, for "
                f"{twice!r} and {names[ids[twice]]!r}; a model cannot tell "
                "them apart, and has to be trained with another tokenizer"
            )
        self._length = max(names) + 1
        self._added = {
            t: i for t, i in ids.items() if SPEECH_TOKEN.fullmatch(t)
        }
        self.special = _flag_special(
            content, {*named.special, *tokenizer.all_special_tokens}
        )
        # A control token of one character, as some are padded with, is text.
        self._reserved = {
            ids[t]: t for t in (*self.special, *self._added) if len(t) > 1
        }
        self._unknown = _unknown(content)
        space = _space_in_front(content)
        if space is not None and learned:
            self._config[_LEARNED] = True
        elif space is not None:
            _drop_spaces(content)
        self._content = content
        self._backend = Tokenizer.from_str(json.dumps(content))
        self._backend.encode_special_tokens = True
        self.bos_id: int | None = tokenizer.bos_token_id
        self.prompt_start = [] if self.bos_id is None else [self.bos_id]
        if learned or space is None:
            space = self._written_in_front()
        if space is not None:
            self.prompt_start.append(ids[space])

    def _written_in_front(self) -> str | None:
        """Return the sign of a space that stands in front of a prompt."""
        whole = self._backend.encode("a")
        pairs = zip(whole.ids, whole.special_tokens_mask)
        front = {
            self._backend.id_to_token(index)
            for index, _ in takewhile(itemgetter(1), pairs)
        }
        return next((space for space in _SPACES if space in front), None)

    def __len__(self) -> int:
        """Return the number of ids, without those of speech behind them."""
        return self._length

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; control tokens in it are characters.

        Where the tokenizer would find one nevertheless, as unigram models do,
        the text is cut inside its name.

        Raises
        ------
        ValueError
            If a single character becomes a control token.
        """
        whole = self._backend.encode(text, add_special_tokens=False)
        if self._reserved.keys().isdisjoint(whole.ids):
            return whole.ids
        cuts = [0]
        for index, (start, end) in zip(whole.ids, whole.offsets):
            token, found = self._reserved.get(index), text[start:end]
            if token is None or (index == self._unknown and found != token):
                continue
            if len(found) < 2:
                raise ValueError(
                    f"{found!r} would become {token} of the tokenizer; leave "
                    "it out of texts"
                )
            cuts.append((start + end) // 2)
        if len(cuts) == 1:
            return whole.ids
        parts = zip(cuts, [*cuts[1:], len(text)])
        return [i for a, b in parts for i in self.encode(text[a:b])]

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


def _unknown(content: Mapping[str, Any]) -> int | None:
    """Return the id of what the model of a tokenizer.json does not know."""
    model = content["model"]
    if "unk_id" in model:  # a unigram model
        return model["unk_id"]
    return _ids(content).get(model.get("unk_token"))


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


def _check_known(content: Mapping[str, Any], source: str | Path) -> None:
    """Raise ValueError for a model of version 0.1, saved by transformers.

    That leaves out whether it learned with a space in front of each text or of
    prompts alone, and with which of its other tokens out of reach. Those of a
    SentencePiece model that puts a space in front are told by their flags.
    """
    added = content["added_tokens"]
    plain = [t for t in added if not t["special"]]
    marker = next((t for t in plain if t["content"] == "[Text]"), None)
    if marker is None:
        return
    space = _space_in_front(content)
    # User-defined pieces: among the added tokens, or split off.
    steps = _parts(content, "pre_tokenizer")
    others = any(step["type"] == "Split" for step in steps) or any(
        not SPEECH_TOKEN.fullmatch(t["content"]) for t in plain
    )
    if (space and marker["normalized"]) or (
        others and _SPACES[0] in _ids(content)
    ):
        raise ValueError(
            f"{source} has a tokenizer.json that transformers made anew, and "
            "how its model has learned to read texts cannot be told from it; "
            "copy added_tokens.json, and tokenizer.model if there is one, "
            "from the folder that was trained"
        )


def _space_in_front(content: Mapping[str, Any]) -> str | None:
    """Return the sign of a space that is put in front of each text."""
    space = None
    for part in _parts(content, "pre_tokenizer"):
        if part.get("prepend_scheme", "never") != "never":
            space = _SPACES[0]
        elif part["type"] == "ByteLevel" and part["add_prefix_space"]:
            space = _SPACES[1]
    if any(p["type"] == "Prepend" for p in _parts(content, "normalizer")):
        space = _SPACES[0]
    return space if space in _ids(content) else None


def _drop_spaces(content: dict[str, Any]) -> None:
    """Keep a tokenizer from changing the spaces around a text."""
    for part in _parts(content, "pre_tokenizer"):
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
        elif part["type"] == "ByteLevel":
            part["add_prefix_space"] = False
    normalizers = _parts(content, "normalizer")
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


def _parts(content: Mapping[str, Any], step: str) -> list[dict[str, Any]]:
    """Return the parts of a step of a tokenizer.json, one or a sequence."""
    whole = content[step]
    if whole is None or whole["type"] != "Sequence":
        return [] if whole is None else [whole]
    return next(v for k, v in whole.items() if isinstance(v, list))


def _put(content: dict[str, Any], step: str, parts: list[dict]) -> None:
    names = {"normalizer": "normalizers", "decoder": "decoders"}
    content[step] = {"type": "Sequence", names[step]: parts} if parts else None
