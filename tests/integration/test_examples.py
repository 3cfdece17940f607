"""The examples of the docs: a notebook, and a Space of the Hub."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from spiritlm_plugin.dataio.corpus.manifests import load_manifest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def notebook(monkeypatch):
    """The notebook's code, with what shows sound put in the place of IPython."""
    heard: list[np.ndarray] = []
    shown = ModuleType("IPython.display")
    shown.Audio = lambda samples, rate: heard.append((samples, rate))
    shown.display = lambda item: None
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    content = json.loads((EXAMPLES / "talk.ipynb").read_text("utf-8"))
    cells = [c for c in content["cells"] if c["cell_type"] == "code"]
    return ["".join(cell["source"]) for cell in cells], heard


def test_the_notebook_runs(notebook, capsys):
    cells, heard = notebook
    names: dict = {}
    for number, source in enumerate(cells):
        exec(compile(source, f"cell {number}", "exec"), names)
    assert "the old man saw" in capsys.readouterr().out
    assert len(heard) >= 4
    assert all(rate == 16000 and len(s) > 1600 for s, rate in heard)
    whole = names["lm"].generate(
        names["prompt"], "speech", max_new_tokens=60, speaker="anna", seed=10
    )
    np.testing.assert_allclose(heard[-1][0], whole.wav.numpy(), atol=1e-4)


@pytest.fixture(scope="module")
def space():
    return runpy.run_path(str(EXAMPLES / "space" / "app.py"))


@pytest.mark.parametrize("channels", [1, 2])
def test_a_space_goes_on_in_speech(space, tinyspeech, channels):
    item = next(iter(load_manifest(tinyspeech / "test").values()))
    samples, rate = soundfile.read(item["wav"], dtype="int16")
    half = samples[: len(samples) // 2]
    recording = (rate, np.stack([half] * channels, 1).squeeze())
    told = [*space["go_on"](recording, "the man", "speech", "anna", 0.8, 1)]
    written, (rate, samples), tokens = told[-1]
    assert written == "" and rate == 16000 and samples.dtype == np.int16
    assert "[Hu" in tokens and len(told) > 5
    assert abs(samples.astype(int)).max() > 100


def test_a_space_goes_on_in_text(space):
    told = [*space["go_on"](None, "the old man saw", "text", "anna", 0, 1)]
    written, sound, _ = told[-1]
    assert written.strip() and sound is None
    assert all(written.startswith(earlier) for earlier, _, _ in told)


def test_a_space_says_what_it_needs(space):
    with pytest.raises(ValueError, match="say or write"):
        [*space["go_on"](None, " ", "any", "anna", 0.8, 1)]
    long = (16000, np.zeros(31 * 16000, np.int16))
    with pytest.raises(ValueError, match="no more than 30 s"):
        [*space["go_on"](long, "", "any", "anna", 0.8, 1)]


def test_a_space_has_a_page(space):
    pytest.importorskip("gradio")
    assert space["build"]().config["components"]
