"""Losses of a training, step by step, beside those that are kept.

The file has 200 steps of a model of 2 M weights, of which the test looks at the
first ones. To make it anew, which compares all steps of one process, of two and
of two that share the weights:

    python -m tests.integration.test_golden_losses
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch

from tests.integration.small_training import Training, run

FILE = Path(__file__).parents[1] / "assets/losses/small_language_model.json"
KINDS = ["single", "ddp", "fsdp"]
TOLERANCE = 1e-4
STEPS, LOOKED_AT = 200, 30


def make_training(folder: Path, kind: str) -> Training:
    return Training(
        folder / kind, kind, epochs=1, steps=STEPS, width=192, layers=4
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_that_are_kept(tmp_path, kind):
    kept = json.loads(FILE.read_text())["losses"]
    found = run(make_training(tmp_path, kind), limit=LOOKED_AT).losses()
    assert list(map(int, found)) == list(range(LOOKED_AT))
    expected = pytest.approx(kept[:LOOKED_AT], abs=TOLERANCE)
    assert list(found.values()) == expected


def test_the_kept_losses_fall():
    kept = json.loads(FILE.read_text())["losses"]
    assert len(kept) == STEPS
    assert sum(kept[-20:]) < 0.7 * sum(kept[:20])


def main() -> None:
    """Make the file, if all ways to train agree."""
    with tempfile.TemporaryDirectory() as folder:
        losses = {
            kind: list(run(make_training(Path(folder), kind)).losses().values())
            for kind in KINDS
        }
    for kind, found in losses.items():
        pairs = zip(found, losses["single"])
        furthest = max(abs(one - other) for one, other in pairs)
        print(
            f"{kind}: {len(found)} steps, furthest from single {furthest:.1e}"
        )
        if furthest > TOLERANCE:
            raise SystemExit(f"{kind} differs; nothing is written")
    content = {"torch": torch.__version__, "losses": losses["single"]}
    FILE.write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
