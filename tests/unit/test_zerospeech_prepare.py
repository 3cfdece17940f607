"""Tests of the scripts that prepare sWUGGY, sBLIMP, StoryCloze and SALMon."""

import importlib.util
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spiritlm_plugin.dataio.corpus.manifests import (
    load_manifest,
    read_manifest,
    write_manifest,
)
from spiritlm_plugin.dataio.corpus.readers.storycloze import common_sentences

RECIPES = Path(__file__).parents[2] / "recipes"
ZEROSPEECH = RECIPES / "ZeroSpeech/comprehension/zerospeech_prepare.py"
STORYCLOZE = RECIPES / "StoryCloze/comprehension/storycloze_prepare.py"
SALMON = RECIPES / "SALMon/comprehension/salmon_prepare.py"
LEXICAL = "id,filename,voice,frequency,word,phones,length,correct"
SYNTACTIC = "id,filename,voice,type,subtype,transcription,correct"


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(path, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = np.sin(np.arange(int(16000 * seconds)) / 9) / 5
    soundfile.write(path, tone, 16000)


def gold(folder, *lines):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gold.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def zerospeech(tmp_path):
    """One word in two voices, and one sentence; no labels of the tests."""
    root = tmp_path / "zerospeech"
    for name in ("aa", "ab", "ba", "bb"):
        record(root / f"lexical/dev/{name}.wav")
    gold(
        root / "lexical" / "dev",
        LEXICAL,
        "1,aa,en-US-Wavenet-A,5,abduct,AE B D,3,1",
        "1,ab,en-US-Wavenet-A,5,kidduct,K IH D,3,0",
        "1,ba,en-US-Wavenet-B,5,abduct,AE B D,3,1",
        "1,bb,en-US-Wavenet-B,5,kidduct,K IH D,3,0",
    )
    for name in ("c", "d"):
        record(root / f"syntactic/dev/{name}.wav", 0.7)
    gold(
        root / "syntactic" / "dev",
        SYNTACTIC,
        "7,c.wav,A,agreement,noun,dogs eat meat,1",
        '7,d.wav,A,agreement,noun,"dogs eats, meat",0',
    )
    record(root / "lexical/test/x.wav")
    return root


def test_zerospeech(zerospeech, tmp_path):
    output = tmp_path / "manifests"
    command = [sys.executable, ZEROSPEECH, zerospeech, output]
    subprocess.run(command, check=True)
    names = sorted(path.name for path in output.iterdir())
    assert names == ["valid_lexical", "valid_syntactic"]
    items = load_manifest(output / "valid_lexical", ["pair", "correct"])
    assert items["ab"] == {
        "wav": str(zerospeech / "lexical/dev/ab.wav"),
        "duration": 0.5,
        "speaker": "en-US-Wavenet-A",
        "pair": "1/en-US-Wavenet-A",
        "item": "1",
        "correct": False,
        "voice": "en-US-Wavenet-A",
        "frequency": 5,
        "length": 3,
        "vocabulary": "in vocabulary",
        "frequency_band": "5 to 19",
        "text": "kidduct",
    }
    assert len({item["pair"] for item in items.values()}) == 2
    items = load_manifest(output / "valid_syntactic", ["text"])
    assert items["d"]["text"] == "dogs eats, meat"
    assert [item["correct"] for item in items.values()] == [True, False]
    assert items["d"]["type"] == "agreement"
    assert items["d"]["subtype"] == "noun"
    assert "frequency" not in items["d"] and "vocabulary" not in items["d"]


def test_zerospeech_without_a_recording(zerospeech, tmp_path, caplog):
    (zerospeech / "lexical/dev/ab.wav").unlink()
    with caplog.at_level(logging.WARNING):
        script(ZEROSPEECH).prepare_zerospeech(zerospeech, tmp_path)
    assert "ab is left out: no such audio file" in caplog.text
    assert "ab" not in read_manifest(tmp_path / "valid_lexical")


@pytest.mark.parametrize(
    "lines, message",
    [
        (["id,filename,correct", "1,aa,1"], "has no column voice"),
        ([LEXICAL], "gold.csv has no rows; unpack"),
        ([LEXICAL, "", "1,,A,5,w,p,3,1"], "line 3: filename is empty"),
        ([LEXICAL, "1,aa"], "line 2: voice is empty"),
        ([LEXICAL, "1,aa,A,5,w,p,3,1,1"], "line 2: 9 cells, but 8 columns"),
        ([LEXICAL, "1,aa,A,often,w,p,3,1"], "2: frequency is 'often', not a"),
        ([LEXICAL, "1,aa,A,5,w,p,3,2"], "line 2: correct is '2', not 0 or 1"),
        ([LEXICAL, "1,zz,A,5,w,p,3,1"], "names no recording that can be used"),
    ],
)
def test_bad_gold(zerospeech, tmp_path, lines, message):
    gold(zerospeech / "lexical" / "dev", *lines)
    with pytest.raises(ValueError, match=message):
        script(ZEROSPEECH).prepare_zerospeech(zerospeech, tmp_path)


def test_tables_and_texts_as_they_come(zerospeech, storycloze, tmp_path):
    table = zerospeech / "syntactic" / "dev" / "gold.csv"
    text = table.read_text().replace("dogs eat meat", "cafe\u0301\u2028s")
    table.write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    script(ZEROSPEECH).prepare_zerospeech(zerospeech, tmp_path)
    items = load_manifest(tmp_path / "valid_syntactic")
    assert items["c"]["text"] == "caf\xe9\u2028s" and len(items) == 2
    text = "Ann sat.\u2028Cafe\u0301. She left."
    path = storycloze / "sSC" / "9_17_correct.txt"
    path.write_bytes(f"\ufeff{text}\r\n".encode())
    path.with_name("10_17_incorrect.txt").write_text("Ann sat. Caf\xe9. No.")
    script(STORYCLOZE).prepare_storycloze(storycloze, tmp_path)
    items = load_manifest(tmp_path / "test_storycloze")
    assert items["9_17_correct"]["context_text"] == "Ann sat. Caf\xe9."
    path.write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"9_17_correct.txt is not UTF-8"):
        script(STORYCLOZE).prepare_storycloze(storycloze, tmp_path)


def test_syntactic_gold_without_subtypes(zerospeech, tmp_path):
    gold(
        zerospeech / "syntactic" / "dev",
        "id,filename,voice,transcription,correct",
        "7,c,A,dogs eat meat,1",
    )
    with pytest.raises(ValueError, match="has no column type, subtype"):
        script(ZEROSPEECH).prepare_zerospeech(zerospeech, tmp_path)


def test_strange_ids_are_kept_apart(zerospeech, tmp_path):
    """Ids, subtypes and voices whose parts could be taken for each other's."""
    rows = [
        ("-3", "t", "a_b", "v"),
        ("b_-3", "t", "a", "v"),
        ("-3", "t/a", "b", "v"),
        ("-3", "t", "a/b", "v"),
        ("-3", "t", "a_b", "v/v"),
    ]
    lines = [SYNTACTIC]
    for number, (name, kind, subtype, voice) in enumerate(rows):
        for correct in (1, 0):
            file = f"s{number}.{correct}"
            record(zerospeech / f"syntactic/dev/{file}.wav")
            lines.append(f"{name},{file},{voice},{kind},{subtype},x,{correct}")
    gold(zerospeech / "syntactic" / "dev", *lines)
    script(ZEROSPEECH).prepare_zerospeech(zerospeech, tmp_path)
    items = load_manifest(tmp_path / "valid_syntactic").values()
    assert len(items) == 10
    assert len({item["pair"] for item in items}) == 5
    assert len({item["item"] for item in items}) == 4


def test_no_zerospeech(tmp_path):
    with pytest.raises(FileNotFoundError, match="lexical/dev/gold.csv"):
        script(ZEROSPEECH).prepare_zerospeech(tmp_path, tmp_path)


CONTEXTS = "Ann met Mr. Day.  He was old."
ENDINGS = {"correct": "He\nsat down.", "incorrect": "He flew off."}
STORIES = ("17", "12_a-b", "9")


def write_text(wav, text):
    wav.with_suffix(".txt").write_text(text, encoding="utf-8")


@pytest.fixture
def storycloze(tmp_path):
    """Whole stories; the file's number is not the story's."""
    root = tmp_path / "storycloze"
    for part in ("sSC", "tSC"):
        for number, story in enumerate(STORIES):
            for k, (ending, text) in enumerate(ENDINGS.items()):
                name = f"{9 + 2 * number + k}_{story}_{ending}"
                record(root / part / f"{name}.wav", 1)
                write_text(root / part / f"{name}.wav", f"{CONTEXTS} {text}")
    return root


def record_speakers(folder):
    """Record contexts and endings apart, two stories by two speakers."""
    texts = {**ENDINGS, "mutual": CONTEXTS}
    for speaker in ("ann", "bob"):
        for story in ("17", "3_17"):
            for what, text in texts.items():
                wav = folder / speaker / f"{story}_{what}.wav"
                record(wav, 0.7)
                write_text(wav, text)


def test_storycloze(storycloze, tmp_path):
    output = tmp_path / "manifests"
    command = [sys.executable, STORYCLOZE, storycloze, output]
    subprocess.run(command, check=True)
    items = load_manifest(output / "test_storycloze", ["story", "ending"])
    assert list(items) == [
        "9_17_correct",
        "10_17_incorrect",
        "11_12_a-b_correct",
        "12_12_a-b_incorrect",
        "13_9_correct",
        "14_9_incorrect",
    ]
    assert items["10_17_incorrect"] == {
        "wav": str(storycloze / "sSC" / "10_17_incorrect.wav"),
        "duration": 1.0,
        "story": "17",
        "ending": "incorrect",
        "text": "Ann met Mr. Day. He was old. He flew off.",
        "context_text": "Ann met Mr. Day. He was old.",
        "ending_text": "He flew off.",
    }
    topic = read_manifest(output / "test_topic_storycloze")
    assert [item["story"] for item in topic.values()] == [
        *("17", "17", "12_a-b", "12_a-b", "9", "9")
    ]


def test_one_set_alone(storycloze, tmp_path):
    prepare = script(STORYCLOZE).prepare_storycloze
    prepare(storycloze / "tSC", tmp_path / "out")
    [manifest] = (tmp_path / "out").glob("test_*")
    assert manifest.name == "test_topic_storycloze"
    assert len(load_manifest(manifest)) == 6


def test_storycloze_without_numbers_and_texts(tmp_path):
    for number in (10, 9):
        for ending in ("incorrect", "correct"):
            record(tmp_path / f"sSC/{number}_{ending}.wav", 1)
    script(STORYCLOZE).prepare_storycloze(tmp_path, tmp_path)
    items = load_manifest(tmp_path / "test_storycloze")
    names = ["9_correct", "9_incorrect", "10_correct", "10_incorrect"]
    assert list(items) == names
    assert items["9_incorrect"] == {
        "wav": str(tmp_path / "sSC" / "9_incorrect.wav"),
        "duration": 1.0,
        "story": "9",
        "ending": "incorrect",
    }


@pytest.mark.parametrize("place", [".", "multi"])
def test_storycloze_by_speakers(tmp_path, place):
    root = tmp_path / "data"
    record_speakers(root / place)
    script(STORYCLOZE).prepare_storycloze(root, tmp_path)
    name = "storycloze" if place == "." else place
    items = load_manifest(tmp_path / f"test_{name}")
    assert list(items)[:4] == [
        "ann/3_17_correct",
        "ann/3_17_incorrect",
        "ann/17_correct",
        "ann/17_incorrect",
    ]
    assert items["bob/17_correct"] == {
        "wav": str(root / place / "bob" / "17_correct.wav"),
        "duration": 0.7,
        "story": "bob/17",
        "text_id": "17",
        "speaker": "bob",
        "context_wav": str(root / place / "bob" / "17_mutual.wav"),
        "ending": "correct",
        "text": "Ann met Mr. Day. He was old. He sat down.",
        "context_text": "Ann met Mr. Day. He was old.",
        "ending_text": "He sat down.",
    }


def test_whole_stories_by_speakers(storycloze, tmp_path):
    for path in (storycloze / "tSC").iterdir():
        for speaker in ("ann", "bob"):
            target = tmp_path / "data" / "tSC" / speaker / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    script(STORYCLOZE).prepare_storycloze(tmp_path / "data", tmp_path)
    items = load_manifest(tmp_path / "test_topic_storycloze")
    assert len(items) == 12
    assert items["bob/9_17_correct"]["story"] == "bob/17"
    assert items["bob/9_17_correct"]["ending_text"] == "He sat down."


def test_an_ending_without_its_context(tmp_path, caplog):
    record_speakers(tmp_path / "data")
    (tmp_path / "data" / "ann" / "17_mutual.wav").unlink()
    with caplog.at_level(logging.WARNING):
        script(STORYCLOZE).prepare_storycloze(tmp_path / "data", tmp_path)
    assert "story ann/17 is left out: there is no 17_mutual.wav" in caplog.text
    assert len(load_manifest(tmp_path / "test_storycloze")) == 6


def write_words(manifest, folder, spoken=None):
    """Write a manifest as an aligner does: a word each 0.1 s."""
    items = read_manifest(manifest)
    for item in items.values():
        words = spoken or item["text"].split()
        item["words"] = [
            [word, i / 10 + 0.02, i / 10 + 0.1] for i, word in enumerate(words)
        ]
    folder.mkdir(exist_ok=True)
    write_manifest(items, folder / f"{manifest.name}.json")


def test_word_times_say_when_endings_start(storycloze, tmp_path):
    prepare = script(STORYCLOZE).prepare_storycloze
    first, aligned = tmp_path / "first", tmp_path / "aligned"
    prepare(storycloze, first)
    for manifest in first.glob("test_*"):
        write_words(manifest, aligned)
    command = [sys.executable, STORYCLOZE, storycloze, first]
    subprocess.run([*command, "--words", aligned], check=True)
    for manifest in first.glob("test_*"):
        items = load_manifest(manifest).values()
        # Seven words stand in front: Ann met Mr. Day. He was old.
        assert [item["ending_start"] for item in items] == [0.72] * 6


def test_word_times_that_are_missing_or_of_another_text(
    storycloze, tmp_path, caplog
):
    prepare = script(STORYCLOZE).prepare_storycloze
    with pytest.raises(FileNotFoundError, match="run an aligner on the manif"):
        prepare(storycloze, tmp_path, tmp_path / "missing")
    prepare(storycloze, tmp_path)
    with pytest.raises(ValueError, match="no utterance of .* has words"):
        prepare(storycloze, tmp_path, tmp_path)
    for manifest in tmp_path.glob("test_*"):
        write_words(manifest, tmp_path / "aligned", ["other", "words"])
    with caplog.at_level(logging.WARNING):
        prepare(storycloze, tmp_path, tmp_path / "aligned")
    assert "9_17_correct has no ending_start by word times" in caplog.text
    items = load_manifest(tmp_path / "test_storycloze").values()
    assert not any("ending_start" in item for item in items)


def test_contexts_apart_need_no_word_times(tmp_path):
    record_speakers(tmp_path / "data")
    prepare = script(STORYCLOZE).prepare_storycloze
    prepare(tmp_path / "data", tmp_path, tmp_path / "missing")
    assert len(load_manifest(tmp_path / "test_storycloze")) > 0


@pytest.mark.parametrize(
    ("first", "second", "count"),
    [
        ("A b. C d. E f.", "A b. C d. G h.", 4),
        # No sentence begins in the middle of a common beginning.
        ("A b. C d e.", "A b. C d f.", 2),
        ("Hi Dr. No. Go!", "Hi Dr. No. Run!", 3),
        ("Go Dr. No.", "Go Dr. Who.", 0),
        ('"A b?" C d!', '"A b?" E f!', 2),
        # Something is left over of both.
        ("A b. C d.", "A b. C d. E f.", 2),
        ("A b. C d.", "A b. C d.", 2),
        ("a b\nc d\ne", "a b\nc d\nf", 4),
        ("a b c", "a b d", 0),
        ("", "a b", 0),
    ],
)
def test_common_sentences(first, second, count):
    assert common_sentences(first, second) == count
    assert common_sentences(second, first) == count


def test_texts_without_a_common_sentence(storycloze, tmp_path, caplog):
    write_text(storycloze / "sSC" / "9_17_correct.wav", "Bob ate. He sat.")
    (storycloze / "sSC" / "13_9_correct.txt").unlink()
    with caplog.at_level(logging.WARNING):
        script(STORYCLOZE).prepare_storycloze(storycloze, tmp_path)
    assert "story 17 has no context: the texts of" in caplog.text
    assert "1 of 3 stories have no text; no such file: " in caplog.text
    items = load_manifest(tmp_path / "test_storycloze")
    assert items["9_17_correct"]["text"] == "Bob ate. He sat."
    assert "context_text" not in items["9_17_correct"]
    assert "text" not in items["14_9_incorrect"]


def test_incomplete_stories(storycloze, tmp_path, caplog):
    (storycloze / "sSC" / "13_9_correct.wav").unlink()
    record(storycloze / "sSC" / "notes.wav")
    with caplog.at_level(logging.WARNING):
        script(STORYCLOZE).prepare_storycloze(storycloze, tmp_path)
    assert "story 9 is left out: it has no ending but 14_9_inc" in caplog.text
    assert "notes.wav is left out: its name" in caplog.text
    items = read_manifest(tmp_path / "test_storycloze")
    assert len(items) == 4


def test_bad_storycloze(storycloze, tmp_path):
    prepare = script(STORYCLOZE).prepare_storycloze
    with pytest.raises(FileNotFoundError, match="no sSC and no tSC"):
        prepare(tmp_path / "missing", tmp_path)
    record(storycloze / "sSC" / "99_9_correct.wav")
    with pytest.raises(ValueError, match="both the correct ending of story 9"):
        prepare(storycloze, tmp_path)
    for path in (storycloze / "sSC").glob("*_correct.wav"):
        path.unlink()
    with pytest.raises(ValueError, match="no story with both endings"):
        prepare(storycloze, tmp_path)


@pytest.fixture
def salmon(tmp_path):
    root = tmp_path / "salmon"
    for part in ("gender_consistency", "speaker_consistency", "extra"):
        for number in (0, 2, 10):
            for name in ("b", "a"):
                record(root / part / f"sample_{number}_{name}_x.wav")
    return root


def test_salmon(salmon, tmp_path, caplog):
    output = tmp_path / "manifests"
    subprocess.run([sys.executable, SALMON, salmon, output], check=True)
    items = load_manifest(output / "test_salmon", ["pair", "part"])
    assert list(items)[:4] == [
        "speaker_consistency/sample_0_a_x",
        "speaker_consistency/sample_0_b_x",
        "speaker_consistency/sample_2_a_x",
        "speaker_consistency/sample_2_b_x",
    ]
    assert items["extra/sample_10_b_x"] == {
        "wav": str(salmon / "extra" / "sample_10_b_x.wav"),
        "duration": 0.5,
        "part": "extra",
        "pair": "extra/10",
        "correct": False,
    }
    assert len(items) == 18
    with caplog.at_level(logging.WARNING):
        script(SALMON).prepare_salmon(salmon, output)
    assert "holds no sentiment_consistency, bg_domain_consis" in caplog.text


def test_salmon_numbers_behind_longer_names(tmp_path):
    for number in (3, -1):
        for name in ("1", "0"):
            record(tmp_path / "rir_consistency" / f"a_7_{number}_{name}.wav")
    script(SALMON).prepare_salmon(tmp_path, tmp_path)
    items = load_manifest(tmp_path / "test_salmon")
    assert {n: i["correct"] for n, i in items.items()} == {
        "rir_consistency/a_7_-1_0": True,
        "rir_consistency/a_7_-1_1": False,
        "rir_consistency/a_7_3_0": True,
        "rir_consistency/a_7_3_1": False,
    }


def test_bad_salmon(salmon, tmp_path, caplog):
    prepare = script(SALMON).prepare_salmon
    with pytest.raises(FileNotFoundError, match="no folder with recordings"):
        prepare(tmp_path / "missing", tmp_path)
    record(salmon / "extra" / "sample_2_c_x.wav")
    record(salmon / "extra" / "notes.wav")
    with caplog.at_level(logging.WARNING):
        prepare(salmon, tmp_path)
    assert (
        "2_c_x.wav is left out: 3 recordings have the number 2" in caplog.text
    )
    assert "notes.wav is left out: its name has no number" in caplog.text
    assert len(load_manifest(tmp_path / "test_salmon")) == 16
    for path in (salmon / "extra").glob("*_a_*.wav"):
        path.unlink()
    (salmon / "extra" / "sample_2_c_x.wav").unlink()
    with pytest.raises(ValueError, match="extra has no pair"):
        prepare(salmon, tmp_path)
