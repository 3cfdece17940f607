"""The recipe of the style encoder, from features to units, on a few tones."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import Wav2Vec2ForSequenceClassification

from spiritlm_plugin.integrations.parts import load_part

RECIPE = Path(__file__).parents[2] / "recipes" / "TinySpeech" / "style"
TOKENIZER = """
conv_dim: [8, 8, 8, 8, 8, 8, 8]
conv_kernel: [10, 3, 3, 3, 3, 2, 2]
conv_stride: [5, 2, 2, 2, 2, 2, 2]
hidden_size: 16
intermediate_size: 32
num_hidden_layers: 1
num_attention_heads: 2
num_conv_pos_embeddings: 8
num_conv_pos_embedding_groups: 2
classifier_proj_size: 8
layerdrop: 0.0
"""
TINY = ["--segment_seconds=2", "--warmup_steps=2"]
TINY += ["--train_loader={batch_size: 4}"]


def script(name, recipe=RECIPE):
    spec = importlib.util.spec_from_file_location(name, recipe / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def hparams(name):
    return str(RECIPE / "hparams" / f"{name}.yaml")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Write tones, high where they are happy."""
    folder = tmp_path_factory.mktemp("tones")
    generator = np.random.default_rng(0)
    splits = {"train": 12, "valid": 6, "test": 6, "test_unseen_voice": 3}
    styles = {"neutral": 200, "happy": 400, "sad": 100}
    for split, count in splits.items():
        items = {}
        for i in range(count):
            style = list(styles)[i % 3]
            seconds = generator.uniform(0.8, 3.2)
            time = np.arange(int(seconds * 16000)) / 16000
            tone = np.sin(2 * np.pi * styles[style] * time) / 5
            tone += generator.normal(size=len(tone)) / 100
            path = folder / f"{split}{i}.wav"
            soundfile.write(path, tone, 16000)
            speaker = "gus" if "unseen" in split else ["anna", "ben"][i % 2]
            items[path.stem] = {
                "wav": f"{{data_root}}/{path.name}",
                "duration": len(tone) / 16000,
                "speaker": speaker,
                "style": style,
            }
        (folder / f"{split}.json").write_text(json.dumps(items))
    return folder


@pytest.fixture(scope="module")
def features_yaml(tmp_path_factory):
    """Write the first stage's YAML with a tiny network."""
    lines = Path(hparams("features")).read_text().splitlines()
    start = next(i for i, x in enumerate(lines) if x.strip() == "wav2vec2:")
    end = next(i for i, x in enumerate(lines) if x.startswith("    units:"))
    tiny = [f"        {line}" for line in TOKENIZER.strip().splitlines()]
    path = tmp_path_factory.mktemp("hparams") / "features.yaml"
    path.write_text("\n".join([*lines[: start + 1], *tiny, *lines[end:]]))
    return str(path)


def features(corpus, yaml, output, *more, epochs=2):
    folders = [f"--manifest_folder={corpus}", f"--output_folder={output}"]
    epochs = f"--number_of_epochs={epochs}"
    return [yaml, *folders, epochs, *TINY, *more]


@pytest.fixture(scope="module")
def trained(corpus, features_yaml, tmp_path_factory):
    """Run the whole recipe."""
    folder = tmp_path_factory.mktemp("trained")
    manifests = f"--manifest_folder={corpus}"
    train = script("train")
    train(features(corpus, features_yaml, folder / "features"))
    script("cluster")(
        [
            hparams("cluster"),
            manifests,
            f"--output_folder={folder / 'clusters'}",
            f"--features_folder={folder / 'features' / 'style'}",
            "--units=4",
        ]
    )
    train(
        [
            hparams("units"),
            manifests,
            f"--output_folder={folder / 'units'}",
            f"--clusters_folder={folder / 'clusters'}",
            "--number_of_epochs=1",
            *TINY,
        ]
    )
    script("evaluate")(
        [
            hparams("evaluate"),
            manifests,
            f"--output_folder={folder / 'evaluation'}",
            f"--style_folder={folder / 'units' / 'style'}",
        ]
    )
    return folder


def test_units(trained):
    tokenizer = load_part("style", trained / "units" / "style")
    units, lengths = tokenizer(torch.randn(1, 40000), torch.tensor([40000]))
    assert lengths.tolist() == [3]
    assert 0 <= units.min() <= units.max() < 4
    model = Wav2Vec2ForSequenceClassification.from_pretrained(
        trained / "units" / "transformers"
    )
    assert model.classifier.out_features == 4


def test_second_stage_starts_from_the_clusters(trained, corpus):
    tokenizer = load_part("style", trained / "clusters" / "style")
    labels = json.loads(
        (trained / "clusters" / "labels" / "test.json").read_text()
    )
    items = json.loads((corpus / "test.json").read_text())
    assert labels.keys() == items.keys()
    for name, row in labels.items():
        wav, _ = soundfile.read(corpus / f"{name}.wav", dtype="float32")
        lengths = torch.tensor([len(wav)])
        _, lengths = tokenizer(torch.from_numpy(wav)[None], lengths)
        assert lengths.tolist() == [len(row)]


def test_reports(trained):
    report = json.loads((trained / "features" / "report.json").read_text())
    assert 0 <= report["test"]["accuracy"] <= 1
    report = json.loads((trained / "clusters" / "report.json").read_text())
    assert 1 <= report["train"]["perplexity"] <= 4
    report = json.loads((trained / "evaluation" / "report.json").read_text())
    assert 0 <= report["test"]["kept_with_10_dB_noise"] <= 1
    assert "speaker_an_utterance" in report["test"]
    assert "speaker_an_utterance" not in report["test_unseen_voice"]
    table = (trained / "evaluation" / "report.txt").read_text()
    assert "speaker_an_utterance" in table
    picture = trained / "evaluation" / "confusion.png"
    assert picture.stat().st_size > 5_000


def test_expresso_reports_the_same(trained, corpus, tmp_path):
    recipe = RECIPE.parents[1] / "Expresso" / "style"
    script("evaluate", recipe)(
        [
            str(recipe / "hparams" / "evaluate.yaml"),
            f"--manifest_folder={corpus}",
            f"--output_folder={tmp_path}",
            f"--style_folder={trained / 'units' / 'style'}",
        ]
    )
    found, expected = (
        json.loads((folder / "report.json").read_text())
        for folder in (tmp_path, trained / "evaluation")
    )
    assert found == {"test": expected["test"]}


def test_resumed_run_is_the_uninterrupted_one(
    trained, corpus, features_yaml, tmp_path
):
    train = script("train")
    train(features(corpus, features_yaml, tmp_path, epochs=1))
    train(features(corpus, features_yaml, tmp_path))
    expected = (trained / "features" / "train_log.txt").read_text()
    assert (tmp_path / "train_log.txt").read_text() == expected
    resumed = load_file(tmp_path / "style" / "model.safetensors")
    expected = load_file(trained / "features" / "style" / "model.safetensors")
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name


@pytest.mark.slow
def test_two_processes(corpus, features_yaml, tmp_path, two_processes):
    arguments = features(corpus, features_yaml, tmp_path)
    two_processes(RECIPE / "train.py", *arguments)
    assert (tmp_path / "style" / "config.json").is_file()
