"""Labels that a corpus uses."""

from __future__ import annotations

from pathlib import Path

from spiritlm_plugin.dataio.corpus.manifests import load_manifest


def manifest_labels(manifest: str | Path, key: str) -> list[str]:
    """Return the values that a key has in a manifest, sorted.

    Arguments
    ---------
    manifest : str or Path
        As of `load_manifest`.
    key : str
        Such as ``"style"``.

    Raises
    ------
    FileNotFoundError, ManifestError
        As by `load_manifest`.

    Example
    -------
    >>> from spiritlm_plugin.dataio.corpus.manifests import write_manifest
    >>> item = {"wav": recording, "duration": 2.4}
    >>> items = {n: {**item, "style": n} for n in ("sad", "happy")}
    >>> write_manifest(items, tmp / "train.json")
    >>> manifest_labels(tmp / "train.json", "style")
    ['happy', 'sad']
    """
    items = load_manifest(manifest, needs=[key])
    return sorted({item[key] for item in items.values()})
