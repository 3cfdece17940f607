"""How a pretrained model is found: by a folder, or by a name."""

from __future__ import annotations

import os
from difflib import get_close_matches
from filecmp import cmp
from glob import escape
from pathlib import Path

# Folders that ship with the package.
_SHIPPED = Path(__file__).parent


def local_folder(
    source: str | Path, hparams_file: str = "hyperparams.yaml"
) -> Path:
    """Return a folder as it is, the shipped one, or a download of the Hub.

    What begins with ``.``, ``/`` or ``~``, ends with ``/``, has more than one
    ``/``, or stands in a folder that is there, is a path; ``org/name`` is a
    repository of the Hub.

    Arguments
    ---------
    source : str or Path
        Folder or name.
    hparams_file : str
        That it must have.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or repository; names similar ones.
    ValueError
        If HyperPyYAML cannot use the path.

    Example
    -------
    >>> local_folder("tinyspeech").name
    'tinyspeech'
    >>> local_folder("./tinyspech")
    Traceback (most recent call last):
        ...
    FileNotFoundError: no such folder: ./tinyspech; did you mean tinyspeech?...
    """
    name = str(source)
    if set("<>") & set(name):
        raise ValueError(
            f"{source}: HyperPyYAML reads <...> in a path as a reference; "
            "rename the folder"
        )
    folder = Path(os.path.expanduser(source))
    # Another folder that happens to have such a name is none of a model.
    if name in _shipped() and not (folder / hparams_file).is_file():
        folder = _SHIPPED / name
    if folder.is_file():
        raise FileNotFoundError(
            f"{source} is a file; name its folder, and the file as "
            "hparams_file if it is one of these"
        )
    if not folder.is_dir():
        if _is_path(name):
            raise FileNotFoundError(
                f"no such folder: {source}; {_instead(name)}"
            )
        folder = _download(name)
    if not (folder / hparams_file).is_file():
        raise FileNotFoundError(
            f"no {hparams_file} in {folder}; for Meta's checkpoints use "
            "SpiritLM.from_release"
        )
    return folder.resolve()


def _is_path(source: str) -> bool:
    """Whether this can be no name of a Hub repository."""
    return (
        source.startswith((".", "/", "~"))
        or source.endswith("/")
        or source.count("/") != 1
        or Path(source).is_absolute()
        or Path(source).parent.is_dir()
    )


def _instead(source: str) -> str:
    """Say what else there is."""
    path = Path(os.path.expanduser(source))
    beside = []
    if path.parent.is_dir():
        beside = [p.name for p in path.parent.iterdir() if p.is_dir()]
    near = get_close_matches(path.name, beside, n=1)
    likely = [str(path.with_name(n)) for n in near]
    likely += get_close_matches(path.name, _shipped(), n=1)
    hint = f"did you mean {' or '.join(likely)}? " if likely else ""
    return f"{hint}With the package ships: {', '.join(_shipped())}"


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name))
    except Exception as error:  # of the network, the Hub, or the name's form
        raise FileNotFoundError(
            f"{name} is no folder here, and no Hub repository of that name "
            f"could be loaded: {error}. If it is a folder, check its path; "
            f"{_instead(name)}"
        ) from error


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
        # The Hub's files are links themselves: to where this one leads.
        is_other = (
            path.is_symlink() and path.readlink().parent.resolve() != folder
        )
        if path.name == hparams_file and path.is_file():
            is_other = path.read_bytes() != own
        elif path.is_file() and not path.is_symlink():
            is_other = _is_other_copy(path, folder)
        if is_other:
            raise ValueError(
                f"{path} is of another model than {folder}; name another "
                "savedir"
            )


def _is_other_copy(path: Path, folder: Path) -> bool:
    """Tell whether a file is a copy, but of none of the model's files.

    SpeechBrain gives what it copies another suffix.
    """
    sources = [
        source
        for source in folder.glob(f"{escape(path.stem)}.*")
        if source.is_file()
    ]
    return bool(sources) and not any(
        cmp(path, source, shallow=False) for source in sources
    )
