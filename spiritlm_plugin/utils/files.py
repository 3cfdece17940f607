"""Files: whole when they are there, texts as they come, names that are safe."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import Path
from urllib.parse import quote

# Of a file name, in bytes; what is appended to it has room in the 255 of
# common file systems.
_LONGEST_NAME = 200


def write_file(path: Path, content: str) -> None:
    """Write a file, which appears when it is complete."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, path)


def read_text(path: str | Path) -> str:
    r"""Return what a text file says, as one writes text: UTF-8, NFC, ``\n``.

    A byte order mark is no part of it, lines may end as on any system, and
    letters with accents are one character, however they were written.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not UTF-8; names file, line and remedy.

    Example
    -------
    >>> path = tmp / "chapter.trans.txt"
    >>> _ = path.write_bytes("\ufeff1-2-3 CAFE\u0301\r\n".encode())
    >>> read_text(path)
    '1-2-3 CAFÉ\n'
    """
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path} is not UTF-8: line {line} has the byte "
            f"0x{content[error.start]:02x}; if it is Latin-1, convert it: "
            f"iconv -f latin1 -t utf-8 OLD > NEW"
        ) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return unicodedata.normalize("NFC", text)


def read_lines(path: str | Path) -> list[str]:
    r"""Return the lines of a text file, without their ends.

    Only line ends end a line: a form feed, U+0085 or U+2028 is a character of
    its line, as any editor shows it. Errors are those of `read_text`.

    Example
    -------
    >>> path = tmp / "lines.txt"
    >>> _ = path.write_text("two\u2028boats\n\nand one", encoding="utf-8")
    >>> read_lines(path)
    ['two\u2028boats', '', 'and one']
    """
    lines = read_text(path).split("\n")
    return lines[:-1] if not lines[-1] else lines


def safe_file_name(name: str) -> str:
    """Return an id as the name of a file, in the folder where it is wanted.

    Ids are anything, such as paths; different ones get different names.

    Example
    -------
    >>> safe_file_name("19-198-0000")
    '19-198-0000'
    >>> safe_file_name("/corpus/anna/a b.wav")
    '%2Fcorpus%2Fanna%2Fa%20b.wav'
    >>> safe_file_name("..")
    '%2E.'
    """
    safe = quote(name, safe="")
    if not safe or safe.startswith("."):
        safe = f"%2E{safe[1:]}"
    if len(safe) > _LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        safe = f"{safe[: _LONGEST_NAME - 17]}-{digest}"
    return safe
