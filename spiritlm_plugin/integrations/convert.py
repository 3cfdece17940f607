"""Converter of the released checkpoints to a SpeechBrain pretrained folder.

Run as ``spiritlm-convert checkpoints expressive my_folder``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from spiritlm_plugin.integrations.parts import Parts, write_folder
from spiritlm_plugin.integrations.release import VARIANTS, read_release
from spiritlm_plugin.utils.files import writing


def convert_release(
    folder: str | Path, variant: str, destination: str | Path
) -> Path:
    """Write a released model as a SpeechBrain pretrained folder.

    The folder appears under its name only when it is complete.

    Arguments
    ---------
    folder : str or Path
        The released checkpoints.
    variant : str
        ``"base"`` or ``"expressive"``.
    destination : str or Path
        Must not exist, or be empty.

    Returns
    -------
    Path
        The destination.

    Raises
    ------
    FileExistsError
        If the destination is not empty.
    FileNotFoundError, CheckpointError, ValueError
        As `read_release`.
    """
    destination = Path(destination)
    if destination.is_file() or (
        destination.exists() and any(destination.iterdir())
    ):
        raise FileExistsError(
            f"{destination} is there already; name a new folder or remove it"
        )
    release = read_release(folder, variant)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with writing(destination) as partial:
        partial.mkdir()
        _write(release, partial)
    return destination


def _write(release: Parts, folder: Path) -> None:
    lm = write_folder(release, folder)["language_model"]
    lm.save(folder / "language_model")


def main(arguments: list[str] | None = None) -> None:
    """Run the converter from the command line."""
    parser = argparse.ArgumentParser(
        prog="spiritlm-convert",
        description="Write released Spirit LM checkpoints as a SpeechBrain "
        "pretrained folder, to be loaded with SpiritLM.from_hparams.",
    )
    parser.add_argument("folder", help="the checkpoints, as downloaded")
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("destination", help="a new folder")
    options = parser.parse_args(arguments)
    try:
        written = convert_release(
            options.folder, options.variant, options.destination
        )
    except (FileNotFoundError, FileExistsError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    print(
        f'written: {written}; load it with SpiritLM.from_hparams("{written}")'
    )


if __name__ == "__main__":
    main()
