"""A trained model for others, on the Hub.

Run as ``spiritlm-push results/.../model my_name/my_model --licence mit``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
)
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from spiritlm_plugin.integrations.model_card import model_card
from spiritlm_plugin.integrations.model_folder import (
    ModelFolder,
    is_replaced,
    read_model_folder,
)
from spiritlm_plugin.integrations.reports import Report, read_report
from spiritlm_plugin.integrations.training_record import read_record

_CARD = "README.md"
# Ends a card that was made, as long as nobody has changed it.
_MARK = "<!-- made by spiritlm-push {}; replaced by it while this fits -->\n"
_MARKED = re.compile(f"(.*){_MARK.format('([0-9a-f]{16})')}", re.DOTALL)
_REMEDIES = {
    401: "the Hub does not know you: log in with hf auth login, or set "
    "HF_TOKEN, with a token that may write",
    403: "you may not write there: name a namespace of your own, and use a "
    "token that may write",
    404: "you may not write there, or there is no such namespace",
    412: "somebody has changed it meanwhile: look at it, and run this again",
}


class HubError(RuntimeError):
    """What the Hub, or the way to it, did not allow."""


def push_to_hub(
    folder: str | Path | ModelFolder,
    repo_id: str,
    card: ModelCard | None = None,
    private: bool = False,
    overwrite_card: bool = False,
) -> str:
    """Put a pretrained folder on the Hub, for `SpiritLM.from_hparams`.

    All files appear there together, in one commit. The token is the one that
    huggingface_hub finds: of ``hf auth login`` or of ``HF_TOKEN``.

    Arguments
    ---------
    folder : str or Path or ModelFolder
        As of `read_model_folder`, which loads it before anything is sent.
    repo_id : str
        ``namespace/name``; is made, or its model is replaced.
    card : ModelCard, optional
        As of `make_card`, for a folder that has no ``README.md``.
    private : bool
        Whether you alone can see it.
    overwrite_card : bool
        Whether a card goes that stands there, and that people have written or
        changed.

    Returns
    -------
    str
        The address of what was written.

    Raises
    ------
    FileNotFoundError, ValueError
        As of `read_model_folder`; nothing was sent.
    HubError
        If the Hub refuses or cannot be reached, or has a card of people's.

    Example
    -------
    >>> push_to_hub("results/model", "my_model")
    Traceback (most recent call last):
        ...
    ValueError: 'my_model' is no name on the Hub; write namespace/name
    """
    _check_name(repo_id)
    if not isinstance(folder, ModelFolder):
        folder = read_model_folder(folder)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(name, folder.path / name) for name in folder.files
    ]
    written = None
    if _CARD in folder.files:
        written = (folder.path / _CARD).read_bytes()
    elif card is not None:
        written = _marked(str(card))
        operations.append(CommitOperationAdd(_CARD, written))
    api = HfApi(library_name="spiritlm_plugin")
    with _naming_remedy(repo_id):
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        there = api.model_info(repo_id)
        names = [file.rfilename for file in there.siblings or ()]
        if private and not there.private:
            raise HubError(
                f"{repo_id} is there already, and everybody can see it; make "
                "it private in its settings, or name another"
            )
        others = {*names} - {".gitattributes", _CARD}
        if others and "hyperparams.yaml" not in others:
            raise HubError(
                f"{repo_id} holds something else, such as {min(others)}; name "
                "another"
            )
        if _CARD in names and written is not None and not overwrite_card:
            _check_card(api, repo_id, there.sha, written)
        operations += map(CommitOperationDelete, _outdated(names, folder))
        done = api.create_commit(
            repo_id,
            operations,
            commit_message="Upload a model of spiritlm_plugin",
            parent_commit=there.sha,
        )
    return str(done.commit_url)


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
        is_one = "/" in repo_id
    except ValueError:
        is_one = False
    if not is_one:
        raise ValueError(
            f"{repo_id!r} is no name on the Hub; write namespace/name"
        )


def _marked(card: str) -> bytes:
    digest = sha256(card.encode()).hexdigest()[:16]
    return (card + _MARK.format(digest)).encode()


def _check_card(
    api: HfApi, repo_id: str, revision: str | None, written: bytes
) -> None:
    """Raise if a card would go that people have written or changed."""
    path = api.hf_hub_download(repo_id, _CARD, revision=revision)
    found = Path(path).read_bytes()
    marked = _MARKED.fullmatch(found.decode(errors="replace"))
    if found != written and not (marked and _marked(marked[1]) == found):
        raise HubError(
            f"the {_CARD} of {repo_id} is not as spiritlm-push has made it; to "
            f"keep it put it into the model's folder, hf download {repo_id} "
            f"{_CARD} --local-dir FOLDER, and push that; or have it written "
            "over, with --overwrite_card"
        )


def _outdated(names: Sequence[str], folder: ModelFolder) -> list[str]:
    """Return files of another model that would stay among the new ones."""
    own = {PurePosixPath(name).parent for name in folder.files}

    def is_of_model(name: str) -> bool:
        parent = PurePosixPath(name).parent
        return parent in own or parent.name.startswith("language_model")

    return [
        name
        for name in names
        if name not in folder.files and is_replaced(name) and is_of_model(name)
    ]


@contextmanager
def _naming_remedy(repo_id: str) -> Iterator[None]:
    """Say what to do where the Hub, or the way to it, says no."""
    try:
        yield
    except HubError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedy = _REMEDIES.get(status, "try again later")
        raise HubError(
            f"cannot write {repo_id} (HTTP {status}): {remedy}; the Hub says: "
            f"{error.server_message or error}"
        ) from error
    except OfflineModeIsEnabled as error:
        raise HubError(
            f"cannot write {repo_id}: HF_HUB_OFFLINE is set; unset it"
        ) from error
    except ValueError as error:  # of what was sent, or came back
        raise HubError(f"cannot write {repo_id}: {error}") from error
    except Exception as error:  # of several libraries of the network
        raise HubError(
            f"cannot write {repo_id}: {error or repr(error)}; check the "
            "network, HF_ENDPOINT and the proxies, and run it again: what "
            "has arrived is not sent twice"
        ) from error


def make_card(
    folder: ModelFolder,
    repo_id: str,
    licence: str,
    languages: Sequence[str] = (),
    datasets: Sequence[str] = (),
    reports: Sequence[Report] = (),
) -> ModelCard:
    """Return a card of what a folder, its training and evaluations tell.

    Arguments
    ---------
    folder : ModelFolder
        The model's, with ``training.json`` if there is one.
    repo_id, licence, languages, datasets, reports
        As of `model_card`.

    Raises
    ------
    ValueError
        If ``training.json`` is damaged.
    """
    record = read_record(folder.path)
    return model_card(
        repo_id, folder.models, licence, languages, datasets, reports, record
    )


def _check_options(options: argparse.Namespace) -> None:
    """Raise unless a card is there, or what one has to say is given."""
    path = Path(options.folder).expanduser() / _CARD
    about = ("licence", "language", "dataset", "report")
    if path.is_file() and any(getattr(options, name) for name in about):
        raise ValueError(
            f"{path} is there and goes up as it is; move it away to have a "
            "card made, or say it there and leave out --licence, --language, "
            "--dataset and --report"
        )
    if not path.is_file() and not options.licence:
        raise ValueError(
            "the card has to say under what licence the weights are: name it "
            "as the Hub does, such as --licence apache-2.0; that of the model "
            "that you started from holds as well"
        )


def _listing(folder: ModelFolder, card: ModelCard | None) -> str:
    sizes = {name: (folder.path / name).stat().st_size for name in folder.files}
    if card is not None:
        sizes[_CARD] = len(str(card).encode())
    lines = [f"{size / 1e6:12,.3f} MB  {name}" for name, size in sizes.items()]
    lines += [f"{sum(sizes.values()) / 1e6:12,.3f} MB  in all"]
    if folder.left_out:
        lines += ["left out:", *(f"    {name}" for name in folder.left_out)]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="spiritlm-push",
        description="Put a trained model on the Hugging Face Hub, with a model "
        'card, to be loaded with SpiritLM.from_hparams("NAMESPACE/NAME"). It '
        "is loaded here first; what is damaged is not sent. Log in before, "
        "with hf auth login, or set HF_TOKEN.",
    )
    parser.add_argument(
        "folder", help="the model, such as results/expressive/model"
    )
    parser.add_argument(
        "repo_id",
        metavar="NAMESPACE/NAME",
        help="on the Hub; is made, or its model is replaced",
    )
    parser.add_argument(
        "--licence",
        help="of the weights, as the Hub names it, such as apache-2.0; needed, "
        "unless the folder has a README.md, which goes up as it is",
    )
    parser.add_argument("--language", nargs="+", default=(), help="such as en")
    parser.add_argument(
        "--dataset",
        nargs="+",
        default=(),
        help="names on the Hub of what it was trained on",
    )
    parser.add_argument(
        "--report",
        nargs="+",
        default=(),
        metavar="NAME=FOLDER",
        help="output folders of evaluations, for the figures of the card, and "
        "of what data they are",
    )
    parser.add_argument("--private", action="store_true", help="for you alone")
    parser.add_argument(
        "--overwrite_card",
        action="store_true",
        help="also over a README.md on the Hub that people have written or "
        "changed",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="load the model, list what would be sent, show the card, and "
        "send nothing",
    )
    options = parser.parse_args(arguments)
    try:
        _check_name(options.repo_id)
        _check_options(options)
        reports = [read_report(report) for report in options.report]
        folder = read_model_folder(options.folder)
        card = None
        if options.licence:
            card = make_card(
                folder,
                options.repo_id,
                options.licence,
                options.language,
                options.dataset,
                reports,
            )
        print(_listing(folder, card))
        if options.dry_run:
            print("" if card is None else f"\n{card}")
            return
        address = push_to_hub(
            folder,
            options.repo_id,
            card,
            options.private,
            options.overwrite_card,
        )
    except (FileNotFoundError, ValueError, HubError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(
        f"pushed: {address}; load it with "
        f'SpiritLM.from_hparams("{options.repo_id}")'
    )


if __name__ == "__main__":
    main()
