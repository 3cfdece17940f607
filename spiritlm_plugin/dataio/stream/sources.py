"""What a language model is trained on: tokenized corpora and text files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from spiritlm_plugin.dataio.corpus.unit_store import load_corpus
from spiritlm_plugin.dataio.stream.mixing import Source

_BUILDERS = {
    ".txt": "text",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
}


def load_texts(files: Sequence[str | Path]) -> datasets.Dataset:
    r"""Return the texts of files, memory-mapped.

    Arguments
    ---------
    files : sequence of str or Path
        Plain text, a document a line; or JSON lines, Parquet or Arrow with a
        column ``text``. All of one kind; compressed files may be named
        ``.txt.gz`` and so on.

    Returns
    -------
    datasets.Dataset
        With the column ``text``.

    Raises
    ------
    FileNotFoundError
        Naming the file that is missing.
    ValueError
        If the files are of several kinds or of none that is known, or have no
        texts.

    Example
    -------
    >>> path = tmp / "stories.txt"
    >>> _ = path.write_text("once upon a time\nthe end\n")
    >>> load_texts([path])["text"][1]
    'the end'
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise ValueError("no text files are named")
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no such text file: {path}")
    kinds = {
        next((s for s in path.suffixes[::-1] if s in _BUILDERS), path.suffix)
        for path in paths
    }
    builders = {_BUILDERS.get(kind) for kind in kinds}
    if len(builders) > 1 or None in builders:
        raise ValueError(
            f"text files should be of one kind, {', '.join(_BUILDERS)}; got "
            f"{', '.join(sorted(kinds))}"
        )
    rows = datasets.load_dataset(
        builders.pop(), data_files=list(map(str, paths)), split="train"
    )
    if "text" not in rows.column_names:
        raise ValueError(
            f"{paths[0]} has no column 'text', only "
            f"{', '.join(rows.column_names)}"
        )
    return rows.select_columns(["text"])


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
        if form == "few_shot_intent":
            rows = _with_intents(rows)
        sources[form] = Source(rows, form, share)
    return sources


def _with_intents(corpus: datasets.Dataset) -> datasets.Dataset:
    """Return the utterances that are commands."""
    intents = corpus["intent"] if "intent" in corpus.column_names else []
    return corpus.select([i for i, intent in enumerate(intents) if intent])
