"""Tests of ``spiritlm_plugin.dataio.stream.packing`` and ``.mixing``."""

import gc
import json
import logging
import weakref
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.dataio.stream.documents import DocumentMaker
from spiritlm_plugin.dataio.stream.mixing import Mixture
from spiritlm_plugin.dataio.stream.packed_loader import PackedLoader
from spiritlm_plugin.dataio.stream.packing import best_fit, labels_of, pack
from spiritlm_plugin.dataio.stream.reading import Source, SourceReader
from spiritlm_plugin.dataio.units.segments import Text
from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.units import Kind
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes.language_model import new_language_model

SIZE = 64
LENGTHS = st.lists(st.integers(1, 3 * SIZE), min_size=1, max_size=60)


def documents_of(lengths):
    return [np.arange(n) + 1000 * i + 1 for i, n in enumerate(lengths)]


def pack_all(lengths):
    """Return as many rows as the documents can fill."""
    rows = sum(lengths) // SIZE
    generator = np.random.default_rng(0)
    return pack(documents_of(lengths), rows, SIZE, generator)


@given(LENGTHS, st.integers(1, 9))
def test_best_fit_places_each_document_once(lengths, rows):
    places, left = best_fit(lengths, rows, SIZE)
    assert len(places) == rows
    placed = [i for row in places for i in row]
    assert sorted([*placed, *left]) == list(range(len(lengths)))
    filled = [sum(lengths[i] for i in row) for row in places]
    assert all(total <= SIZE for total in filled)
    # What is left would fit into no row.
    assert all(t + lengths[i] > SIZE for i in left for t in filled)


@given(LENGTHS)
def test_rows_are_full_of_documents(lengths):
    ids, positions = pack_all(lengths)
    assert ids.shape == positions.shape == (sum(lengths) // SIZE, SIZE)
    flat, starts = ids.flatten(), np.flatnonzero(positions.flatten() == 0)
    pieces = np.split(flat, starts[1:]) if len(flat) else []
    found = [token for piece in pieces for token in piece.tolist()]
    assert len({*found}) == len(found) == ids.size
    for piece in pieces:  # each is of one document, in its order
        assert (np.diff(piece) == 1).all()
    whole = {(int(p[0]), len(p)) for p in pieces}
    cut = [
        i
        for i, length in enumerate(lengths)
        if (1000 * i + 1, length) not in whole
    ]
    # Documents are cut where they do not fit in, and at the end.
    _, left = best_fit(lengths, sum(lengths) // SIZE, SIZE)
    assert {*cut} <= {*left}


def test_what_does_not_fill_the_rows_is_refused():
    with pytest.raises(ValueError, match="9 tokens do not fill 2 rows of 5"):
        pack(documents_of([4, 5]), 2, 5, np.random.default_rng(0))


@given(LENGTHS)
def test_each_token_predicts_the_next_of_its_document(lengths):
    ids, positions = map(torch.from_numpy, pack_all(lengths))
    labels = labels_of(ids, positions)
    predicted = labels >= 0
    assert int(predicted.sum()) == int((positions[:, 1:] > 0).sum())
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
    documents = torch.randperm(49)[:32].add(1).split([7, 3, 12, 9, 1])
    arrays = [document.numpy() for document in documents]
    packed = pack(arrays, 2, 16, np.random.default_rng(1))
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
        "phonetic_units": generator.integers(0, 20, 10 * words).tolist(),
        "pitch_units": generator.integers(0, 4, 5 * words).tolist(),
        "style_units": generator.integers(0, 3, words).tolist(),
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
    options = {"size": SIZE * 2, "seed": 3} | options
    maker = DocumentMaker((1, 3), (1, 3))
    return Mixture(sources, vocabulary, maker, **options)


def test_a_chunk_depends_on_the_seed_and_its_number(vocabulary, rows):
    one, other = (make_mixture(vocabulary, rows) for _ in range(2))
    other.chunk(5)
    for number in (0, 4):
        for ours, theirs in zip(one.chunk(number), other.chunk(number)):
            assert torch.equal(ours, theirs)
    assert not torch.equal(one.chunk(0)[0][0], one.chunk(3)[0][0])
    third = make_mixture(vocabulary, rows, seed=4)
    assert not torch.equal(one.chunk(0)[0][0], third.chunk(0)[0][0])


def documents_in(chunk):
    ids, positions = (x.flatten() for x in chunk)
    starts = (positions == 0).nonzero().squeeze(1).tolist()
    pieces = ids.tensor_split(starts[1:])
    return [piece.tolist() for piece in pieces if len(piece) > 1]


def kinds_of(vocabulary, chunk):
    """Return the number of tokens of text, of speech, and of both."""
    markers = vocabulary.markers
    counts = Counter()
    for document in documents_in(chunk):
        found = {markers["text"], markers["speech"]} & {*document}
        kind = {markers["text"]: "text", markers["speech"]: "speech"}
        # What is left of a cut document has no marker.
        name = (
            "both"
            if len(found) == 2
            else kind[found.pop()]
            if found
            else "unknown"
        )
        counts[name] += len(document)
    return counts


@pytest.mark.parametrize("blank", [0, 9])
def test_shares_are_kept_whatever_cannot_be_used(vocabulary, rows, blank):
    texts = [{"text": "the mat"}, *[{"text": " "}] * blank] * 20
    wordless = [row | {"words": []} for row in rows for _ in range(blank)]
    sources = {
        "text": Source(texts, "text", 1),
        "words": Source([*rows, *wordless], "words", 2),
        "speech": Source(rows, "speech", 3.5),
    }
    mixture = Mixture(sources, vocabulary, DocumentMaker(), size=256, seed=1)
    wanted = [1 / 6.5, 2 / 6.5, 3.5 / 6.5]
    turns = np.bincount(mixture._turns[:244])  # of a million tokens
    assert turns / 244 == pytest.approx(wanted, abs=0.005)
    kinds = ["text", "both", "speech"]
    for number in range(12):
        counts = kinds_of(vocabulary, mixture.chunk(number))
        # A cut document may be of one kind, or have no marker.
        assert counts[kinds[mixture._turns[number]]] > 0.9 * 4096


def test_each_epoch_reads_all(vocabulary):
    texts = [{"text": f"{'a ' * (i % 7)}{i}"} for i in range(9000)]
    mixture = Mixture(
        {"text": Source(texts, "text")}, vocabulary, DocumentMaker(), 512, 1
    )
    places = mixture._readers[0].places
    for epoch in range(2):
        seen = Counter()
        for number in range(epoch * places.count, (epoch + 1) * places.count):
            for ids in documents_in(mixture.chunk(number)):
                if ids[-1] == vocabulary.eos_id:
                    seen[vocabulary.decode(ids)[0].text] += 1
        # Some are cut where a chunk ends, and some begin two.
        assert len(seen) > 0.97 * len(texts)
        assert seen.total() < 1.03 * len(texts)
    starts = [places[i] for i in range(2 * places.count)]
    assert len({place.offset for place in starts}) == len(starts)


def test_bad_rows_are_named_and_left_out(vocabulary, rows, caplog):
    bad = {
        "backwards": {"words": rows[0]["words"][::-1]},
        "too long": {
            "words": [*rows[0]["words"], {"word": "x", "start": 9, "end": 99}]
        },
        "of another tokenizer": {"phonetic_units": [400] * 60},
    }
    odd = [rows[0] | change | {"utterance": n} for n, change in bad.items()]
    silent = [
        rows[0] | {"utterance": "wordless", "words": []},
        rows[0] | {"utterance": "unitless", "phonetic_units": []},
    ]
    brackets = rows[0] | {"utterance": "brackets", "text": "a [Hu3] [Speech]"}
    brackets["words"] = [word | {"word": "[Hu3]"} for word in rows[0]["words"]]
    corpus = [*rows[:6], *odd, *silent, brackets]
    with caplog.at_level(logging.WARNING):
        mixture = make_mixture(vocabulary, corpus)
        documents = [
            d for i in range(9) for d in documents_in(mixture.chunk(i))
        ]
    for name in bad:
        assert f"{name} (interleaved) is left out" in caplog.text
        assert caplog.text.count(f"{name} (interleaved)") == 1
    message = (
        "2 of 12 utterances (interleaved) are left out: they lack speech units or "
        "words with times"
    )
    assert message in caplog.text
    assert "u0" not in caplog.text and "brackets" not in caplog.text
    segments = [s for d in documents for s in vocabulary.decode(d)]
    written = [s.text for s in segments if isinstance(s, Text)]
    assert any("[Hu3]" in text for text in written)
    assert 403 not in {i for d in documents for i in d}


def test_a_source_of_nothing_but_bad_rows_is_refused(vocabulary, rows):
    backwards = [row | {"words": row["words"][::-1]} for row in rows]
    wordless = [row | {"words": []} for row in rows]
    nameless = [{"txt": "a cat"}]
    for bad in (wordless, backwards, nameless):
        with pytest.raises(ValueError, match="no document can be made of the"):
            make_mixture(vocabulary, bad)


def test_long_texts_are_read_in_parts(vocabulary):
    words = [f"{i:05d}" for i in range(20_000)]
    rows = [{"text": " ".join(words)}, {"text": "a cat"}]
    mixture = Mixture(
        {"text": Source(rows, "text")}, vocabulary, DocumentMaker(), 512, 1
    )
    count = mixture._readers[0].places.count
    seen = {
        int(word)
        for number in range(count)
        for ids in documents_in(mixture.chunk(number))
        for segment in vocabulary.decode(ids)
        for word in segment.text.split()
        if len(word) == 5 and word.isdigit()
    }
    assert len(seen) > 0.95 * len(words)


def make_chapters(rows):
    """Return rows of four chapters, of ten utterances each."""
    return [
        row | {"group": f"c{i // 10}", "position": i % 10, "text": f"n {i}"}
        for i, row in enumerate(rows)
    ]


def test_documents_are_as_long_as_the_context(vocabulary, rows):
    chapters = make_chapters(rows)
    sources = {"text": Source(chapters, "text")}
    maker = DocumentMaker(document_tokens=4096)
    mixture = Mixture(sources, vocabulary, maker, size=4096, seed=1)
    said = [
        vocabulary.decode(ids)[0].text
        for number in range(5)
        for ids in documents_in(mixture.chunk(number))
        if ids[-1] == vocabulary.eos_id
    ]
    numbers = [[*map(int, t.replace("n", " ").split())] for t in said]
    assert any(len(some) == 10 for some in numbers)
    for some in numbers:
        assert some == [*range(some[0], some[0] + len(some))]
        assert some[-1] % 10 == 9  # to the end of its chapter
        assert some[0] // 10 == some[-1] // 10
    short = DocumentMaker(document_tokens=30)
    mixture = Mixture(sources, vocabulary, short, size=4096, seed=1)
    lengths = [len(ids) for ids in documents_in(mixture.chunk(0))]
    assert max(lengths) == 30 and 20 < np.mean(lengths) <= 30


@pytest.mark.parametrize("form", ["speech", "interleaved", "words"])
def test_speech_goes_on_over_utterances(vocabulary, rows, form):
    chapters = make_chapters(rows)
    maker = DocumentMaker((1, 3), (1, 3), document_tokens=2048)
    mixture = Mixture(
        {form: Source(chapters, form)}, vocabulary, maker, size=2048, seed=1
    )
    lengths = [len(ids) for ids in documents_in(mixture.chunk(1))]
    alone = Mixture(
        {form: Source(chapters, form)}, vocabulary, DocumentMaker(), 2048, 1
    )
    others = [len(ids) for ids in documents_in(alone.chunk(1))]
    assert max(lengths) > 4 * max(others)


def test_one_bad_utterance_takes_no_other_with_it(vocabulary, rows, caplog):
    chapters = make_chapters(rows)
    for bad in chapters[4::10]:
        bad["words"] = bad["words"][::-1]
    source = {"interleaved": Source(chapters, "interleaved")}
    maker = DocumentMaker((1, 3), (1, 3), document_tokens=2048)
    with caplog.at_level(logging.WARNING):
        mixture = Mixture(source, vocabulary, maker, size=2048, seed=1)
        lengths = [len(ids) for ids in documents_in(mixture.chunk(0))]
    assert len(lengths) > 8  # they end before the bad ones, and begin behind
    named = {m.split()[0] for m in caplog.messages}
    assert named == {"u4", "u14", "u24", "u34"}


def read_counts(vocabulary, rows, form, documents, size=4096, epochs=20):
    """Return how often each phonetic unit is read in an epoch."""
    reader = SourceReader(
        "s", Source(rows, form), vocabulary, documents, size, 1
    )
    first = vocabulary.speech_tokens()["[Hu0]"]
    counts = np.zeros(vocabulary.unit_count(Kind.PHONETIC))
    for number in range(epochs * reader.places.count):
        pieces = pack(reader.read(number), 1, size, np.random.default_rng(0))[0]
        units = pieces.flatten() - first
        np.add.at(counts, units[(units >= 0) & (units < len(counts))], 1)
    return counts / epochs


@pytest.mark.parametrize("document_tokens", [None, 256, 1024, 4096])
@pytest.mark.parametrize("length", [100, 3000, 10_000])
def test_each_part_of_long_speech_is_read(document_tokens, length):
    count = 30_000 // length
    text = train_text_tokenizer(["a", "cat"], 265)
    vocabulary = Vocabulary.extend(text, count * length)
    rows = [
        {
            "phonetic_units": [*range(i * length, (i + 1) * length)],
            "group": "g",
            "position": i,
        }
        for i in range(count)
    ]
    documents = DocumentMaker(document_tokens=document_tokens)
    counts = read_counts(vocabulary, rows, "speech", documents)
    by_tenth = counts.reshape(count, 10, -1).mean((0, 2))
    assert (abs(by_tenth - 1) < 0.15).all(), by_tenth
    if length > 100:
        assert (counts > 0).all()


@pytest.mark.parametrize("space", [" ", "\n", "\t", ""])
def test_texts_are_parted_at_any_space_or_none(vocabulary, space):
    text = space.join(f"{i:05d}" for i in range(9000))
    source = Source([{"text": text}], "text")
    reader = SourceReader("t", source, vocabulary, DocumentMaker(), 512, 1)
    starts = set()
    for number in range(reader.places.count):
        [document, *_] = reader.read(number)
        assert len(document) <= 512
        starts.add(vocabulary.decode(document)[0].text.split()[0][:10])
    assert len(starts) > 0.9 * reader.places.count


def test_a_chapter_does_not_end_with_its_block(vocabulary):
    rows = [
        {"text": f"n {i}", "group": "g", "position": i} for i in range(2500)
    ]
    documents = DocumentMaker(document_tokens=512)
    reader = SourceReader(
        "t", Source(rows, "text"), vocabulary, documents, 512, 1
    )
    ends = [
        vocabulary.decode(document)[0].text.split()[-1]
        for number in range(reader.places.count)
        for document in reader.read(number)
        if document[-1] == vocabulary.eos_id
    ]
    assert {*ends} == {"2499"}


def test_what_can_be_read_is_found_among_what_cannot(vocabulary):
    rows = [{"text": "the mat"}] * 5 + [{"text": " "}] * 50
    for seed in range(20):
        for maker in (DocumentMaker(), DocumentMaker(document_tokens=512)):
            source = {"text": Source(rows, "text")}
            mixture = Mixture(source, vocabulary, maker, 512, seed)
            assert documents_in(mixture.chunk(0))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"size": 1}, "tokens of a row must be >= 2"),
        ({"shares": (1, 1, 1e-5)}, "less than one of 4096 turns"),
        ({"shares": (1, 1, float("inf"))}, "must be finite"),
    ],
)
def test_settings_of_no_use_are_refused(vocabulary, rows, options, message):
    with pytest.raises(ValueError, match=message):
        make_mixture(vocabulary, rows, **options)


def test_other_rows_a_step_go_on_with_new_chunks(vocabulary, rows, tmp_path):
    mixture = make_mixture(vocabulary, rows)
    loader, _ = read(mixture, 3, steps=3)
    loader.save(tmp_path / "loader")
    other = PackedLoader(mixture, 4, 9)
    other.load(tmp_path / "loader")
    turn = 4 * mixture.chunk_rows
    assert other.end % turn == 0 and 0 <= other.end - loader.end < turn


def test_batches_of_a_step_change_between_epochs_alone(
    vocabulary, rows, tmp_path
):
    mixture = make_mixture(vocabulary, rows)
    _, whole = read(mixture, 8, steps=4)
    loader = PackedLoader(mixture, 12, 4, accumulation=2)
    before = [*islice(loader, 8)]
    loader.save(tmp_path / "loader")
    with pytest.raises(CheckpointError, match="--grad_accumulation_factor 2"):
        PackedLoader(mixture, 12, 4).load(tmp_path / "loader")
    assert not list(loader)  # the epoch is over
    loader.save(tmp_path / "loader")
    other = PackedLoader(mixture, 12, 4)
    other.load(tmp_path / "loader")
    assert torch.equal(ids_of([*before, *other]), ids_of(whole))


def test_attention_across_documents(vocabulary, rows):
    mixture = make_mixture(vocabulary, rows, attend_across=True)
    apart = make_mixture(vocabulary, rows)
    for number in range(3):
        ids, positions = mixture.chunk(number)
        assert torch.equal(ids, apart.chunk(number)[0])
        assert torch.equal(positions[-1], torch.arange(2 * SIZE).int())


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
    assert {*targets} == {12 * (2 * SIZE - 1)}


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


def test_a_process_makes_its_own_chunks_only(vocabulary, rows):
    mixture = make_mixture(vocabulary, rows)
    made = []
    chunk = mixture.chunk
    mixture.chunk = lambda number: made.append(number) or chunk(number)
    steps = mixture.chunk_rows  # while one chunk a row lasts
    for rank in range(4):
        loader = PackedLoader(mixture, 12, steps, rank=rank, world_size=4)
        assert len(list(loader)) == steps
    assert sorted(made) == [*range(12)]


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
