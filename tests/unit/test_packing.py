"""Tests of ``spiritlm_plugin.dataio.stream.packing`` and ``.mixing``."""

import gc
import json
import logging
import weakref
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.stream.documents import DocumentMaker
from spiritlm_plugin.dataio.stream.mixing import Mixture, Source
from spiritlm_plugin.dataio.stream.packed_loader import PackedLoader
from spiritlm_plugin.dataio.stream.packing import best_fit, labels_of, pack
from spiritlm_plugin.dataio.units.segments import Text
from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes.language_model import new_language_model

SIZE = 64
LENGTHS = st.lists(st.integers(1, SIZE), max_size=60)


@given(LENGTHS)
def test_best_fit_places_each_document_once(lengths):
    rows = best_fit(lengths, SIZE)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    filled = [sum(lengths[i] for i in row) for row in rows]
    assert all(0 < total <= SIZE for total in filled)
    # No two rows would fit into one: at most one is less than half full.
    assert sum(total <= SIZE / 2 for total in filled) <= 1


def documents_of(lengths):
    return [np.arange(n) + 1000 * i + 1 for i, n in enumerate(lengths)]


@given(st.lists(st.integers(1, 3 * SIZE), min_size=1, max_size=30))
def test_packing_keeps_documents_whole(lengths):
    documents = documents_of(lengths)
    generator = np.random.default_rng(0)
    ids, positions = pack(documents, SIZE, 0, generator)
    assert ids.shape == positions.shape and ids.shape[1] == SIZE
    found = {}
    for row, places in zip(ids, positions):
        starts = np.flatnonzero(places == 0)
        for piece in np.split(row, starts[1:]):
            if piece[0]:
                found[int(piece[0])] = piece
    pieces = [
        piece
        for ids in documents
        for piece in np.split(ids, range(SIZE, len(ids), SIZE))
        if len(piece)
    ]
    assert sorted(found) == sorted(int(piece[0]) for piece in pieces)
    for piece in pieces:
        assert found[int(piece[0])].tolist() == piece.tolist()


def test_little_is_padding():
    lengths = np.random.default_rng(0).integers(5, 60, 2000)
    ids, _ = pack(documents_of(lengths), 512, 0, np.random.default_rng(0))
    assert (ids != 0).mean() > 0.99


@given(LENGTHS.filter(bool))
def test_each_token_predicts_the_next_of_its_document(lengths):
    generator = np.random.default_rng(0)
    packed = pack(documents_of(lengths), SIZE, 0, generator)
    ids, positions = map(torch.from_numpy, packed)
    labels = labels_of(ids, positions)
    predicted = labels >= 0
    assert int(predicted.sum()) == sum(lengths) - len(lengths)
    assert torch.equal(labels[predicted], ids[predicted] + 1)


@pytest.mark.parametrize("training", [True, False])
def test_documents_in_a_row_do_not_see_each_other(vocabulary, training):
    torch.manual_seed(0)
    config = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    model = new_language_model(config, vocabulary).train(training)
    documents = torch.randperm(49)[:23].add(1).split([7, 3, 12, 1])
    packed = pack(documents, 16, 0, np.random.default_rng(1))
    ids, positions = (torch.from_numpy(x).long() for x in packed)
    with torch.no_grad():
        logits = model(ids, positions=positions)
        for document in documents:
            row, at = (ids == document[0]).nonzero()[0].tolist()
            ours = logits[row, at : at + len(document)]
            assert torch.allclose(ours, model(document[None])[0], atol=1e-5)


@pytest.fixture(scope="module")
def vocabulary():
    words = ["a", "cat", "sat", "on", "the", "mat"]
    return Vocabulary.extend(train_text_tokenizer(words, 270), 20, 4, 3)


def make_row(index, generator):
    """Return a row as of a tokenized corpus."""
    words = generator.integers(3, 9)
    times = np.arange(words + 1) * 0.4
    return {
        "utterance": f"u{index}",
        "phonetic_units": torch.from_numpy(
            generator.integers(0, 20, 10 * words)
        ),
        "pitch_units": torch.from_numpy(generator.integers(0, 4, 5 * words)),
        "style_units": torch.from_numpy(generator.integers(0, 3, words)),
        "text": " ".join(["cat"] * words),
        "words": [
            {"word": "cat", "start": float(start), "end": float(end)}
            for start, end in zip(times, times[1:])
        ],
    }


@pytest.fixture(scope="module")
def rows():
    generator = np.random.default_rng(0)
    return [make_row(i, generator) for i in range(40)]


def make_mixture(vocabulary, rows, shares=(1, 1, 1), **options):
    texts = [{"text": f"the {'a ' * (i % 7)}mat"} for i in range(90)]
    forms = ("text", "speech", "interleaved")
    sources = {
        form: Source(texts if form == "text" else rows, form, share)
        for form, share in zip(forms, shares)
    }
    options = {"size": SIZE * 2, "seed": 3, "chunk_rows": 16} | options
    maker = DocumentMaker((1, 3), (1, 3))
    return Mixture(sources, vocabulary, maker, **options)


def test_a_chunk_depends_on_the_seed_and_its_number(vocabulary, rows):
    one, other = (make_mixture(vocabulary, rows) for _ in range(2))
    other.chunk(5)
    for number in (0, 4):
        for ours, theirs in zip(one.chunk(number), other.chunk(number)):
            assert torch.equal(ours, theirs)
    assert not torch.equal(one.chunk(0)[0][0], one.chunk(1)[0][0])
    third = make_mixture(vocabulary, rows, seed=4)
    assert not torch.equal(one.chunk(0)[0][0], third.chunk(0)[0][0])


def documents_in(chunk):
    ids, positions = (x.flatten() for x in chunk)
    starts = (positions == 0).nonzero().squeeze(1).tolist()
    pieces = ids.tensor_split(starts[1:])
    return [piece.tolist() for piece in pieces if len(piece) > 1]


def test_shares_are_kept_and_each_epoch_reads_all(vocabulary, rows):
    mixture = make_mixture(vocabulary, rows, shares=(1, 2, 1))
    markers, eos = vocabulary.markers, vocabulary.eos_id
    start = len(vocabulary.text.prompt_start)
    tokens, texts = {"text": 0, "speech": 0}, []
    chunks = [mixture.chunk(i) for i in range(12)]
    for document in (d for chunk in chunks for d in documents_in(chunk)):
        assert document[-1] == eos
        both = {markers["text"], markers["speech"]} <= set(document)
        if not both and document[start] == markers["text"]:
            segments = vocabulary.decode(document)
            if segments[0].text.startswith("the"):
                tokens["text"] += len(document)
                texts.append(segments[0].text)
        if not both and document[start] == markers["speech"]:
            tokens["speech"] += len(document)
    total = sum(chunk[0].numel() for chunk in chunks)
    assert tokens["text"] / total == pytest.approx(1 / 4, abs=0.03)
    assert tokens["speech"] / total == pytest.approx(1 / 2, abs=0.12)
    # 90 texts, of seven kinds, in each epoch.
    epoch = texts[: len(texts) // 90 * 90]
    counts = {t: epoch.count(t) / len(epoch) for t in set(epoch)}
    assert len(counts) == 7
    assert all(abs(c - 1 / 7) < 0.03 for c in counts.values())


def test_bad_rows_are_named_and_left_out(vocabulary, rows, caplog):
    bad = {
        "backwards": {"words": rows[0]["words"][::-1]},
        "wordless": {"words": []},
        "too long": {
            "words": [*rows[0]["words"], {"word": "x", "start": 9, "end": 99}]
        },
        "of another tokenizer": {"phonetic_units": torch.tensor([400] * 60)},
        "unitless": {"phonetic_units": torch.tensor([])},
    }
    odd = [rows[0] | change | {"utterance": n} for n, change in bad.items()]
    brackets = rows[0] | {"utterance": "brackets", "text": "a [Hu3] [Speech]"}
    brackets["words"] = [word | {"word": "[Hu3]"} for word in rows[0]["words"]]
    corpus = [*rows[:6], *odd, brackets]
    with caplog.at_level(logging.WARNING):
        mixture = make_mixture(vocabulary, corpus)
        documents = [
            d for i in range(3) for d in documents_in(mixture.chunk(i))
        ]
    for name in bad:
        assert f"{name} (interleaved) is left out" in caplog.text
    assert "u0" not in caplog.text and "brackets" not in caplog.text
    segments = [s for d in documents for s in vocabulary.decode(d)]
    written = [s.text for s in segments if isinstance(s, Text)]
    assert any("[Hu3]" in text for text in written)
    assert 403 not in {i for d in documents for i in d}


def test_a_source_of_nothing_but_bad_rows_is_refused(vocabulary, rows):
    bad = [row | {"words": []} for row in rows]
    with pytest.raises(ValueError, match="no document can be made of the"):
        make_mixture(vocabulary, bad)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([{"text": "a"}], "texts"), "no such form of documents: 'texts'"),
        (([], "text"), "has no rows"),
        (([{"text": "a"}], "text", 0), "share must be positive"),
    ],
)
def test_wrong_sources_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Source(*arguments)


def read(mixture, batches, **options):
    options = {"step_rows": 12, "steps": 5} | options
    loader = PackedLoader(mixture, **options)
    return loader, [b for _ in range(9) for b in loader][:batches]


def ids_of(batches):
    return torch.cat([batch.ids for batch in batches])


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_processes_share_what_one_would_read(
    vocabulary, rows, world_size, accumulation
):
    mixture = make_mixture(vocabulary, rows)
    _, alone = read(mixture, 4)
    options = {"accumulation": accumulation, "world_size": world_size}
    shares = [
        read(mixture, 4 * accumulation, rank=rank, **options)[1]
        for rank in range(world_size)
    ]
    together = [batch for turn in zip(*shares) for batch in turn]
    assert torch.equal(ids_of(together), ids_of(alone))
    targets = [b.step_targets for b in shares[0][::accumulation]]
    assert targets == [b.step_targets for b in alone]
    for batch in alone:
        labels = labels_of(batch.ids, batch.positions)
        assert int((labels >= 0).sum()) == batch.step_targets


@pytest.mark.parametrize("read_before", [1, 4, 5, 7])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_loader_goes_on_where_it_was_saved(
    vocabulary, rows, tmp_path, read_before, world_size
):
    mixture = make_mixture(vocabulary, rows)
    _, whole = read(mixture, 12)
    loader = PackedLoader(mixture, step_rows=12, steps=5)
    before = list(islice((b for _ in range(9) for b in loader), read_before))
    loader.save(tmp_path / "loader")
    after = []
    for rank in range(world_size):
        other = PackedLoader(
            mixture, 12, steps=5, rank=rank, world_size=world_size
        )
        other.load(tmp_path / "loader")
        after.append([b for _ in range(9) for b in other])
    after = [batch for turn in zip(*after) for batch in turn]
    wanted = ids_of(whole)
    assert torch.equal(ids_of([*before, *after])[: len(wanted)], wanted)


def test_epochs_have_as_many_steps_as_asked(vocabulary, rows, tmp_path):
    mixture = make_mixture(vocabulary, rows)
    loader = PackedLoader(mixture, step_rows=4, steps=3, accumulation=2)
    assert len(loader) == 6
    assert [len(list(loader)) for _ in range(3)] == [6, 6, 6]
    state = tmp_path / "loader"
    loader.save(state)
    assert json.loads(state.read_text())["total_steps"] == 18


def test_workers_make_the_same_stream(vocabulary, rows):
    mixture = make_mixture(vocabulary, rows)
    _, alone = read(mixture, 8)
    _, helped = read(mixture, 8, workers=2)
    assert torch.equal(ids_of(alone), ids_of(helped))


def test_workers_end_with_their_loader(vocabulary, rows):
    """Without the garbage collector, in which they would take seconds."""
    mixture = make_mixture(vocabulary, rows)
    gc.disable()
    try:
        loader = PackedLoader(mixture, step_rows=4, steps=1)
        list(loader)
        stream = weakref.ref(loader.iterator)
        del loader
        assert stream() is None
    finally:
        gc.enable()


def test_rows_that_cannot_be_shared_are_refused(vocabulary, rows):
    mixture = make_mixture(vocabulary, rows)
    with pytest.raises(ValueError, match="choose a multiple of 8"):
        PackedLoader(mixture, 12, 5, accumulation=2, world_size=4)
