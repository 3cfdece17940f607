"""The corpora of the paper's tables, a few short recordings each."""

from __future__ import annotations

from itertools import count

import numpy as np
import soundfile

RATE = 16000
STORIES = {
    "correct": "The boats lay by. They went out at noon.",
    "incorrect": "The boats lay by. A cat sang of them.",
}


def write_data(folder, samples):
    """Lay the corpora out below a folder, as they are unpacked.

    Arguments
    ---------
    folder : Path
        Gets a folder for each.
    samples : numpy.ndarray
        A recording at 16 kHz, of which each file has its own piece.
    """
    starts = count(0, 211)

    def write(path, seconds=0.8, rate=RATE):
        path.parent.mkdir(parents=True, exist_ok=True)
        start = next(starts) % (len(samples) - 2 * RATE)
        wav = samples[start : start + int(seconds * RATE)]
        # At another rate it is faster speech, which is as good here.
        soundfile.write(path, np.resize(wav, int(seconds * rate)), rate)

    write_librispeech(folder / "LibriSpeech", write)
    write_commands(folder / "fluent_speech_commands_dataset", write)
    write_zerospeech(folder / "zerospeech", write)
    write_storycloze(folder / "StoryCloze", write)
    write_salmon(folder / "SALMon", write)
    write_expresso(folder / "Expresso", write)


def write_librispeech(root, write):
    """Two chapters of a speaker each in three splits."""
    texts = ["THE OLD MAN WALKED", "THEY STOP AT NOON", "IT'S A LONG DAY"]
    for number, split in enumerate(
        ["train-clean-100", "test-clean", "test-other"]
    ):
        for speaker in (10 * number + 1, 10 * number + 2):
            chapter = root / split / str(speaker) / "7"
            lines = []
            for index, text in enumerate(texts):
                name = f"{speaker}-7-{index:04}"
                write(chapter / f"{name}.flac", 1.6)
                lines.append(f"{name} {text}\n")
            (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))


def write_commands(root, write):
    """Two labels, each said by two speakers in a split."""
    (root / "data").mkdir(parents=True)
    for split in ("train", "valid", "test"):
        lines = [",path,speakerId,transcription,action,object,location\n"]
        for index in range(4):
            path = f"wavs/speakers/s{index % 2}/{split}{index}.wav"
            write(root / path)
            label = ["bring,juice,none", "activate,lights,bedroom"][index // 2]
            lines.append(f"{index},{path},s{index % 2},do it,{label}\n")
        (root / "data" / f"{split}_data.csv").write_text("".join(lines))


def write_zerospeech(root, write):
    """Words of both vocabularies and two types of sentences, two voices."""
    lexical = ["id,filename,voice,frequency,word,phones,length,correct"]
    syntactic = ["id,filename,voice,type,subtype,transcription,correct"]
    for voice in "AB":
        for number in (1, 2):
            for right in (1, 0):
                name = f"{number}{voice}{right}"
                write(root / f"lexical/dev/{name}.wav")
                lexical.append(
                    f"{number},{name},{voice},{number - 1},word,W ER D,3,{right}"
                )
                write(root / f"syntactic/dev/{name}.wav")
                syntactic.append(
                    f"{number},{name},{voice},type{number},noun,dogs eat,{right}"
                )
    for task, lines in (("lexical", lexical), ("syntactic", syntactic)):
        gold = root / task / "dev" / "gold.csv"
        gold.write_text("".join(f"{line}\n" for line in lines))


def write_storycloze(root, write):
    """Two whole stories in both sets."""
    for part in ("sSC", "tSC"):
        for story in range(2):
            for index, (ending, text) in enumerate(STORIES.items()):
                path = root / part / f"{2 * story + index}_{story}_{ending}.wav"
                write(path, 3.0)
                path.with_suffix(".txt").write_text(text)


def write_salmon(root, write):
    """Two pairs in each of the eight parts."""
    for part in (
        "sentiment_consistency",
        "speaker_consistency",
        "gender_consistency",
        "bg_domain_consistency",
        "bg_all_consistency",
        "rir_consistency",
        "sentiment_alignment",
        "bg_alignment",
    ):
        for index in range(2):
            for kind in ("a", "b"):
                write(root / part / f"sample_{index}_{kind}.wav")


def write_expresso(root, write):
    """Sentences of two speakers in two styles."""
    texts, splits = [], {"train": [], "dev": [], "test": []}
    for speaker in ("ex01", "ex02"):
        for style in ("happy", "sad"):
            for index, names in enumerate(splits.values(), 1):
                name = f"{speaker}_{style}_{index:05}"
                path = f"audio_48khz/read/{speaker}/{style}/base/{name}.wav"
                write(root / path, 1.0, 48000)
                texts.append(f"{name}\tWhat a day!\n")
                names.append(f"{name}\n")
    (root / "read_transcriptions.txt").write_text("".join(texts))
    (root / "VAD_segments.txt").write_text("# none\n")
    (root / "splits").mkdir()
    for split, names in splits.items():
        (root / "splits" / f"{split}.txt").write_text("".join(names))
