#!/usr/bin/env bash
# torchaudio 2.11.0, the last release, names no torch among its requirements, and
# refuses at import a torch that is built for another CUDA, on machines without any
# GPU too. pip therefore installs pairs that cannot be imported.
#
# Versions: torch 2.15.0 (CUDA 13.2), torchaudio 2.11.0 (CUDA 13.0), Linux x86_64,
# wheels of PyPI, Python 3.12; seen on 2026-11-28.
# Seen:     pip check: No broken requirements found.
#           RuntimeError: Detected that PyTorch and TorchAudio were compiled with
#           different CUDA versions. PyTorch has CUDA version 13.2 whereas
#           TorchAudio has CUDA version 13.0. ...
#           With the comparison skipped (torch.version.cuda = None during the
#           import) torchaudio imports and resamples.
# Ends with 0 while this is so. Downloads about 3 GB.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check --upgrade pip==26.3
"$python" -m pip install --quiet --disable-pip-version-check \
    torch==2.15.0 torchaudio==2.11.0 numpy
"$python" -m pip --disable-pip-version-check check
if "$python" -c "import torchaudio" 2>"$folder/error"; then
    echo "torchaudio imports: the behaviour has changed"
    exit 1
fi
tail -n 3 "$folder/error"
grep -q "compiled with different CUDA versions" "$folder/error"
"$python" - <<'PYTHON'
import torch

cuda, torch.version.cuda = torch.version.cuda, None
import torchaudio

torch.version.cuda = cuda
wav = torchaudio.functional.resample(torch.randn(44100), 44100, 16000)
assert wav.shape == (16000,), wav.shape
print("without the comparison:", torch.__version__, torchaudio.__version__, "ok")
PYTHON
