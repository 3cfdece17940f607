"""How a pretrained model is found: by a folder, or by a name."""

from __future__ import annotations

from pathlib import Path

# Folders that ship with the package.
_SHIPPED = Path(__file__).parent


def local_folder(
    source: str | Path, hparams_file: str = "hyperparams.yaml"
) -> Path:
    """Return a folder as it is, the shipped one, or a download of the Hub."""
    folder = Path(source)
    if set("<>") & set(str(source)):
        raise ValueError(
            f"{source}: HyperPyYAML reads <...> in a path as a reference; "
            "rename the folder"
        )
    # Another folder that happens to have such a name is none of a model.
    if str(source) in _shipped() and not (folder / hparams_file).exists():
        folder = _SHIPPED / source
    if folder.is_dir():
        if not (folder / hparams_file).exists():
            raise FileNotFoundError(
                f"no {hparams_file} in {folder}; for Meta's checkpoints use "
                "SpiritLM.from_release"
            )
        return folder.resolve()
    if folder.is_absolute() or str(source).count("/") != 1:
        raise FileNotFoundError(
            f"no such folder: {source}, no name of a Hub repository, and none "
            f"of what ships with the package: {', '.join(_shipped())}"
        )
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(source)))


def _shipped() -> list[str]:
    return sorted(p.parent.name for p in _SHIPPED.glob("*/hyperparams.yaml"))
