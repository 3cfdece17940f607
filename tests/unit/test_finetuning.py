"""Tests of fine-tuning: what is asked, what is learned, and how it is counted."""

import logging
from functools import partial
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from speechbrain import Stage
from torch.nn.functional import cross_entropy

from spiritlm_plugin.dataio.stream.documents import FORMS, JOINED, DocumentMaker
from spiritlm_plugin.dataio.stream.marking import encode_parts
from spiritlm_plugin.dataio.stream.mixing import Mixture
from spiritlm_plugin.dataio.stream.packed_loader import PackedLoader
from spiritlm_plugin.dataio.stream.packing import pack
from spiritlm_plugin.dataio.stream.reading import Source
from spiritlm_plugin.dataio.stream.turns import SIDES, converse
from spiritlm_plugin.dataio.stream.utterances import LABELS, Utterance
from spiritlm_plugin.dataio.units.prompts import (
    asr_query,
    intent_query,
    tts_query,
)
from spiritlm_plugin.dataio.units.segments import Break, Speech, Text
from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.dataio.units.vocabulary import TEXT_KIND, Vocabulary
from spiritlm_plugin.lobes.language_model import (
    load_language_model,
    new_language_model,
)
from spiritlm_plugin.metrics.modalities import ModalityFigures
from spiritlm_plugin.training.finetuning import (
    FinetuningBrain,
    add_task_markers,
    make_finetuned,
    make_start,
)
from tests.unit.utterances import make_utterance

ASKED = [form for form in FORMS if form not in JOINED]
ANSWERS = DocumentMaker(shots=(1, 3), turns=(2, 4), answers_only=True)


@pytest.fixture(scope="module")
def vocabulary():
    words = ["a", "cat", "sat", "on", "the", "mat"]
    return Vocabulary.extend(train_text_tokenizer(words, 270), 20, 4, 3)


@pytest.fixture(scope="module")
def rows():
    """Return utterances of ten conversations of two, with labels and words."""
    generator = np.random.default_rng(0)
    rows = []
    for i in range(60):
        count = int(generator.integers(2, 6))
        rows.append(
            {
                "utterance": f"u{i}",
                "phonetic_units": generator.integers(
                    0, 20, 10 * count
                ).tolist(),
                "pitch_units": generator.integers(0, 4, 5 * count).tolist(),
                "style_units": generator.integers(0, 3, count).tolist(),
                "text": " ".join(["cat"] * count),
                "words": [
                    {"word": "cat", "start": 0.4 * k, "end": 0.4 * k + 0.4}
                    for k in range(count)
                ],
                "group": f"g{i // 6}",
                "position": i % 6,
                **dict.fromkeys(LABELS, "on the mat"),
                "speaker": ("ann", "bob")[i % 2],
            }
        )
    return rows


def make_mixture(vocabulary, rows, shares, maker=ANSWERS, size=256):
    sources = {
        form: Source(rows, form, share) for form, share in shares.items()
    }
    return Mixture(sources, vocabulary, maker, size=size, seed=3)


def make_lm(vocabulary):
    torch.manual_seed(0)
    config = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    return new_language_model(config, vocabulary)


def asked_and_learned(vocabulary, form, utterances, maker=ANSWERS):
    """Return the ids in front of the first answer, and those that are learned."""
    parts = maker.parts(form, utterances, Random(0))
    ids, end = encode_parts(vocabulary, parts)
    ids = [*ids, end]
    first = next(i for i, index in enumerate(ids) if index >= 0)
    return [~index for index in ids[:first]], [i for i in ids if i >= 0]


def test_what_is_learned_is_what_the_tasks_ask():
    text = train_text_tokenizer(["w0", "w1", "w2", "A:", "loud"], 270)
    vocabulary = Vocabulary.extend(text, 80, 40, 9)
    one = make_utterance(3, labels={"style": "loud", "speaker": "ann"})
    two = make_utterance(2, labels={"speaker": "bob"})
    speech, end = Speech(one.units), vocabulary.eos_id
    said = [*vocabulary.encode_text("w0 w1 w2"), end]
    ask = partial(asked_and_learned, vocabulary)
    assert ask("asr", [one]) == (
        vocabulary.encode(asr_query(speech), "asr"),
        said,
    )
    query = vocabulary.encode(tts_query("w0 w1 w2", trained=True), "tts")
    units = vocabulary.encode_speech(one.units.merge())
    assert ask("tts", [one]) == (query, [*units, end])
    question, label = ask("style_of_speech", [one])
    assert [*question, *label[:-1]] == vocabulary.encode(
        [speech, Text("A:loud")]
    )
    assert question == vocabulary.encode([speech], "text")
    assert vocabulary.encode(intent_query(speech))[: len(question)] == question
    question, label = ask("style_of_text", [one])
    assert question == vocabulary.encode([Text("w0 w1 w2"), Break()], "text")
    answers = {
        "text": [*vocabulary.encode_text("w0 w1"), end],
        "speech": [*vocabulary.encode_speech(two.units.merge()), end],
    }
    turns = {"speech": speech, "text": Text("w0 w1 w2")}
    for form, (side, other) in SIDES.items():
        if side is None:
            continue
        prompt = vocabulary.encode([turns[side], Break()], other)
        assert ask(form, [one, two]) == (prompt, answers[other])


@pytest.mark.parametrize("form", ASKED)
def test_answers_alone_are_learned(vocabulary, rows, form):
    # Where the labels are those of answers alone the ids tell them apart.
    mixture = make_mixture(vocabulary, rows, {form: 1})
    [batch] = PackedLoader(mixture, step_rows=8, steps=1)
    labels = batch.labels[batch.labels >= 0]
    assert len(labels) == batch.own_targets > 0
    assert len(labels) < 0.9 * batch.ids.numel()
    assert int(batch.ids.min()) >= 0
    ends = labels == vocabulary.eos_id
    assert ends.any()
    is_text = vocabulary.kinds[labels[~ends]] == TEXT_KIND
    spoken = form.startswith("tts") or form == "turns_s2s"
    # Both of these sides are learned, as nobody is named the assistant.
    if form not in ("turns_mixed", "turns_s2t", "turns_t2s"):
        assert bool(is_text.all()) != spoken and bool(is_text.any()) != spoken
    # No marker is learned: who asks for an answer gives it.
    assert not {*vocabulary.markers.values()} & {*labels.tolist()}


def test_what_asks_nothing_is_learned_whole(vocabulary, rows):
    for form in JOINED:
        for maker in (ANSWERS, DocumentMaker()):
            mixture = make_mixture(vocabulary, rows, {form: 1}, maker)
            ids, _ = mixture.chunk(0)
            assert int(ids.min()) >= 0
    mixture = make_mixture(vocabulary, rows, {"asr": 1}, DocumentMaker())
    assert int(mixture.chunk(0)[0].min()) >= 0


def test_the_rest_of_an_answer_is_not_learned():
    question, answer = [~1, ~2, ~3], [4, 5, 6, 7, 8]
    documents = [np.array([*question, *answer], np.int32)] * 2
    ids, positions = pack(documents, 3, 5, np.random.default_rng(0))
    learned = ids >= 0
    assert learned.any()
    for row, places, marks in zip(ids, positions, learned):
        starts = np.flatnonzero(places == 0)
        for piece, mark in zip(
            np.split(row, starts[1:]), np.split(marks, starts[1:])
        ):
            if mark.any():
                assert piece[0] == ~1  # with its question
    whole = [np.arange(1, 9, dtype=np.int32)] * 2
    ids, _ = pack(whole, 3, 5, np.random.default_rng(0))
    assert (ids > 0).all()


def test_what_does_not_fit_into_a_row_is_named(vocabulary, rows, caplog):
    long = {"utterance": "long", "phonetic_units": [1, 2] * 60}
    corpus = [*rows[:20], rows[0] | long]
    with caplog.at_level(logging.WARNING):
        mixture = make_mixture(vocabulary, corpus, {"asr": 1}, size=128)
        mixture.chunk(0)
    assert "long (asr) is left out: its 1" in caplog.text
    assert "raise row_tokens" in caplog.text
    with pytest.raises(ValueError, match="no document can be made"):
        make_mixture(vocabulary, corpus, {"asr": 1}, size=16)


def turns_of(form="turns_t2t", assistant=None, speakers="abab"):
    utterances = [
        Utterance(SpeechUnits([i, i + 1]), f"t{i}", labels={"speaker": speaker})
        for i, speaker in enumerate(speakers)
    ]
    return converse(form, utterances, assistant, Random(0))


def said_in(parts):
    return [
        (part.segments[0].text, part.learned)
        for part in parts
        if isinstance(part.segments[0], Text)
    ]


@pytest.mark.parametrize(
    ("speakers", "assistant", "expected"),
    [
        ("abab", None, [("t0", 0), ("t1", 1), ("t2", 1), ("t3", 1)]),
        ("abab", "b", [("t0", 0), ("t1", 1), ("t2", 0), ("t3", 1)]),
        ("baba", "b", [("t1", 0), ("t2", 1)]),
        ("aabb", None, [("t0 t1", 0), ("t2 t3", 1)]),
        ("aaa", None, [("t0", 0), ("t1", 1), ("t2", 1)]),
        ("aaa", "b", []),
    ],
)
def test_turns(speakers, assistant, expected):
    turns = said_in(turns_of(assistant=assistant, speakers=speakers))
    assert turns == [(text, bool(learned)) for text, learned in expected]


def test_either_side_speaks_or_writes():
    for form, modalities in SIDES.items():
        kinds = [part.segments[0].marker for part in turns_of(form)]
        if None not in modalities:
            assert kinds == [*modalities] * 2
    drawn = {
        tuple(
            part.segments[0].marker
            for part in converse(
                "turns_mixed", [make_utterance(2)] * 2, None, Random(seed)
            )
        )
        for seed in range(20)
    }
    assert len(drawn) == 4


def test_conversations_are_of_one_group_and_fit_into_a_row(vocabulary, rows):
    texts = [row | {"text": f"{i}"} for i, row in enumerate(rows)]
    mixture = make_mixture(vocabulary, texts, {"turns_t2t": 1}, size=1024)
    ids, positions = (x.flatten() for x in mixture.chunk(1))
    ids = torch.where(ids >= 0, ids, ~ids)
    starts = (positions == 0).nonzero().squeeze(1).tolist()
    counts = set()
    for document in ids.tensor_split(starts[1:]):
        if document[-1] != vocabulary.eos_id:
            continue  # it is cut
        turns = (document == vocabulary.markers["text"]).nonzero().flatten()
        if document[0] != vocabulary.text.prompt_start[0]:
            continue  # the rest of one that is cut
        said = [
            int(vocabulary.decode(turn)[0].text)
            for turn in document[turns[0] :].tensor_split(
                (turns[1:] - turns[0]).tolist()
            )
        ]
        assert said == [*range(said[0], said[0] + len(said))]
        assert said[0] // 6 == said[-1] // 6
        counts.add(len(said))
    assert counts == {2, 3, 4}
    with_few = make_mixture(vocabulary, rows, {"turns_s2s": 1}, size=96)
    assert (with_few.chunk(0)[0] >= 0).any()


def test_processes_count_the_answers_of_a_step(vocabulary, rows):
    mixture = make_mixture(vocabulary, rows, {"asr": 1, "speech": 1})
    whole = list(PackedLoader(mixture, step_rows=8, steps=2))
    halves = [
        list(PackedLoader(mixture, 8, 2, 2, rank=rank, world_size=2))
        for rank in range(2)
    ]
    for step, batch in enumerate(whole):
        parts = [half[2 * step : 2 * step + 2] for half in halves]
        for first, second in parts:
            assert first.own_targets == second.own_targets
        assert sum(p[0].own_targets for p in parts) == batch.own_targets
        counted = sum(int((b.labels >= 0).sum()) for p in parts for b in p)
        assert counted == batch.own_targets


class Brain(FinetuningBrain):
    """As it computes, without what trains."""

    def __init__(self, vocabulary, lm):
        self.device = torch.device("cpu")
        self.figures = ModalityFigures(vocabulary, {"text": 2.0})
        self.modules = SimpleNamespace(model=lm)
        self.counts = []

    def record(self, weight=1, **figures):
        self.counts.append(weight)

    def loss(self, batch):
        found = self.compute_forward(batch, Stage.TRAIN)
        return self.compute_objectives(found, batch, Stage.TRAIN)


def test_the_loss_is_that_of_answers_alone_and_documents_alone(
    vocabulary, rows
):
    lm = make_lm(vocabulary)
    mixture = make_mixture(vocabulary, rows, {"asr": 1, "tts": 1}, size=128)
    [batch] = PackedLoader(mixture, step_rows=2, steps=1)
    brain = Brain(vocabulary, lm)
    loss, figures = brain.compute_forward(batch, Stage.TRAIN)
    loss.backward()
    gradient = lm.model.get_input_embeddings().weight.grad.clone()
    lm.zero_grad()
    total = 0
    control = torch.tensor([vocabulary.eos_id, *vocabulary.text.prompt_start])
    ids, labels = batch.ids.flatten(), batch.labels.flatten()
    starts = (batch.positions.flatten() == 0).nonzero().squeeze(1).tolist()
    for document, wanted in zip(
        ids.tensor_split(starts[1:]), labels.tensor_split(starts[1:])
    ):
        is_text = vocabulary.kinds[wanted.clamp(min=0)] == TEXT_KIND
        is_text &= ~torch.isin(wanted, control)
        weights = torch.where(is_text, 2.0, 1.0)
        losses = cross_entropy(
            lm(document[None])[0], wanted, reduction="none", ignore_index=-100
        )
        total = total + (losses * weights).sum()
    total.backward()
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    other = lm.model.get_input_embeddings().weight.grad
    assert torch.allclose(gradient, other, atol=1e-4)
    assert sum(count for count, *_ in figures.values()) == batch.own_targets


def test_the_answers_of_a_step_count_alike(vocabulary, rows):
    lm = make_lm(vocabulary)
    mixture = make_mixture(vocabulary, rows, {"asr": 1, "tts": 1}, size=128)
    brain = Brain(vocabulary, lm)

    def mean_loss(accumulation):
        batches = PackedLoader(mixture, 8, 1, accumulation)
        return np.mean([brain.loss(batch).item() for batch in batches])

    assert mean_loss(1) == pytest.approx(mean_loss(4), rel=1e-5)
    [batch] = PackedLoader(mixture, 8, 1)
    total, _ = brain.compute_forward(batch, Stage.TRAIN)
    expected = total.item() / batch.own_targets
    assert mean_loss(1) == pytest.approx(expected, rel=1e-5)


def test_a_batch_without_answers_has_no_loss(vocabulary):
    lm = make_lm(vocabulary)
    brain = Brain(vocabulary, lm)
    row = [[*range(60, 76)]]
    mixture = SimpleNamespace(
        chunk_rows=1,
        chunk=lambda number: (
            ~torch.tensor(row, dtype=torch.int32),
            torch.arange(16, dtype=torch.int32)[None],
        ),
    )
    [batch] = PackedLoader(mixture, step_rows=1, steps=1)
    assert batch.own_targets == 0 and batch.ids.tolist() == row
    loss = brain.loss(batch)
    loss.backward()
    assert float(loss) == 0 and not brain.counts
    assert not lm.model.get_input_embeddings().weight.grad.any()


def test_released_models_get_the_markers_of_tasks(checkpoints, tmp_path):
    lm = load_language_model(
        checkpoints / "spiritlm_model" / "spirit-lm-expressive-7b"
    )
    old = lm.vocabulary
    ids = torch.tensor([old.encode([Text("the boats")])])
    before = lm(ids)
    add_task_markers(lm)
    assert {"asr", "tts"} <= lm.vocabulary.markers.keys()
    assert old.speech_tokens().items() <= lm.vocabulary.speech_tokens().items()
    lm.save(tmp_path)
    again = load_language_model(tmp_path)
    assert again.vocabulary.speech_tokens() == lm.vocabulary.speech_tokens()
    known = slice(0, old.size)
    assert torch.equal(again(ids)[..., known], before[..., known])
    rows = again.model.get_input_embeddings().weight
    asr, text = (again.vocabulary.markers[name] for name in ("asr", "text"))
    assert torch.equal(rows[asr], rows[text])


def test_a_model_without_a_row_to_spare(vocabulary, checkpoints):
    lm = load_language_model(
        checkpoints / "spiritlm_model" / "spirit-lm-base-7b"
    )
    lm.model.resize_token_embeddings(lm.vocabulary.size + 1)
    with pytest.raises(ValueError, match="none to spare for 2 more"):
        add_task_markers(lm)


def test_a_codec_is_no_start(tmp_path):
    (tmp_path / "hyperparams.yaml").write_text("modules: {}\npretrainer: {}")
    hparams = {"model": str(tmp_path), "hparams_file": "hyperparams.yaml"}
    with pytest.raises(ValueError, match="no language model to be trained on"):
        make_start(hparams)


def test_the_tokenizer_has_to_fit_the_language_model():
    hparams = {"model": "tinyspeech", "hparams_file": "hyperparams_base.yaml"}
    hparams |= {"mode": "asr", "shares": {"asr": {"asr": 1}}}
    start = make_start(hparams)
    units = {"phonetic": 200, "pitch": 64, "style": 24}
    with pytest.raises(ValueError, match="0 style units, and its tokenizer 24"):
        make_finetuned(start, units)
