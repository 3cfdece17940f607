"""Utterances that tests make documents of."""

import torch

from spiritlm_plugin.dataio.stream.utterances import Utterance
from spiritlm_plugin.dataio.units.units import SpeechUnits


def make_utterance(count, seconds_a_word=0.4, expressive=True, **others):
    """Return an utterance in which all phonetic units are different."""
    seconds = count * seconds_a_word
    frames = round(25 * seconds)
    streams = [torch.arange(frames)]
    if expressive:
        streams += [torch.arange(frames // 2), torch.arange(int(seconds) + 1)]
    words = [f"w{i}" for i in range(count)]
    times = [
        (i * seconds_a_word, (i + 0.9) * seconds_a_word) for i in range(count)
    ]
    units = SpeechUnits(*streams)
    return Utterance(units, " ".join(words), words, times, **others)
