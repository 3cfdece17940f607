#!/usr/bin/env bash
# SpeechBrain's reverberate, which AddReverb augments training data with, convolves
# circularly: echoes of what is near the end of a waveform do not leave it but sound at
# its beginning, before their cause. No error says so.
#
# Versions: speechbrain 1.1.2, torch 2.11.0, torchaudio 2.11.0, Python 3.11; seen on
# 2026-11-28.
# Seen, of a click in 1,000 samples and a response with one echo 200 samples later:
#           click at 300: sound at [300, 500]
#           click at 900: sound at [100, 900]
# Ends with 0 while this is so. Downloads about 3 GB.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    speechbrain==1.1.2 torch==2.11.0 torchaudio==2.11.0 numpy==2.2.6
cd "$folder"
"$python" - <<'PYTHON'
import torch
from speechbrain.processing.signal_processing import reverberate

response = torch.zeros(201)
response[0], response[200] = 1.0, 0.5
found = {}
for place in (300, 900):
    click = torch.zeros(1, 1000)
    click[0, place] = 1.0
    wet = reverberate(click, response, rescale_amp=None)
    assert wet.shape == click.shape, wet.shape
    found[place] = (wet[0].abs() > 0.1).nonzero().flatten().tolist()
    print(f"click at {place}: sound at {found[place]}")
assert found == {300: [300, 500], 900: [100, 900]}, "the behaviour has changed"
PYTHON
