"""Tables of corpora: CSV and TSV with a line of names."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from spiritlm_plugin.utils.files import read_text

Row = dict[str, str]


def read_table(
    path: str | Path, columns: Sequence[str], delimiter: str = ","
) -> Iterator[tuple[int, Row]]:
    r"""Yield the rows of a table, each with the number of its line.

    Arguments
    ---------
    path : str or Path
        In UTF-8, as of `read_text`.
    columns : sequence of str
        That it must have; others are kept as well.
    delimiter : str
        Between cells; ``"\t"`` in TSV.

    Yields
    ------
    (int, dict of str to str)
        A cell that a short row lacks is empty.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, lacks a column, or a row has more cells than
        there are columns; names file and line.

    Example
    -------
    >>> path = tmp / "gold.csv"
    >>> _ = path.write_bytes("\ufeffid,word\r\n7,caf\xe9\r\n".encode())
    >>> list(read_table(path, ["id"]))
    [(2, {'id': '7', 'word': 'café'})]
    """
    content = io.StringIO(read_text(path), newline="")
    table = csv.reader(content, delimiter=delimiter, strict=True)
    try:
        names = next(table, [])
        missing = [column for column in columns if column not in names]
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(missing)}, only "
                f"{', '.join(names)}; its columns should be "
                f"{', '.join(columns)} and perhaps others"
            )
        for cells in filter(any, table):
            if any(cells[len(names) :]):
                raise ValueError(
                    f"{path}, line {table.line_num}: {len(cells)} cells, but "
                    f"{len(names)} columns; quote those with a delimiter"
                )
            cells += [""] * (len(names) - len(cells))
            yield table.line_num, dict(zip(names, cells))
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {table.line_num}: {error}; correct the line"
        ) from error
