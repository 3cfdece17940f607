#!/usr/bin/env bash
# soundfile takes bitrate_mode="CONSTANT" for an MP3 and, unless compression_level is
# given as well, writes the file that it writes without it, byte for byte: of variable
# rate. Nothing is said.
#
# Versions: soundfile 0.14.0 (libsndfile 1.2.2), numpy 2, Python 3.11; seen on
# 2026-11-29.
# Seen:     12204 bytes without a mode, frames of sizes [36, 108, 144, 180, 216, 288, 360]
#           CONSTANT alone: the same bytes: True
#           with a level: the same bytes: False [360]
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
loud = np.random.default_rng(0).normal(0, 0.2, RATE)
sound = np.concatenate([loud, np.zeros(3 * RATE), loud / 99])
# Of MPEG-2, layer III, in kbit/s by the four bits of a header.
RATES = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160]


def written(**options):
    file = io.BytesIO()
    soundfile.write(file, sound, RATE, format="MP3", **options)
    return file.getvalue()


def sizes(content):
    """Bytes of each frame behind the first, which tells the length."""
    found, at = [], 0
    while at + 4 <= len(content) and content[at] == 0xFF:
        padding = content[at + 2] >> 1 & 1
        rate = RATES[content[at + 2] >> 4]
        found.append(72 * 1000 * rate // RATE + padding)
        at += found[-1]
    return found[1:]


plain = written()
alone = written(bitrate_mode="CONSTANT")
both = written(bitrate_mode="CONSTANT", compression_level=0.5)
print(len(plain), "bytes without a mode, frames of sizes", sorted({*sizes(plain)}))
print("CONSTANT alone: the same bytes:", alone == plain)
print("with a level: the same bytes:", both == plain, sorted({*sizes(both)}))
assert len({*sizes(plain)}) > 2
assert alone == plain
assert both != plain and len({*sizes(both)}) == 1
PYTHON
