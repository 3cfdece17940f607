"""The tasks behind shots with an engine that is no network.

It spells: unit 0 is an a, unit 1 a b, and a file sounds as it is called.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typing_extensions import get_protocol_members

from spiritlm_plugin import Speech, SpeechUnits, Text
from spiritlm_plugin.dataio.units.text_tokenizers import SentencePieceText
from spiritlm_plugin.dataio.units.units import Kind
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.inference.continuation import Continuer
from spiritlm_plugin.inference.few_shot import (
    TOO_LONG,
    Classifier,
    Reader,
    Transcriber,
)
from spiritlm_plugin.inference.generation import Generation, speech_of
from spiritlm_plugin.inference.protocols import InterleavedModel
from spiritlm_plugin.utils.seeds import derive_seed

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SAMPLES = 640  # of a unit
SEED = 7
# Of the readings of a text the one that is not read backwards.
CLEAR = derive_seed(SEED, 2)
SHOTS = [("boat.wav", "boat"), ("ship.wav", "ship")]


def spoken(word: str) -> SpeechUnits:
    return SpeechUnits([LETTERS.index(letter) for letter in word])


def spelled(segments) -> str:
    values = speech_of(segments).values.tolist()
    return "".join(LETTERS[unit] for unit in values)


class StandIn:
    """Continues by a rule; it has what `InterleavedModel` asks, and no more."""

    def __init__(self, vocabulary, context=1000):
        self.vocabulary = vocabulary
        self.context = context
        self.voices = []

    def __getattr__(self, name):
        pytest.fail(f"a task reached for {name}")

    def encode_file(self, path):
        return spoken(Path(path).stem)

    def encode_batch(self, wavs, wav_lens=None):
        return list(map(self.encode_file, wavs))

    def with_units(self, batch):
        return [
            [
                s
                if isinstance(s, Text) or s.has_units
                else replace(s, content=self.encode_file(s.content))
                for s in prompt
            ]
            for prompt in batch
        ]

    def generate(
        self,
        prompts,
        output="any",
        max_new_tokens=200,
        temperature=0.8,
        top_p=0.95,
        *,
        seed=None,
        min_speech_units=25,
        vocode=True,
        batch_size=16,
        num_beams=1,
        style=None,
    ):
        assert not vocode
        return [
            Generation(self.answer(p, output, s), "end_of_sequence")
            for p, s in zip(prompts, seed)
        ]

    def answer(self, prompt, output, seed):
        *before, last = prompt
        if output == "asr":
            return [Text(spelled([last]))]
        if output == "any":
            # The label of the shot that sounds the same.
            heard = spelled(before[-1:])
            label = next(
                label.text
                for speech, label in zip(before[::2], before[1::2])
                if spelled([speech]) == heard
            )
            return [Text(label.removeprefix("A:")), Speech(spoken("um"))]
        if output == "text" and isinstance(last, Speech):
            heard = spelled([last])
            return [Text(f"<START Transcript> {heard} <END> and so on")]
        if output == "text":
            return [Text(f"{last.text} again\nnot this")]
        word = last.text.removesuffix(" 'stop'")
        if seed != CLEAR:
            word = word[::-1]
        stop = "stopum" if word != last.text and "stop" in last.text else ""
        return [Speech(spoken(word + stop))]

    def log_likelihood(self, prompts, continuations, batch_size=16):
        sums = [
            -sum(a != b for a, b in zip(spelled(p[-1:]).ljust(9), text))
            for p, [continuation] in zip(prompts, continuations)
            for text in [continuation.text.removeprefix("A:").ljust(9)]
        ]
        return torch.tensor(sums).float(), torch.ones(len(sums)).int()

    def speaker_id(self, speaker):
        return None if speaker is None else ["anna", "ben"].index(speaker)

    def style_units(self, style):
        return None if style is None else {"sad": [1, 2]}[style]

    def speak(
        self,
        generations,
        prompts,
        continued,
        voice,
        seeds,
        max_seconds=None,
        style=None,
    ):
        self.voices.append(voice)
        for generation in generations:
            for i, part in enumerate(generation):
                if isinstance(part, Speech):
                    wav = torch.zeros(SAMPLES * len(part.stream.values))
                    generation[i] = replace(part, wav=wav)


@pytest.fixture(scope="module")
def vocabulary(sentencepiece_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "tokenizer.model"
    path.write_bytes(sentencepiece_model())
    return Vocabulary.extend(SentencePieceText(path), phonetic=len(LETTERS))


@pytest.fixture
def lm(vocabulary):
    return StandIn(vocabulary)


def test_it_has_what_the_protocol_names(lm):
    own = {*vars(StandIn), *vars(lm)} - {"answer", "voices"}
    members = {name for name in own if not name.startswith("_")}
    assert members == get_protocol_members(InterleavedModel)


def test_a_task_that_reached_for_more_would_fail(lm):
    for name in ("mods", "device", "hparams"):
        with pytest.raises(pytest.fail.Exception, match=name):
            getattr(lm, name, None)


@pytest.mark.parametrize("trained", [False, True])
def test_transcriber(lm, trained):
    transcribe = Transcriber(lm, () if trained else SHOTS, trained)
    answers = transcribe(["day.wav", Speech("night.wav")], [1, 2])
    assert [answer.text for answer in answers] == ["day", "night"]
    assert all(answer.complete for answer in answers)
    assert [answer.shots for answer in answers] == [0 if trained else 2] * 2


def test_what_has_no_room_is_not_asked(vocabulary):
    lm = StandIn(vocabulary, context=12)
    transcribe = Transcriber(lm, trained=True, max_new_tokens=4)
    short, long = transcribe(["day.wav", "thunderstorms.wav"], [1, 2])
    assert short.text == "day"
    assert long.text == "" and long.generation.end_reason == TOO_LONG


@pytest.mark.parametrize("stop", [None, "stop.wav"])
def test_reader_keeps_the_candidate_that_says_the_text(lm, stop):
    shots = SHOTS if stop else ()
    for candidates, expected in ((1, "yad"), (2, "yad"), (3, "day")):
        read = Reader(lm, shots, stop, candidates=candidates)
        [answer] = read(["day"], [SEED], "ben")
        assert spelled(answer.generation) == expected
        assert answer.complete and answer.shots == len(shots)
        assert len(answer.generation.wav) == SAMPLES * len("day")
    assert lm.voices == [1, 1, 1]


def test_reader_wants_to_transcribe_its_candidates(vocabulary):
    base = Vocabulary(
        vocabulary.text,
        {name: vocabulary.markers[name] for name in ("text", "speech")},
        {Kind.PHONETIC: vocabulary.encode_speech(spoken(LETTERS).merge())},
    )
    with pytest.raises(ValueError, match=r"no \[ASR\]"):
        Reader(StandIn(base), SHOTS, "stop.wav", candidates=2)


def test_classifier_generates(lm):
    shots = [("up.wav", "rise"), ("down.wav", "fall")]
    classify = Classifier(lm, shots)
    answers = classify(["down.wav", "up.wav"], [1, 2])
    assert [answer.text for answer in answers] == ["fall", "rise"]


def test_classifier_chooses_the_likeliest(lm):
    labels = ["boat", "ship", "shop"]
    classify = Classifier(lm, SHOTS, labels)
    answers = classify(["shop.wav", "boat.wav"], [1, 2])
    assert [answer.text for answer in answers] == ["shop", "boat"]
    assert answers[0].scores == {"boat": -4, "ship": -1, "shop": 0}


def test_continuer_in_text(lm):
    shots = [(Text("one"), Text("two"))]
    [shown] = Continuer(lm, shots, "text", 20)([Text("day")], [1])
    assert (shown.text, shown.shots) == ("day again", 1)
    # Without shots a line's end ends nothing.
    [bare] = Continuer(lm, (), "text", 20)([Text("day")], [1])
    assert bare.text == "day again\nnot this"


def test_continuer_in_speech(lm):
    shots = [(Speech("one.wav"), Speech("two.wav"))]
    [answer] = Continuer(lm, shots, "speech", 20)([Text("day")], [CLEAR])
    assert spelled(answer.generation) == "day" and answer.shots == 1
    assert len(answer.generation.wav) == SAMPLES * len("day")
    assert lm.voices == [None]
