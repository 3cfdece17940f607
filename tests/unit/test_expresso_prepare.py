"""Tests of the preparation of Expresso."""

import importlib.util
import logging
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.corpus.manifests import load_manifest, read_manifest
from spiritlm_plugin.dataio.corpus.readers import expresso
from spiritlm_plugin.dataio.corpus.readers.expresso import Span

SCRIPT = Path(__file__).parents[2] / (
    "recipes/Expresso/pitch/expresso_prepare.py"
)
_spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
prepare = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(prepare)

DIALOGUE = "ex01-ex02_happy-sad_001"


def tone(seconds, frequency, rate=48000):
    return 0.3 * np.sin(
        2 * np.pi * frequency * np.arange(seconds * rate) / rate
    )


def write(root, path, *channels):
    path = root / "audio_48khz" / path
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.stack(channels, 1), 48000)
    return path


@pytest.fixture
def corpus(tmp_path):
    """Read sentences, a longform reading and a dialogue, a few seconds each.

    In the dialogue ex01 speaks at 400 Hz in the first channel, ex02 at 1 kHz
    in the second.
    """
    root = tmp_path / "expresso"
    for index, style in enumerate(["happy", "default", "whisper"]):
        name = f"ex01_{style}_00001.wav"
        write(root, f"read/ex01/{style}/base/{name}", tone(1, 300 + index))
    longform = "read/ex02/sad/longform/ex02_sad_longform_00001.wav"
    write(root, longform, tone(6, 500))
    folder = "conversational/ex01-ex02/happy-sad"
    write(root, f"{folder}/{DIALOGUE}.wav", tone(5, 400), 0.5 * tone(5, 1000))
    texts = ["ex01_happy_00001\tWhat a day!", "ex01_default_00001\tIt's 5 #."]
    put(root, "read_transcriptions.txt", *texts)
    put(
        root,
        "VAD_segments.txt",
        "ex02_sad_longform_00001\t(0.5s,1.5s) (1.75s,2.5s) (4.0s,5.5s)",
        f"{DIALOGUE}/channel1\t[(0.0, 1.25), (2.5, 4.75)]",
        f"{DIALOGUE}/channel2\t1.25 2.25 4.9 5",
    )
    put(
        root,
        "splits/train.txt",
        "# names",
        "ex01_happy_00001",
        "",
        f"{DIALOGUE}\t(,3.5s)  # the first part",
        "ex02_sad_longform_00001",
    )
    put(root, "splits/dev.txt", "ex01_default_00001", "ex01_whisper_00001")
    put(root, "splits/test.txt", f"{DIALOGUE}\t(3.5s,)")
    return root


def put(root, name, *lines):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("".join(f"{line}\n" for line in lines))


def read(folder, name):
    return read_manifest(folder / name)


def test_sentences_stay_whole(corpus, tmp_path):
    prepare.prepare_expresso(corpus, tmp_path)
    assert read(tmp_path, "train")["ex01_happy_00001"] == {
        "wav": "{data_root}/wav/ex01/happy/ex01_happy_00001.wav",
        "duration": 1.0,
        "speaker": "ex01",
        "style": "happy",
        "kind": "read",
        "sentiment": "positive",
        "text": "What a day!",
    }
    valid = read(tmp_path, "valid")
    assert list(valid) == ["ex01_default_00001", "ex01_whisper_00001"]
    assert valid["ex01_default_00001"]["text"] == "It's 5 #."
    assert valid["ex01_default_00001"]["sentiment"] == "neutral"
    assert not {"text", "sentiment"} & valid["ex01_whisper_00001"].keys()
    usable = load_manifest(tmp_path / "valid", needs=["style"])
    info = soundfile.info(usable["ex01_whisper_00001"]["wav"])
    assert (info.samplerate, info.channels) == (16000, 1)
    assert (info.subtype, info.frames) == ("PCM_16", 16000)


def test_longer_recordings_are_cut_at_pauses(corpus, tmp_path):
    prepare.prepare_expresso(corpus, tmp_path)
    train, test = read(tmp_path, "train"), read(tmp_path, "test")
    longform = {n: i for n, i in train.items() if i["kind"] == "longform"}
    places = [(i["group"], i["position"]) for i in longform.values()]
    assert places == [("ex02_sad_longform_00001_ex02", n) for n in (1, 2)]
    for item in train.values():
        assert ("group" in item) == (item["kind"] != "read")
    assert {n: i["duration"] for n, i in longform.items()} == {
        "ex02_sad_longform_00001_ex02_0000500_0002500": 2.0,
        "ex02_sad_longform_00001_ex02_0004000_0005500": 1.5,
    }
    for item in longform.values():
        assert item["sentiment"] == "negative" and "text" not in item
    assert {
        n: (i["speaker"], i["style"], i["sentiment"])
        for n, i in (train | test).items()
        if i["kind"] == "conversational"
    } == {
        f"{DIALOGUE}_ex01_0000000_0001250": ("ex01", "happy", "positive"),
        f"{DIALOGUE}_ex01_0002500_0003500": ("ex01", "happy", "positive"),
        f"{DIALOGUE}_ex02_0001250_0002250": ("ex02", "sad", "negative"),
        f"{DIALOGUE}_ex01_0003500_0004750": ("ex01", "happy", "positive"),
    }
    assert list(test) == [f"{DIALOGUE}_ex01_0003500_0004750"]


def loudest_frequency(samples):
    return np.abs(np.fft.rfft(samples)).argmax() * 16000 / len(samples)


def test_speakers_are_told_apart_by_channel(corpus, tmp_path):
    prepare.prepare_expresso(corpus, tmp_path)
    for item in load_manifest(tmp_path / "train").values():
        if item["kind"] == "conversational":
            samples, _ = soundfile.read(item["wav"])
            expected = {"ex01": 400, "ex02": 1000}[item["speaker"]]
            assert loudest_frequency(samples) == pytest.approx(expected, abs=1)
            amplitude = {"ex01": 0.3, "ex02": 0.15}[item["speaker"]]
            middle = np.abs(samples[1000:-1000]).max()
            assert middle == pytest.approx(amplitude, abs=0.01)


def test_a_segment_of_no_channel_is_the_louder_speaker(corpus, tmp_path):
    silence = np.zeros(48000)
    write(
        corpus,
        f"conversational/ex01-ex02/happy-sad/{DIALOGUE}.wav",
        np.concatenate([tone(1, 400), silence, tone(3, 400)]),
        np.concatenate([silence, tone(1, 1000), np.zeros(3 * 48000)]),
    )
    put(corpus, "VAD_segments.txt", f"{DIALOGUE} 0 1 1 2 3.6 4.6")
    prepare.prepare_expresso(corpus, tmp_path)
    pieces = read(tmp_path, "train") | read(tmp_path, "test")
    assert [n for n in pieces if n.startswith(DIALOGUE)] == [
        f"{DIALOGUE}_ex01_0000000_0001000",
        f"{DIALOGUE}_ex02_0001000_0002000",
        f"{DIALOGUE}_ex01_0003600_0004600",
    ]


def test_one_style_is_that_of_both_speakers(corpus, tmp_path):
    folder = corpus / "audio_48khz/conversational/ex01-ex02"
    (folder / "happy-sad").rename(folder / "angry")
    prepare.prepare_expresso(corpus, tmp_path)
    found = {
        (item["speaker"], item["style"], item["sentiment"])
        for item in read(tmp_path, "train").values()
        if item["kind"] == "conversational"
    }
    assert found == {
        ("ex01", "angry", "negative"),
        ("ex02", "angry", "negative"),
    }


@pytest.mark.parametrize(
    ("marked", "text"),
    [
        ("I *never* said *that*.", "I never said that."),
        ("*Two words* first", "Two words first"),
        ("**Loud**er", "Louder"),
        ("3 * 4 is *twelve*, no?", "3 * 4 is twelve, no?"),
    ],
)
def test_marks_of_emphasis_are_no_text(corpus, tmp_path, marked, text):
    put(corpus, "read_transcriptions.txt", f"ex01_happy_00001\t{marked}")
    prepare.prepare_expresso(corpus, tmp_path)
    assert read(tmp_path, "train")["ex01_happy_00001"]["text"] == text


def test_lists_as_they_come(corpus, tmp_path):
    lists = [*corpus.glob("*.txt"), *(corpus / "splits").glob("*.txt")]
    for path in lists:
        text = path.read_text().replace("What a day!", "Cafe\u0301\u2028now!")
        path.write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    prepare.prepare_expresso(corpus, tmp_path)
    assert read(tmp_path, "train")["ex01_happy_00001"]["text"] == (
        "Caf\xe9\u2028now!"
    )
    assert "ex01_default_00001" in read(tmp_path, "valid")
    for path in lists:
        content = path.read_bytes()
        path.write_bytes(content + b"caf\xe9\n")
        with pytest.raises(ValueError, match=f"{path.name} is not UTF-8: line"):
            prepare.prepare_expresso(corpus, tmp_path)
        path.write_bytes(content)


def test_a_part_of_a_sentence_has_no_text(corpus, tmp_path):
    put(corpus, "splits/train.txt", "ex01_happy_00001 (0.25s,)")
    prepare.prepare_expresso(corpus, tmp_path)
    (item,) = read(tmp_path, "train").items()
    assert item[0] == "ex01_happy_00001_ex01_0000250_0001000"
    assert item[1]["duration"] == 0.75 and "text" not in item[1]


def test_a_stopped_run_goes_on(corpus, tmp_path, monkeypatch):
    written = []
    write_wav = expresso._write

    def stop(samples, path):
        if len(written) == 3:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f"{path.name}.partial").write_bytes(b"RIFF")
            raise KeyboardInterrupt
        write_wav(samples, path)
        written.append(path)

    monkeypatch.setattr(expresso, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare_expresso(corpus, tmp_path / "a", jobs=1)
    assert not list((tmp_path / "a").glob("*/corpus.json"))
    times = {path: path.stat().st_mtime_ns for path in written}
    monkeypatch.undo()
    prepare.prepare_expresso(corpus, tmp_path / "a")
    assert times == {path: path.stat().st_mtime_ns for path in written}
    prepare.prepare_expresso(corpus, tmp_path / "b", jobs=1)
    # JSON beside shards tells when recordings were written.
    files = [path for path in (tmp_path / "b").rglob("*") if path.is_file()]
    for path in (p for p in files if p.suffix != ".json"):
        other = tmp_path / "a" / path.relative_to(tmp_path / "b")
        assert other.read_bytes() == path.read_bytes()
    assert not list((tmp_path / "a").rglob("*.partial"))


def test_a_complete_run_writes_nothing_again(corpus, tmp_path, monkeypatch):
    prepare.prepare_expresso(corpus, tmp_path)
    before = read(tmp_path, "train")
    monkeypatch.setattr(expresso, "_write", None)  # would be called
    prepare.prepare_expresso(corpus, tmp_path)
    assert read(tmp_path, "train") == before


def test_what_cannot_be_used_is_named(corpus, tmp_path, caplog):
    audio = corpus / "audio_48khz"
    garbage = write(corpus, "read/ex01/sad/base/ex01_sad_00001.wav", tone(1, 9))
    garbage.write_bytes(b"no audio at all")
    write(corpus, "conversational/ex03-ex04/sad/mono.wav", tone(1, 300))
    write(corpus, "read/ex02/sad/longform/quiet.wav", tone(1, 300))
    write(corpus, "elsewhere/lost.wav", tone(1, 300))
    write(corpus, "read/ex01/happy/longform/ex01_happy_00001.wav", tone(2, 9))
    with open(corpus / "splits/train.txt", "a") as file:
        file.write("ex01_sad_00001\nmono\nquiet\nno_such_file\n")
    with open(corpus / "VAD_segments.txt", "a") as file:
        file.write("file\tsegments\nmono 1.0 2.0 3.0\nmono (2.0,1.0)\n")
    with caplog.at_level(logging.WARNING):
        prepare.prepare_expresso(corpus, tmp_path)
    for message in [
        "ex01_sad_00001 is left out: ",
        "mono is left out: it has 1 channel(s), not 2",
        "quiet is left out: no speech in its ranges",
        "train: no_such_file is left out: no recording",
        f"{audio / 'elsewhere/lost.wav'} is left out: unknown place",
        "longform/ex01_happy_00001.wav is left out: ",
        "VAD_segments.txt, line 4: cannot read 'segments' as times",
        "VAD_segments.txt, line 5: cannot read '1.0 2.0 3.0' as times",
        "VAD_segments.txt, line 6: cannot read '(2.0,1.0)' as times",
    ]:
        assert message in caplog.text
    assert len(caplog.messages) == 9
    assert len(read(tmp_path, "train")) == 6


@pytest.mark.parametrize("line", ["a (x,2)", "a 1-2", "a (1,2,3)", "a (3s,2s)"])
def test_a_split_that_cannot_be_read_is_named(corpus, tmp_path, line):
    put(corpus, "splits/dev.txt", "ex01_default_00001", line)
    with pytest.raises(ValueError, match=r"dev\.txt, line 2: "):
        prepare.prepare_expresso(corpus, tmp_path)


@pytest.mark.parametrize(
    "line", ["ex01_happy_00001", f"{DIALOGUE} (3.4s,)", f"{DIALOGUE} (,1s)"]
)
def test_splits_that_share_audio_are_refused(corpus, tmp_path, line):
    put(corpus, "splits/test.txt", line)
    with pytest.raises(ValueError, match=rf"{line.split()[0]} is in train"):
        prepare.prepare_expresso(corpus, tmp_path)


def test_an_empty_split_is_named(corpus, tmp_path):
    put(corpus, "splits/test.txt", "# nothing")
    with pytest.raises(ValueError, match=r"test\.txt names no recording"):
        prepare.prepare_expresso(corpus, tmp_path)


def test_missing_files_are_named(corpus, tmp_path):
    (corpus / "VAD_segments.txt").unlink()
    (corpus / "splits/dev.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"VAD_segments\.txt, splits/dev\.txt"
    ):
        prepare.prepare_expresso(corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "line",
    [
        "x/channel2\t(0.5s,1.25s) (2s,3s)",
        "x_channel2 [(0.5, 1.25), (2.0, 3.0)]",
        "audio/x.wav channel2 0.5\t1.25\t2\t3",
        "x ch2 0.5-1.25;2.-3",
        "x channel 2 {0.50: 1.250, 2: 3.0}",
        "x/channel2 (0.5s,1.25s)  # comment\nx/channel2 (2,3)",
    ],
)
def test_segments_in_the_forms_that_they_may_have(tmp_path, line):
    put(tmp_path, "VAD_segments.txt", line)
    segments = expresso.read_segments(tmp_path / "VAD_segments.txt")
    assert segments == {"x": [Span(0.5, 1.25, 1), Span(2, 3, 1)]}


def test_a_style_is_not_taken_for_a_channel(tmp_path):
    put(tmp_path, "vad.txt", "ex01-ex02_child-childdir_002 0.5 1")
    assert list(expresso.read_segments(tmp_path / "vad.txt")) == [
        "ex01-ex02_child-childdir_002"
    ]


times = st.integers(0, 600).map(lambda n: n / 10)
spans = st.tuples(times, times).filter(lambda t: t[0] < t[1])


@given(st.lists(spans, max_size=12), st.lists(spans, max_size=3), times)
def test_pieces_cover_speech_in_ranges(segments, ranges, duration):
    pieces = expresso.find_pieces(
        [Span(*s) for s in segments],
        [Span(*r) for r in ranges[:1]],
        duration,
    )
    for start, end in pieces:
        assert (
            expresso.MIN_SECONDS <= end - start <= expresso.MAX_SECONDS + 1e-9
        )
        low, high = ranges[0]
        assert low <= start and end <= min(high, duration) + 1e-9
    assert all(a[1] <= b[0] for a, b in pairwise(pieces))
    for low, high in ranges[:1]:
        for start, end in segments:
            start, end = max(start, low), min(end, high, duration)
            covered = sum(
                max(0, min(end, b) - max(start, a)) for a, b in pieces
            )
            # Only pieces that are too short are dropped.
            if end - start >= expresso.MIN_SECONDS:
                assert covered > end - start - 2 * expresso.MIN_SECONDS


def test_the_command_line(corpus, tmp_path):
    command = [sys.executable, SCRIPT, corpus, tmp_path, "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "train: 6 utterances" in done.stderr


def test_a_header_without_a_length_loses_nothing(corpus, tmp_path, caplog):
    """As a program writes it that cannot go back in a pipe."""
    prepare.prepare_expresso(corpus, tmp_path / "whole")
    for path in sorted((corpus / "audio_48khz").rglob("*.wav")):
        content = path.read_bytes()
        place = content.index(b"data") + 4
        path.write_bytes(content[:place] + bytes(4) + content[place + 4 :])
    prepare.prepare_expresso(corpus, tmp_path / "streamed")
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    for split in ("train", "valid", "test"):
        assert read(tmp_path / "streamed", split) == read(
            tmp_path / "whole", split
        )


def test_what_is_cut_off_is_said(corpus, tmp_path, caplog):
    path = next((corpus / "audio_48khz").rglob("ex01_happy_00001.wav"))
    path.write_bytes(path.read_bytes()[:60_000])
    prepare.prepare_expresso(corpus, tmp_path / "out")
    assert "ex01_happy_00001.wav is shorter than the 1.000 s" in caplog.text
    found = read(tmp_path / "out", "train")["ex01_happy_00001"]
    assert found["duration"] == pytest.approx(0.6246, abs=1e-3)
