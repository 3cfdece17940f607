"""The files of a tokenizer, as transformers and other engines read them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from spiritlm_plugin.utils.files import read_json, write_file

# With those that fill holes between the ids.
SPEECH_TOKEN = re.compile(r"\[(Text|Speech|ASR|TTS|(Hu|Pi|St|Spare)\d+)\]")
ADDED_TOKENS = "added_tokens.json"
_CONFIG = "tokenizer_config.json"
_REMEDY = "download or save it again"


class NamedTokens(NamedTuple):
    """What the files around a tokenizer say of its tokens.

    Arguments
    ---------
    speech : dict of str to int
        Ids of speech tokens.
    listed : frozenset of str
        Those that stand in ``added_tokens.json``.
    special : frozenset of str
        Tokens that no text may become.
    settings : dict
        All that ``tokenizer_config.json`` says, if it is there.
    """

    speech: dict[str, int]
    listed: frozenset[str]
    special: frozenset[str]
    settings: dict[str, Any]


def find_in(source: str | Path) -> Callable[[str], str | None]:
    """Return what finds a file of a folder, or of a Hub name.

    Example
    -------
    >>> find_in(tmp)("tokenizer.json") is None
    True
    """
    from transformers.utils import cached_file

    return lambda name: cached_file(
        str(source), name, _raise_exceptions_for_missing_entries=False
    )


def read_named_tokens(find: Callable[[str], str | None]) -> NamedTokens:
    """Read what a tokenizer's files say of its tokens.

    Arguments
    ---------
    find : callable
        Gives the path of a file by its name, or None.

    Raises
    ------
    ValueError
        If a file is damaged; names it and the remedy.

    Example
    -------
    >>> file = tmp / "added_tokens.json"
    >>> _ = file.write_text('{"[Text]": 300, "<pad>": 299}')
    >>> read_named_tokens({"added_tokens.json": str(file)}.get)
    NamedTokens(speech={'[Text]': 300}, listed=frozenset({'[Text]'}),
                special=frozenset(), settings={})
    """
    settings: dict[str, Any] = {}
    ids: dict[str, int] = {}
    listed: dict[str, int] = {}
    special: set[str] = set()
    # Where two files name a token, the last one counts.
    for name in (
        "tokenizer.json",
        "special_tokens_map.json",
        _CONFIG,
        ADDED_TOKENS,
    ):
        path = find(name)
        if path is None:
            continue
        content = read_json(path, _REMEDY)
        try:
            if name == ADDED_TOKENS:
                listed = {token: int(i) for token, i in content.items()}
                continue
            if name == _CONFIG:
                settings = content
            special.update(_special(content))
            for token in _added(content):
                ids[token["content"]] = int(token["id"])
                if token.get("special"):
                    special.add(token["content"])
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path} does not list tokens as transformers does "
                f"({error!r}); {_REMEDY}"
            ) from error
    listed = {t: i for t, i in listed.items() if SPEECH_TOKEN.fullmatch(t)}
    speech = {t: i for t, i in ids.items() if SPEECH_TOKEN.fullmatch(t)}
    return NamedTokens(
        {**speech, **listed}, frozenset(listed), frozenset(special), settings
    )


def _added(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the added tokens of tokenizer.json or its configuration."""
    yield from content.get("added_tokens", ())
    for index, token in content.get("added_tokens_decoder", {}).items():
        yield {"id": index, **token}


def _special(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tokens to which a configuration gives a special part."""
    named = [v for k, v in content.items() if k.endswith("_token") and v]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = content.get(key) or ()
        named += more.values() if isinstance(more, dict) else more
    for token in named:
        if isinstance(token, dict):
            token = token["content"]
        if isinstance(token, str):  # add_bos_token is a flag
            yield token


def added_token(index: int, content: str, special: bool = True) -> dict:
    """Return a token as tokenizer.json lists it.

    Special ones are looked for in a text as it is, others in the text that the
    model reads, where a space may have become another sign.

    Example
    -------
    >>> added_token(7, "[Hu0]")["normalized"]
    False
    """
    return {
        "id": index,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": not special,
        "special": special,
    }


def spare_token(index: int) -> str:
    """Return the name of an id that has no meaning.

    Example
    -------
    >>> spare_token(7)
    '[Spare7]'
    """
    return f"[Spare{index}]"


def write_added_tokens(
    folder: Path, tokens: Mapping[str, int], pieces: Mapping[str, int]
) -> None:
    """Write the ids of the speech tokens that are no pieces of the text.

    Example
    -------
    >>> write_added_tokens(tmp, {"[Text]": 300, "[Hu0]": 7}, {"[Hu0]": 7})
    >>> (tmp / "added_tokens.json").read_text()
    '{"[Text]": 300}'
    """
    behind = {t: i for t, i in tokens.items() if t not in pieces}
    if behind:
        write_file(folder / ADDED_TOKENS, json.dumps(behind))


def write_tokenizer(
    folder: Path,
    backend: Mapping[str, Any],
    tokens: Mapping[str, int],
    prompt_start: Sequence[int],
) -> None:
    """Write ``tokenizer.json``, of which plain transformers gives our ids.

    Arguments
    ---------
    folder : Path
        Where to.
    backend : dict
        The same of the text alone.
    tokens : dict of str to int
        The speech tokens.
    prompt_start : sequence of int
        Ids in front of each prompt.

    Raises
    ------
    ValueError
        If the tokens cannot have these ids there.
    """
    content = json.dumps(_with_tokens(backend, tokens, prompt_start))
    made = Tokenizer.from_str(content)
    for token, index in tokens.items():
        if made.token_to_id(token) != index:
            raise ValueError(f"{token} cannot have the id {index} in it")
    write_file(folder / "tokenizer.json", content)


def write_configuration(folder: Path, special: Mapping[str, Any]) -> None:
    """Write how plain transformers is to use a tokenizer.

    A text's brackets are text, as here, unless a caller asks for tokens with
    ``split_special_tokens=False``.

    Arguments
    ---------
    folder : Path
        Where to.
    special : dict
        The tokens of the text that have a part to play, by its name; and what
        else is to be kept.

    Example
    -------
    >>> write_configuration(tmp, {"eos_token": "</s>"})
    >>> read_named_tokens({_CONFIG: str(tmp / _CONFIG)}.get).special
    frozenset({'</s>'})
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "split_special_tokens": True,
        **special,
    }
    write_file(folder / _CONFIG, json.dumps(config, indent=2) + "\n")


def _with_tokens(
    backend: Mapping[str, Any],
    tokens: Mapping[str, int],
    prompt_start: Sequence[int],
) -> dict[str, Any]:
    """Return a backend with the speech tokens, and what starts a prompt."""
    added = [t for t in backend["added_tokens"] if t["content"] not in tokens]
    added += [added_token(index, token) for token, index in tokens.items()]
    model = dict(backend["model"])
    pieces = _ids_of(model)
    # Added tokens must follow each other, behind as many pieces as there are.
    ids = {token["id"] for token in added} | pieces
    holes = {*range(max(ids))} - ids
    added += [added_token(index, spare_token(index)) for index in holes]
    added.sort(key=lambda token: token["id"])
    if isinstance(model["vocab"], dict):
        inside = {
            token["content"]: token["id"]
            for token in added
            if token["id"] < max(pieces) and token["id"] not in pieces
        }
        model["vocab"] = {**model["vocab"], **inside}
    return {
        **backend,
        "model": model,
        "added_tokens": added,
        "post_processor": _in_front(prompt_start),
    }


def _ids_of(model: Mapping[str, Any]) -> set[int]:
    """Return the ids of the model of a tokenizer.json."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # of a unigram model, with scores
        return {*range(len(vocabulary))}
    return {*vocabulary.values()}


def _in_front(prompt_start: Sequence[int]) -> dict[str, Any] | None:
    """Return the post-processor that puts ids in front of a prompt."""
    if not prompt_start:
        return None
    start = [
        {"SpecialToken": {"id": str(index), "type_id": 0}}
        for index in prompt_start
    ]
    text = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    return {
        "type": "TemplateProcessing",
        "single": [*start, text[0]],
        "pair": [*start, *text],
        "special_tokens": {
            str(i): {"id": str(i), "ids": [i], "tokens": [str(i)]}
            for i in prompt_start
        },
    }
