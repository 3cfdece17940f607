#!/usr/bin/env bash
# Removing the weight norm from a deep copy of a module breaks the original. torch puts
# the weight of a parametrized module, as a property, into a class of its own that a
# deep copy shares; remove_parametrizations deletes the property from that class. Who
# copies a vocoder in training to export the copy without weight norm, as is usual,
# cannot run the one in training any more.
#
# Versions: torch 2.11.0, Python 3.11; seen on 2026-11-28.
# Seen:     one class: True
#           the copy: runs
#           the original: AttributeError: 'ParametrizedLinear' object has no attribute
#           'weight'
# Ends with 0 while this is so. Downloads about 3 GB.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    torch==2.11.0 numpy==2.2.6
"$python" - <<'PYTHON'
import copy

import torch
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import remove_parametrizations

original = weight_norm(torch.nn.Linear(3, 2))
inputs = torch.ones(1, 3)
expected = original(inputs)
twin = copy.deepcopy(original)
print("one class:", type(twin) is type(original))
remove_parametrizations(twin, "weight")
assert torch.allclose(twin(inputs), expected)
print("the copy: runs")
try:
    original(inputs)
except AttributeError as error:
    print("the original:", f"{type(error).__name__}: {error}")
    assert "no attribute 'weight'" in str(error), "the behaviour has changed"
else:
    raise SystemExit("the original runs: the behaviour has changed")
PYTHON
