"""The recipe of the pitch quantizer, on a few tones."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from spiritlm_plugin.integrations.parts import load_part
from spiritlm_plugin.integrations.release import _read_pitch

RECIPE = Path(__file__).parents[2] / "recipes" / "TinySpeech" / "pitch"
SCRIPT = RECIPE / "train.py"
HPARAMS = RECIPE / "hparams" / "train.yaml"
SMALL = [
    "--segment_frames=96",
    "--warmup_steps=2",
    "--quantizer={units: 8, width: 8, output_width: 8, downs: 4, depth: 1, "
    "block_ratio: 1.0, dilation_growth: 3}",
    "--train_loader={batch_size: 4}",
]


@pytest.fixture(scope="module")
def train():
    spec = importlib.util.spec_from_file_location("train_pitch", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Write a few gliding tones, one of them too short to have a unit."""
    folder = tmp_path_factory.mktemp("tones")
    generator = np.random.default_rng(0)
    splits = {"train": 10, "valid": 3, "test": 3, "test_unseen_voice": 2}
    for split, count in splits.items():
        items = {}
        for i in range(count):
            seconds = generator.uniform(0.5, 0.9)
            time = np.arange(int(seconds * 16000)) / 16000
            hertz = generator.uniform(100, 300)
            phase = 2 * np.pi * hertz * (time + 0.1 * np.sin(9 * time))
            tone = sum(np.sin(k * phase) / k for k in range(1, 8)) / 20
            tone[: len(tone) // 4] = 0
            path = folder / f"{split}{i}.wav"
            soundfile.write(path, tone, 16000)
            wav = f"{{data_root}}/{path.name}"
            items[path.stem] = {"wav": wav, "duration": len(tone) / 16000}
        (folder / f"{split}.json").write_text(json.dumps(items))
    path = folder / "train.json"
    items = json.loads(path.read_text())
    soundfile.write(folder / "short.wav", tone[-1300:], 16000)
    items["short"] = {"wav": "{data_root}/short.wav", "duration": 0.08}
    path.write_text(json.dumps(items))
    return folder


def arguments(corpus, output, *more, epochs=2):
    more = [f"--number_of_epochs={epochs}", *more]
    folders = [f"--manifest_folder={corpus}", f"--output_folder={output}"]
    return [str(HPARAMS), *folders, *SMALL, *more]


@pytest.fixture(scope="module")
def trained(train, corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    train(arguments(corpus, output))
    return output


def test_report(trained):
    report = json.loads((trained / "report.json").read_text())
    assert list(report) == ["valid", "test", "test_unseen_voice"]
    for figures in report.values():
        assert 0 <= figures["f0_frame_error"] <= 1
        assert 1 <= figures["perplexity"] <= figures["used_units"] <= 8
        assert figures["rmse_hz"] > 0
    assert "rmse_cents" in (trained / "report.txt").read_text()
    assert (trained / "contours.png").stat().st_size > 10_000


def test_part_and_released_form(trained):
    tokenizer = load_part("pitch", trained / "pitch")
    assert tokenizer.center
    wavs = torch.sin(torch.arange(16000) * 2 * torch.pi * 200 / 16000)[None]
    units, lengths = tokenizer(wavs, torch.tensor([16000]))
    assert lengths.tolist() == [12]
    read, state = _read_pitch(trained / "release")
    config = json.loads((trained / "pitch" / "config.json").read_text())
    assert read == config
    expected = load_file(trained / "pitch" / "model.safetensors")
    for name, tensor in state.items():
        assert torch.equal(tensor, expected[name])


def test_resumed_run_is_the_uninterrupted_one(train, corpus, trained, tmp_path):
    train(arguments(corpus, tmp_path, epochs=1))
    first = load_file(tmp_path / "pitch" / "model.safetensors")
    train(arguments(corpus, tmp_path))
    resumed = load_file(tmp_path / "pitch" / "model.safetensors")
    expected = load_file(trained / "pitch" / "model.safetensors")
    checkpoint = tmp_path / "save"
    assert any(checkpoint.iterdir())
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name
    assert not torch.equal(first["codebook"], resumed["codebook"])


def test_uncentred(train, corpus, tmp_path):
    train(arguments(corpus, tmp_path, "--center=False", "--debug"))
    assert not load_part("pitch", tmp_path / "pitch").center


def test_f0_of_expresso_is_the_released_one(train, corpus, tmp_path):
    pytest.importorskip("amfm_decompy")
    hparams = RECIPE.parents[1] / "Expresso" / "pitch" / "hparams/train.yaml"
    options = arguments(corpus, tmp_path, f"--f0_folder={tmp_path / 'f0'}")
    train([str(hparams), *options[1:], "--debug"])
    [file] = (tmp_path / "f0" / "test").iterdir()
    with safe_open(file, "pt") as stored:
        assert stored.metadata()["extractor"].startswith("YAAPT(frame_length")
    assert (tmp_path / "pitch" / "config.json").is_file()


@pytest.mark.slow
def test_two_processes(corpus, tmp_path, two_processes):
    f0 = f"--f0_folder={tmp_path / 'f0'}"
    two_processes(SCRIPT, *arguments(corpus, tmp_path / "out", f0))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["test"]["used_units"] >= 1
