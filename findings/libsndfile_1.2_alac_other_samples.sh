#!/usr/bin/env bash
# ALAC is a lossless codec. libsndfile, as soundfile's wheels carry it, writes CAF files
# of 20, 24 and 32 bits a sample that read back as other samples than were written, in
# many of them and without an error; of 16 bits they are right.
#
# Versions: soundfile 0.14.0 (libsndfile 1.2.2), numpy 2.2.6, Linux x86_64, Python 3.11;
# seen on 2026-11-28.
# Seen, of 30 random recordings of 2,000 to 30,000 samples, one or two channels:
#           ALAC_16: 0 differ    ALAC_20: 15 differ
#           ALAC_24: 8 differ    ALAC_32: 20 differ
# Ends with 0 while some of 20, 24 and 32 bits differ and none of 16.
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


def differs(bits):
    size = int(rng.integers(2000, 30000)), int(rng.integers(1, 3))
    top = 2 ** (bits - 1)
    samples = rng.integers(-top, top, size) * rng.random()
    # soundfile's int32 has the sample in its upper bits.
    samples = (samples.astype(np.int64) << (32 - bits)).astype(np.int32)
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, "ALAC_%d" % bits, format="CAF")
    file.seek(0)
    again, _ = soundfile.read(file, dtype="int32", always_2d=True)
    return again.shape != samples.shape or bool((again != samples).any())


counts = {bits: sum(differs(bits) for _ in range(30)) for bits in (16, 20, 24, 32)}
for bits, count in counts.items():
    print(f"ALAC_{bits}: {count} differ")
assert counts[16] == 0 and all(counts[bits] for bits in (20, 24, 32))
PYTHON
