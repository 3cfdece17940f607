"""Spoken StoryCloze and topic-StoryCloze."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spiritlm_plugin.dataio.corpus.manifests import (
    has_manifest,
    read_manifest,
)
from spiritlm_plugin.dataio.corpus.preparation import Record
from spiritlm_plugin.dataio.units.units import MIN_SAMPLES, SAMPLE_RATE
from spiritlm_plugin.utils.files import read_text

logger = logging.getLogger(__name__)

PARTS = ("sSC", "tSC")
ENDINGS = ("correct", "incorrect")
CONTEXT = "mutual"
_NAME = re.compile(rf"(.+)_({'|'.join([*ENDINGS, CONTEXT])})")
_NUMBERED = re.compile(r"-?\d+_(.+)")
_LAST = re.compile(r"""[.!?]["'”’)\]]*$""")
# They end in a full stop, and no sentence ends with them.
_TITLES = frozenset({"mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "mt."})

# Of an utterance its words, each with start and end in seconds.
WordTimes = Mapping[str, Sequence[Sequence[Any]]]


class _Story(NamedTuple):
    """Recordings of a story by a speaker, by what they are."""

    speaker: str
    name: str
    wavs: dict[str, Path]


def find_parts(data_folder: str | Path) -> list[str]:
    """Return which folders hold stories.

    They are those of `PARTS`, and each other folder whose folders, one for
    each speaker, hold stories; where there is none, ``"."``, the folder itself.

    Raises
    ------
    FileNotFoundError
        If there are no stories.
    """
    data_folder = Path(data_folder).resolve()
    parts = [part for part in PARTS if (data_folder / part).is_dir()]
    sets = {
        path.parts[-3]
        for path in data_folder.glob("*/*/*.wav")
        if _NAME.fullmatch(path.stem)
    }
    parts += sorted(sets.difference(PARTS))
    if not parts and _list_wavs(data_folder):
        parts = ["."]
    if not parts:
        raise FileNotFoundError(
            f"no {' and no '.join(PARTS)} in {data_folder}, and no folders of "
            "speakers with recordings such as 1_correct.wav; name the folder "
            "that holds them"
        )
    return parts


def has_whole_stories(data_folder: str | Path, part: str) -> bool:
    """Tell whether a part has stories whose contexts are not apart."""
    paths = _list_wavs(Path(data_folder).resolve() / part)
    return not {path.parent for path in paths} <= _apart(paths)


def read_storycloze(
    data_folder: str | Path, part: str, words: WordTimes | None = None
) -> Iterator[Record]:
    """Yield the stories in order of their files, the correct ending first.

    Source: Hassid et al., "Textually Pretrained Speech Language Models",
    NeurIPS 2023.

    Arguments
    ---------
    data_folder : path
        Holds the part.
    part : str
        As of `find_parts`: a folder with whole stories,
        ``<n>_<story>_correct.wav`` and ``<n>_<story>_incorrect.wav``, where n
        is the file's own number; or with ``<story>_mutual.wav``, the context,
        and ``<story>_correct.wav`` and ``<story>_incorrect.wav``, endings
        alone. All may lie in folders of speakers, and each has its text beside
        it, in ``<its name>.txt``.
    words : dict, optional
        Of each utterance, by id, its words and their times.

    Yields
    ------
    Record
        With wav, story and ending. Of several speakers, ``speaker`` and
        ``text_id``, what is read. Where there are texts, ``text``, and
        ``context_text`` and ``ending_text``, which begins where the two texts
        of a story no longer have sentences in common. Of an ending alone
        ``context_wav``; of a whole story with word times ``ending_start``, in
        seconds. Stories that lack one of their endings are reported.

    Raises
    ------
    ValueError
        If there is no story with both endings, or one twice.
    """
    folder = Path(data_folder).resolve() / part
    stories = _find_stories(folder)
    if not stories:
        raise ValueError(
            f"{folder} has no story with both endings; its recordings should "
            "have names such as 1_12_correct.wav and 2_12_incorrect.wav, or "
            "12_mutual.wav, 12_correct.wav and 12_incorrect.wav"
        )
    missing = [path for s in stories for path in _missing_texts(s)[:1]]
    if missing:
        logger.warning(
            "%s: %d of %d stories have no text; no such file: %s",
            *(folder, len(missing), len(stories), missing[0]),
        )
    for story in stories:
        yield from _records(story, words)


def read_word_times(path: str | Path) -> dict[str, list]:
    """Return the words of a manifest's utterances, with times.

    Arguments
    ---------
    path : path
        Of a manifest, as an aligner has written it.

    Raises
    ------
    FileNotFoundError
        If there is no such manifest.
    ValueError
        If it cannot be read, or no utterance of it has words.
    """
    path = Path(path)
    if not has_manifest(path):
        raise FileNotFoundError(
            f"no such manifest: {path}; prepare without word times first, run "
            "an aligner on the manifests, such as "
            "recipes/LibriSpeech/pretraining/align.py, and name its folder"
        )
    words = {
        name: item["words"]
        for name, item in read_manifest(path).items()
        if isinstance(item, dict) and isinstance(item.get("words"), list)
    }
    if not words:
        raise ValueError(
            f"no utterance of {path} has words; run an aligner on the manifest"
        )
    return words


def common_sentences(first: str, second: str) -> int:
    """Return how many words the common first sentences of two texts have.

    Of both texts words are left over.

    Example
    -------
    >>> common_sentences("He met Mr. Day. He sang.", "He met Mr. Day. He ran.")
    4
    """
    ends = _sentence_ends(first) & _sentence_ends(second)
    words, others = first.split(), second.split()
    shared = 0
    while (
        shared < min(len(words), len(others))
        and words[shared] == others[shared]
    ):
        shared += 1
    longest = min(shared, len(words) - 1, len(others) - 1)
    return max((end for end in ends if end <= longest), default=0)


def _sentence_ends(text: str) -> set[int]:
    """Return after how many words sentences end."""
    words = text.split()
    ends = {
        number
        for number, word in enumerate(words, 1)
        if _LAST.search(word) and word.lower() not in _TITLES
    }
    if ends - {len(words)}:
        return ends
    # Without punctuation each line is a sentence.
    counts = [len(line.split()) for line in text.split("\n")]
    return {sum(counts[:number]) for number in range(1, len(counts) + 1)}


def _list_wavs(folder: Path) -> list[Path]:
    """Return the recordings of a folder and of those of speakers in it."""
    return sorted([*folder.glob("*.wav"), *folder.glob("*/*.wav")])


def _apart(paths: Sequence[Path]) -> set[Path]:
    """Return the folders with contexts apart.

    Names have no number of the file in front there.
    """
    return {p.parent for p in paths if p.stem.endswith(f"_{CONTEXT}")}


def _find_stories(folder: Path) -> list[_Story]:
    """Return the stories that have all that they need, in order."""
    paths = _list_wavs(folder)
    apart = _apart(paths)
    stories: dict[tuple[str, str], _Story] = {}
    for path in paths:
        name = _NAME.fullmatch(path.stem)
        if name is None:
            logger.warning(
                "%s is left out: its name is not as 1_12_correct.wav or "
                "2_12_incorrect.wav",
                path,
            )
            continue
        speaker = "" if path.parent == folder else path.parent.name
        story, what = name.groups()
        numbered = _NUMBERED.fullmatch(story)
        if numbered and path.parent not in apart:
            story = numbered[1]
        found = stories.setdefault(
            (speaker, story), _Story(speaker, story, {})
        ).wavs
        if what in found:
            raise ValueError(
                f"{path} and {found[what].name} are both the {what} ending of "
                f"story {story}; remove one of them"
            )
        found[what] = path
    return sorted(
        (s for s in stories.values() if _is_whole(s, apart)), key=_place
    )


def _is_whole(story: _Story, apart: set[Path]) -> bool:
    """Tell whether a story has all its recordings, and report if not."""
    first = next(iter(story.wavs.values()))
    needs = [*ENDINGS, *([CONTEXT] if first.parent in apart else [])]
    missing = [what for what in needs if what not in story.wavs]
    if CONTEXT in missing:
        logger.warning(
            "story %s is left out: there is no %s_%s.wav beside its endings",
            *(_full_name(story), story.name, CONTEXT),
        )
    elif missing:
        logger.warning(
            "story %s is left out: it has no ending but %s",
            _full_name(story),
            ", ".join(
                p.name for what, p in story.wavs.items() if what in ENDINGS
            )
            or "a context",
        )
    return not missing


def _full_name(story: _Story) -> str:
    return "/".join(filter(None, (story.speaker, story.name)))


def _place(story: _Story) -> tuple:
    """Return where a story stands: by the numbers in names."""
    name = story.wavs[ENDINGS[0]].stem
    parts = re.split(r"(\d+)", f"{story.speaker}/{name}")
    return tuple(int(p) if n % 2 else p for n, p in enumerate(parts))


def _records(story: _Story, words: WordTimes | None) -> Iterator[Record]:
    common: dict[str, Any] = {"story": story.name}
    if story.speaker:
        common = {
            "story": _full_name(story),
            "text_id": story.name,
            "speaker": story.speaker,
        }
    if CONTEXT in story.wavs:
        common["context_wav"] = str(story.wavs[CONTEXT])
    texts = _read_texts(story)
    for ending in ENDINGS:
        wav = story.wavs[ending]
        name = "/".join(filter(None, (story.speaker, wav.stem)))
        record = {"wav": wav, **common, "ending": ending, **texts[ending]}
        if words is not None and "context_text" in record:
            record |= _find_start(name, record, words)
        yield name, record


def _text_files(story: _Story) -> dict[str, Path]:
    return {what: wav.with_suffix(".txt") for what, wav in story.wavs.items()}


def _missing_texts(story: _Story) -> list[Path]:
    return [p for p in _text_files(story).values() if not p.is_file()]


def _read_texts(story: _Story) -> dict[str, dict[str, str]]:
    """Return what is known of the text of each ending."""
    if _missing_texts(story):
        return {ending: {} for ending in ENDINGS}
    files = _text_files(story)
    texts = {what: read_text(path) for what, path in files.items()}
    plain = {what: " ".join(text.split()) for what, text in texts.items()}
    if CONTEXT in texts:
        context = plain[CONTEXT]
        return {
            ending: {
                "text": f"{context} {plain[ending]}",
                "context_text": context,
                "ending_text": plain[ending],
            }
            for ending in ENDINGS
        }
    count = common_sentences(*(texts[ending] for ending in ENDINGS))
    if not count:
        logger.warning(
            "story %s has no context: the texts of %s and %s have no first "
            "sentence in common",
            *(story.name, *(files[ending] for ending in ENDINGS)),
        )
        return {ending: {"text": plain[ending]} for ending in ENDINGS}
    found = {}
    for ending in ENDINGS:
        spoken = plain[ending].split()
        found[ending] = {
            "text": plain[ending],
            "context_text": " ".join(spoken[:count]),
            "ending_text": " ".join(spoken[count:]),
        }
    return found


def _find_start(
    name: str, record: Mapping[str, Any], words: WordTimes
) -> dict[str, float]:
    """Return when the ending of a whole story starts, if that is known."""
    if "context_wav" in record:
        return {}
    spoken, found = record["text"].split(), words.get(name)
    problem = None
    if found is None:
        problem = "there are none"
    elif [_letters(word[0]) for word in found] != [*map(_letters, spoken)]:
        problem = "they are of another text"
    else:
        start = found[len(record["context_text"].split())][1]
        shortest = MIN_SAMPLES / SAMPLE_RATE
        if shortest <= start <= found[-1][2] - shortest:
            return {"ending_start": start}
        problem = f"its ending would start at {start} s"
    logger.warning("%s has no ending_start by word times: %s", name, problem)
    return {}


def _letters(word: str) -> str:
    return re.sub(r"\W", "", word).casefold()
