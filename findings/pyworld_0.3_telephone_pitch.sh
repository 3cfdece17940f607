#!/usr/bin/env bash
# WORLD's pitch of a voice whose first harmonic is missing, as a telephone's band from 300
# Hz leaves it out of most men's voices: DIO says the frequency of the lowest harmonic
# that is there, in all frames and with StoneMask too, and Harvest says that it is
# unvoiced. What changes formants by WORLD then moves another voice than is heard. With
# the first harmonic both are right.
#
# Versions: pyworld 0.3.5 (WORLD), numpy 2, Python 3.11; seen on 2026-11-29. pyworld
# imports pkg_resources, which setuptools has up to 80.
# Seen:     110 Hz, harmonics from 1 on: dio 110.0, stonemask 110.0, harvest 110.0
#           110 Hz, harmonics from 2 on: dio 220.7, stonemask 218.1, harvest 0.0
#           150 Hz, harmonics from 1 on: dio 150.0, stonemask 150.0, harvest 150.0
#           150 Hz, harmonics from 2 on: dio 301.2, stonemask 303.1, harvest 0.0
# Ends with 0 while this is so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    "setuptools<81" "numpy>=2,<3" pyworld==0.3.5
"$python" -W ignore - <<'PYTHON'
import numpy as np
import pyworld

RATE = 16000
time = np.arange(2 * RATE) / RATE


def voice(pitch, first):
    """Harmonics up to 3,400 Hz."""
    numbers = range(first, int(3400 // pitch) + 1)
    waves = [np.sin(2 * np.pi * pitch * n * time + n * n) / n for n in numbers]
    return 0.5 * np.sum(waves, 0) / len(waves)


def middle(pitch):
    voiced = pitch[pitch > 0]
    return float(np.median(voiced)) if len(voiced) > len(pitch) / 2 else 0.0


for pitch in (110, 150):
    for first in (1, 2):
        sound = voice(pitch, first)
        coarse, times = pyworld.dio(sound, RATE)
        found = [
            middle(coarse),
            middle(pyworld.stonemask(sound, coarse, times, RATE)),
            middle(pyworld.harvest(sound, RATE)[0]),
        ]
        print(f"{pitch} Hz, harmonics from {first} on:",
              "dio %.1f, stonemask %.1f, harvest %.1f" % tuple(found))
        assert abs(found[0] / pitch - first) < 0.03, found
        assert abs(found[1] / pitch - first) < 0.03, found
        assert abs(found[2] / pitch - (first == 1)) < 0.03, found
PYTHON
