#!/usr/bin/env bash
# In an Ogg Vorbis file, seeking to a sample of the last page lands 128 samples (8 ms at
# 16 kHz) behind it: what is read is other samples than those of that place when the
# file is read through, and no error says so. The last page may be a second or more of
# audio. Seeking before it is exact. A data loader that crops utterances at random meets
# it near their ends.
#
# Versions: soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.2.6, Linux x86_64, Python 3.11;
# seen on 2026-11-28.
# Seen, in a file of 48,000 samples:
#           seek to 1000: lands at 1000     seek to 47500: lands at 47628
# Ends with 0 while this is so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    soundfile==0.14.0 numpy==2.2.6
"$python" - <<'PYTHON'
import io

import numpy as np
import soundfile

print(soundfile.__version__, soundfile.__libsndfile_version__)
rng = np.random.default_rng(0)
samples = np.clip(np.cumsum(rng.normal(size=48000)) / 200, -0.9, 0.9)
file = io.BytesIO()
soundfile.write(file, samples, 16000, "VORBIS", format="OGG")
file.seek(0)
whole, _ = soundfile.read(file)
assert len(whole) == len(samples)
file.seek(0)
landed = {}
with soundfile.SoundFile(file) as sound:
    for place in (1000, 47500):
        sound.seek(place)
        part = sound.read(200)
        starts = range(len(whole) - len(part) + 1)
        landed[place] = min(
            starts, key=lambda s: abs(whole[s : s + len(part)] - part).max()
        )
        found = whole[landed[place] :][: len(part)]
        assert np.array_equal(found, part), "it is nowhere in the file"
        print(f"seek to {place}: lands at {landed[place]}")
assert landed == {1000: 1000, 47500: 47628}, landed
PYTHON
