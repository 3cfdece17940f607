"""What is written of a model while it is trained."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from spiritlm_plugin.training.pretraining import LanguageModelBrain


@pytest.mark.parametrize("name", ["a/b", "../../b", "{tmp}/corpus/c", "é" * 99])
def test_ids_stay_in_their_folder(tmp_path, name):
    (tmp_path / "corpus").mkdir()
    name = name.format(tmp=tmp_path)
    brain = SimpleNamespace(hparams=SimpleNamespace(output_folder=tmp_path))
    sample = {"utterance": name, "task": "reading", "wav": np.zeros(160)}
    LanguageModelBrain.write_samples(brain, [sample], 1)
    folder = tmp_path / "samples" / "epoch1"
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    [row] = map(json.loads, (folder / "samples.jsonl").open(encoding="utf-8"))
    assert files == {folder / row["file"], folder / "samples.jsonl"}
    assert row["utterance"] == name and (folder / row["file"]).is_file()
