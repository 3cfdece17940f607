#!/usr/bin/env bash
# SpeechBrain's recipes change their training audio in compute_forward. With --precision
# bf16 that is under autocast, where SpeedPerturb and DropFreq, which convolve, give
# waveforms of bfloat16, of 8 significant bits: noise that follows the signal, before any
# network has heard it, where the same changes in float32 have none. No warning says so,
# and validation, which changes nothing, hears clean audio.
#
# Versions: speechbrain 1.1.2, torch 2.11.0, torchaudio 2.11.0, Python 3.11; seen on
# 2026-11-29, on a CPU.
# Seen, in Brain.fit, of two tones, against the same change at precision fp32:
#     SpeedPerturb: float32 at fp32, bfloat16 at bf16, noise 50 dB below the signal
#     DropFreq: float32 at fp32, bfloat16 at bf16, noise 46 dB below the signal
# Ends with 0 while both give bfloat16 with noise 30 to 60 dB below. Downloads about 3 GB.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    speechbrain==1.1.2 torch==2.11.0 torchaudio==2.11.0 numpy==2.2.6
cd "$folder"
"$python" - 2>/dev/null <<'PYTHON'
import torch
from speechbrain import Brain
from speechbrain.augment.time_domain import DropFreq, SpeedPerturb

time = torch.arange(32000) / 16000
wav = 0.1 * (2 * torch.pi * 220 * time).sin()
wav = (wav + 0.05 * (2 * torch.pi * 1500 * time).sin())[None]


class Augmenting(Brain):
    def compute_forward(self, batch, stage):
        torch.manual_seed(0)
        self.heard = self.change(batch)
        return self.modules.scale(self.heard.float().mean()[None])

    def compute_objectives(self, predictions, batch, stage):
        return predictions.square().sum()


def heard(change, precision):
    brain = Augmenting(
        {"scale": torch.nn.Linear(1, 1)},
        lambda parameters: torch.optim.SGD(parameters, 0.0),
        run_opts={"precision": precision},
    )
    brain.change = change
    brain.fit([0], [wav], progressbar=False)
    return brain.heard.detach()


kinds = {"SpeedPerturb": SpeedPerturb(16000, [90]), "DropFreq": DropFreq()}
for name, change in kinds.items():
    exact, rounded = heard(change, "fp32"), heard(change, "bf16")
    noise = (rounded.float() - exact).square().mean()
    below = round(float(10 * (exact.square().mean() / noise).log10()))
    types = [str(x.dtype).removeprefix("torch.") for x in (exact, rounded)]
    print(
        f"{name}: {types[0]} at fp32, {types[1]} at bf16, noise {below} dB "
        "below the signal"
    )
    assert types == ["float32", "bfloat16"] and 30 < below < 60, "has changed"
PYTHON
