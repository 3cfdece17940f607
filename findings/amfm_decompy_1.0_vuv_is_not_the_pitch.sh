#!/usr/bin/env bash
# pYAAPT of AMFM_decompy gives two answers to which frames are voiced: vuv, whether the
# frame's energy is above a threshold, and samp_values, which are above zero where a
# pitch was found. They differ where a voice is quiet, as at the end of a phrase: there
# a pitch is found, rightly, and vuv is false.
#
# Versions: AMFM_decompy 1.0.12.2, numpy 2.2.6, scipy 1.15.3, Python 3.11; seen on
# 2026-11-28.
# Seen, of 297 frames of a voice of three seconds that falls by 20 dB, with pauses:
#           voiced in truth: 70%    vuv: 47%    a pitch: 67%
#           a pitch without vuv: 20%    vuv without a pitch: 0%
# Ends with 0 while a tenth of the frames or more has a pitch without vuv.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    AMFM_decompy==1.0.12.2 numpy==2.2.6 scipy==1.15.3
cd "$folder"
"$python" - <<'PYTHON'
import numpy as np
from amfm_decompy import basic_tools, pYAAPT

rate = 16000
time = np.arange(3 * rate) / rate
f0 = 140 + 40 * np.sin(2 * np.pi * 0.7 * time)
phase = 2 * np.pi * np.cumsum(f0) / rate
harmonics = sum(np.sin(k * phase) / k for k in range(1, 21))
spoken = time % 1 < 0.7
voice = 0.1 * harmonics * spoken * 10 ** (-time / 3)
voice += np.random.default_rng(0).normal(size=time.size) * 1e-4

pitch = pYAAPT.yaapt(basic_tools.SignalObj(voice, rate))
truth = spoken[pitch.frames_pos.astype(int)]
found = pitch.samp_values > 0
extra = found & ~pitch.vuv
missing = pitch.vuv & ~found
print(len(found), "frames")
print(
    f"voiced in truth: {truth.mean():.0%}    vuv: {pitch.vuv.mean():.0%}    "
    f"a pitch: {found.mean():.0%}"
)
print(
    f"a pitch without vuv: {extra.mean():.0%}    "
    f"vuv without a pitch: {missing.mean():.0%}"
)
assert extra.mean() >= 0.1, "the behaviour has changed"
assert truth[extra].mean() > 0.9, "the pitch is found where there is none"
PYTHON
