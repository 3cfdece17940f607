"""Units are said in the voice that they sound like."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.units.segments import Speech
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.inference.generation import Generation, Speaking
from spiritlm_plugin.lobes.speaker_recognizer import SpeakerRecognizer
from spiritlm_plugin.lobes.vocoder import UnitVocoder

ANN, BOB = [[0, 0, 1, 2, 1]], [[5, 6, 6, 7, 5]]


def make(**options):
    torch.manual_seed(0)
    return UnitVocoder(
        phonetic_units=8,
        embedding_dim=4,
        speakers=["ann", "bob", "cat"],
        duration_dim=4,
        default_speaker=2,
        generator={
            "channels": 4,
            "upsample_rates": [10, 64],
            "upsample_kernels": [20, 128],
            "resblock_kernels": [3],
            "resblock_dilations": [[1]],
        },
        **options,
    ).eval()


@pytest.fixture
def vocoder():
    vocoder = make(recognizes_speakers=True)
    units = [torch.tensor(item) for item in ANN + BOB]
    vocoder.learn_speakers(units, ["ann", "bob"])
    return vocoder


def test_who_speaks_is_heard(vocoder):
    assert vocoder.speaker_of(torch.tensor([2, 0, 3])) == 0
    assert vocoder.speaker_of(torch.tensor([7, 7, 5])) == 1
    # Blanks, here 8, are none of anybody's units.
    assert vocoder.speaker_of(torch.tensor([8, 8, 6, 8])) == 1
    assert vocoder.speaker_of(torch.tensor([8, 8])) == 0


def test_without_a_recognizer_it_is_the_default():
    assert make().speaker_of(torch.tensor([7, 7, 5])) == 2


@given(
    units=st.lists(st.integers(0, 7), min_size=1, max_size=9),
    repeats=st.integers(1, 4),
)
def test_how_long_a_unit_lasts_says_nothing(units, repeats):
    recognizer = SpeakerRecognizer(2, 8)
    recognizer.learn([torch.tensor(u) for u in (ANN[0], BOB[0])], [0, 1])
    once = torch.tensor(units)
    assert recognizer(once) == recognizer(once.repeat_interleave(repeats))


def test_items_of_a_batch_have_their_own_voices(vocoder):
    units = [SpeechUnits(item) for item in (*ANN, *BOB, *ANN)]
    told = vocoder.synthesize(units, [0, 1, 1])
    heard = vocoder.synthesize(units, [None, None, 1])
    assert all(map(torch.equal, told, heard))
    assert not torch.equal(heard[0], heard[2])


def test_an_output_keeps_one_voice(vocoder):
    """All of it is heard together, and what it goes on from."""

    class Vocabulary:
        def unit_count(self, kind):
            return 0

    speaking = Speaking(vocoder, Vocabulary())
    much, little = Speech(SpeechUnits(ANN[0] * 3)), Speech(SpeechUnits([5, 6]))

    def speak(prompt, goes_on, voice):
        output = Generation([little, Speech(SpeechUnits([7]))], "")
        speaking.speak([output], [prompt], [goes_on], voice, [0])
        return output.wav

    assert torch.equal(speak([much], True, None), speak([much], True, 0))
    assert torch.equal(speak([much], False, None), speak([much], False, 1))


def test_what_was_learned_is_saved(vocoder):
    other = make(recognizes_speakers=True)
    other.load_state_dict(vocoder.state_dict())
    assert other.speaker_of(torch.tensor([7, 5])) == 1
