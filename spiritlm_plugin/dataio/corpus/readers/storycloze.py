"""Spoken StoryCloze and topic-StoryCloze."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from spiritlm_plugin.dataio.corpus.preparation import Record

logger = logging.getLogger(__name__)

PARTS = ("sSC", "tSC")
_NAME = re.compile(r"(\d+)_(?:.*_)?(correct|incorrect)(?:_.*)?")


def find_parts(data_folder: str | Path) -> list[str]:
    """Return which of `PARTS` a folder holds.

    Raises
    ------
    FileNotFoundError
        If it holds none.
    """
    data_folder = Path(data_folder).resolve()
    parts = [part for part in PARTS if (data_folder / part).is_dir()]
    if not parts:
        raise FileNotFoundError(
            f"no {' and no '.join(PARTS)} in {data_folder}; name the folder "
            "that holds them"
        )
    return parts


def read_storycloze(data_folder: str | Path, part: str) -> Iterator[Record]:
    """Yield the stories, by number, the correct ending first.

    Arguments
    ---------
    data_folder : path
        Holds ``sSC`` (StoryCloze) or ``tSC`` (topic-StoryCloze), with
        recordings such as ``12_correct.wav``, each a whole story.
    part : str
        Of `PARTS`.

    Yields
    ------
    Record
        With wav, story and ending. Stories that lack one of their endings are
        reported.

    Raises
    ------
    ValueError
        If there is no story with both endings, or one twice.
    """
    folder = Path(data_folder).resolve() / part
    is_empty = True
    for number, endings in sorted(_find_stories(folder).items()):
        if len(endings) < 2:
            logger.warning(
                "story %d is left out: it has no ending but %s",
                number,
                *(path.name for path in endings.values()),
            )
            continue
        for ending, wav in sorted(endings.items()):
            yield wav.stem, {"wav": wav, "story": str(number), "ending": ending}
            is_empty = False
    if is_empty:
        raise ValueError(
            f"{folder} has no story with both endings; its recordings should "
            "have names such as 12_correct.wav and 12_incorrect.wav"
        )


def _find_stories(folder: Path) -> dict[int, dict[str, Path]]:
    stories: dict[int, dict[str, Path]] = {}
    for path in sorted(folder.glob("*.wav")):
        name = _NAME.fullmatch(path.stem)
        if name is None:
            logger.warning(
                "%s is left out: its name is not as 12_correct.wav or "
                "12_incorrect.wav",
                path,
            )
            continue
        endings = stories.setdefault(int(name[1]), {})
        if name[2] in endings:
            raise ValueError(
                f"{path} and {endings[name[2]].name} are both the {name[2]} "
                f"ending of story {name[1]}; remove one of them"
            )
        endings[name[2]] = path
    return stories
