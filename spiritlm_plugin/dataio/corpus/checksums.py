"""Checksums beside files: what is read is what was written."""

from __future__ import annotations

import json
import logging
import zlib
from pathlib import Path
from typing import Any

from spiritlm_plugin.utils.files import read_json, write_file

logger = logging.getLogger(__name__)

_READ_BYTES = 2**22


class ChecksumError(ValueError):
    """A file that is not what was written."""


def keep_checksum(
    written: str | Path, path: str | Path, **values: str | int
) -> None:
    """Write a JSON file beside it, by which `check_file` knows a file.

    Arguments
    ---------
    written : str or Path
        Where the file is now.
    path : str or Path
        Where it is going to be.
    **values : str or int
        What is to be kept besides.

    Raises
    ------
    OSError
        If it cannot be written.

    Example
    -------
    >>> _ = (tmp / "a.arrow").write_bytes(b"units")
    >>> keep_checksum(tmp / "a.arrow", tmp / "a.arrow", rows=1)
    >>> check_file(tmp / "a.arrow")["rows"]
    1
    >>> _ = (tmp / "a.arrow").write_bytes(b"Units")
    >>> check_file(tmp / "a.arrow")
    Traceback (most recent call last):
        ...
    spiritlm_plugin.dataio.corpus.checksums.ChecksumError: ...a.arrow has changed ...
    """
    size, modified = _stamp(Path(written))
    kept = {
        "bytes": size,
        "modified": modified,
        "crc32": _crc32(Path(written)),
        **values,
    }
    _write(path, kept)


def check_file(path: str | Path, reread: bool = False) -> dict[str, Any]:
    """Compare a file with what was written.

    Its size is compared each time. It is read where its time of change is
    another than it was, as after copying; what was found is kept.

    Arguments
    ---------
    path : str or Path
        The file.
    reread : bool
        Whether to read it in any case, at the speed of the disk: CRC-32 goes
        through 4 GB a second.

    Returns
    -------
    dict
        What was kept; empty where there is no checksum.

    Raises
    ------
    ChecksumError
        If the file is another, or its checksum cannot be read.
    """
    path = Path(path)
    remedy = "delete it: its file is not compared then"
    try:
        kept = read_json(_place(path), remedy, ChecksumError)
    except FileNotFoundError:
        return {}
    size, modified = _stamp(path)
    if size != kept.get("bytes"):
        raise ChecksumError(
            f"{path} has {size} bytes, {kept.get('bytes')} were written"
        )
    if reread or modified != kept.get("modified"):
        if _crc32(path) != kept.get("crc32"):
            raise ChecksumError(f"{path} has changed since it was written")
        if modified != kept.get("modified"):
            try:
                _write(path, kept | {"modified": modified})
            except OSError as error:
                logger.info("%s will be read again: %s", path, error)
    return kept


def _write(path: str | Path, kept: dict[str, Any]) -> None:
    write_file(_place(path), json.dumps(kept) + "\n")


def _place(path: str | Path) -> Path:
    return Path(path).with_suffix(".json")


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _crc32(path: Path) -> str:
    checksum = 0
    with open(path, "rb") as file:
        while content := file.read(_READ_BYTES):
            checksum = zlib.crc32(content, checksum)
    return f"{checksum:08x}"
