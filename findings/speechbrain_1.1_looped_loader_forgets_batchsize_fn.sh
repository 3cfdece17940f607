#!/usr/bin/env bash
# SpeechBrain's LoopedLoader, which gives endless streams such as WebDatasets epochs,
# takes a function that tells a batch's size and never stores it: with one, the first
# batch raises an error. Without one it works, by a guess at the size.
#
# Versions: speechbrain 1.1.2, torch 2.11.0, torchaudio 2.11.0, Python 3.11; seen on
# 2026-11-28.
# Seen:     without batchsize_fn: 2 batches
#           with batchsize_fn=len: AttributeError: 'LoopedLoader' object has no
#           attribute 'batchsize_fn'
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
from speechbrain.dataio.dataloader import LoopedLoader

batches = [torch.zeros(4, 10), torch.zeros(3, 10)]
print("without batchsize_fn:", len(list(LoopedLoader(batches, 2))), "batches")
loader = LoopedLoader(batches, 2, batchsize_fn=len)
try:
    next(iter(loader))
except AttributeError as error:
    print("with batchsize_fn=len:", f"{type(error).__name__}: {error}")
    assert "batchsize_fn" in str(error), "the behaviour has changed"
else:
    raise SystemExit("there is a batch: the behaviour has changed")
PYTHON
