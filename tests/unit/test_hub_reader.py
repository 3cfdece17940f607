"""Hub audio datasets: parquet as it lies there, and what `datasets` loads."""

import io
import json
import logging
import os
from functools import cache
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.corpus.preparation import prepare
from spiritlm_plugin.dataio.corpus.readers import hub_splits
from spiritlm_plugin.dataio.corpus.readers.hub import Columns, read_hub
from spiritlm_plugin.dataio.corpus.readers.hub_splits import (
    Hub,
    ParquetSplit,
    open_hub,
)


@cache
def encode(seed, kind="FLAC"):
    noise = np.random.default_rng(seed).normal(size=3200) * 0.1
    content = io.BytesIO()
    soundfile.write(content, noise, 16000, format=kind)
    return content.getvalue()


def audio(count, path="{}.flac", kind="FLAC"):
    return [
        {"bytes": encode(i, kind), "path": path and path.format(i)}
        for i in range(count)
    ]


def write(path, columns, features=None, rows=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        noted = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": noted})
    pq.write_table(table, path, row_group_size=rows)


def read(folder, split="train", out=None, config=None, **columns):
    hub = open_hub(folder, config)
    return dict(read_hub(hub, split, out, Columns(**columns)))


def content_of(item, out):
    return Path(str(item["wav"]).replace("{data_root}", str(out))).read_bytes()


@pytest.fixture(params=["repository", "a [b] *?"])
def root(request, tmp_path):
    """A folder, also one whose name looks like a pattern."""
    return tmp_path / request.param


# The columns of datasets that people have, and what must come of a row.
SCHEMAS = {
    "LibriSpeech": (
        {
            "text": "TWO BOATS",
            "speaker_id": 19,
            "chapter_id": 198,
            "id": "19-1",
        },
        ("19-1", {"text": "TWO BOATS", "speaker": "19", "chapter_id": 198}),
    ),
    "Expresso": (
        {"text": "Two", "speaker_id": "ex01", "style": "happy", "id": "ex01_1"},
        ("ex01_1", {"text": "Two", "speaker": "ex01", "style": "happy"}),
    ),
    "MLS": (
        {
            "transcript": "zwei",
            "speaker_id": "12",
            "chapter_id": "3",
            "id": "i",
        },
        ("i", {"text": "zwei", "speaker": "12", "chapter_id": "3"}),
    ),
    "MLS English": (
        {"transcript": "two", "speaker_id": "12", "book_id": "3"},
        ("0", {"text": "two", "speaker": "12", "book_id": "3"}),
    ),
    "People's Speech": (
        {"id": "a/b_SLASH_c.flac", "duration_ms": 200, "text": "two"},
        ("a/b_SLASH_c.flac", {"text": "two"}),
    ),
    "VoxPopuli": (
        {
            "audio_id": "2013-1",
            "language": 0,
            "raw_text": "Two.",
            "normalized_text": "two",
            "gender": "male",
            "speaker_id": "7",
            "is_gold_transcript": True,
        },
        ("2013-1", {"text": "two", "speaker": "7", "gender": "male"}),
    ),
    "LibriSpeech with places": (
        {"text": "two", "speaker_id": 84, "chapter_id": 1, "id": "84-1-0003"},
        (
            "84-1-0003",
            {
                "text": "two",
                "speaker": "84",
                "chapter_id": 1,
                "group": "84-1",
                "position": 3,
            },
        ),
    ),
    "with places": (
        {"text": "two", "id": "a", "group": 7, "position": 12},
        ("a", {"text": "two", "group": "7", "position": 12}),
    ),
    "LibriTTS": (
        {
            "text_normalized": "two",
            "text_original": "2",
            "speaker_id": "84",
            "path": "/x/84_1.wav",
            "chapter_id": "1",
            "id": "84_1",
        },
        ("84_1", {"text": "two", "speaker": "84", "chapter_id": "1"}),
    ),
    "Common Voice": (
        {"client_id": "c0ffee", "path": "x.mp3", "sentence": "Two."},
        ("0", {"text": "Two.", "speaker": "c0ffee"}),
    ),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_columns_of_datasets(tmp_path, name):
    columns, (key, entry) = SCHEMAS[name]
    row = {"audio": audio(1), **{c: [v] for c, v in columns.items()}}
    write(tmp_path / "data" / "train-00000-of-00001.parquet", row)
    ((found, item),) = read(tmp_path, out=tmp_path / "out").items()
    wav = item.pop("wav")
    assert (found, item) == (key, entry)
    assert content_of({"wav": wav}, tmp_path / "out") == encode(0)


def test_parquet_to_a_manifest(root, tmp_path, monkeypatch):
    rows = {"audio": audio(5), "text": ["a", "b", "c", "d", "e"]}
    some = {name: values[:3] for name, values in rows.items()}
    rest = {name: values[3:] for name, values in rows.items()}
    data, out = root / "data", tmp_path / "out"
    write(data / "train.clean.100-00000-of-00002.parquet", some, rows=2)
    write(data / "train.clean.100-00001-of-00002.parquet", rest)
    write(data / "validation-00000-of-00001.parquet", rest)
    monkeypatch.chdir(tmp_path)
    hub = open_hub(root.name)
    assert sorted(hub.splits) == ["train.clean.100", "validation"]
    prepare({s: read_hub(hub, s, out) for s in hub.splits}, out)
    items = load_manifest(out / "train.clean.100", needs=["text"])
    assert [(n, i["text"]) for n, i in items.items()] == [
        (str(number), text) for number, text in enumerate("abcde")
    ]
    for number, item in enumerate(items.values()):
        assert Path(item["wav"]).read_bytes() == encode(number)
        assert item["duration"] == 0.2 and item["wav"].endswith(".flac")
    folders = {Path(item["wav"]).parent for item in items.values()}
    assert len(folders) == 3  # row groups
    assert len(load_manifest(out / "validation")) == 2


def test_configurations(tmp_path):
    for number, name in enumerate(["en", "de"]):
        path = tmp_path / name / "train-00000-of-00001.parquet"
        write(path, {"audio": audio(1), "text": [name], "n": [number]})
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n"
        + "".join(
            f"- config_name: {n}\n  data_files:\n  - split: train\n"
            f"    path: {n}/train-*\n"
            for n in ("en", "de")
        )
        + "---\n"
    )
    ((_, item),) = read(tmp_path, config="de").items()
    assert item["text"] == "de"
    with pytest.raises(ValueError, match=r"(?s)Config name.*'en', 'de'"):
        open_hub(tmp_path)
    with pytest.raises(ValueError, match="'fr' not found"):
        open_hub(tmp_path, "fr")


def test_saved_to_disk(root, tmp_path, monkeypatch):
    monkeypatch.setattr(hub_splits, "_GROUP", 2)
    features = datasets.Features(
        {
            "audio": datasets.Audio(),
            "sentence": datasets.Value("string"),
            "emotion": datasets.ClassLabel(names=["calm", "angry"]),
        }
    )
    columns = {
        "audio": audio(3),
        "sentence": ["a", None, "c"],
        "emotion": [0, 1, 1],
    }
    table = pa.table(columns, schema=features.arrow_schema)
    dataset = datasets.Dataset(table)
    whole = datasets.DatasetDict({"dev": dataset.select([2, 0, 1])})
    whole.save_to_disk(str(root))
    out = tmp_path / "out"
    items = read(root, "dev", out)
    assert list(items) == ["2", "0", "1"]
    assert [i.get("text") for i in items.values()] == ["c", "a", None]
    assert [i["emotion"] for i in items.values()] == ["angry", "calm", "angry"]
    for number, item in items.items():
        assert content_of(item, out) == encode(int(number))
    dataset.save_to_disk(str(root / "one"))
    assert list(read(root / "one")) == ["0", "1", "2"]


def test_a_folder_that_datasets_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(
        datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache"
    )
    folder = tmp_path / "lines"
    folder.mkdir()
    (folder / "a.flac").write_bytes(encode(0))
    (folder / "train.jsonl").write_text('{"audio": "a.flac", "text": "one"}\n')
    ((name, item),) = read(folder, out=tmp_path / "out").items()
    assert (name, item) == ("a", {"wav": folder / "a.flac", "text": "one"})


def test_a_folder_that_datasets_cannot_read(tmp_path, monkeypatch):
    monkeypatch.setattr(
        datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache"
    )
    (tmp_path / "train.jsonl").write_text("no json")
    with pytest.raises(ValueError, match="cannot open the dataset .*folder"):
        open_hub(tmp_path)


@pytest.mark.parametrize("kind", ["FLAC", "WAV", "OGG", "MP3", "AIFF"])
def test_the_suffix_is_that_of_the_content(tmp_path, kind):
    path = tmp_path / "train.parquet"
    write(path, {"audio": audio(1, "x.RAW", kind)})
    out = tmp_path / "out"
    item = read(tmp_path, out=out)["x"]
    assert item["wav"].endswith(f".{kind.lower()}")
    assert content_of(item, out) == encode(0, kind)


def test_forms_of_audio(tmp_path, caplog):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0.flac").write_bytes(encode(0))
    samples = np.array([0.5, -0.25, 1 / 3], np.float32)
    array = {"array": samples.tolist(), "sampling_rate": 8000, "path": "a.wav"}
    forms = {
        "bytes": [encode(0)],
        "path": ["data/0.flac"],
        "path_only": [{"bytes": None, "path": "data/0.flac"}],
        "elsewhere": [str(tmp_path / "data" / "0.flac")],
        "no_path": audio(1, path=None),
        "array": [array],
    }
    for form, column in forms.items():
        write(tmp_path / form / "train.parquet", {"sound": column})
        folder = tmp_path / form
        if form.startswith("path"):
            (folder / "data").symlink_to(tmp_path / "data")
        ((name, item),) = read(folder, out=tmp_path, audio="sound").items()
        known = {"array": "a", "bytes": "train-00000000"}
        known["no_path"] = known["bytes"]
        assert name == known.get(form, name)
        found = content_of(item, tmp_path)
        if form == "array":
            read_back, rate = soundfile.read(io.BytesIO(found), dtype="float32")
            assert rate == 8000 and np.array_equal(read_back, samples)
        else:
            assert found == encode(0)
    empty = [{"bytes": None, "path": None}, {"bytes": encode(1), "path": "b"}]
    write(tmp_path / "empty" / "train.parquet", {"audio": empty})
    assert list(read(tmp_path / "empty", out=tmp_path)) == ["train-00000001"]
    assert "train-00000000 is left out: it has no audio" in caplog.text


def test_ids_that_are_alike_are_not_ids(tmp_path):
    columns = {"id": ["x", "x"], "audio": audio(2, "audio.flac")}
    write(tmp_path / "test.parquet", columns)
    out = tmp_path / "out"
    items = read(tmp_path, "test", out)
    assert list(items) == ["test-00000000", "test-00000001"]
    assert [content_of(i, out) for i in items.values()] == [
        encode(0),
        encode(1),
    ]


@settings(max_examples=30)
@given(st.lists(st.text(max_size=80), min_size=1, max_size=6, unique=True))
def test_any_id_is_a_file_of_its_own(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("hub")
    names = [name.encode("utf-8", "ignore").decode() for name in names]
    shard, out = folder / "train.parquet", folder / "a" / "out"
    write(shard, {"audio": audio(len(names)), "id": names})
    hub = Hub(folder, {"train": ParquetSplit([shard])})
    items = dict(read_hub(hub, "train", out, Columns(id="id")))
    contents = [content_of(item, out) for item in items.values()]
    assert contents == [encode(i) for i in range(len(items))]
    assert {path.name for path in folder.iterdir()} == {"a", "train.parquet"}


def test_word_times_and_more_columns(tmp_path, caplog):
    word = {"word": "two", "start": 0.0, "end": 0.1}
    columns = {
        "audio": audio(3),
        "transcript": ["Two", "Two boats", "two"],
        "words": [[word], [word], [{**word, "start": None}]],
        "snr": [1.5, 2.5, None],
    }
    write(tmp_path / "train.parquet", columns)
    items = read(tmp_path, keep=["snr"])
    assert items["0"]["words"] == [("two", 0.0, 0.1)]
    assert items["0"]["snr"] == 1.5 and "snr" not in items["2"]
    assert "words" not in items["1"] and "words" not in items["2"]
    assert "1 has no word times: the words are not those" in caplog.text
    assert "2 has no word times: the word 'two' has no time" in caplog.text


def test_a_run_goes_on_where_it_was(tmp_path, monkeypatch):
    columns = {"audio": audio(4), "text": list("abcd")}
    write(tmp_path / "train.parquet", columns, rows=2)
    out = tmp_path / "out"
    records = read_hub(open_hub(tmp_path), "train", out)
    next(records), next(records), next(records)
    records.close()  # killed while it writes
    written = sorted(out.rglob("*.flac"))
    assert len(written) == 4
    written[3].unlink()
    (written[2].parent / "3.flac.partial").write_bytes(b"half")
    times = {p: p.stat().st_mtime_ns for p in written[:3]}
    asked = []
    groups = ParquetSplit.groups

    def watch(self, columns, column):
        for group in groups(self, columns, column):
            yield group._replace(
                audio=lambda g=group: asked.append(g.name) or g.audio()
            )

    monkeypatch.setattr(ParquetSplit, "groups", watch)
    items = read(tmp_path, out=out)
    assert [content_of(i, out) for i in items.values()] == [
        encode(i) for i in range(4)
    ]
    assert times == {p: p.stat().st_mtime_ns for p in times}
    assert len(asked) == 1 and asked[0].endswith("-00001")

    # Another shard of the same name is another one.
    others = [{**a, "bytes": encode(i)} for i, a in enumerate(audio(4), 4)]
    write(tmp_path / "train.parquet", {**columns, "audio": others})
    os.utime(tmp_path / "train.parquet", ns=(1, 1))
    items = read(tmp_path, out=out)
    assert [content_of(i, out) for i in items.values()] == [
        encode(i) for i in range(4, 8)
    ]


def test_what_a_killed_run_left_is_no_recording(tmp_path):
    columns = {"audio": audio(2), "id": ["x", "x.flac"]}
    write(tmp_path / "train.parquet", columns)
    out = tmp_path / "out"
    wav = read(tmp_path, out=out, id="id")["x.flac"]["wav"]
    path = Path(wav.replace("{data_root}", str(out)))
    path.rename(path.with_name("x.flac.partial")).write_bytes(b"half")
    items = read(tmp_path, out=out, id="id")
    assert content_of(items["x.flac"], out) == encode(1)


def test_a_dry_run_writes_nothing(tmp_path):
    write(tmp_path / "train.parquet", {"audio": audio(2), "text": ["a", "b"]})
    before = sorted(tmp_path.rglob("*"))
    assert [i["text"] for i in read(tmp_path).values()] == ["a", "b"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"sound": audio(1)}, {}, r"no column audio.*sound \(--audio_column\)"),
        ({"audio": audio(1)}, {"text": "said"}, "no column 'said'.*audio"),
        ({"audio": audio(1)}, {"keep": ["said"]}, "no column 'said'"),
        ({"audio": [1]}, {}, "holds int64, which is no audio"),
        ({"audio": [{"a": 1}]}, {}, "no audio: that is bytes"),
    ],
)
def test_columns_that_are_not_there(tmp_path, columns, options, message):
    write(tmp_path / "train.parquet", columns)
    with pytest.raises(ValueError, match=message):
        read(tmp_path, **options)


def test_what_cannot_be_opened(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(FileNotFoundError, match="no folder ./missing"):
        open_hub("./missing")
    write(tmp_path / "train.parquet", {"audio": audio(1)})
    with pytest.raises(ValueError, match="no split 'dev'.*there are train"):
        read(tmp_path, "dev")
    (tmp_path / "train.parquet").write_text("version https://git-lfs...")
    with pytest.raises(ValueError, match=r"train.parquet.*git-lfs: download"):
        open_hub(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="cannot open the dataset"):
        open_hub(tmp_path / "empty")


def test_rows_that_hold_no_samples_are_left_out(tmp_path, caplog):
    arrays = [
        {"array": [0.5, 0.25], "sampling_rate": 16000.0},
        {"array": [0.5], "sampling_rate": None},
        {"array": [0.5], "sampling_rate": 0.0},
    ]
    table = pa.table({"audio": arrays, "id": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "train.parquet")
    records = dict(read_hub(open_hub(tmp_path), "train", tmp_path / "out"))
    assert list(records) == ["a"]
    path = records["a"]["wav"].replace("{data_root}", str(tmp_path / "out"))
    assert soundfile.read(path)[0].tolist() == [0.5, 0.25]
    assert "b: its sampling_rate is None" in caplog.text
    assert "c: its sampling_rate is 0.0" in caplog.text


def test_numbers_of_styles_are_names(tmp_path):
    audio = [{"bytes": b"x", "path": "a.wav"}, {"bytes": b"y", "path": "b.wav"}]
    columns = {"audio": audio, "style": [1.0, float("nan")]}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    records = dict(read_hub(open_hub(tmp_path), "train", None))
    assert records["a"]["style"] == "1.0" and "style" not in records["b"]
