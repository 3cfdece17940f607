"""Files: whole when they are there, texts as they come, names that are safe."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

# Of a file name, in bytes; what is appended to it has room in the 255 of
# common file systems.
_LONGEST_NAME = 200


# What says that there is no room: disk, quota, or the size of a file.
_NO_ROOM = {
    os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
}
# As much is tried where a library does not say why it could not write.
_PROBE_BYTES = 2**20
_STOPPED = (KeyboardInterrupt, SystemExit, GeneratorExit)


class DiskFullError(OSError):
    """What could not be written for want of room."""


@contextmanager
def naming_full_disk(path: str | Path) -> Iterator[None]:
    """Say that the disk is full, where a library would say something else.

    Arguments
    ---------
    path : str or Path
        What is being written.

    Raises
    ------
    DiskFullError
        Naming the path and how much room there is.

    Example
    -------
    >>> with naming_full_disk(tmp / "results.txt"):
    ...     with open("/dev/full", "w") as file:
    ...         _ = file.write("all day")
    Traceback (most recent call last):
        ...
    spiritlm_plugin.utils.files.DiskFullError: no room for ...results.txt: ...
    """
    path = Path(path)
    try:
        yield
    except BaseException as error:  # torch.distributed's is no Exception
        if isinstance(error, _STOPPED):
            raise
        said = next((text for text in _NO_ROOM if text in str(error)), None)
        reason = said or _why_no_room(path)
        if reason is None:
            raise
        free = shutil.disk_usage(path.parent).free / 1e6
        raise DiskFullError(
            f"no room for {path}: {reason}; {path.parent} has {free:.1f} MB "
            "free. Make room and start again: what is complete is kept"
        ) from error


def _why_no_room(path: Path) -> str | None:
    """Try to write beside a path, and return why that cannot be."""
    probe = path.with_name(f"{path.name}.{os.getpid()}.probe")
    try:
        with open(probe, "wb", buffering=0) as file:
            written = file.write(os.urandom(_PROBE_BYTES))
            file.write(bytes(_PROBE_BYTES - written))
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror if error.strerror in _NO_ROOM else None
    finally:
        probe.unlink(missing_ok=True)
    return None


@contextmanager
def writing(path: str | Path, shared: bool = False) -> Iterator[Path]:
    """Write a file or a folder, which appears when it is complete.

    Where that fails, nothing of it is left, and what was there stays.

    Arguments
    ---------
    path : str or Path
        What is to be there; a folder must not be there, or be empty.
    shared : bool
        Whether other processes may write it as well.

    Yields
    ------
    Path
        Where to write it until then.

    Raises
    ------
    DiskFullError
        If there is no room.

    Example
    -------
    >>> with writing(tmp / "weights.pt") as partial:
    ...     torch.save({"a": torch.ones(2)}, partial)
    >>> [path.name for path in tmp.iterdir()]
    ['weights.pt']
    """
    path = Path(path)
    # Containers of several machines may use the same numbers of processes.
    owner = f".{socket.gethostname()}-{os.getpid()}" if shared else ""
    partial = path.with_name(f"{path.name}{owner}.partial")
    _remove(partial)  # of a run that was killed
    try:
        with naming_full_disk(path):
            yield partial
            os.replace(partial, path)
    except BaseException:
        _remove(partial)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file, which appears when it is complete.

    Raises
    ------
    DiskFullError
        If there is no room.

    Example
    -------
    >>> write_bytes(tmp / "a.flac", b"fLaC")
    >>> (tmp / "a.flac").read_bytes()
    b'fLaC'
    """
    with writing(path) as partial:
        partial.write_bytes(content)


def write_file(path: str | Path, content: str) -> None:
    """Write a text file, which appears when it is complete."""
    with writing(path, shared=True) as partial:
        partial.write_text(content, encoding="utf-8")


def read_json(
    path: str | Path, remedy: str, raises: type[ValueError] = ValueError
) -> dict[str, Any]:
    """Return what a JSON file says of names.

    Arguments
    ---------
    path : str or Path
        The file.
    remedy : str
        What to do where it is damaged.
    raises : type
        The error.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        Of that type, if it is damaged or holds something else; names file and
        remedy.

    Example
    -------
    >>> _ = (tmp / "settings.json").write_text('{"shots": 1')
    >>> read_json(tmp / "settings.json", "delete it")
    Traceback (most recent call last):
        ...
    ValueError: cannot read ...settings.json: ...line 1...; delete it
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(
                f"it holds a {type(content).__name__}, not names with values"
            )
    except (ValueError, RecursionError) as error:
        raise raises(f"cannot read {path}: {error}; {remedy}") from error
    return content


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
