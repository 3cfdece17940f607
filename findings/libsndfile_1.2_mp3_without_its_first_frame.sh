#!/usr/bin/env bash
# An MP3 of variable rate that was sent while it was made has no frame in front that
# tells its length (LAME goes back to write it, which a pipe does not allow). libsndfile
# then takes the rate of the first frames for that of all, says a length by it, and
# reads no further: a recording that begins loudly and goes on quietly loses most of
# itself, without an error. All frames are there: with the frame in front all is read.
#
# Versions: soundfile 0.14.0 (libsndfile 1.2.2), numpy 2, Python 3.11; seen on
# 2026-11-29.
# Seen:     80000 samples written; 81216 in the frames behind the first; with it 80000
#           are read, without it 23976
# Ends with 0 while this is so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    "numpy>=2,<3" soundfile==0.14.0
"$python" -W ignore - <<'PYTHON'
import io

import numpy as np
import soundfile

RATE = 16000
loud = np.random.default_rng(0).normal(0, 0.25, RATE)
sound = np.concatenate([loud, np.zeros(3 * RATE), loud / 99])
file = io.BytesIO()
soundfile.write(file, sound, RATE, format="MP3")
content = file.getvalue()
# Of MPEG-2, layer III, in kbit/s by the four bits of a header.
RATES = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]


def frames_of(content):
    found, at = [], 0
    while at + 4 <= len(content) and content[at] == 0xFF:
        padding = content[at + 2] >> 1 & 1
        size = 72 * 1000 * RATES[content[at + 2] >> 4] // RATE + padding
        found.append(content[at : at + size])
        at += size
    return found


first, *rest = frames_of(content)
assert b"Info" in first or b"Xing" in first
samples = 576 * len(rest)
whole, _ = soundfile.read(io.BytesIO(content))
part, _ = soundfile.read(io.BytesIO(b"".join(rest)))
print(len(sound), "samples written;", samples, "in the frames behind the first;",
      "with it", len(whole), "are read, without it", len(part))
assert len(whole) == len(sound) <= samples
assert len(part) < 0.5 * samples
PYTHON
