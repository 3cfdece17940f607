"""Readers of corpora, on small trees of the layout that each one has."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spiritlm_plugin.dataio.corpus import voice_activity
from spiritlm_plugin.dataio.corpus.readers.emov_db import read_emov_db
from spiritlm_plugin.dataio.corpus.readers.folder import (
    find_splits,
    read_folder,
)
from spiritlm_plugin.dataio.corpus.readers.libri_light import read_libri_light
from spiritlm_plugin.dataio.corpus.readers.libritts import read_libritts
from spiritlm_plugin.dataio.corpus.readers.mls import read_mls
from spiritlm_plugin.dataio.corpus.readers.voxpopuli import (
    find_languages,
    read_voxpopuli,
)
from spiritlm_plugin.dataio.corpus.voice_activity import Cutting, cut_by_voice
from spiritlm_plugin.utils.files import DiskFullError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


@pytest.fixture(params=["corpus", "a [b] *?"])
def root(request, tmp_path):
    """A folder, also one whose name looks like a pattern."""
    return tmp_path / request.param


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: "\n".join(caplog.messages)


# MLS


@pytest.mark.parametrize("suffix", [".flac", ".opus"])
def test_mls(root, suffix, warnings):
    audio = root / "train" / "audio"
    for book in ("10049", "11"):
        touch(audio / "6892" / book / f"6892_{book}_000000{suffix}")
    touch(audio / "6892" / "11" / f"6892_11_000009{suffix}")
    write(
        root / "train" / "transcripts.txt",
        "\ufeff6892_10049_000000\tdwie  ło\u0301dki\u2028i\r\n"
        "6892_11_000000\tdwa\r\n7_8_000000\ttrzy\r\n",
    )
    records = dict(read_mls(root, "train"))
    assert records == {
        "6892_10049_000000": {
            "wav": audio / f"6892/10049/6892_10049_000000{suffix}",
            "speaker": "6892",
            "book": "10049",
            "text": "dwie łódki i",
            "group": "6892_10049",
            "position": 0,
        },
        "6892_11_000000": {
            "wav": audio / f"6892/11/6892_11_000000{suffix}",
            "speaker": "6892",
            "book": "11",
            "text": "dwa",
            "group": "6892_11",
            "position": 0,
        },
    }
    assert "7_8_000000 is left out: no recording" in warnings()
    assert "1 recordings are left out" in warnings()
    assert "6892_11_000009" in warnings()


def test_mls_limited_supervision(root, warnings):
    names = [f"1_2_{i:06d}" for i in range(4)]
    touch(*(root / "train/audio/1/2" / f"{n}.flac" for n in names))
    lines = [f"{name}\ttext {name}\n" for name in names]
    write(root / "train" / "transcripts.txt", "".join(lines))
    lists = root / "train" / "limited_supervision"
    for part, name in zip(["9hr", "1hr/0", "1hr/1"], names):
        write(lists / part / "handles.txt", f"{name}\n")
    found = {
        split: [name[-1] for name, _ in read_mls(root, f"train_{split}")]
        for split in ("9hr", "1hr", "1hr_1", "10hr")
    }
    assert found == {
        "9hr": ["0"],
        "1hr": ["1", "2"],
        "1hr_1": ["2"],
        "10hr": ["0", "1", "2"],
    }
    assert not warnings()  # what is not in a list is not lost
    with pytest.raises(FileNotFoundError, match="no list of 7hr"):
        list(read_mls(root, "train_7hr"))
    with pytest.raises(FileNotFoundError, match=r"no .*dev.transcripts.txt"):
        list(read_mls(root, "dev"))


# LibriTTS


def add_chapter(root, table=True):
    chapter = root / "dev-clean" / "84" / "121123"
    rows = []
    for number, (original, normalized) in enumerate(
        [("“Go.” said Dr. X", "go said doctor x"), ("On page 2", "on page two")]
    ):
        name = f"84_121123_000007_{number:06d}"
        touch(chapter / f"{name}.wav")
        write(chapter / f"{name}.original.txt", original)
        write(chapter / f"{name}.normalized.txt", normalized + "\r\n")
        rows.append(f'{name}\t{original}\t"{normalized}\n')
    if table:
        write(chapter / "84_121123.trans.tsv", "".join(rows[:1]))
    return chapter


@pytest.mark.parametrize("table", [True, False])
def test_libritts(root, table):
    chapter = add_chapter(root, table)
    records = dict(read_libritts(root, "dev-clean"))
    first, second = records.values()
    assert first == {
        "wav": chapter / "84_121123_000007_000000.wav",
        "speaker": "84",
        "chapter": "121123",
        # Quotes are those of the text, not of the table.
        "text": '"go said doctor x' if table else "go said doctor x",
        "group": "84_121123",
        "position": 2,
    }
    assert second["text"] == "on page two" and second["position"] == 3
    original = dict(read_libritts(root, "dev-clean", text="original"))
    assert [i["text"] for i in original.values()] == [
        "“Go.” said Dr. X",
        "On page 2",
    ]


def test_libritts_names_what_is_missing(root, warnings):
    chapter = add_chapter(root)
    (chapter / "84_121123_000007_000000.wav").unlink()
    (chapter / "84_121123_000007_000001.normalized.txt").unlink()
    assert not list(read_libritts(root, "dev-clean"))
    assert "84_121123_000007_000000 is left out: no recording" in warnings()
    assert "000001.wav is left out: it has no normalized text" in warnings()
    with pytest.raises(ValueError, match=r"train-clean-100.*there are dev-cl"):
        list(read_libritts(root, "train-clean-100"))
    with pytest.raises(FileNotFoundError, match="holds the splits of LibriTTS"):
        list(read_libritts(chapter, "dev-clean"))


# VoxPopuli


def add_voxpopuli(root):
    folder = root / "transcribed_data" / "en"
    names = [
        f"{year}0118-0900-PLENARY-{i}-en_17:06:49_{i}"
        for i, year in enumerate([2012, 2013, 2013, 2014])
    ]
    touch(*(folder / name[:4] / f"{name}.ogg" for name in names[:3]))
    header = "id\traw_text\tnormalized_text\tspeaker_id\tsplit\tgender\n"
    write(
        folder / "asr_train.tsv",
        f'{header}{names[0]}\t"Mr Barroso, no."\tmr barroso no\t12\ttrain\tmale'
        f"\n{names[3]}\tX\tx\tNone\ttrain\tNone\n{names[2]}\tX\n",
    )
    write(
        folder / "asr_dev.tsv", f"{header}{names[1]}\tA\ta\tNone\tdev\tNone\n"
    )
    return folder, names


def test_voxpopuli(root, warnings):
    folder, names = add_voxpopuli(root)
    assert list(read_voxpopuli(root, "train", "en")) == [
        (
            names[0],
            {
                "wav": folder / "2012" / f"{names[0]}.ogg",
                "text": "mr barroso no",
                "speaker": "12",
                "gender": "male",
                "group": names[0].removesuffix("_0"),
                "position": 0,
            },
        )
    ]
    assert f"{names[3]} is left out: no recording" in warnings()
    assert "line 4 is left out: it has 2 columns, not 6" in warnings()
    assert "1 recordings are left out, since they are not in" in warnings()
    ((_, item),) = read_voxpopuli(root, "dev", "en", text="raw")
    assert item["wav"] == folder / "2013" / f"{names[1]}.ogg"
    assert item["text"] == "A"


def test_voxpopuli_unlabelled(root):
    folder = root / "unlabelled_data" / "pl" / "2019"
    touch(folder / "20190101-PLENARY_pl_0.ogg", folder / "x" / "1.ogg")
    assert find_languages(root) == ["pl"]
    records = dict(read_voxpopuli(root, "unlabelled", "pl"))
    assert records["20190101-PLENARY_pl_0"] == {
        "wav": folder / "20190101-PLENARY_pl_0.ogg",
        "group": "20190101-PLENARY_pl",
        "position": 0,
    }
    with pytest.raises(ValueError, match="no split 'train'.*unlabelled"):
        list(read_voxpopuli(root, "train", "pl"))
    with pytest.raises(ValueError, match="no split 'en'.*there are pl"):
        list(read_voxpopuli(root, "train", "en"))


def test_utterances_of_a_session_come_in_order(root):
    folder = root / "unlabelled_data" / "pl" / "2019"
    touch(*(folder / f"2019_pl_{i}.ogg" for i in (10, 2, 9, 0)))
    records = dict(read_voxpopuli(root, "unlabelled", "pl"))
    assert [item["position"] for item in records.values()] == [0, 2, 9, 10]
    assert {item["group"] for item in records.values()} == {"2019_pl"}


def test_gaps_of_a_chapter_are_gaps_of_positions(root):
    chapter = root / "dev-clean" / "84" / "1"
    ends = ["000001_000000", "000001_000001", "000002_000000", "000004_000000"]
    ends += ["000004_000002", "000006_000001", "000006_000002"]
    for end in ends:
        touch(chapter / f"84_1_{end}.wav")
        write(chapter / f"84_1_{end}.normalized.txt", "text")
    places = [i["position"] for _, i in read_libritts(root, "dev-clean")]
    steps = [b - a for a, b in zip(places, places[1:])]
    assert steps == [1, 1, 2, 2, 2, 1]


# EmoV-DB


@pytest.mark.parametrize("form", ["{}_{}", "{}/{}", "EmoV/{}/{}"])
def test_emov_db(root, form, warnings):
    bea, josh = (
        root / form.format(*n) for n in [("bea", "Angry"), ("josh", "Sleepy")]
    )
    touch(bea / "anger_1-28_0002.wav", josh / "sleepiness_1-28_0594.wav")
    touch(root / "stray.wav")
    write(
        root / "cmuarctic.data",
        '( arctic_a0001 "Author of the danger trail." )\n'
        '( arctic_a0002 "Not at this case, Tom, \\"apologized\\" W." )\n'
        '( arctic_b0002 "Another." )\n',
    )
    records = dict(read_emov_db(root))
    name = form.format("bea", "Angry") + "/anger_1-28_0002"
    assert records[name] == {
        "wav": root / f"{name}.wav",
        "speaker": "bea",
        "style": "angry",
        "sentiment": "negative",
        "text": 'Not at this case, Tom, \\"apologized\\" W.',
    }
    (other,) = (item for key, item in records.items() if key != name)
    assert other["speaker"] == "josh" and other["style"] == "sleepy"
    assert "text" not in other and "sentiment" not in other
    assert "0594.wav has no text: not in cmuarctic.data" in warnings()
    assert "stray.wav is left out" in warnings()


def test_the_same_name_of_two_speakers_is_two_recordings(root):
    for speaker in ("bea", "sam"):
        touch(root / f"{speaker}_Neutral" / "neutral_1-28_0001.wav")
    assert list(dict(read_emov_db(root))) == [
        "bea_Neutral/neutral_1-28_0001",
        "sam_Neutral/neutral_1-28_0001",
    ]
    with pytest.raises(FileNotFoundError, match="unpack each archive"):
        list(read_emov_db(root / "bea_Neutral" / "none"))


# A plain folder


def test_a_folder_without_texts(root):
    touch(root / "ann/x y/1.wav", root / "bob/1.FLAC", root / "bob/1.mp3")
    touch(root / "0.opus", root / "notes.txt", root / ".hidden/2.wav")
    assert list(read_folder(root, speaker_folders=True)) == [
        ("0", {"wav": root / "0.opus"}),
        ("ann/x y/1", {"wav": root / "ann/x y/1.wav", "speaker": "ann"}),
        ("bob/1.FLAC", {"wav": root / "bob/1.FLAC", "speaker": "bob"}),
        ("bob/1.mp3", {"wav": root / "bob/1.mp3", "speaker": "bob"}),
    ]
    with pytest.raises(FileNotFoundError, match="no recording in"):
        list(read_folder(root / ".hidden" / "none"))


@pytest.mark.parametrize("suffix", [".txt", ".lab"])
def test_texts_beside(root, suffix, warnings):
    touch(root / "a.b.wav", root / "c.wav", root / "d.wav")
    write(root / f"a.b{suffix}", "\ufeffTwo\nboats.\n")
    (root / f"c{suffix}").write_bytes(b"\xe9t\xe9")
    items = dict(read_folder(root))
    assert items["a.b"]["text"] == "Two boats."
    assert "text" not in items["c"] and "text" not in items["d"]
    assert "c.wav has no text" in warnings() and "0xe9" in warnings()


TABLES = {
    "metadata.csv": "file_name,transcription,speaker_id,group,position\n"
    'ann/1.wav,"Two, boats",7,b,3\nbob/1.wav,One,8,,\nbob/none.wav,None,8,,\n',
    "metadata.jsonl": '{"file_name": "ann/1.wav", "text": "Two, boats", '
    '"speaker": 7, "group": "b", "position": 3}\n{"file_name": "bob/1.wav", "text": "One", "speaker": 8}\n'
    '{"file_name": "bob/none.wav"}\n',
    "transcripts.txt": "ann/1\tTwo, boats\nbob/1.wav\tOne\nbob/none.wav\tNone",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(root, name, warnings):
    touch(root / "ann/1.wav", root / "bob/1.wav", root / "bob/2.wav")
    write(root / name, TABLES[name])
    write(root / "bob" / "2.txt", "beside")
    items = dict(read_folder(root))
    assert items["ann/1"]["text"] == "Two, boats"
    assert items["bob/1"]["text"] == "One"
    assert items["bob/2"] == {"wav": root / "bob/2.wav", "text": "beside"}
    if name != "transcripts.txt":
        assert items["bob/1"]["speaker"] == "8"
        assert "group" not in items["bob/1"]
        place = items["ann/1"]["group"], items["ann/1"]["position"]
        assert place == ("b", 3)
    assert "bob/none.wav is left out: no recording" in warnings()
    assert "does not name 1 recordings" in warnings()


def test_ljspeech(root, warnings):
    touch(root / "wavs/LJ001-0001.wav", root / "wavs/LJ001-0002.wav")
    write(
        root / "metadata.csv",
        'LJ001-0001|In 1455, "x|in fourteen "x\nLJ001-0002|plain|plain\n',
    )
    items = dict(read_folder(root))
    assert items["wavs/LJ001-0001"]["text"] == 'in fourteen "x'
    assert items["wavs/LJ001-0002"]["text"] == "plain"
    assert not warnings()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "file,text\na.wav,x\n", "no column file_name"),
        ("metadata.jsonl", "[]\n{}\n", "without file_name"),
        (
            "metadata.csv",
            "file_name,group,position\na.wav,b,first\n",
            "a.wav: the position in 'b' is 'first'; write whole numbers",
        ),
        ("metadata.jsonl", "nothing", "cannot read nothing as a JSON object"),
    ],
)
def test_a_table_that_cannot_be_read(root, name, content, message):
    touch(root / "a.wav")
    write(root / name, content)
    with pytest.raises(ValueError, match=message) as error:
        list(read_folder(root))
    assert name in str(error.value)


GRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.5
<exists>
1
"IntervalTier"
"words"
0
1.5
3
0
0.25
""
0.25
0.75
"two"
0.75
1.5
"boats"
"""


def test_textgrids(root, warnings):
    for name, text in {"a": None, "b": "Two boats!", "c": "Three"}.items():
        touch(root / f"{name}.wav")
        write(root / f"{name}.TextGrid", GRID)
        if text is not None:
            write(root / f"{name}.txt", text)
    items = dict(read_folder(root))
    times = [(0.0, 0.25), (0.25, 0.75), (0.75, 1.5)]
    for name, words in {"a": "two boats", "b": "Two boats!"}.items():
        assert items[name]["text"] == words
        spoken = ["", *words.split()]
        assert items[name]["words"] == [
            (word, *time) for word, time in zip(spoken, times)
        ]
    assert items["c"] == {"wav": root / "c.wav", "text": "Three"}
    assert "c.TextGrid: no word times" in warnings()


def whisperx(words):
    return json.dumps(
        {
            "segments": [
                {
                    "start": 0.0,
                    "end": 0.9,
                    "text": " Two boats.",
                    "words": words,
                },
                {
                    "text": " Go",
                    "words": [{"word": "Go", "start": 1, "end": 2}],
                },
            ],
            "word_segments": [],
            "language": "en",
        }
    )


def test_whisperx(root, warnings):
    timed = [
        {"word": "Two", "start": 0.1, "end": 0.4, "score": 0.9},
        {"word": "boats.", "start": 0.5, "end": 0.9, "score": 0.8},
    ]
    touch(*(root / f"{name}.flac" for name in "abcde"))
    write(root / "a.json", whisperx(timed))
    write(root / "b.json", whisperx([timed[0], {"word": "boats."}]))
    write(root / "c.json", '{"speaker": "7", "book_meta": {}}')
    write(root / "d.json", "{")
    write(root / "e.json", '{"segments": ["no segment"]}')
    items = dict(read_folder(root))
    assert items["a"]["text"] == items["b"]["text"] == "Two boats. Go"
    assert items["a"]["words"] == [
        ("Two", 0.1, 0.4),
        ("boats.", 0.5, 0.9),
        ("Go", 1.0, 2.0),
    ]
    assert "words" not in items["b"]
    assert "b.json: no word times: the word 'boats.' has no" in warnings()
    assert [set(items[name]) for name in "cde"] == [{"wav"}] * 3
    assert "c.json" not in warnings()
    assert "d.json: no word times" in warnings()
    assert "e.json: no word times" in warnings()


def test_splits_of_a_folder(root):
    for name in ("Train", "validation", "test"):
        touch(root / name / "a.wav")
    assert find_splits(root) == {
        "train": root / "Train",
        "valid": root / "validation",
        "test": root / "test",
    }
    touch(root / "more" / "b.wav")
    assert find_splits(root) == {"train": root}


# Libri-Light


@pytest.fixture
def libri_light(root, recording):
    """Two long recordings: speech, a second of silence, speech."""
    speech, _ = soundfile.read(recording, dtype="int16")
    quiet = np.zeros(32000, np.int16)
    samples = np.concatenate([quiet, speech, quiet, speech, quiet])
    for name in ("small/100/sea/01_baum", "small/7/ice/01_baum"):
        path = root / f"{name}.flac"
        path.parent.mkdir(parents=True)
        soundfile.write(path, samples, 16000)
    book = {"title": "The Sea Fairies", "meta_genre": "Literature"}
    meta = json.dumps({"speaker": "100", "book_meta": book, "snr": 5.4})
    write(root / "small/100/sea/01_baum.json", meta)
    return root, samples


def test_libri_light(libri_light):
    root, _ = libri_light
    assert list(read_libri_light(root, "small")) == [
        (
            "small/100/sea/01_baum",
            {
                "wav": root / "small/100/sea/01_baum.flac",
                "speaker": "100",
                "book": "The Sea Fairies",
                "genre": "Literature",
            },
        ),
        (
            "small/7/ice/01_baum",
            {"wav": root / "small/7/ice/01_baum.flac", "speaker": "7"},
        ),
    ]


def test_recordings_are_cut_where_there_is_speech(
    libri_light, tmp_path, monkeypatch
):
    pytest.importorskip("silero_vad")
    root, samples = libri_light
    out = tmp_path / "out"
    long = list(read_libri_light(root, "small"))
    records = list(cut_by_voice(long, out))
    assert len(records) == 4
    for name, item in records:
        start, end = (int(ms) * 16 for ms in name.split("_")[-2:])
        path = Path(item["wav"].replace("{data_root}", str(out)))
        assert str(path).startswith(str(out / "cut" / "small"))
        piece, rate = soundfile.read(path, dtype="int16")
        assert rate == 16000 and soundfile.info(path).subtype == "PCM_16"
        assert item["duration"] == round(len(piece) / 16000, 4)
        # To the sample what the recording has, and all that is not silence.
        near = range(max(start - 16, 0), start + 17)
        assert any(
            np.array_equal(piece, samples[i : i + len(piece)]) for i in near
        )
        assert abs(end - start - len(piece)) <= 32
    assert {item["speaker"] for _, item in records} == {"100", "7"}
    joined = list(cut_by_voice(long, out, Cutting(max_pause=5.0)))
    assert len(joined) == 2

    monkeypatch.setattr(voice_activity, "_detect", None)  # would be called
    assert list(cut_by_voice(long, out, Cutting(max_pause=5.0))) == joined


def test_what_is_cut_is_not_lost(libri_light, tmp_path, monkeypatch, warnings):
    pytest.importorskip("silero_vad")
    monkeypatch.setattr(
        voice_activity, "_detect", lambda samples, _: [(1.0, 3.0), (3.5, 6.0)]
    )
    root, _ = libri_light
    long = list(read_libri_light(root, "small"))
    write(root / "broken.flac", "no audio")
    long.append(("broken", {"wav": root / "broken.flac"}))
    (name, item), *others = cut_by_voice(long, tmp_path, Cutting(max_seconds=6))
    assert name.endswith("_0001000_0006000") and item["duration"] == 5.0
    assert len(others) == 1
    assert "broken is left out: cannot read" in warnings()
    # Pieces that are gone are cut again.
    path = Path(item["wav"].replace("{data_root}", str(tmp_path)))
    path.unlink()
    list(cut_by_voice(long, tmp_path, Cutting(max_seconds=6)))
    assert path.is_file()
    with pytest.raises(ValueError, match="leave no length"):
        list(cut_by_voice(long, tmp_path, Cutting(max_seconds=0.5)))


@pytest.mark.slow
@pytest.mark.parametrize("root", ["corpus"], indirect=True)
def test_processes_share_out_recordings(libri_light, tmp_path):
    pytest.importorskip("silero_vad")
    root, _ = libri_light
    long = list(read_libri_light(root, "small"))
    alone = list(cut_by_voice(long, tmp_path / "a"))
    assert list(cut_by_voice(long, tmp_path / "b", jobs=2)) == alone


def test_silence_has_no_utterance(tmp_path, warnings):
    pytest.importorskip("silero_vad")
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    long = [("a", {"wav": tmp_path / "a.wav"})]
    assert not list(cut_by_voice(long, tmp_path))
    assert "a is left out: no speech is heard in it" in warnings()


def test_a_full_disk_is_no_recording_left_out(
    libri_light, tmp_path, monkeypatch, small_disk
):
    monkeypatch.setattr(voice_activity, "_detect", lambda *_: [(0.0, 3.0)])
    root, _ = libri_light
    records = read_libri_light(root, "small")
    with pytest.raises(DiskFullError, match="no room for .*flac"):
        list(cut_by_voice(records, tmp_path / "out"))


def test_files_that_are_not_looked_at_are_named(tmp_path, warnings):
    for name in ("a.wav", "b.RAW", "c.txt", "d.bin"):
        (tmp_path / name).write_bytes(b"")
    assert [name for name, _ in read_folder(tmp_path)] == ["a"]
    assert "2 files are passed over, such as b.RAW, d.bin" in warnings()


def test_names_that_are_no_text_and_pipes_are_passed_over(tmp_path, warnings):
    (tmp_path / "a.wav").write_bytes(b"")
    os.mkfifo(tmp_path / "b.wav")
    (tmp_path / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"")
    assert [name for name, _ in read_folder(tmp_path)] == ["a"]
    assert "its name is not UTF-8; rename it" in warnings()


@pytest.mark.parametrize("said", [["x"], {"en": "x"}, True])
def test_a_text_that_is_none_is_refused(tmp_path, said):
    (tmp_path / "a.wav").write_bytes(b"")
    line = json.dumps({"file_name": "a.wav", "text": said})
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(ValueError, match="the text of a.wav is .*, no text"):
        list(read_folder(tmp_path))
