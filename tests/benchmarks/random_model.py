"""A Spirit LM with random weights, for measuring speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hyperpyyaml import load_hyperpyyaml
from torch import Tensor, nn

from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.inference import SpiritLM

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"
_LOUDNESS = 0.05


def random_model(
    hparams_file: str | Path,
    recording: Tensor,
    seed: int = 0,
    run_opts: dict[str, Any] | None = None,
) -> SpiritLM:
    """Build a model with random weights that uses many of its units.

    A network fresh from initialization gives nearly the same features for
    all of a recording, so the last layers are scaled on one, as in
    data-dependent initialization (Krähenbühl et al., ICLR 2016).

    Arguments
    ---------
    hparams_file : str or Path
        Such as ``hparams/spiritlm_expressive_tiny.yaml``.
    recording : Tensor
        To scale on; 16 kHz, shape (samples,).
    seed : int
        Of the weights.
    run_opts : dict, optional
        As of `SpiritLM`.
    """
    with torch.random.fork_rng():
        with open(hparams_file, encoding="utf-8") as file:
            hparams = load_hyperpyyaml(file, {"seed": seed})
        modules = hparams["modules"]
        for module in modules.values():
            module.eval()
        with torch.no_grad():
            _spread_units(modules["tokenizer"], recording)
            [units] = modules["tokenizer"]([recording])
            _raise_volume(modules["vocoder"], units)
    return SpiritLM(modules, hparams, run_opts)


def _spread_units(tokenizer: nn.Module, recording: Tensor) -> None:
    """Scale the last layers so that a recording meets many units."""
    wavs, lengths = recording[None], torch.tensor([len(recording)])
    phonetic, pitch, style = (
        tokenizer.phonetic,
        tokenizer.pitch,
        tokenizer.style,
    )
    features, _ = phonetic.encoder(wavs, lengths)
    *hidden, last = phonetic.quantizer.layers
    _standardize(last, nn.Sequential(*hidden)(features))
    features, _ = style.encoder(wavs, lengths)
    _standardize(style.classifier, style.projector(features))
    f0, voiced, frames = pitch.f0(wavs, lengths)
    codes, _ = pitch.quantizer.encode(
        torch.stack([f0 - f0.mean(), voiced], 1), frames
    )
    deviation, mean = torch.std_mean(codes, (0, 2))
    pitch.quantizer.codebook.mul_(deviation).add_(mean)


def _standardize(linear: nn.Linear, x: Tensor) -> None:
    """Bring each output of a layer to zero mean and unit variance."""
    deviation, mean = torch.std_mean(linear(x).flatten(0, 1), 0)
    deviation = deviation.clamp(min=1e-8)
    linear.bias.sub_(mean).div_(deviation)
    linear.weight.div_(deviation[:, None])


def _raise_volume(vocoder: nn.Module, units: SpeechUnits) -> None:
    """Scale the last layer so that a recording's units are audible."""
    output = vocoder.generator.output
    output.bias.zero_()
    [wav] = vocoder.synthesize([units], [vocoder.default_speaker])
    deviation, mean = torch.std_mean(wav.atanh())
    scale = _LOUDNESS / float(deviation)
    output.weight = output.weight * scale
    output.bias.fill_(-float(mean) * scale)
