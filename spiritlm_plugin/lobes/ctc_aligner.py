"""Times of words, by a CTC recognizer that reads along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import forced_align, merge_tokens

from spiritlm_plugin.dataio.units.units import SAMPLE_RATE

Spans = list[tuple[str, float, float]]


class AlignmentError(ValueError):
    """A recording and a transcript that cannot belong together."""


class CTCAligner(nn.Module):
    """Finds the times of words in recordings.

    Source: Nguyen et al., "SpiRit-LM", TACL 2025, section 3.3, where an aligner
    of this kind (MMS) gives the times.

    Arguments
    ---------
    source : str or Path
        A CTC model of transformers that spells, as a folder or by its name on
        the Hub, such as ``facebook/wav2vec2-base-960h``.

    Raises
    ------
    OSError
        If there is no such model.
    """

    def __init__(self, source: str | Path):
        super().__init__()
        self.source = str(source)
        from transformers import (
            AutoFeatureExtractor,
            AutoModelForCTC,
            AutoTokenizer,
        )

        safe = {"trust_remote_code": False}
        self.model = AutoModelForCTC.from_pretrained(source, **safe).eval()
        self.extractor = AutoFeatureExtractor.from_pretrained(source, **safe)
        tokenizer = AutoTokenizer.from_pretrained(source, **safe)
        self.blank = tokenizer.pad_token_id
        separator = tokenizer.convert_tokens_to_ids(
            getattr(tokenizer, "word_delimiter_token", "|")
        )
        self.separator = cast(int, separator)  # several tokens give a list
        special = {self.blank, self.separator, *tokenizer.all_special_ids}
        self.characters = {
            token: index
            for token, index in tokenizer.get_vocab().items()
            if len(token) == 1 and index not in special
        }

    def __reduce__(self) -> tuple[type[CTCAligner], tuple[str]]:
        """Let another process load it: its weight norm cannot be sent."""
        return type(self), (self.source,)

    @torch.inference_mode()
    def forward(
        self, wavs: Sequence[Tensor], texts: Sequence[Sequence[str]]
    ) -> list[Spans | AlignmentError]:
        """Return the words of each recording with their times.

        Arguments
        ---------
        wavs : sequence of Tensor
            16 kHz, each of shape (samples,).
        texts : sequence of sequence of str
            The words of each.

        Returns
        -------
        list
            For each recording ``(word, start, end)`` of each word, seconds;
            or the error that tells why there is none.
        """
        device = self.model.device
        inputs = [
            torch.as_tensor(
                self.extractor(
                    wav.numpy(), sampling_rate=SAMPLE_RATE
                ).input_values[0]
            )
            for wav in wavs
        ]
        lengths = torch.tensor([len(wav) for wav in inputs])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        # Models whose first norm is over time were trained without a mask.
        uses_mask = self.extractor.return_attention_mask
        logits = self.model(
            pad_sequence(inputs, batch_first=True).to(device),
            attention_mask=mask.to(device) if uses_mask else None,
        ).logits
        scores = logits.float().log_softmax(-1).cpu()
        frames = self.model._get_feat_extract_output_lengths(lengths).tolist()
        found: list[Spans | AlignmentError] = []
        for row, count, words in zip(scores, frames, texts):
            seconds = count * self._hop / SAMPLE_RATE
            try:
                found.append(self.align(row[:count], seconds, words))
            except AlignmentError as error:
                found.append(error)
        return found

    @property
    def _hop(self) -> int:
        """Samples from a frame to the next one."""
        return prod(self.model.config.conv_stride)

    def align(
        self, scores: Tensor, seconds: float, words: Sequence[str]
    ) -> Spans:
        """Align words with the scores of a recording; see `align_words`."""
        return align_words(
            scores, seconds, words, self.characters, self.blank, self.separator
        )


def align_words(
    scores: Tensor,
    seconds: float,
    words: Sequence[str],
    characters: Mapping[str, int],
    blank: int = 0,
    separator: int | None = None,
) -> Spans:
    """Align words with a recording.

    Characters that the recognizer does not know are passed over; a word of
    nothing else lies between its neighbours.

    Arguments
    ---------
    scores : Tensor
        Log-probabilities of characters, shape (frames, characters).
    seconds : float
        That the frames last.
    words : sequence of str
        What is said.
    characters : dict of str to int
        What the recognizer knows; upper and lower case stand for each other.
    blank, separator : int
        Of the blank, and of what stands between words.

    Returns
    -------
    list of (str, float, float)
        Each word, its start and its end in seconds.

    Raises
    ------
    AlignmentError
        If the recording is too short for the words, or none of their
        characters is known.

    Example
    -------
    >>> scores = torch.full((5, 3), -9.0)
    >>> scores[[0, 1, 2, 3, 4], [0, 1, 0, 2, 2]] = 0.0
    >>> align_words(scores, 1.0, ["A", "b"], {"a": 1, "b": 2})
    [('A', 0.2, 0.4), ('b', 0.6, 1.0)]
    """
    found = [
        [characters.get(c, characters.get(c.swapcase())) for c in word]
        for word in words
    ]
    spelled = [[c for c in word if c is not None] for word in found]
    targets: list[int] = []
    places: list[range] = []
    for word in spelled:
        if word and targets and separator is not None:
            targets.append(separator)
        places.append(range(len(targets), len(targets) + len(word)))
        targets += word
    if not targets:
        raise AlignmentError("the recognizer knows no character of its words")
    repeats = sum(one == other for one, other in zip(targets, targets[1:]))
    if len(targets) + repeats > len(scores):
        raise AlignmentError(
            f"{len(targets)} characters are too many for its {seconds:.2f} s"
        )
    path, path_scores = forced_align(
        scores[None], torch.tensor([targets]), blank=blank
    )
    tokens = merge_tokens(path[0], path_scores[0].exp(), blank)
    frame = seconds / len(scores)
    spans = [
        (tokens[place[0]].start * frame, tokens[place[-1]].end * frame)
        if len(place)
        else None
        for place in places
    ]
    filled = [
        _between(spans, index, seconds) if span is None else span
        for index, span in enumerate(spans)
    ]
    return [
        (word, round(start, 4), round(end, 4))
        for word, (start, end) in zip(words, filled)
    ]


def _between(
    spans: Sequence[tuple[float, float] | None], index: int, seconds: float
) -> tuple[float, float]:
    """Return what lies between the neighbours of a word."""
    before = [span[1] for span in spans[:index] if span is not None]
    after = [span[0] for span in spans[index + 1 :] if span is not None]
    return (before or [0.0])[-1], (after or [seconds])[0]
