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


def check_savedir(
    savedir: str | Path, folder: str | Path, hparams_file: str
) -> None:
    """Refuse a ``savedir`` that holds files of another model.

    SpeechBrain takes what is there already, whatever it is a copy of.

    Arguments
    ---------
    savedir : str or Path
        As of `Pretrained.from_hparams`; it may be missing.
    folder : str or Path
        The model's, as of `local_folder`.
    hparams_file : str
        In it.

    Raises
    ------
    ValueError
        Naming the file that is not the model's.

    Example
    -------
    >>> (tmp / "model").mkdir()
    >>> for name, text in (("model/a.yaml", "a: 1"), ("a.yaml", "a: 2")):
    ...     _ = (tmp / name).write_text(text)
    >>> check_savedir(tmp, tmp / "model", "a.yaml")
    Traceback (most recent call last):
        ...
    ValueError: ...a.yaml is of another model than ...; name another savedir
    """
    savedir, folder = Path(savedir), Path(folder).resolve()
    if not savedir.is_dir() or savedir.resolve() == folder:
        return
    own = (folder / hparams_file).read_bytes()
    for path in sorted(savedir.iterdir()):
        is_other = path.is_symlink() and path.resolve().parent != folder
        if path.name == hparams_file and path.is_file():
            is_other = path.read_bytes() != own
        if is_other:
            raise ValueError(
                f"{path} is of another model than {folder}; name another "
                "savedir"
            )
