#!/usr/bin/env bash
# With the threshold that its documentation recommends, 0.006, FCPE finds a steady pitch of
# about 118 Hz in noise that has none: all of pink noise, nearly all of white noise. Made
# 20 dB softer, the same white noise is unvoiced, so that the decision is one of the level,
# too. Where breath, a fan or a street is loud between words, masks of voiced frames and
# means of F0 that are taken from it are wrong, at a pitch that looks like a speaker's.
#
# Versions: torchfcpe 0.0.4 (the package's own weights), torch 2.11.0, torchaudio 2.11.0,
# Python 3.11; seen on 2026-11-29, on a CPU.
# Seen, of four seconds each, f0_min=80, f0_max=880:
#     white noise, rms 0.1: 96% voiced, median 119 Hz
#     pink noise, rms 0.1: 100% voiced, median 118 Hz
#     white noise, rms 0.01: 0% voiced
#     white noise, rms 0.1, threshold 0.05: 0% voiced
#     a vowel of 120 Hz, rms 0.1: 100% voiced, median 120 Hz
# Ends with 0 while loud noise is mostly voiced between 80 and 150 Hz, and soft noise is
# not. Downloads about 3 GB.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    torchfcpe==0.0.4 torch==2.11.0 torchaudio==2.11.0 numpy==2.2.6
cd "$folder"
"$python" - 2>/dev/null <<'PYTHON'
import numpy as np
import torch
import torchfcpe

RATE, SECONDS = 16000, 4
samples = RATE * SECONDS
model = torchfcpe.spawn_bundled_infer_model("cpu")
random = np.random.default_rng(0)
white = random.normal(size=samples)
slope = np.sqrt(np.arange(samples // 2 + 1) + 1)
pink = np.fft.irfft(np.fft.rfft(random.normal(size=samples)) / slope)
# The harmonics of 120 Hz, weaker by 12 dB an octave.
time = np.arange(samples) / RATE
vowel = sum(np.sin(2 * np.pi * 120 * k * time) / k**2 for k in range(1, 60))


def heard(name, wav, rms, threshold=0.006):
    wav = torch.tensor(wav / wav.std() * rms, dtype=torch.float32)
    f0 = model.infer(
        wav[None, :, None],
        sr=RATE,
        decoder_mode="local_argmax",
        threshold=threshold,
        f0_min=80,
        f0_max=880,
    ).flatten()
    voiced = f0[f0 > 0]
    share = len(voiced) / len(f0)
    pitch = float(voiced.median()) if share > 0.5 else None
    title = f"{name}, rms {rms}"
    title += f", threshold {threshold}" if threshold != 0.006 else ""
    shown = f", median {pitch:.0f} Hz" if pitch else ""
    print(f"{title}: {share:.0%} voiced{shown}")
    return share, pitch


for name, noise in {"white noise": white, "pink noise": pink}.items():
    share, pitch = heard(name, noise, 0.1)
    assert share > 0.8 and 80 < pitch < 150, "has changed"
assert heard("white noise", white, 0.01)[0] < 0.1, "has changed"
assert heard("white noise", white, 0.1, threshold=0.05)[0] < 0.1, "has changed"
share, pitch = heard("a vowel of 120 Hz", vowel, 0.1)
assert share > 0.95 and abs(pitch - 120) < 2, "has changed"
PYTHON
