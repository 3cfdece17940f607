"""Speech quality in the reports of reading aloud and of resynthesis."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile

from tests.unit.judges import save_speaker_encoder

RECIPES = Path(__file__).parents[2] / "recipes" / "TinySpeech"
TEXTS = ["the old man walked", "boats lie in the harbour"]


@pytest.fixture
def manifests(recording, tmp_path):
    samples, rate = soundfile.read(recording)
    items = {}
    for i, text in enumerate(TEXTS):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, samples[1600 * i :][: 12000 + 1600 * i], rate)
        items[f"test{i}"] = {
            "wav": f"{{data_root}}/{path.name}",
            "duration": soundfile.info(path).duration,
            "text": text,
        }
    for split in ("train", "test"):
        (tmp_path / f"{split}.json").write_text(json.dumps(items))
    return tmp_path


@pytest.fixture
def evaluate(manifests, checkpoints, tmp_path, monkeypatch):
    """Run a recipe; the package of opinions says how long recordings are."""

    def run(samples, rate):
        return {"ovrl_mos": 1 + len(samples) / rate}

    module = SimpleNamespace(dnsmos=SimpleNamespace(run=run))
    monkeypatch.setitem(sys.modules, "speechmos", module)
    encoder = save_speaker_encoder(tmp_path / "ecapa")

    def evaluate(task, *options):
        path = RECIPES / task / "evaluate.py"
        spec = importlib.util.spec_from_file_location(f"quality_{task}", path)
        script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(script)
        settings = {
            "manifest_folder": manifests,
            "release": checkpoints,
            "output_folder": tmp_path / task,
            "split": "test",
            "mos": "dnsmos",
            "speaker_encoder": encoder,
        }
        script.main(
            [
                str(RECIPES / task / "hparams" / "evaluate.yaml"),
                *(f"--{name}={value}" for name, value in settings.items()),
                *options,
            ]
        )
        summary = json.loads((tmp_path / task / "summary.json").read_text())
        return summary, (tmp_path / task / "report.md").read_text()

    return evaluate


def test_readings(evaluate, recording):
    options = "--trained_tts=false", "--shots=0", f"--stop_speech={recording}"
    summary, report = evaluate("tts", *options, "--max_new_tokens=9")
    assert summary["original_mos"] == pytest.approx(1 + (0.75 + 0.85) / 2)
    assert 1 < summary["mos"] and -1 <= summary["speaker_similarity"] <= 1
    assert summary["settings"]["mos"] == "dnsmos"
    assert "| audio | MOS | speaker similarity |" in report


def test_resynthesis(evaluate):
    summary, report = evaluate("vocoder", "--speaker=1")
    systems = summary["systems"]
    assert systems["original"]["mos"] == pytest.approx(1 + (0.75 + 0.85) / 2)
    assert "speaker_similarity" not in systems["original"]
    assert -1 <= systems["base"]["speaker_similarity"] <= 1
    assert "MOS | speaker similarity |" in report
