#!/usr/bin/env bash
# Importing silero-vad sets the number of threads that torch computes with, of the
# whole process, to 1. A program that imports it on its way to something else trains or
# runs its own models on one core from then on, without a word.
#
# Versions: silero-vad 6.2.3, torch 2.11.0, Python 3.11, Linux x86_64; seen on
# 2026-11-28.
# Seen:     threads before the import: 2
#           threads after the import:  1
# Ends with 0 while this is so. Downloads about 3 GB.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    silero-vad==6.2.3 torch==2.11.0 torchaudio==2.11.0 numpy
"$python" - <<'PYTHON'
import torch

torch.set_num_threads(2)
print("threads before the import:", torch.get_num_threads())
import silero_vad

print("threads after the import: ", torch.get_num_threads())
assert torch.get_num_threads() == 1, "the behaviour has changed"
PYTHON
