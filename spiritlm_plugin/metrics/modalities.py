"""Figures of a language model, modality by modality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from spiritlm_plugin.dataio.units.units import Kind
from spiritlm_plugin.dataio.units.vocabulary import TEXT_KIND, Vocabulary
from spiritlm_plugin.lobes.linear_cross_entropy import (
    cross_entropy,
    linear_cross_entropy,
)

_NAMES = ("text", "phonetic", "pitch", "style", "control")
_CONTROL = _NAMES.index("control")


class ModalityFigures:
    """Loss and accuracy for tokens of text and of each kind of speech unit.

    Markers and the end of a document count as ``control``.

    Arguments
    ---------
    vocabulary : Vocabulary
        Tells what a token is.
    weights : dict of str to float, optional
        Of the modalities' tokens in the loss; 1 where none is given.

    Raises
    ------
    ValueError
        If a weight is of no modality.

    Example
    -------
    >>> vocabulary = Vocabulary.extend(example_text_tokenizer(), phonetic=4)
    >>> figures = ModalityFigures(vocabulary)
    >>> labels = torch.tensor([[5, vocabulary.eos_id, -100]])
    >>> logits = torch.zeros(1, 3, len(vocabulary))
    >>> loss, found = figures(logits, None, None, labels)
    >>> {name: count for name, (count, *_) in found.items()}
    {'text': 1, 'control': 1}
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        weights: Mapping[str, float] | None = None,
    ):
        unknown = sorted(set(weights or ()) - set(_NAMES))
        if unknown:
            raise ValueError(
                f"no such modality: {', '.join(unknown)}; weights of the loss "
                f"are of {', '.join(_NAMES)}"
            )
        kinds = vocabulary.kinds
        groups = torch.full_like(kinds, _CONTROL)
        groups[kinds == TEXT_KIND] = _NAMES.index("text")
        for kind in Kind:
            groups[kinds == int(kind)] = _NAMES.index(kind.name.lower())
        groups[[vocabulary.eos_id, *vocabulary.text.prompt_start]] = _CONTROL
        self._groups = groups
        self._weights = torch.tensor(
            [(weights or {}).get(name, 1.0) for name in _NAMES]
        )

    def __call__(
        self,
        hidden: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        labels: Tensor,
    ) -> tuple[Tensor, dict[str, tuple[int, float, float]]]:
        """Return the loss, and what it is made of.

        Arguments
        ---------
        hidden : Tensor
            Last hidden states, shape (batch, tokens, width); or without a
            weight logits, shape (batch, tokens, rows).
        weight, bias : Tensor, optional
            Of the projection to logits, shapes (rows, width) and (rows,).
        labels : Tensor
            What follows each token, -100 where nothing is predicted, shape
            (batch, tokens).

        Returns
        -------
        loss : Tensor
            Cross-entropy in nats, weighted and summed over all tokens.
        figures : dict
            By modality the number of tokens, their mean loss, without weights,
            and their accuracy.
        """
        # Most tokens are predicted: to pick them out would cost more.
        labels, hidden = labels.flatten(), hidden.flatten(0, -2)
        self._groups = self._groups.to(labels.device)
        self._weights = self._weights.to(labels.device)
        groups = self._groups[labels.clamp(min=0)]
        weights = self._weights[groups]
        scores = (
            cross_entropy(hidden, labels, weights)
            if weight is None
            else linear_cross_entropy(hidden, weight, bias, labels, weights)
        )
        columns = torch.stack([labels >= 0, scores.losses, scores.hits], 1)
        sums = columns.new_zeros(len(_NAMES), 3)
        sums.index_add_(0, groups, columns)
        figures = {
            name: (int(count), loss / count, right / count)
            for name, (count, loss, right) in zip(_NAMES, sums.tolist())
            if count
        }
        return scores.loss, figures

    def unigram_entropy(self, labels: Iterable[Tensor]) -> dict[str, float]:
        """Return the entropy of each modality's tokens, in nats.

        It is the loss of a model that knows how frequent each token is and
        nothing else.

        Arguments
        ---------
        labels : iterable of Tensor
            As above.

        Example
        -------
        >>> vocabulary = Vocabulary.extend(example_text_tokenizer(), 4)
        >>> figures = ModalityFigures(vocabulary)
        >>> entropy = figures.unigram_entropy([torch.tensor([[5, 6, -100]])])
        >>> round(entropy["text"], 3)
        0.693
        """
        groups = self._groups.cpu()
        counts = torch.zeros(len(groups), dtype=torch.float64)
        for batch in labels:
            tokens = batch[batch >= 0].cpu()
            counts += torch.bincount(tokens, minlength=len(groups))
        entropies = {}
        for index, name in enumerate(_NAMES):
            own = counts[groups == index]
            if own.any():
                shares = own[own > 0] / own.sum()
                entropies[name] = float(-(shares * shares.log()).sum())
        return entropies
