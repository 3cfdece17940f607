"""Tests of the preparation of LibriSpeech."""

import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.corpus import checking
from spiritlm_plugin.dataio.corpus.checking import fit_words
from spiritlm_plugin.dataio.corpus.manifests import load_manifest, read_manifest
from spiritlm_plugin.dataio.corpus.readers.librispeech import read_words

SCRIPT = Path(__file__).parents[2] / (
    "recipes/LibriSpeech/asr/librispeech_prepare.py"
)
_spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
prepare = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(prepare)

SPLITS = {
    "tr_splits": ["train-clean-100", "train-other-500"],
    "dev_splits": ["dev-clean"],
    "te_splits": ["test-clean", "test-other"],
}


def add_chapter(root, split, chapter, texts, alignments=(), seconds=1.5):
    """Lay out a chapter of noise: a recording for each text."""
    speaker, number = chapter.split("-")
    folder = root / split / speaker / number
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index, text in enumerate(texts):
        name = f"{chapter}-{index:04d}"
        noise = np.random.default_rng(index).normal(size=int(seconds * 16000))
        soundfile.write(folder / f"{name}.flac", noise * 0.1, 16000)
        lines.append(f"{name} {text}\n")
    (folder / f"{chapter}.trans.txt").write_text("".join(lines))
    if alignments:
        lines = [f"{chapter}-{line}\n" for line in alignments]
        (folder / f"{chapter}.alignment.txt").write_text("".join(lines))
    return folder


@pytest.fixture
def corpus(tmp_path):
    """Two training splits, one for validation, two for tests."""
    root = tmp_path / "LibriSpeech"
    add_chapter(
        root,
        "train-clean-100",
        "19-198",
        ["NORTHANGER ABBEY", "IT'S TRUE", "NO TIMES HERE"],
        [
            '0000 ",NORTHANGER,,ABBEY," "0.25,0.75,0.8,1.25,1.5"',
            '0001 "IT\'S,TRUE" "0.5,1.5"',
        ],
    )
    add_chapter(root, "train-other-500", "20-205", ["ANOTHER SPEAKER"])
    add_chapter(root, "dev-clean", "84-121", ["GO"])
    add_chapter(root, "test-clean", "61-70", ["CLEAN"])
    add_chapter(root, "test-other", "67-80", ["OTHER"])
    return root


def read(folder, name):
    return read_manifest(folder / name)


def test_manifests_hold_what_is_known(corpus, tmp_path):
    out = tmp_path / "manifests"
    prepare.prepare_librispeech(corpus, out, **SPLITS)
    assert sorted(path.stem for path in out.iterdir()) == sorted(
        ["train", "valid", "test", *sum(SPLITS.values(), [])]
    )
    first, *_, last = read(out, "train").items()
    assert first == (
        "19-198-0000",
        {
            "wav": str(corpus / "train-clean-100/19/198/19-198-0000.flac"),
            "duration": 1.5,
            "speaker": "19",
            "text": "northanger abbey",
            "group": "19-198",
            "position": 0,
            "words": [["northanger", 0.25, 0.75], ["abbey", 0.8, 1.25]],
        },
    )
    train = read(out, "train")
    assert train["19-198-0001"]["text"] == "it's true"
    assert train["19-198-0001"]["words"] == [
        ["it's", 0.0, 0.5],
        ["true", 0.5, 1.5],
    ]
    assert "words" not in train["19-198-0002"]
    assert last[0] == "20-205-0000" and last[1]["speaker"] == "20"
    assert train == read(out, "train-clean-100") | read(out, "train-other-500")
    assert list(read(out, "valid")) == ["84-121-0000"]
    assert list(read(out, "test")) == ["61-70-0000", "67-80-0000"]
    assert len(load_manifest(out / "train", needs=["text"])) == 4


def test_a_complete_manifest_is_kept(corpus, tmp_path, monkeypatch):
    prepare.prepare_librispeech(corpus, tmp_path, **SPLITS)
    files = [path for path in tmp_path.glob("*-*/*") if path.is_file()]
    times = {path: path.stat().st_mtime_ns for path in files}
    assert len(times) == 15
    monkeypatch.setattr(checking, "check_recording", None)  # would be called
    prepare.prepare_librispeech(corpus, tmp_path, **SPLITS)
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_a_recording_that_changes_is_noticed(corpus, tmp_path):
    prepare.prepare_librispeech(corpus, tmp_path, **SPLITS)
    add_chapter(corpus, "dev-clean", "84-121", ["GO"], seconds=2)
    prepare.prepare_librispeech(corpus, tmp_path, **SPLITS)
    assert read(tmp_path, "valid")["84-121-0000"]["duration"] == 2


@pytest.mark.parametrize("old_date", [False, True])
def test_a_change_of_the_data_is_noticed(corpus, tmp_path, old_date):
    chapter = corpus / "train-clean-100/19/198"
    alignment = chapter / "19-198.alignment.txt"
    content = alignment.read_text()
    alignment.unlink()
    prepare.prepare_librispeech(corpus, tmp_path, **SPLITS)
    assert "words" not in read(tmp_path, "train")["19-198-0000"]
    alignment.write_text(content)
    if old_date:  # as unpacked from an archive
        os.utime(alignment, (0, 0))
    prepare.prepare_librispeech(corpus, tmp_path, **SPLITS)
    assert "words" in read(tmp_path, "train")["19-198-0000"]


def test_a_corpus_that_moved_is_noticed(corpus, tmp_path):
    out = tmp_path / "manifests"
    prepare.prepare_librispeech(corpus, out, **SPLITS)
    moved = corpus.rename(tmp_path / "elsewhere")
    prepare.prepare_librispeech(moved, out, **SPLITS)
    for item in read(out, "train").values():
        assert Path(item["wav"]).is_file()


def test_what_cannot_be_used_is_named(corpus, tmp_path, caplog):
    chapter = add_chapter(corpus, "dev-clean", "84-122", ["A", "B", "", "D"])
    (chapter / "84-122-0000.flac").unlink()
    (chapter / "84-122-0001.flac").write_bytes(b"no audio")
    (chapter / "84-122-0009.flac").write_bytes(b"no transcript")
    with caplog.at_level(logging.WARNING):
        prepare.prepare_librispeech(corpus, tmp_path, **SPLITS)
    assert list(read(tmp_path, "valid")) == ["84-121-0000", "84-122-0003"]
    for name in ("0000", "0001", "0002", "0009"):
        assert f"84-122-{name} is left out" in caplog.text
    assert "0003" not in caplog.text


@pytest.mark.parametrize(
    "line, problem",
    [
        ('0000 "NORTHANGER" "1.0"', "other words"),
        ('0000 "ABBEY,NORTHANGER" "1.0,1.4"', "other words"),
        ('0000 "NORTHANGER,ABBEY" "1.0,1.6"', "ends at 1.6 s"),
        ('0000 "NORTHANGER,ABBEY" "1.2,1.1"', "abbey is from 1.2 to 1.1"),
        ('0000 "NORTHANGER,ABBEY" "1.2,1.2"', "abbey is from 1.2 to 1.2"),
        ('0000 "NORTHANGER,ABBEY" "-1,1.2"', "northanger is from 0.0 to -1"),
        ('0000 "NORTHANGER,ABBEY" "nan,1.2"', "the alignment ends at nan s"),
        ('0000 "NORTHANGER,ABBEY" "1.2,nan"', "ends at nan s"),
        ('0000 "NORTHANGER,ABBEY" "1.0,x"', "float"),
        ('0000 "NORTHANGER,ABBEY" "1.0"', "2 entries have 1 times"),
    ],
)
def test_an_alignment_that_does_not_fit_is_left_out(
    corpus, tmp_path, caplog, line, problem
):
    chapter = corpus / "train-clean-100/19/198"
    good = '0001 "IT\'S,TRUE" "0.5,1.505"'  # rounded up by the aligner
    (chapter / "19-198.alignment.txt").write_text(
        f"19-198-{line}\n\n19-198-{good}\nnot a line of alignment\n"
    )
    with caplog.at_level(logging.WARNING):
        prepare.prepare_librispeech(corpus, tmp_path, **SPLITS)
    train = read(tmp_path, "train")
    assert "words" not in train["19-198-0000"]
    assert train["19-198-0001"]["words"][-1] == ["true", 0.5, 1.5]
    assert "cannot read the line 'not a line of alignment'" in caplog.text
    (message,) = [m for m in caplog.messages if "has no word times" in m]
    assert "19-198-0000 has" in message and problem in message


@given(st.data())
def test_words_keep_order_and_time(data):
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=12))
    words = data.draw(
        st.lists(
            st.sampled_from(["", "A", "O'ER", "ZOO"]),
            min_size=len(lengths),
            max_size=len(lengths),
        )
    )
    ends = np.cumsum(lengths) / 100
    spans = fit_words(
        read_words(
            ",".join(words),
            ",".join(map(str, ends)),
            " ".join(filter(None, words)).lower(),
        ),
        ends[-1],
    )
    assert [span[0] for span in spans] == [w.lower() for w in words if w]
    assert sum(end - start for _, start, end in spans) == pytest.approx(
        sum(n for n, word in zip(lengths, words) if word) / 100
    )


def textgrid(path, *words):
    """Write words, each with where it ends, in Praat's short form."""
    starts = [0.0, *(end for _, end in words)]
    lines = ['"ooTextFile"', '"TextGrid"', "0", "1.5", "<exists>", "1"]
    lines += ['"IntervalTier"', '"words"', "0", "1.5", f"{len(words)}"]
    for (word, end), start in zip(words, starts):
        lines += [f"{start}", f"{end}", f'"{word}"']
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-16")


@pytest.mark.parametrize("beside", [True, False])
def test_textgrids(corpus, tmp_path, caplog, beside):
    tree = corpus if beside else tmp_path / "alignments"
    chapter = tree / "train-clean-100/19/198"
    textgrid(chapter / "19-198-0000.TextGrid", ("<unk>", 0.5), ("abbey", 1.5))
    textgrid(
        chapter / "19-198-0002.TextGrid",
        *[("", 0.25), ("no", 0.5), ("times", 1), ("here", 1.25), ("sil", 1.5)],
    )
    # One that lacks an interval, others that no utterance has.
    textgrid(chapter / "19-198-0001.TextGrid", ("it's", 0.5), ("", 1.5))
    for name in ("19-198-0003", "198-19-0000", "x"):
        textgrid(chapter / f"{name}.TextGrid", ("x", 1.5))
    folder = None if beside else tree
    with caplog.at_level(logging.WARNING):
        prepare.prepare_librispeech(
            corpus, tmp_path, **SPLITS, alignment_folder=folder
        )
    train = read(tmp_path, "train")
    assert train["19-198-0000"]["words"] == [
        ["northanger", 0.0, 0.5],
        ["abbey", 0.5, 1.5],
    ]
    assert train["19-198-0002"]["words"] == [
        ["no", 0.25, 0.5],
        ["times", 0.5, 1.0],
        ["here", 1.0, 1.25],
    ]
    assert "words" not in train["19-198-0001"] and len(train) == 4
    found = [m for m in caplog.messages if "19-198" in m]
    assert found == [
        "19-198-0001 has no word times: the alignment has other words than "
        "the transcript: 1, not 2"
    ]
    missing = [m for m in caplog.messages if "its words have no times" in m]
    assert len(missing) == (0 if beside else 4)


def test_a_damaged_textgrid_stops_nothing(corpus, tmp_path, caplog):
    path = corpus / "train-clean-100/19/198/19-198-0002.TextGrid"
    textgrid(path, ("no", 0.5))
    path.write_bytes(path.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING):
        prepare.prepare_librispeech(corpus, tmp_path, **SPLITS)
    assert len(read(tmp_path, "train")) == 4
    assert (
        f"19-198-0002 has no word times: cannot read the TextGrid {path}"
        in (caplog.text)
    )


def test_alignments_in_a_tree_of_their_own(corpus, tmp_path):
    place = "train-clean-100/19/198/19-198.alignment.txt"
    tree = tmp_path / "alignments"
    (tree / place).parent.mkdir(parents=True)
    (corpus / place).rename(tree / place)
    command = [sys.executable, SCRIPT, corpus, tmp_path]
    command += ["--alignment_folder", tree]
    for option, splits in SPLITS.items():
        command += [f"--{option}", *splits]
    subprocess.run(command, check=True)
    assert ["words" in item for item in read(tmp_path, "train").values()] == [
        *(True, True, False, False)
    ]
    with pytest.raises(FileNotFoundError, match=r"alignments: .*elsewhere"):
        prepare.prepare_librispeech(
            corpus, tmp_path, **SPLITS, alignment_folder=tmp_path / "elsewhere"
        )


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_transcripts_as_they_come(corpus, tmp_path, line_end, bom):
    chapter = corpus / "train-clean-100/19/198"
    lines = [
        "19-198-0000 NORTHANGER CAFE\u0301",
        "19-198-0001 IT'S\u2028TRUE",
        "",
        "19-198-0002 NO\x0cTIMES\u0085HERE",
    ]
    for name, content in [
        ("19-198.trans.txt", lines),
        ("19-198.alignment.txt", ['19-198-0000 "NORTHANGER,CAF\xc9" "1,1.5"']),
    ]:
        text = bom + "".join(line + line_end for line in content)
        (chapter / name).write_bytes(text.encode())
    prepare.prepare_librispeech(corpus, tmp_path, **SPLITS)
    train = read(tmp_path, "train")
    assert [train[f"19-198-000{i}"]["text"] for i in range(3)] == [
        "northanger caf\xe9",
        "it's true",
        "no times here",
    ]
    assert train["19-198-0000"]["words"] == [
        ["northanger", 0.0, 1.0],
        ["caf\xe9", 1.0, 1.5],
    ]


def test_other_encodings_are_named(corpus, tmp_path):
    path = corpus / "dev-clean/84/121/84-121.trans.txt"
    path.write_bytes("84-121-0000 CAF\xc9\n".encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"84-121.trans.txt is not UTF-8: .* 1"
    ):
        prepare.prepare_librispeech(corpus, tmp_path, **SPLITS)


def test_a_missing_split_is_named(corpus, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-clean-360.*--tr_split"):
        prepare.prepare_librispeech(corpus, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*/corpus.json"))


def test_a_split_without_utterances_is_named(tmp_path):
    (tmp_path / "dev-clean/1/2").mkdir(parents=True)
    with pytest.raises(ValueError, match="dev-clean has no usable utterance"):
        prepare.prepare_librispeech(
            tmp_path, tmp_path, (), dev_splits=["dev-clean"], te_splits=()
        )


def test_the_command_line(corpus, tmp_path):
    command = [sys.executable, SCRIPT, corpus, tmp_path]
    for option, splits in SPLITS.items():
        command += [f"--{option}", *splits]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "train-clean-100: 3 utterances, 0 left out" in done.stderr
    assert len(read(tmp_path, "train")) == 4
