"""What the training of a vocoder goes on from."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from spiritlm_plugin.dataio.checkpoints import load_state
from spiritlm_plugin.integrations.parts import read_parts
from spiritlm_plugin.lobes.vocoder import INPUTS, UnitVocoder

_EMBEDDING = "embeddings.{}.weight"
_INPUT = "generator.input.parametrizations.weight.original{}"
_BIAS = "generator.input.bias"


def load_pretrained(folder: str | Path, vocoder: UnitVocoder) -> None:
    """Give a vocoder the weights of a trained one, which may lack parts.

    Speakers keep what was learned of them, whatever their numbers; new ones
    begin as the mean of all that were known. Of other streams than the trained
    one has, as where Expressive goes on from Base, the sound does not depend at
    first; of those that only it has the mean stays.

    Arguments
    ---------
    folder : path
        Of a vocoder's part.
    vocoder : UnitVocoder
        Of the same shape but for its streams, speakers and dilated frames.

    Raises
    ------
    ValueError
        If another shape differs; names the weight.
    """
    parts = read_parts(vocoder=folder)
    state = dict(parts.states["vocoder"])
    speakers = _EMBEDDING.format("speaker")
    if speakers in state and vocoder.speakers:
        known = dict(
            zip(parts.arguments["vocoder"]["speakers"], state[speakers])
        )
        mean = state[speakers].mean(0)
        rows = [known.get(name, mean) for name in vocoder.speakers]
        state[speakers] = torch.stack(rows)
    _read_other_streams(state, vocoder)
    for name, weight in vocoder.state_dict().items():
        if name.startswith("speaker_recognizer."):
            state[name] = weight  # learned anew at the end
        elif name.startswith("generator.frames."):
            state.setdefault(name, weight)
    load_state(vocoder, state, f"{folder} (vocoder)")


def _read_other_streams(state: dict[str, Tensor], vocoder: UnitVocoder) -> None:
    """Change the generator's input to the channels of the vocoder's streams."""
    before = [name for name in INPUTS if _EMBEDDING.format(name) in state]
    after = list(vocoder.embeddings)
    if before == after:
        return
    norm, direction = (state[_INPUT.format(place)].float() for place in (0, 1))
    kernel = direction * (norm / torch.norm_except_dim(direction, 2, 0))
    blocks = dict(zip(before, kernel.chunk(len(before), 1)))
    for name in before:
        if name not in after:
            mean = state.pop(_EMBEDDING.format(name)).float().mean(0)
            taps = blocks[name].flatten(2).sum(2)
            state[_BIAS] = state[_BIAS] + taps @ mean
    silent = torch.zeros_like(blocks["phonetic"])
    kernel = torch.cat([blocks.get(name, silent) for name in after], 1)
    state[_INPUT.format(1)] = kernel
    state[_INPUT.format(0)] = torch.norm_except_dim(kernel, 2, 0)
    for name in set(after) - set(before):
        new = vocoder.embeddings[name].get_parameter("weight")
        state[_EMBEDDING.format(name)] = new.detach().clone()
