"""The phonetic recipes from cepstra to a robust quantizer, on a few sounds."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import HubertModel

from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.dataio.corpus.manifests import write_manifest
from spiritlm_plugin.dataio.corpus.stores import load_corpus
from spiritlm_plugin.integrations.parts import load_tokenizer
from spiritlm_plugin.lobes.hubert_pretraining import MaskedUnitPrediction
from spiritlm_plugin.training.hubert import load_pretrained
from spiritlm_plugin.training.phone_targets import write_phone_units

RECIPE = Path(__file__).parents[2] / "recipes" / "TinySpeech" / "phonetic"
SMALL_HUBERT = """
{hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2,
num_attention_heads: 2, conv_dim: [8, 8, 8, 8, 8, 8, 8, 8],
num_conv_pos_embeddings: 8, num_conv_pos_embedding_groups: 2}
"""
LAYER = 2
UNITS = 5


def run(script, *arguments, recipe=RECIPE):
    """Run a recipe's script in this process."""
    path = recipe / f"{script}.py"
    spec = importlib.util.spec_from_file_location(script, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    hparams = script.removeprefix("train_")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path)])
        module.main([str(recipe / "hparams" / f"{hparams}.yaml"), *arguments])


def sound(generator):
    """Return some syllables: buzzes of two kinds, and hiss."""
    time = torch.arange(4000) / 16000
    syllables, phones = [], []
    for i in range(int(torch.randint(3, 8, (), generator=generator))):
        kind = int(torch.randint(3, (), generator=generator))
        noise = torch.randn(4000, generator=generator)
        buzz = sum(torch.sin(2 * torch.pi * 120 * k * time) for k in range(9))
        high = sum(
            torch.sin(2 * torch.pi * 120 * k * time) for k in range(15, 30)
        )
        syllables.append(
            (buzz + 0.05 * noise, high + 0.05 * noise, noise)[kind]
        )
        phones.append(["aih"[kind], i / 4, (i + 1) / 4])
    return 0.1 * torch.cat(syllables), phones


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 8), ("valid", 3), ("test", 3)):
        items = {}
        for i in range(count):
            wav, phones = sound(generator)
            name = f"{split}_{i}"
            soundfile.write(folder / f"{name}.wav", wav.numpy(), 16000)
            items[name] = {
                "wav": f"{{data_root}}/{name}.wav",
                "duration": len(wav) / 16000,
                "phones": phones,
            }
        write_manifest(items, folder / f"{split}.json")
    return folder


@pytest.fixture(scope="module")
def results(manifests, tmp_path_factory):
    """Run all, each on what the one before made."""
    folder = tmp_path_factory.mktemp("results")
    corpus = f"--manifest_folder={manifests}"
    frames = [f"--units={UNITS}", "--frames=200"]
    run("train_kmeans", corpus, *frames, f"--output_folder={folder / 'mfcc'}")
    train_hubert(manifests, folder / "mfcc", folder / "hubert")
    run(
        "train_kmeans",
        corpus,
        *frames,
        f"--hubert={folder / 'hubert' / 'hubert'}",
        f"--layer={LAYER}",
        f"--output_folder={folder / 'kmeans'}",
    )
    train_quantizer(manifests, folder / "kmeans", folder / "linear")
    return folder


def train_quantizer(manifests, teacher, folder, *options, epochs=2):
    run(
        "train_quantizer",
        f"--manifest_folder={manifests}",
        f"--teacher={teacher / 'phonetic'}",
        f"--output_folder={folder}",
        f"--number_of_epochs={epochs}",
        "--warmup_steps=1",
        *options,
    )


def train_hubert(
    manifests, teacher, folder, epochs=2, units=UNITS, *options, lr=0.01
):
    run(
        "train_hubert",
        f"--manifest_folder={manifests}",
        f"--teacher={teacher / 'phonetic'}",
        f"--output_folder={folder}",
        f"--units={units}",
        f"--number_of_epochs={epochs}",
        f"--model={{hubert: {SMALL_HUBERT}, projection_dim: 8}}",
        "--train_loader={batch_seconds: 6}",
        "--longest_seconds=1",
        "--warmup_steps=2",
        f"--lr={lr}",
        *options,
    )


def test_a_hubert_predicts_phones(manifests, tmp_path):
    phones = write_phone_units(manifests, tmp_path / "phones")
    units = f"--units_folder={tmp_path / 'phones'}"
    nobody = tmp_path / "nobody"
    train_hubert(manifests, nobody, tmp_path, 1, len(phones), units)
    HubertModel.from_pretrained(tmp_path / "hubert")
    with pytest.raises(ValueError, match="pass --units"):
        train_hubert(manifests, nobody, tmp_path / "x", 1, 2, units)


def test_a_hubert_goes_on_from_another(results, manifests, tmp_path):
    """Whose weights are hardly changed by a small rate."""
    known = results / "hubert" / "hubert"
    start = f"--pretrained={known}"
    train_hubert(
        manifests, results / "mfcc", tmp_path, 1, UNITS, start, lr=1e-9
    )
    first, more = (
        HubertModel.from_pretrained(folder).state_dict()
        for folder in (known, tmp_path / "hubert")
    )
    for name, weight in more.items():
        torch.testing.assert_close(weight, first[name], atol=1e-6, rtol=0)
    other = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = MaskedUnitPrediction(other, UNITS, 8, 0.1, 5)
    with pytest.raises(CheckpointError, match="do not fit HubertModel"):
        load_pretrained(known, model)


def test_what_cannot_be_used_is_named_and_nothing_else_lost(
    results, manifests, tmp_path
):
    folder = shutil.copytree(manifests, tmp_path / "corpus")
    items = json.loads((folder / "train.json").read_text())
    first = next(iter(items.values()))
    wav = (folder / "train_0.wav").read_bytes()
    (folder / "corrupt.wav").write_bytes(wav[: len(wav) // 2])
    silence = torch.zeros(round(16000 * first["duration"]))
    soundfile.write(folder / "silent.wav", silence.numpy(), 16000)
    bad = {
        "corrupt": {"wav": "{data_root}/corrupt.wav"},
        "wordless": {"text": ""},
        "silent": {"wav": "{data_root}/silent.wav"},
    }
    items = {name: first | item for name, item in bad.items()} | items
    write_manifest(items, folder / "train.json")
    run(
        "train_kmeans",
        f"--manifest_folder={folder}",
        f"--units={UNITS}",
        "--frames=200",
        f"--output_folder={tmp_path / 'mfcc'}",
    )
    train_hubert(folder, tmp_path / "mfcc", tmp_path / "hubert")
    log = (tmp_path / "hubert" / "log.txt").read_text()
    for name in bad:
        assert f"train.json: {name} is left out" in log
    for part in ("mfcc/phonetic", "hubert/hubert"):
        file = f"{part}/model.safetensors"
        found = load_file(tmp_path / file)
        for name, tensor in load_file(results / file).items():
            assert torch.equal(found[name], tensor), name


def test_each_part_makes_units(results, manifests):
    wav, _ = soundfile.read(manifests / "test_0.wav", dtype="float32")
    frames = (len(wav) - 720) // 640 + 1
    for name in ("mfcc", "kmeans", "linear"):
        tokenizer = load_tokenizer(results / name / "phonetic")
        with torch.inference_mode():
            [units] = tokenizer([torch.from_numpy(wav)])
        assert len(units.phonetic) == frames
        assert units.phonetic.max() < UNITS
    report = json.loads((results / "mfcc" / "kmeans.json").read_text())
    assert 0.5 < report["variance_explained"] < 1
    # The layers above are not kept.
    config = json.loads((results / "kmeans/phonetic/config.json").read_text())
    assert config["hubert"]["num_hidden_layers"] == LAYER


def test_training_goes_on_exactly(results, manifests):
    folder = results / "resumed"
    train_hubert(manifests, results / "mfcc", folder, 1)
    train_hubert(manifests, results / "mfcc", folder, 2)
    resumed = load_file(folder / "hubert" / "model.safetensors")
    at_once = load_file(results / "hubert" / "hubert" / "model.safetensors")
    assert resumed.keys() == at_once.keys()
    for name, tensor in at_once.items():
        assert torch.equal(resumed[name], tensor), name


def test_the_quantizer_learns_of_its_teacher_and_nothing_else(results):
    teacher = load_file(results / "kmeans" / "phonetic" / "model.safetensors")
    trained = load_file(results / "linear" / "phonetic" / "model.safetensors")
    shared = [name for name in teacher if name.startswith("encoder.")]
    assert all(torch.equal(teacher[n], trained[n]) for n in shared)
    rest = trained.keys() - set(shared)
    assert rest == {
        f"quantizer.layers.{i}.{kind}"
        for i in (0, 2, 4)
        for kind in ("weight", "bias")
    }
    released = torch.load(results / "linear" / "quantizer.pt")
    for name, tensor in released["model_weight"].items():
        assert torch.equal(tensor, trained[f"quantizer.layers.{name}"])
    log = (results / "linear" / "train_log.txt").read_text()
    assert "valid unit_edit_distance" in log


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Write noises and rooms, laid out as MUSAN and RIRS_NOISES are."""
    folder = tmp_path_factory.mktemp("recordings")
    generator = torch.Generator().manual_seed(1)
    for i in range(4):
        for name, seconds, channels, rate in (
            (f"musan/noise/free-sound/noise-free-sound-{i}.wav", 2, 1, 16000),
            (f"musan/music/fma/music-fma-{i}.wav", 1, 2, 44100),
            (f"RIRS_NOISES/simulated_rirs/small/Room-{i}.wav", 0.3, 1, 16000),
            (f"RIRS_NOISES/real/RVB2014_type1_rir_{i}.wav", 0.5, 8, 16000),
        ):
            size = (int(seconds * rate), channels)
            wav = 0.1 * torch.randn(size, generator=generator)
            if "RIRS" in name:
                wav *= torch.linspace(1, 0, len(wav))[:, None] ** 9
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, wav.numpy(), rate)
    return folder


@pytest.fixture(scope="module")
def second(results, manifests, recordings):
    """A second iteration, by the quantizer of the first, with real noises."""
    folder = results / "linear2"
    folders = real(recordings)
    train_quantizer(manifests, results / "linear", folder, *folders)
    return folder


def real(recordings):
    return [
        f"--noise_folder={recordings / 'musan'}",
        f"--rir_folder={recordings / 'RIRS_NOISES'}",
    ]


def test_a_second_iteration_learns_of_the_first(results, second, manifests):
    targets = torch.load(results / "linear" / "quantizer.pt")["model_weight"]
    trained = torch.load(second / "quantizer.pt")["model_weight"]
    assert targets.keys() == trained.keys()
    assert not torch.equal(targets["0.weight"], trained["0.weight"])
    wav, _ = soundfile.read(manifests / "train_0.wav", dtype="float32")
    units = {}
    for name in ("linear", "kmeans"):
        tokenizer = load_tokenizer(results / name / "phonetic")
        with torch.inference_mode():
            [found] = tokenizer([torch.from_numpy(wav)])
        units[name] = found.phonetic.tolist()
    corpus = load_corpus(second / "teacher_units" / "train")
    [row] = [row for row in corpus if row["utterance"] == "train_0"]
    assert row["phonetic_units"].tolist() == units["linear"]
    assert units["linear"] != units["kmeans"]


def test_training_with_real_noises_goes_on_exactly(
    results, second, manifests, recordings
):
    folder = results / "linear2_resumed"
    for epochs in (1, 2):
        train_quantizer(
            manifests,
            results / "linear",
            folder,
            *real(recordings),
            epochs=epochs,
        )
    resumed = load_file(folder / "phonetic" / "model.safetensors")
    at_once = load_file(second / "phonetic" / "model.safetensors")
    assert resumed.keys() == at_once.keys()
    for name, tensor in at_once.items():
        assert torch.equal(resumed[name], tensor), name


def test_a_teacher_that_says_nothing_is_refused(results, manifests, tmp_path):
    part = shutil.copytree(
        results / "linear" / "phonetic", tmp_path / "silent" / "phonetic"
    )
    weights = load_file(part / "model.safetensors")
    weights["quantizer.layers.4.weight"].zero_()
    weights["quantizer.layers.4.bias"][-1] = 9.0
    save_file(weights, part / "model.safetensors")
    with pytest.raises(ValueError, match="8 utterances of train nothing"):
        train_quantizer(manifests, tmp_path / "silent", tmp_path / "linear")


@pytest.mark.parametrize("corpus", ["TinySpeech", "LibriSpeech"])
def test_report(results, manifests, corpus):
    folder = results / f"report_{corpus}"
    parts = {n: str(results / n / "phonetic") for n in ("mfcc", "linear")}
    run(
        "evaluate",
        f"--manifest_folder={manifests}",
        f"--parts={json.dumps(parts)}",
        "--splits=[test]",
        f"--output_folder={folder}",
        recipe=RECIPE.parents[1] / corpus / "phonetic",
    )
    report = json.loads((folder / "report.json").read_text())["test"]
    assert report.keys() == parts.keys()
    # Cepstra tell hums from hiss.
    assert report["mfcc"]["phone_purity"] > 0.8
    assert report["mfcc"]["PNMI"] > 0.5
    assert report["mfcc"]["deduplicated_units_per_second"] < 25
    assert 0 < report["mfcc"]["changed_by_noise"]
    assert "| PNMI |" in (folder / "report.md").read_text()
    assert (folder / "units_test.png").stat().st_size > 10_000


def test_the_report_says_what_training_has_seen(
    results, second, manifests, recordings
):
    parts = {n: str(results / n / "phonetic") for n in ("mfcc", "linear")}
    copy = shutil.copytree(second / "phonetic", results / "copies" / "second")
    parts |= {"second": str(second / "phonetic"), "copy": str(copy)}
    folder = results / "report_real"
    options = [
        f"--manifest_folder={manifests}",
        f"--parts={json.dumps(parts)}",
        "--splits=[test]",
        *real(recordings),
        f"--output_folder={folder}",
    ]
    run("evaluate", *options)
    report = json.loads((folder / "report.json").read_text())["test"]
    other = "seen with other settings"
    for part, noise, speed, drawn, stretch in (
        ("mfcc", "unseen", "unseen", "unseen", "unseen"),
        ("linear", other, other, "seen", "unseen"),
        ("second", "seen", other, "seen", "unseen"),
        ("copy", None, None, None, None),
    ):
        found = report[part]
        for name in ("noise", "reverberation"):
            assert found[f"changed_by_{name}_training"] == noise
        assert found["changed_by_speed_training"] == speed
        for name in ("pitch", "telephone", "equalizer"):
            assert found[f"changed_by_{name}_training"] == drawn
        assert found["changed_by_stretch_training"] == stretch
    low, high = report["linear"]["changed_by_pitch_interval"]
    assert low <= report["linear"]["changed_by_pitch"] <= high
    trainings = {"copy": str(results / "linear" / "hyperparams.yaml")}
    run("evaluate", *options, f"--trainings={json.dumps(trainings)}")
    again = json.loads((folder / "report.json").read_text())["test"]
    assert again["copy"]["changed_by_noise_training"] == other
    # What is drawn depends on the seed and the utterance alone.
    assert again["second"] == report["second"]
    text = (folder / "report.md").read_text()
    assert "), seen |" in text and "unseen |" in text


def test_debug(manifests, tmp_path, results):
    train_hubert(manifests, results / "mfcc", tmp_path, 9, UNITS, "--debug")
    assert (tmp_path / "hubert" / "config.json").is_file()


def test_a_teacher_with_other_units_is_refused(results, manifests, tmp_path):
    with pytest.raises(ValueError, match="has 5 units, and units is 7"):
        train_hubert(manifests, results / "mfcc", tmp_path, units=7)
