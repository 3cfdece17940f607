"""The commands that the docs and the READMEs have."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from sybil import Sybil
from sybil.parsers.myst import CodeBlockParser

SHELLS = ("sh", "bash", "shell")
ASSIGNMENT = re.compile(r"(\w+)=(.*)", re.DOTALL)


def blocks_of(page: Path, *languages: str) -> list[str]:
    """Return the blocks of a page that are in some languages."""
    parsers = [CodeBlockParser(name, lambda _: None) for name in languages]
    return [block.parsed for block in Sybil(parsers).parse(page)]


def commands_of(text: str) -> Iterator[list[str]]:
    """Yield the commands of a shell's text, variables put in.

    Of a shell's grammar it knows what READMEs have: comments, lines that go
    on, quotes, variables, and commands joined by `&&`.

    Example
    -------
    >>> list(commands_of("A='-x 1'  # why\\nrun $A \\\\\\n  \\"$A\\""))
    [['run', '-x', '1', '-x 1']]
    """
    variables: dict[str, str] = {}
    pending = ""
    for line in text.replace("\\\n", " ").splitlines():
        pending += line + "\n"
        known = re.sub(
            r"\$\{?(\w+)\}?",
            lambda found: variables.get(found[1], found[0]),
            pending,
        )
        try:
            words = shlex.split(known, comments=True)
        except ValueError:  # a quotation goes on in the next line
            continue
        pending = ""
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            command, words = words[:end], words[end + 1 :]
            while command and (found := ASSIGNMENT.fullmatch(command[0])):
                variables[found[1]] = found[2]
                command = command[1:]
            if command:
                yield command
    assert not pending, f"a quotation has no end: {pending}"
