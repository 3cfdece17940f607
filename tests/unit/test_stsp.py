"""The reader of the STSP archive, and TinySpeech in its layout."""

import json
from collections import Counter
from pathlib import Path

import pytest
import soundfile

from spiritlm_plugin.dataio.corpus.stsp import (
    SENTIMENTS,
    ArchiveError,
    STSPArchive,
    read_texts,
)

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def archive(tmp_path, recording):
    """Write an archive of the described layout, and a function that adds."""
    (tmp_path / "data" / "emov").mkdir(parents=True)
    (tmp_path / "data" / "emov" / "a.wav").symlink_to(recording)

    def add(name, *rows):
        path = tmp_path / "manifest" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return STSPArchive(tmp_path)

    return add


def spoken(number, emotion="angry", **rest):
    row = {"emotion": emotion, "wav_path": "emov/a.wav", "id": number}
    return row | {"split": "test", "speaker": "sam"} | rest


def test_described_records(archive, tmp_path):
    row = spoken(4792320029370491913, sentiment="negative")
    archive("emov/emov.test", row, spoken("x", "default"))
    archive("few_shot/s2t", *shots())
    found = archive(
        "expresso/expresso_asr.test",
        # What is said in a happy voice may be sad.
        {"id": 1, "sentiment": "negative", "emotion": "happy", "asr": " oh "},
        {"id": 2, "emotion": "happy", "asr": "great"},
    )
    records = found.records(["emov"], "test", "speech")
    assert [r.id for r in records] == ["4792320029370491913", "x"]
    assert [r.sentiment for r in records] == ["negative", "neutral"]
    assert records[0].prompt == tmp_path / "data" / "emov" / "a.wav"
    texts = found.records(["expresso_asr"], "test", "text")
    assert [r.sentiment for r in texts] == ["negative", "positive"]
    assert read_texts(tmp_path, ["expresso_asr"], "test") == ["oh", "great"]


def shots(count=4):
    return [
        {"sentiment": s, "prompt": "emov/a.wav", "generation": f"{s} {i}"}
        for s in SENTIMENTS
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (spoken(2, wav_path="emov/b.wav"), "line 2: no such audio.*b.wav"),
        (spoken(2, wav_path=None), "line 2: its wav_path is None"),
        (spoken(2, "furious"), "emotion 'furious' of record 2 is unknown"),
        (spoken(2, "sad", sentiment="positive"), "is negative, its sentiment"),
        (spoken(2, None, sentiment="good"), "sentiment 'good' of record 2"),
        (spoken(None), "line 2: its id is None"),
        ([1], r"line 2: \[1\] is not a record"),
        (spoken(1), "id 1 of emov.test is there 2 times"),
    ],
)
def test_records_that_cannot_be_used(archive, row, message):
    found = archive("emov/emov.test", spoken(1), row)
    with pytest.raises(ArchiveError, match=message):
        found.records(["emov"], "test", "speech")


def test_ids_negative_and_in_strings(archive):
    found = archive("emov/emov.test", spoken(-17), spoken("-4792320029370491"))
    records = found.records(["emov"], "test", "speech")
    assert [r.id for r in records] == ["-17", "-4792320029370491"]
    assert {r.speaker for r in records} == {"sam"}
    found = archive("emov/emov.test", spoken(-17), spoken("-17"))
    with pytest.raises(ArchiveError, match="id -17 of emov.test is there 2"):
        found.records(["emov"], "test", "speech")


def test_a_stated_sentiment_needs_no_known_emotion(archive):
    row = spoken(1, "sleepy", sentiment="neutral")
    [record] = archive("emov/emov.test", row).records(
        ["emov"], "test", "speech"
    )
    assert record.sentiment == "neutral"


def test_texts_without_words_are_counted(archive, caplog):
    rows = [{"id": i, "sentiment": "neutral"} for i in range(4)]
    rows[0]["asr"], rows[1]["asr"], rows[2]["asr"] = "oh", " ", None
    found = archive("expresso/expresso_asr.test", *rows)
    records = found.records(["expresso_asr"], "test", "text")
    assert [r.prompt for r in records] == ["oh", "", "", ""]
    assert [r.has_words for r in records] == [True, False, False, False]
    assert "has 3 of 4 records without words, such as 1" in caplog.text
    found = archive("expresso/expresso_asr.test", rows[0] | {"asr": 5})
    with pytest.raises(ArchiveError, match="its asr is 5"):
        found.records(["expresso_asr"], "test", "text")


def test_damaged_recordings(archive, tmp_path):
    (tmp_path / "data" / "emov" / "b.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "data" / "emov" / "c.wav", [0.1] * 99, 16000)
    for name, message in (("b", "cannot read.*b.wav"), ("c", "too few")):
        row = spoken(2, wav_path=f"emov/{name}.wav")
        found = archive("emov/emov.test", spoken(1), row)
        with pytest.raises(ArchiveError, match=message):
            found.records(["emov"], "test", "speech")


def test_names_of_datasets_are_no_patterns(archive):
    archive("emov/emov[1].test", spoken(1))
    found = archive("emov/emov1.test", spoken(2)).records(
        ["emov[1]"], "test", "speech"
    )
    assert [record.id for record in found] == ["1"]


def test_manifests_as_they_come(archive, tmp_path):
    row = {"sentiment": "neutral", "asr": "cafe\u0301\u2028", "id": 1}
    archive("emov/emov.test", {"id": 1})
    path = tmp_path / "manifest" / "emov" / "emov.test.jsonl"
    lines = (json.dumps(row | {"id": i}, ensure_ascii=False) for i in (1, 2))
    path.write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    found = STSPArchive(tmp_path).records(["emov"], "test", "text")
    assert [record.prompt for record in found] == ["caf\xe9", "caf\xe9"]
    path.write_bytes(b'{"asr": "caf\xe9"}')
    with pytest.raises(ArchiveError, match=r"emov.test.jsonl is not UTF-8"):
        STSPArchive(tmp_path).records(["emov"], "test", "text")


def test_ids_are_unique_over_datasets(archive):
    archive("emov/emov.test", spoken(1))
    found = archive("expresso/expresso_read.test", spoken("1"))
    with pytest.raises(ArchiveError, match="id 1 of emov.test is there 2"):
        found.records(["emov", "expresso_read"], "test", "speech")


def test_missing_files(archive, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder manifest"):
        STSPArchive(tmp_path)
    found = archive("emov/emov.test")
    with pytest.raises(ArchiveError, match="is empty"):
        found.records(["emov"], "test", "speech")
    with pytest.raises(FileNotFoundError, match="no files emov.dev.jsonl"):
        found.records(["emov"], "dev", "speech")
    with pytest.raises(FileNotFoundError, match="s2s.jsonl"):
        found.shots("s2s")


def test_shots_are_balanced_and_depend_on_the_seed(archive):
    found = archive("few_shot/s2t", *shots())
    assert found.draw_shots("s2t", 0, 1) == []
    for count in (3, 6, 9):
        drawn = found.draw_shots("s2t", count, seed=1)
        assert set(Counter(s.sentiment for s in drawn).values()) == {count // 3}
        each = count // 3
        assert [s.sentiment for s in drawn] == [
            s for s in SENTIMENTS for _ in range(each)
        ]
        assert drawn == found.draw_shots("s2t", count, seed=1)
        assert len({shot.id for shot in drawn}) == count
    # One more of each than goes into a number that three does not divide.
    assert len(found.draw_shots("s2t", 4, seed=1)) == 6
    others = {
        tuple(shot.id for shot in found.draw_shots("s2t", 3, seed))
        for seed in range(9)
    }
    assert len(others) > 5
    with pytest.raises(ArchiveError, match="4 negative shots, too few for 15"):
        found.draw_shots("s2t", 15, seed=1)


@pytest.fixture(scope="module")
def prepare():
    pytest.importorskip("espeakng_loader")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RECIPES / "TinySpeech"))
        import tinyspeech_stsp_prepare

        yield tinyspeech_stsp_prepare


def test_halves_keep_the_sentiment(prepare):
    text = "tom was so happy because his dog won a prize"
    assert prepare.halves(text, "positive") == (
        "tom was so happy because",
        "his dog won a prize",
    )
    assert prepare.halves("how awful that tom got sick", "negative") == (
        "how awful that",
        "tom got sick",
    )
    # No second half, or one that is not neutral.
    assert prepare.halves("i love the game at the park", "positive") is None
    assert prepare.halves("the cat is happy", "neutral") is None
    assert prepare.halves("the cat sat down", "neutral") == (
        "the cat",
        "sat down",
    )


def test_texts_of_a_split(prepare):
    rows = list(prepare.texts("test", 30, whole=False))
    assert Counter(row["sentiment"] for row in rows) == dict.fromkeys(
        SENTIMENTS, 10
    )
    for row in rows:
        for sentiment in SENTIMENTS[::2]:
            found = prepare.charged(row["asr"].split(), sentiment)
            assert bool(found) == (sentiment == row["sentiment"])
    assert rows == list(prepare.texts("test", 30, whole=False))


def test_tinyspeech_in_the_layout(prepare, tmp_path, recording):
    corpus = tmp_path / "corpus"
    (corpus / "wav").mkdir(parents=True)
    (corpus / "wav" / "a.wav").write_bytes(Path(recording).read_bytes())
    words = "the old man sat down".split()
    for manifest in ("train", "valid", "test"):
        items = {
            f"{manifest}_{style}": {
                "wav": "{data_root}/wav/a.wav",
                "duration": 2.4,
                "text": " ".join(words),
                "words": [[w, i / 4, i / 4 + 0.2] for i, w in enumerate(words)],
                "kind": "sentence",
                "style": style,
                "speaker": "anna",
                "sentiment": "neutral",
            }
            for style in ("happy", "sad", "neutral")
        }
        (corpus / f"{manifest}.json").write_text(json.dumps(items))
    counts = prepare.prepare_stsp(corpus, tmp_path / "archive")
    assert counts["tinyspeech/tinyspeech_read.test"] == 3
    # Words and voice agree.
    assert counts["few_shot/s2t"] == 1
    archive = STSPArchive(tmp_path / "archive")
    train = archive.records(["tinyspeech_read"], "train", "speech")
    assert train[0].prompt.resolve() == (corpus / "wav" / "a.wav").resolve()
    tested = archive.records(["tinyspeech_read"], "test", "speech")
    assert [r.sentiment for r in tested] == ["positive", "negative", "neutral"]
    assert soundfile.info(tested[0].prompt).duration == pytest.approx(0.45)
    [shot] = archive.shots("s2t")
    assert shot.sentiment == "neutral" and shot.generation == "man sat down"
