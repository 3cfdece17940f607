"""Transcribing, reading and classifying behind shots."""

import pytest
import torch

from spiritlm_plugin import Speech, SpeechUnits, SpiritLM, Text
from spiritlm_plugin.dataio.units.segments import Transcript
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.inference.codec import SpeechCodec
from spiritlm_plugin.inference.few_shot import (
    TOO_LONG,
    Classifier,
    Reader,
    Transcriber,
)
from spiritlm_plugin.inference.generation import Generation
from spiritlm_plugin.lobes.language_model import new_language_model
from spiritlm_plugin.training.samples import Sampler

SHOTS = [(SpeechUnits([1, 2]), "the cat"), (SpeechUnits([3]), "the dog")]
STOP = SpeechUnits([7, 8])


@pytest.fixture
def asked(base, monkeypatch):
    """What the model was asked; it gives the answers put into the list."""
    calls, answers = [], []

    def generate(prompts, output, **options):
        calls.append((prompts, output, options))
        return [answers.pop(0) for _ in prompts]

    monkeypatch.setattr(base, "generate", generate, raising=False)
    return calls, answers


@pytest.fixture(scope="module")
def trained(base):
    """A model with the markers of tasks, on a very small scale."""
    torch.manual_seed(0)
    sizes = {
        "model_type": "llama",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
    }
    vocabulary = Vocabulary.extend(base.vocabulary.text, phonetic=501)
    modules = {
        "tokenizer": base.mods.tokenizer,
        "vocoder": base.mods.vocoder,
        "language_model": new_language_model(sizes, vocabulary),
    }
    return SpiritLM(modules, {})


def test_transcripts_from_what_stands_between_flags(base, asked):
    calls, answers = asked
    answers += [
        Generation([Text("<START Transcript> a boat <END> [")], "x"),
        Generation([Text("<START Transcript> a")], "max_new_tokens"),
    ]
    recordings = [SpeechUnits([5]), SpeechUnits([6])]
    assert base.transcribe_batch(recordings, shots=SHOTS) == ["a boat", "a"]
    [(prompts, output, options)] = calls
    assert output == "text" and options["temperature"] == 0
    assert prompts[1][-1].units == SpeechUnits([6])
    assert prompts[0][1].text == "<START Transcript> the cat <END>"


def test_readings_end_at_the_stop(base, asked):
    calls, answers = asked
    answers += [
        Generation([Speech(SpeechUnits([4, 5, 7, 8, 9]))], "max_new_tokens"),
        Generation([Speech(SpeechUnits([7, 8]))], "max_new_tokens"),
        Generation([Speech(SpeechUnits([4, 5]))], "max_new_tokens"),
    ]
    read = Reader(base, SHOTS, STOP)
    cut, empty, full = read(["a", "b", "c"], [1, 2, 3])
    assert [a.complete for a in (cut, empty, full)] == [True, True, False]
    assert cut.generation[0].stream.to_string() == "[Hu4][Hu5]"
    assert empty.generation.wav is None
    assert torch.equal(cut.generation.wav, full.generation.wav)
    assert calls[0][0][0][-1].text == "a 'stop'"


def test_empty_readings_are_padded(base, asked):
    asked[1].extend(
        [
            Generation([Speech(SpeechUnits([4] * 9))], "end_of_sequence"),
            Generation([], "end_of_sequence"),
        ]
    )
    wavs, wav_lens = base.synthesize(["a", "b"], SHOTS, STOP)
    assert wavs.shape[0] == 2 and wav_lens.tolist() == [1, 0]


def test_batches_are_what_items_give_alone(expressive, wavs):
    shots = [(wavs[0], "the cat")]
    options = {"shots": shots, "max_new_tokens": 6}
    together = expressive.transcribe_batch(wavs[:3], **options)
    alone = [expressive.transcribe_batch([w], **options)[0] for w in wavs[:3]]
    assert together == alone
    padded = torch.nn.utils.rnn.pad_sequence(wavs[:3], batch_first=True)
    lens = torch.tensor([len(w) / padded.shape[1] for w in wavs[:3]])
    assert expressive.transcribe_batch(padded, lens, **options) == alone


def test_the_likeliest_label_is_that_of_a_plain_loop(base):
    labels = ["bring shoes", "stop music", "the old man walked"]
    recordings = [SpeechUnits([i, i + 1, 9]) for i in range(4)]
    classify = Classifier(base, SHOTS, labels)
    answers = classify(recordings, [0] * 4)
    for units, answer in zip(recordings, answers):
        prompt = [
            *(Speech(SHOTS[0][0]), Text("A:the cat")),
            *(Speech(SHOTS[1][0]), Text("A:the dog"), Speech(units)),
        ]
        expected = {
            label: float(
                base.log_likelihood([prompt], [[Text(f"A:{label}")]])[0]
            )
            for label in labels
        }
        assert answer.scores == pytest.approx(expected, abs=1e-4)
        assert answer.text == max(expected, key=expected.get)
    found = base.classify(recordings, labels, SHOTS)
    assert found == [answer.text for answer in answers]


def test_models_that_were_trained_need_no_shots(trained, recording):
    assert isinstance(trained.transcribe_file(recording), str)
    assert len(trained.transcribe_batch([recording], max_new_tokens=3)) == 1
    wavs, wav_lens = trained.synthesize(["the cat"], max_new_tokens=20)
    assert wavs.dim() == 2 and len(wav_lens) == 1


def test_transcripts_by_beams(trained):
    recordings = [SpeechUnits([1, 2, 3]), SpeechUnits([4])]
    options = {"max_new_tokens": 8, "num_beams": 3}
    outputs = trained.generate(
        [[Speech(units)] for units in recordings],
        "asr",
        temperature=0,
        **options,
    )
    texts = trained.transcribe_batch(recordings, **options)
    assert texts == [output.text.strip() for output in outputs]


def test_of_several_readings_the_one_that_says_it_most_clearly(
    trained, monkeypatch
):
    texts, seeds = ["the cat", "two boats"], [3, 4]
    options = {"max_new_tokens": 12, "temperature": 1.0}
    read = Reader(trained, candidates=3, **options)
    made = []
    ask = read.ask

    def remember(queries, seeds):
        prompts, generations = ask(queries, seeds)
        made.extend(map(list, generations))
        return prompts, generations

    monkeypatch.setattr(read, "ask", remember)
    best = read(texts, seeds)
    assert len(made) == 6
    for text, answer, readings in zip(texts, best, (made[:3], made[3:])):
        scores = [
            trained.log_likelihood(reading, [Transcript(text)])[0].item()
            if reading
            else float("-inf")
            for reading in readings
        ]
        chosen = readings[scores.index(max(scores))]
        assert [s.stream.to_string() for s in answer.generation] == [
            s.stream.to_string() for s in chosen
        ]
    # The first candidate is the reading that there would be alone.
    alone = Reader(trained, **options)(texts, seeds)
    for answer, first in zip(alone, (made[0], made[3])):
        assert [s.stream.to_string() for s in answer.generation] == [
            s.stream.to_string() for s in first
        ]


@pytest.mark.parametrize("ended", [True, False])
def test_readings_with_an_end_come_first(trained, monkeypatch, ended):
    reason = "end_of_sequence" if ended else "max_new_tokens"
    found = [
        Generation([Speech(SpeechUnits([4, 5]))], "max_new_tokens"),
        Generation([], "end_of_sequence"),
        Generation([Speech(SpeechUnits([6, 7]))], reason),
    ]
    monkeypatch.setattr(
        trained, "generate", lambda *a, **k: found, raising=False
    )
    scores = torch.tensor([-1.0, -9.0])
    monkeypatch.setattr(
        trained, "log_likelihood", lambda *a, **k: (scores, None), raising=False
    )
    [answer] = Reader(trained, candidates=3)(["the cat"], [0])
    assert answer.complete == ended
    best = "[Hu6][Hu7]" if ended else "[Hu4][Hu5]"
    assert answer.generation[0].stream.to_string() == best


def test_a_query_that_is_too_long(trained):
    long = SpeechUnits([1, 2] * 100)
    transcribe = Transcriber(trained, trained=True, max_new_tokens=20)
    short, none = transcribe([SpeechUnits([1]), long], [0, 0])
    assert none.generation.end_reason == TOO_LONG and none.text == ""
    assert short.generation.end_reason != TOO_LONG
    classify = Classifier(trained, SHOTS, ["a", "b"])
    assert classify([long], [0])[0].text == ""
    with pytest.raises(ValueError, match="item 1 is longer than .* context"):
        trained.transcribe_batch([SpeechUnits([1]), long], max_new_tokens=20)


def test_shots_that_do_not_fit_are_dropped(trained):
    shots = [(SpeechUnits([1, 2] * 10), "the cat")] * 4
    transcribe = Transcriber(trained, shots, max_new_tokens=20)
    assert transcribe([SpeechUnits([1])], [0])[0].shots == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda lm: lm.transcribe_batch([STOP]), r"\[ASR\]; give shots"),
        (lambda lm: lm.synthesize(["a"]), r"\[TTS\]; give shots"),
        (lambda lm: lm.synthesize(["a"], SHOTS), "shots and stop"),
        (lambda lm: lm.classify([STOP], [], SHOTS), "no labels"),
        (
            lambda lm: lm.synthesize(["a"], SHOTS, STOP, speaker="nobody"),
            "unknown speaker 'nobody'",
        ),
        (lambda lm: Reader(lm, SHOTS, STOP, candidates=2), r"has no \[ASR\]"),
        (
            lambda lm: Reader(lm, SHOTS, STOP, candidates=0),
            "candidates must be >= 1",
        ),
        (lambda lm: Transcriber(lm, trained=True), r"not trained on \[ASR\]"),
        (
            lambda lm: Transcriber(lm, SHOTS, max_new_tokens=2048),
            "2048 tokens fills the context",
        ),
    ],
)
def test_bad_input(base, call, message):
    with pytest.raises(ValueError, match=message):
        call(base)


def test_a_codec_has_no_tasks():
    assert not hasattr(SpeechCodec, "transcribe_batch")


def test_samples_leave_out_what_leaves_no_room(base, monkeypatch):
    monkeypatch.setattr(
        base.mods.language_model.model.config, "max_position_embeddings", 60
    )
    rows = [
        {"utterance": name, "text": "a cat", "phonetic_units": [*range(count)]}
        for name, count in (("long", 120), ("short", 20))
    ]
    sampler = Sampler(rows, ["speech"], count=2, judged=0)
    assert [s["utterance"] for s in sampler.sample(base)] == ["short"]
