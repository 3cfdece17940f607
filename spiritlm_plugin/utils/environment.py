"""What a run depends on beside its settings."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import torch

_ROOT = Path(__file__).parents[1]


@cache
def package_commit() -> str | None:
    """Return the package's last commit, if its files are as they were then."""
    try:
        outputs = [
            subprocess.run(
                ["git", "-C", str(_ROOT), *command, "--", "."],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.strip()
            for command in (
                ["status", "--porcelain"],
                ["log", "-1", "--format=%H"],
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    changed, commit = outputs
    return None if changed else commit or None


def describe_environment() -> str:
    """Return versions of Python, torch's CUDA and all packages that it finds.

    SpeechBrain's description lists what the first ``pip`` of the path sees,
    which may be another environment than the one that runs.

    Example
    -------
    >>> f"torch=={torch.__version__.partition('+')[0]}" in describe_environment()
    True
    """
    packages = {f"{d.name}=={d.version}" for d in distributions() if d.name}
    lines = [
        f"Python {' '.join(sys.version.split())}",
        f"CUDA {torch.version.cuda}, available: {torch.cuda.is_available()}",
        f"spiritlm_plugin of commit {package_commit() or 'unknown'}",
        *sorted(packages, key=str.lower),
    ]
    return "\n".join(lines) + "\n"
