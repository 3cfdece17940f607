"""Files that are there when they are complete."""

from __future__ import annotations

import os
from pathlib import Path


def write_file(path: Path, content: str) -> None:
    """Write a file, which appears when it is complete."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, path)
