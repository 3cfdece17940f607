"""How a language model keeps the documents of a packed row apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spiritlm_plugin.dataio.units.vocabulary import SPARE_KIND
from spiritlm_plugin.lobes.language_model import LanguageModel, pad_in_front

# Tokens of the documents that are compared; none has half of all.
_LENGTHS = (9, 4, 12, 1, 7, 11)
# What no rounding explains: so many times what is rounded off, or as a share of
# the spread of logits so many units in the last place.
_SEEN, _UNITS = 30, 256
# What padding changes is more than this share.
_TOO_FAR = 1e-3


@torch.no_grad()
def keep_documents_apart(lm: LanguageModel) -> None:
    """Find out if a model keeps the documents of a row apart by itself.

    Some of their positions alone make attention stay inside documents. Others
    do not look at positions, or carry a state from token to token. What a
    model answers to a packed row is compared with what it answers to each
    document; where that differs, ``lm.apart`` is set, and documents run in
    batches of their own.

    Arguments
    ---------
    lm : LanguageModel
        With weights that are there. In half precision what is seen of other
        documents may pass for rounding, if it is little.

    Raises
    ------
    ValueError
        If an answer depends on what a batch is padded with.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> keep_documents_apart(lm)
    >>> lm.apart
    False
    """
    training = lm.training
    lm.eval()
    lm.apart = False
    try:
        documents = _documents(lm)
        alone = torch.cat([_logits(lm, ids[None])[0] for ids in documents])
        unit = torch.finfo(alone.dtype).eps * float(alone.std())
        noise = _check_padding(lm, documents, alone, _UNITS * unit)
        ids = torch.cat(documents)[None]
        positions = torch.cat([torch.arange(len(ids)) for ids in documents])
        packed = lm(ids, positions=positions[None])[0]
        limit = max(_SEEN * noise, _UNITS * unit)
        lm.apart = bool((packed - alone).abs().max() > limit)
    finally:
        lm.train(training)


def _documents(lm: LanguageModel) -> list[Tensor]:
    """Draw documents of all kinds of tokens that fit into a row."""
    ids = (lm.vocabulary.kinds != SPARE_KIND).nonzero().squeeze(1)
    generator = torch.Generator().manual_seed(0)
    drawn = ids[torch.randint(len(ids), (sum(_LENGTHS),), generator=generator)]
    lengths = torch.tensor(_LENGTHS)
    lengths = lengths[lengths.cumsum(0) <= lm.context]
    documents = drawn[: lengths.sum()].to(lm.device).split(lengths.tolist())
    return list(documents)


def _logits(
    lm: LanguageModel, ids: Tensor, mask: Tensor | None = None
) -> Tensor:
    positions = None if mask is None else (mask.cumsum(1) - 1).clamp(min=0)
    return lm(ids, mask, positions)


def _check_padding(
    lm: LanguageModel,
    documents: list[Tensor],
    alone: Tensor,
    rounding: float,
) -> float:
    """Compare with padding behind and in front; return what is rounded off."""
    behind = _logits(lm, pad_sequence(documents, batch_first=True))
    ids, mask = pad_in_front([d.tolist() for d in documents], 0)
    mask = mask.to(lm.device)
    in_front = _logits(lm, ids.to(lm.device), mask)[mask]
    lengths = [len(ids) for ids in documents]
    behind = torch.cat([row[:n] for row, n in zip(behind, lengths)])
    limit = max(_TOO_FAR * float(alone.std()), rounding)
    noise = 0.0
    for where, found in (("behind", behind), ("in front of", in_front)):
        # Not the largest: an expert may be chosen otherwise by rounding.
        far = float((found - alone).abs().amax(1).median())
        noise = max(noise, far)
        if not far < limit:
            raise ValueError(
                f"what a {lm.model.config.model_type} model answers depends on "
                f"the padding {where} it, so batches would be wrong; choose "
                "another architecture, of which docs/architectures.md names "
                "some"
            )
    return noise
