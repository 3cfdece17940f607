"""Stores: their columns, what they are made of, and merging."""

from __future__ import annotations

import json
import logging
import pickle
import shutil

import datasets
import numpy as np
import pyarrow
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spiritlm_plugin.dataio.corpus import merging, shards, stores
from spiritlm_plugin.dataio.corpus.mapping import Listed, map_shards
from spiritlm_plugin.dataio.corpus.merging import merge_shards
from spiritlm_plugin.dataio.corpus.shards import (
    make_row,
    make_table,
    read_row,
    write_shard,
)
from spiritlm_plugin.dataio.corpus.stores import CorpusError, Store, load_corpus
from spiritlm_plugin.dataio.units.units import SpeechUnits

WHOLE = {"parts": {"phonetic": "p", "pitch": "f", "style": "s"}}


def make_items(count):
    return {
        f"u{i}": {
            "wav": f"{{data_root}}/{i}.wav",
            "duration": 1.0,
            "text": "é" * (i % 4),
            "words": [["a", 0.0, 0.5]] * (i % 3),
            "group": f"g{i // 5}",
            "position": i % 5,
        }
        for i in range(count)
    }


def make_units(name):
    draw = np.random.default_rng(int(name[1:])).integers
    # Some are empty, some longer than a window of the tokenizer.
    length = int(draw(0, 40)) * (0 if name.endswith("7") else 1)
    length = 2600 if name == "u3" else length
    return SpeechUnits(
        draw(0, 2, length), draw(0, 2, length // 2), draw(0, 2, length // 25)
    )


class Counted:
    """Work that counts the utterances it gets."""

    def __init__(self, make_units=make_units, fails_at=None):
        self.make_units, self.fails_at, self.seen = make_units, fails_at, 0

    def __call__(self):
        return self.work

    def work(self, items):
        for name, item in items.items():
            if self.seen == self.fails_at:
                raise KeyboardInterrupt
            self.seen += 1
            yield make_row(name, item, self.make_units(name))


def make_store(folder, count=23, seconds=4.0, work=None, **description):
    """Return how many utterances were made."""
    work = work or Counted()
    map_shards(
        Listed(make_items(count)), folder, work, WHOLE | description, seconds
    )
    return work.seen


@pytest.fixture
def folder(tmp_path):
    """A store of six shards, with four utterances each but for the last."""
    assert make_store(tmp_path / "train") == 23
    return tmp_path / "train"


def rows(folder):
    return list(Store(folder).rows.with_format(None))


def files(folder, pattern="*.arrow"):
    return {path.name: path.read_bytes() for path in folder.glob(pattern)}


def test_lengths_are_those_of_documents(folder):
    store, items = Store(folder), make_items(23)
    units = [make_units(name) for name in items]
    expected = {
        "text_bytes": [len(i["text"].encode()) for i in items.values()],
        "word_count": [len(i["words"]) for i in items.values()],
        "phonetic_tokens": [len(u.base().merge()) for u in units],
        "expressive_tokens": [len(u.merge()) for u in units],
    }
    assert list(expected) == list(shards.LENGTHS)
    for name, values in expected.items():
        found = store.lengths(name)
        assert found.dtype == np.int32 and found.tolist() == values
    assert store.durations.tolist() == [1.0] * 23 and store.seconds == 23
    assert len(store) == 23 and min(expected["phonetic_tokens"]) == 0


def test_only_some_streams_have_lengths(tmp_path):
    def phonetic(name):
        return make_units(name).base()

    make_store(tmp_path / "train", work=Counted(phonetic))
    with pytest.raises(CorpusError, match="train has no expressive_tokens"):
        Store(tmp_path / "train").lengths("expressive_tokens")


def test_rows_follow_each_other_in_a_group(folder):
    expected = [i % 5 > 0 for i in range(23)]
    assert Store(folder).follows().tolist() == expected
    assert Store(folder).follows().dtype == bool


@settings(max_examples=20)
@example([("a", 1), ("b", 2), ("b", 3), (None, 4), (None, 5)])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "a", "b"]),
            st.sampled_from([None, 0, 1, 2, 3]),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_what_follows(tmp_path_factory, places):
    folder = tmp_path_factory.mktemp("store")
    items = {
        str(i): {"wav": "a", "duration": 1.0, "group": g, "position": p}
        for i, (g, p) in enumerate(places)
    }
    map_shards(
        Listed(items),
        folder,
        lambda: lambda i: map(make_row, *zip(*i.items())),
        {},
        2,
    )
    expected = [False] + [
        None not in (*one, *other) and one == (other[0], other[1] - 1)
        for one, other in zip(places, places[1:])
    ]
    assert Store(folder).follows().tolist() == expected


def test_entries_come_with_the_places_of_their_recordings(folder):
    items = Store(folder).items(3, 6)
    expected = make_items(6)
    assert list(items) == ["u3", "u4", "u5"]
    assert items["u3"]["wav"] == f"{folder.parent}/3.wav"
    for name, item in items.items():
        wanted = expected[name] | {"wav": item["wav"]}
        if not wanted["words"]:
            del wanted["words"]
        assert item == wanted


plain = st.none() | st.text(
    st.characters(blacklist_categories=["Cs"]), max_size=5
)


@given(
    st.fixed_dictionaries(
        {"wav": st.just("a.wav"), "duration": st.floats(0.1, 9)},
        optional={
            "text": plain,
            "style": plain,
            "group": plain,
            "position": st.none() | st.integers(0, 2**31 - 1),
            "words": st.lists(st.just(["a", 0.0, 0.5]), min_size=1),
            "phones": st.none(),
            "pair": st.integers() | st.lists(st.booleans()),
            "more": st.just("b"),
        },
    )
)
def test_an_entry_is_read_as_it_was_written(item):
    [row] = make_table([make_row("a", item)]).to_pylist()
    known = {k: v for k, v in item.items() if v is not None}
    assert read_row(row) == ("a", known)


def test_another_process_opens_the_same(folder):
    store = pickle.loads(pickle.dumps(Store(folder, {"pitch": "f"})))
    assert list(store.rows.with_format(None)) == rows(folder)


def test_a_store_without_units_is_no_tokenized_corpus(tmp_path):
    write_shard(
        make_table([make_row("a", {"wav": "a", "duration": 1.0})]),
        tmp_path / "shard-00000.arrow",
    )
    description = {"utterances": 1, "shards": 1, "seconds": 1.0}
    (tmp_path / "corpus.json").write_text(json.dumps(description))
    assert len(Store(tmp_path)) == 1
    with pytest.raises(CorpusError, match="without units; tokenize the corpus"):
        load_corpus(tmp_path)
    with pytest.raises(CorpusError, match="another pitch tokenizer"):
        Store(tmp_path, {"pitch": "f"})


def make_old(folder):
    """Bring the shards into the form of earlier versions."""
    new = {"group", "position", "more", *shards.LENGTHS}
    for path in folder.glob("*.arrow"):
        old = datasets.Dataset.from_file(str(path))
        table = old.remove_columns(sorted(new)).with_format("arrow")[:]
        corpus = json.loads(path.with_suffix(".json").read_text())["corpus"]
        write_shard(table, path, corpus=corpus, shard=path.name)


def test_shards_of_earlier_versions_are_read(folder, caplog):
    before = rows(folder)
    make_old(folder)
    with caplog.at_level(logging.INFO):
        found = rows(folder)
    assert caplog.text.count("merging keeps them") == 1
    for one, other in zip(before, found):
        assert other == one | {"group": None, "position": None}
    assert not Store(folder).follows().any()
    assert make_store(folder) == 0
    merge_shards(folder)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert rows(folder) == found
    assert caplog.text == ""


# Merging.


def test_merged_rows_are_the_same(folder):
    before, digest = rows(folder), Store(folder).digest
    merge_shards(folder)
    assert list(files(folder)) == ["merged-00000.arrow"]
    assert rows(folder) == before and Store(folder).digest == digest
    whole = files(folder, "*")
    merge_shards(folder)
    assert files(folder, "*") == whole
    assert make_store(folder) == 0
    assert files(folder, "*") == whole


@settings(max_examples=10)
@given(
    st.integers(1, 30),
    st.integers(1, 9),
    st.lists(st.integers(1, 4000), min_size=1, max_size=3),
    st.integers(1, 5),
)
def test_merging_keeps_rows(tmp_path_factory, count, seconds, sizes, batch):
    folder = tmp_path_factory.mktemp("store")
    make_store(folder, count, float(seconds))
    before = rows(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "ROWS", batch)
        for size in sizes:
            merge_shards(folder, size)
            assert rows(folder) == before
            assert make_store(folder, count, float(seconds)) == 0


def test_batches_are_gathered_and_files_limited(folder, monkeypatch):
    monkeypatch.setattr(merging, "ROWS", 5)
    merge_shards(folder, 6000)
    assert len(files(folder)) > 1
    found = []
    for path in sorted(folder.glob("*.arrow")):
        with pyarrow.memory_map(str(path)) as file:
            batches = list(pyarrow.ipc.open_stream(file))
        found += map(len, batches)
        assert len(batches) == 1 or sum(b.nbytes for b in batches) <= 6000
    assert found == [5, 5, 5, 5, 3]


class Killed(BaseException):
    pass


def count_steps(monkeypatch, stops_at=None):
    """Count what merging does to files, and stop at one of these."""
    steps = []

    def step(function):
        def counted(*arguments, **options):
            if len(steps) == stops_at:
                raise Killed
            steps.append(function)
            return function(*arguments, **options)

        return counted

    for module, name in (
        (shards, "keep_checksum"),
        (shards.pyarrow.ipc, "new_stream"),
        (merging, "write_file"),
        (merging, "write_tables"),
        (stores.Path, "unlink"),
    ):
        monkeypatch.setattr(module, name, step(getattr(module, name)))
    return steps


def test_merging_may_be_killed_at_any_step(folder, tmp_path, monkeypatch):
    before = rows(folder)
    merge_shards(shutil.copytree(folder, tmp_path / "whole"), 3000)
    with monkeypatch.context() as patch:
        steps = count_steps(patch)
        merge_shards(shutil.copytree(folder, tmp_path / "counted"), 3000)
    assert len(steps) > 15
    for stop in range(len(steps)):
        part = shutil.copytree(folder, tmp_path / f"part{stop}")
        with monkeypatch.context() as patch:
            count_steps(patch, stop)
            with pytest.raises(Killed):
                merge_shards(part, 3000)
        assert rows(part) == before
        assert make_store(part) == 0
        merge_shards(part, 3000)
        assert files(part) == files(tmp_path / "whole")
        assert rows(part) == before


def test_a_damaged_merged_file_is_no_reason_to_make_all_anew(folder):
    before = rows(folder)
    merge_shards(folder)
    path = folder / "merged-00000.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    for use in (rows, merge_shards):
        with pytest.raises(CorpusError, match=f"cannot read {path}: .*delete"):
            use(folder, *([500] if use is merge_shards else []))
    with pytest.raises(CorpusError, match=f"cannot read {path}: .*a copy"):
        make_store(folder)
    path.write_bytes(whole)
    assert make_store(folder) == 0
    assert rows(folder) == before


def test_what_a_store_depends_on_is_named(folder):
    for change in ({"precision": "bf16"}, {"aligner": "1f"}):
        [name] = change
        with pytest.raises(CorpusError, match=f"made with other {name} .none"):
            make_store(folder, **change)
    with pytest.raises(CorpusError, match="22 in 6.*or name another folder"):
        make_store(folder, 22)


def test_another_source_with_the_same_rows_makes_no_difference(
    folder, tmp_path
):
    """A store as source, merged or not, gives what its shards gave."""
    made = []
    for name in ("whole", "merged"):
        if name == "merged":
            merge_shards(folder, 3000)
        source = Store(folder)
        map_shards(source, tmp_path / name, Counted(), WHOLE, 7.0)
        made.append(files(tmp_path / name, "*.arrow"))
    assert made[0] == made[1] and len(made[0]) == 4
    work = Counted()
    map_shards(Store(folder), tmp_path / "whole", work, WHOLE, 7.0)
    assert work.seen == 0


# Unions.


def make_union(folder, names, utterances):
    description = {"union": names, "utterances": utterances, "seconds": 1.0}
    folder.mkdir()
    (folder / "corpus.json").write_text(json.dumps(description))


def test_a_union_is_what_its_parts_are(folder, tmp_path):
    make_store(tmp_path / "other", 5)
    make_union(tmp_path / "all", ["other", "train"], 28)
    store = Store(tmp_path / "all")
    assert list(store.rows.with_format(None)) == rows(
        tmp_path / "other"
    ) + rows(folder)
    assert len(store.lengths("text_bytes")) == len(store.follows()) == 28
    digest = store.digest
    merge_shards(folder)
    assert Store(tmp_path / "all").digest == digest
    assert Store(tmp_path / "all", {"pitch": "f"}).digest == digest
    with pytest.raises(CorpusError, match="another pitch tokenizer"):
        Store(tmp_path / "all", {"pitch": "g"})
    with pytest.raises(CorpusError, match="the union of other, train"):
        merge_shards(tmp_path / "all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"union": []}, "says .. of union"),
        ({"union": "train"}, "says 'train' of union"),
        ({"union": ["../train"]}, "says .* of union"),
        ({"union": [3]}, "says .* of union"),
        ({"utterances": 24}, "holds 23 utterances, and its .* of 24"),
        ({"union": ["all"]}, "all is the union of all and others, which is a"),
    ],
)
def test_a_union_that_does_not_fit_is_named(folder, tmp_path, change, message):
    make_union(tmp_path / "all", ["train"], 23)
    path = tmp_path / "all" / "corpus.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CorpusError, match=message):
        Store(tmp_path / "all")
