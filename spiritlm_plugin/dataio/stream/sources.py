"""What a language model is trained on: tokenized corpora and text files."""

from __future__ import annotations

import glob
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

import datasets
import fsspec

from spiritlm_plugin.dataio.corpus.stores import load_corpus
from spiritlm_plugin.dataio.stream.reading import Source

_KINDS = {
    ".txt": "text",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_TEXTS = [datasets.Value("string"), datasets.Value("large_string")]
_BOM = "\ufeff"
# What compressed files raise that are not whole.
_DAMAGE = (OSError, EOFError, zlib.error)


def load_texts(files: Sequence[str | Path]) -> datasets.Dataset:
    r"""Return the texts of files, memory-mapped.

    Arguments
    ---------
    files : sequence of str or Path
        Plain text, a document a line; or JSON lines, Parquet or Arrow with a
        column ``text``. All of one kind; compressed files may be named
        ``.txt.gz`` and so on. Text is UTF-8, with a byte order mark or not.

    Returns
    -------
    datasets.Dataset
        With the column ``text``; blank ones are left out.

    Raises
    ------
    FileNotFoundError
        Naming the file that is missing.
    ValueError
        If the files are of several kinds or of none that is known, cannot be
        read (names file and line), or have no texts.

    Example
    -------
    >>> path = tmp / "stories.txt"
    >>> _ = path.write_text("once upon a time\n\nthe end\n")
    >>> load_texts([path])["text"][1]
    'the end'
    """
    paths = [Path(file).absolute() for file in files]
    if not paths:
        raise ValueError("no text files are named")
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no such text file: {path}")
    kind = _kind(paths)
    if kind in _PARSERS:
        rows = _parse(paths, _PARSERS[kind], kind == "json")
    else:
        rows = _load(kind, paths)
        if "text" not in rows.column_names:
            raise ValueError(
                f"{paths[0]} has no column 'text', only "
                f"{', '.join(rows.column_names)}"
            )
        found = rows.features["text"]
        if found not in _TEXTS:
            raise ValueError(
                f"the column 'text' of {paths[0]} holds {found}, not texts; "
                "write it as strings"
            )
        rows = rows.select_columns(["text"])
        rows = rows.filter(_have_text, batched=True, input_columns=["text"])
    if not len(rows):
        raise ValueError(f"there is no text in {', '.join(map(str, paths))}")
    return rows


def _kind(paths: Sequence[Path]) -> str:
    suffixes = {
        next((s for s in path.suffixes[::-1] if s in _KINDS), path.suffix)
        for path in paths
    }
    kinds = {_KINDS.get(suffix, "") for suffix in suffixes}
    if len(kinds) > 1 or "" in kinds:
        raise ValueError(
            f"text files should be of one kind, {', '.join(_KINDS)}; got "
            f"{', '.join(sorted(suffixes))}"
        )
    return kinds.pop()


def _load(kind: str, paths: Sequence[Path], **options: Any) -> datasets.Dataset:
    """Return what `datasets` makes of files, whose names are no patterns."""
    names = [glob.escape(str(path)) for path in paths]
    return datasets.load_dataset(
        kind, data_files=names, split="train", **options
    )


def _have_text(texts: Sequence[str | None]) -> list[bool]:
    return [bool(text and text.strip()) for text in texts]


def _parse(
    paths: Sequence[Path], parse: Callable[[str], list[str]], is_json: bool
) -> datasets.Dataset:
    """Return the texts of files of text.

    JSON is read as text, too: its reader in `datasets` takes a column of texts
    that look like dates for dates.
    """
    is_list = is_json and any(map(_holds_list, paths))
    try:
        return _load(
            "text",
            paths,
            features=datasets.Features({"text": _TEXTS[0]}),
            sample_by="document" if is_list else "line",
        ).map(
            partial(_parse_batch, parse=parse),
            batched=True,
            batch_size=1 if is_list else 1000,
            desc="reading texts",
        )
    except Exception as error:  # what foreign bytes raise is not defined
        fault = None if is_list else _find_fault(paths, parse)
        raise ValueError(
            fault
            or f"there is no text in {', '.join(map(str, paths))} that can be "
            f"read: {error.__cause__ or error}"
        ) from error


def _parse_batch(
    batch: Mapping[str, list[str]], parse: Callable[[str], list[str]]
) -> dict[str, list[str]]:
    texts = [text for row in batch["text"] for text in parse(row)]
    return {"text": [*compress(texts, _have_text(texts))]}


def _parse_line(line: str) -> list[str]:
    return [line.removeprefix(_BOM)]


def _parse_json(content: str) -> list[str]:
    """Return the texts of a record, or of a list of records."""
    content = content.removeprefix(_BOM)
    records = json.loads(content) if content.strip() else []
    texts = []
    for record in records if isinstance(records, list) else [records]:
        if not isinstance(record, dict) or "text" not in record:
            raise ValueError(f"{content:.60} has no column 'text'")
        text = record["text"]
        if not isinstance(text, str | None):
            raise ValueError(f"its text is {text!r:.60}, not a text")
        if text:
            text.encode()  # which half a surrogate pair refuses
            texts.append(text)
    return texts


_PARSERS = {"text": _parse_line, "json": _parse_json}


def _holds_list(path: Path) -> bool:
    with suppress(*_DAMAGE), _open(path) as file:
        return file.read(1024).removeprefix(_BOM.encode()).lstrip()[:1] == b"["
    return False


def _find_fault(
    paths: Sequence[Path], parse: Callable[[str], list[str]]
) -> str | None:
    """Say which line cannot be read, and why."""
    for path in paths:
        number = 0
        try:
            with _open(path) as file:
                for line in file:
                    number += 1
                    parse(line.decode("utf-8"))
        except _DAMAGE as error:
            return f"{path} is damaged after line {number}: {error}"
        except ValueError as error:
            return f"{path}, line {number}: {error}; correct it"
    return None


def _open(path: Path) -> Any:
    return fsspec.open(str(path), "rb", compression="infer")


def load_corpora(
    folders: Sequence[str | Path],
    split: str,
    parts: Mapping[str, str] | None = None,
) -> datasets.Dataset:
    """Return tokenized corpora as one.

    Arguments
    ---------
    folders : sequence of str or Path
        Of corpora, with a folder for each split.
    split : str
        Such as ``"train"``.
    parts : dict of str to str, optional
        `fingerprints` of the tokenizer that the units must come from.

    Returns
    -------
    datasets.Dataset
        As of `load_corpus`, with the streams that all of them have.

    Raises
    ------
    FileNotFoundError, CorpusError
        As of `load_corpus`.
    ValueError
        If no folder is named.
    """
    if not folders:
        raise ValueError("no tokenized corpora are named")
    corpora = [load_corpus(Path(folder) / split, parts) for folder in folders]
    columns = [
        {n for n in corpus.column_names if n.endswith("_units")}
        for corpus in corpora
    ]
    names = sorted(set.intersection(*columns))
    joined = datasets.concatenate_datasets(
        [
            corpus.with_format(None).remove_columns(sorted(own - set(names)))
            for corpus, own in zip(corpora, columns)
        ]
    )
    return joined.with_format("torch", names, output_all_columns=True)


def make_sources(
    shares: Mapping[str, float],
    corpus: Sequence[Mapping[str, Any]] | None,
    texts: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Source]:
    """Return a source for each form of document that has a share.

    Arguments
    ---------
    shares : dict of str to float
        Of the tokens, by form; see `DocumentMaker`.
    corpus : datasets.Dataset or sequence, optional
        Utterances that documents with speech are made of.
    texts : datasets.Dataset or sequence, optional
        What documents of form ``text`` are made of; by default the
        transcripts of the corpus.

    Raises
    ------
    ValueError
        If there is nothing that a form could be made of.

    Example
    -------
    >>> sources = make_sources({"text": 1}, None, [{"text": "the cat"}])
    >>> sources["text"].form
    'text'
    """
    sources = {}
    for form, share in shares.items():
        rows = corpus
        if form == "text" and texts is not None:
            rows = texts
        if rows is None:
            raise ValueError(
                f"there is nothing to make documents of form {form!r} of; "
                "name tokenized corpora"
            )
        sources[form] = Source(rows, form, share)
    return sources
