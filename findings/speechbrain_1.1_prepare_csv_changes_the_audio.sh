#!/usr/bin/env bash
# SpeechBrain's prepare_csv, which writes the table of noises that augmentation reads,
# changes the recordings it lists, in place: a stereo file is overwritten with its first
# channel, and with max_length a longer one is deleted for pieces beside it, of which
# none holds what is behind the last whole max_length. Its docstring speaks of cutting,
# not of the originals. Pointed at the only copy of a corpus, it damages that.
#
# Versions: speechbrain 1.1.2, torch 2.11.0, torchaudio 2.11.0, soundfile 0.14.0,
# Python 3.11; seen on 2026-11-28.
# Seen:     stereo.wav: 2 channels before, 1 after
#           long.wav, 3.9 s, max_length=1.0: it exists: False
#           pieces: long_0.wav long_1.wav long_2.wav, 3.0 s together
# Ends with 0 while this is so. Downloads about 3 GB.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    speechbrain==1.1.2 torch==2.11.0 torchaudio==2.11.0 soundfile==0.14.0 \
    numpy==2.2.6
cd "$folder"
"$python" - <<'PYTHON'
import pathlib

import numpy as np
import soundfile
from speechbrain.augment.preparation import prepare_csv

rng = np.random.default_rng(0)
soundfile.write("stereo.wav", rng.uniform(-0.5, 0.5, (16000, 2)), 16000)
soundfile.write("long.wav", rng.uniform(-0.5, 0.5, 62400), 16000)

prepare_csv(["stereo.wav"], "stereo.csv")
channels = soundfile.info("stereo.wav").channels
print("stereo.wav: 2 channels before,", channels, "after")

prepare_csv(["long.wav"], "long.csv", max_length=1.0)
exists = pathlib.Path("long.wav").exists()
pieces = sorted(map(str, pathlib.Path().glob("long_*.wav")))
seconds = sum(soundfile.info(piece).duration for piece in pieces)
print("long.wav, 3.9 s, max_length=1.0: it exists:", exists)
print("pieces:", " ".join(pieces) + ",", seconds, "s together")
assert channels == 1, "the behaviour has changed"
assert not exists and len(pieces) == 3, "the behaviour has changed"
assert seconds == 3.0, "the behaviour has changed"
PYTHON
