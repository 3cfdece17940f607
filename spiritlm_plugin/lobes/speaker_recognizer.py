"""Whose voice it is, from the units alone."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class SpeakerRecognizer(nn.Module):
    """Naive Bayes on phonetic units: which voice uses which how often.

    Phonetic units are not free of the speaker, and a vocoder says them most
    clearly in the voice that they come from.

    Arguments
    ---------
    speakers, units : int
        How many there are.

    Example
    -------
    >>> recognizer = SpeakerRecognizer(speakers=2, units=4)
    >>> low, high = torch.tensor([0, 1, 1, 0]), torch.tensor([2, 3, 1, 1])
    >>> recognizer.learn([low, high], speakers=[0, 1])
    >>> recognizer(torch.tensor([3, 1])), recognizer(torch.tensor([0, 1]))
    (1, 0)
    """

    log_probabilities: Tensor

    def __init__(self, speakers: int, units: int):
        super().__init__()
        uniform = torch.full((speakers, units), 1 / units)
        self.register_buffer("log_probabilities", uniform.log())

    def learn(
        self, phonetic: Iterable[Tensor], speakers: Iterable[int]
    ) -> None:
        """Count the units of each speaker, repeats once.

        Arguments
        ---------
        phonetic : iterable of Tensor
            Units of each utterance without blanks, shape (units,).
        speakers : iterable of int
            Who says it.
        """
        count, units = self.log_probabilities.shape
        counts = torch.ones(count, units, dtype=torch.float64)
        for item, speaker in zip(phonetic, speakers):
            runs = item.unique_consecutive()
            counts[speaker] += torch.bincount(runs, minlength=units)
        shares = counts / counts.sum(1, keepdim=True)
        self.log_probabilities.copy_(shares.log())

    def forward(self, phonetic: Tensor) -> int:
        """Return the likeliest speaker of units, the first of nothing."""
        runs = phonetic.unique_consecutive().to(self.log_probabilities.device)
        return int(self.log_probabilities[:, runs].sum(1).argmax())
