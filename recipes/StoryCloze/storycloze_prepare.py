#!/usr/bin/env python3
"""Write manifests of spoken StoryCloze and topic-StoryCloze.

    python storycloze_prepare.py DATA_FOLDER MANIFEST_FOLDER

DATA_FOLDER holds sSC (StoryCloze) and tSC (topic-StoryCloze), or one of them,
with recordings such as 12_correct.wav and 12_incorrect.wav, each a whole story.
Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path
from typing import Any

from spiritlm_plugin.dataio.audio.durations import read_durations
from spiritlm_plugin.dataio.corpus.manifests import write_manifest

logger = logging.getLogger("storycloze_prepare")

MANIFESTS = {"sSC": "test_storycloze", "tSC": "test_topic_storycloze"}
_NAME = re.compile(r"(\d+)_(?:.*_)?(correct|incorrect)(?:_.*)?")


def prepare_storycloze(
    data_folder: str | Path, save_folder: str | Path
) -> None:
    """Write ``test_storycloze.json`` and ``test_topic_storycloze.json``.

    Arguments
    ---------
    data_folder : path
        Holds ``sSC`` or ``tSC``, or both.
    save_folder : path
        Of the manifests; made if there is none.

    Raises
    ------
    FileNotFoundError
        If there is neither.
    ValueError
        If a folder has no story with both endings, or one twice.
    """
    data_folder, save_folder = Path(data_folder).resolve(), Path(save_folder)
    folders = [n for n in MANIFESTS if (data_folder / n).is_dir()]
    if not folders:
        raise FileNotFoundError(
            f"no {' and no '.join(MANIFESTS)} in {data_folder}; name the "
            "folder that holds them"
        )
    save_folder.mkdir(parents=True, exist_ok=True)
    for name in folders:
        items = read_stories(data_folder / name)
        write_manifest(items, save_folder / f"{MANIFESTS[name]}.json")
        logger.info("%s.json: %d stories", MANIFESTS[name], len(items) // 2)


def read_stories(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the recordings, by number, the correct ending first.

    Stories that lack one of their endings are reported and left out.
    """
    stories: dict[int, dict[str, Path]] = {}
    durations = read_durations(sorted(folder.glob("*.wav")), folder.name)
    for path in durations:
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
    items = {}
    for number, endings in sorted(stories.items()):
        if len(endings) < 2:
            logger.warning(
                "story %d is left out: it has no ending but %s",
                number,
                *(path.name for path in endings.values()),
            )
            continue
        for ending, path in sorted(endings.items()):
            items[path.stem] = {
                "wav": str(path),
                "duration": durations[path],
                "story": str(number),
                "ending": ending,
            }
    if not items:
        raise ValueError(
            f"{folder} has no story with both endings; its recordings should "
            "have names such as 12_correct.wav and 12_incorrect.wav"
        )
    return items


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data_folder", help="holds sSC and tSC")
    parser.add_argument("save_folder", help="of the manifests")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_storycloze(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
