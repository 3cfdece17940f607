"""The recipe of the vocoders, on a few seconds of speech."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.dataio.corpus import CorpusError, load_corpus
from spiritlm_plugin.dataio.units import SpeechUnits
from spiritlm_plugin.integrations.parts import build, load_part, save_part
from spiritlm_plugin.integrations.release import read_release

RECIPE = Path(__file__).parents[2] / "recipes" / "TinySpeech" / "vocoder"
STYLES = ("happy", "neutral", "sad")
SMALL = [
    "--vocoder={embedding_dim: 4, duration_dim: 4, generator: {channels: 32, "
    "resblock_kernels: [3], resblock_dilations: [[1]]}}",
    "--discriminator={periods: [2], resolutions: [256], channels: 2, "
    "max_channels: 4}",
    "--adversarial_step=3",
    "--crop_frames=5",
    "--sample_count=1",
    "--train_loader={batch_size: 2}",
]


def script(name):
    spec = importlib.util.spec_from_file_location(
        f"vocoder_{name}", RECIPE / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def tokenizer(checkpoints, tmp_path_factory):
    """Parts of the small release, as arguments."""
    root = tmp_path_factory.mktemp("parts")
    release = read_release(checkpoints, "expressive")
    modules = build(release)
    arguments = []
    for kind in ("phonetic", "pitch", "style"):
        folder = save_part(root / kind, release.arguments[kind], modules[kind])
        arguments.append(f"--{kind}={folder}")
    return arguments


@pytest.fixture(scope="module")
def manifests(recording, tmp_path_factory):
    """Pieces of a recording, by two speakers in three styles."""
    folder = tmp_path_factory.mktemp("manifests")
    samples, rate = soundfile.read(recording)
    for split, count in {"train": 8, "valid": 2, "test": 4}.items():
        items = {}
        for i in range(count):
            path = folder / f"{split}{i}.wav"
            piece = samples[1600 * i : 1600 * i + 12000]
            soundfile.write(path, piece, rate)
            items[path.stem] = {
                "wav": f"{{data_root}}/{path.name}",
                "duration": len(piece) / rate,
                "speaker": ["ann", "bob"][i % 2],
                "style": STYLES[i % 3],
                "text": "boats",
            }
        (folder / f"{split}.json").write_text(json.dumps(items))
    return folder


@pytest.fixture(scope="module")
def corpus(manifests, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    hparams = RECIPE / "hparams" / "tokenize.yaml"
    script("tokenize_corpus")(
        [
            str(hparams),
            f"--manifest_folder={manifests}",
            f"--output_folder={folder}",
            *tokenizer,
        ]
    )
    return folder


def train_arguments(kind, corpus, tokenizer, output, *more, epochs=2):
    parts = tokenizer[:1] if kind == "base" else tokenizer
    return [
        str(RECIPE / "hparams" / f"{kind}.yaml"),
        f"--corpus_folder={corpus}",
        f"--output_folder={output}",
        f"--number_of_epochs={epochs}",
        *parts,
        *SMALL,
        *more,
    ]


@pytest.fixture(scope="module")
def trained(corpus, tokenizer, tmp_path_factory):
    folders = {}
    for kind in ("base", "expressive"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        arguments = train_arguments(kind, corpus, tokenizer, folders[kind])
        script("train")(arguments)
    return folders


def weights(folder):
    return load_file(folder / "vocoder" / "model.safetensors")


def test_corpus(corpus):
    rows = load_corpus(corpus / "train")
    assert len(rows) == 8
    assert rows[1]["speaker"] == "bob"
    assert len(rows[0]["phonetic_units"]) == 18
    assert len(rows[0]["pitch_units"]) == 9


def test_parts(trained):
    base = load_part("vocoder", trained["base"] / "vocoder")
    assert not base.expressive
    assert base.speakers == ["ann", "bob"]
    assert base.default_global_style == STYLES.index("neutral")
    assert base.embeddings["global_style"].num_embeddings == 3
    expressive = load_part("vocoder", trained["expressive"] / "vocoder")
    assert expressive.expressive
    assert "global_style" not in expressive.embeddings
    for vocoder in (base, expressive):
        units = SpeechUnits([1, 2, 3], pitch=[4], style=[5])
        with torch.inference_mode():
            [wav] = vocoder.synthesize([units], [1])
        assert len(wav) == 3 * 640


def test_samples_and_log(trained):
    samples = sorted((trained["base"] / "samples").iterdir())
    names = [path.name for path in samples]
    assert names == [
        f"valid0_{label}.wav" for label in ("epoch1", "epoch2", "original")
    ]
    log = (trained["base"] / "train_log.txt").read_text()
    assert "train discriminator" in log and "valid same_phonetic" in log


def test_resumed_run_is_the_uninterrupted_one(
    corpus, tokenizer, trained, tmp_path
):
    """Also where the discriminators begin in the first half."""
    for epochs in (1, 2):
        script("train")(
            train_arguments(
                "expressive", corpus, tokenizer, tmp_path, epochs=epochs
            )
        )
    expected = weights(trained["expressive"])
    for name, tensor in weights(tmp_path).items():
        assert torch.equal(tensor, expected[name]), name


def test_goes_on_from_a_trained_vocoder(corpus, tokenizer, trained, tmp_path):
    """With a rate of zero nothing is learned, and nothing lost."""
    folder = trained["expressive"] / "vocoder"
    options = [f"--pretrained={folder}", "--lr=0.0"]
    script("train")(
        train_arguments(
            "expressive", corpus, tokenizer, tmp_path, *options, epochs=1
        )
    )
    expected = weights(trained["expressive"])
    for name, tensor in weights(tmp_path).items():
        assert torch.equal(tensor, expected[name]), name


def test_a_vocoder_of_another_shape_is_refused(
    corpus, tokenizer, trained, tmp_path
):
    folder = trained["base"] / "vocoder"
    arguments = train_arguments(
        "expressive", corpus, tokenizer, tmp_path, f"--pretrained={folder}"
    )
    with pytest.raises(CheckpointError, match="missing embeddings.pitch"):
        script("train")(arguments)


def test_voices_are_shifted_the_same_way_again(manifests, tokenizer, tmp_path):
    units = {}
    for name, ratios in (
        ("plain", "[]"),
        ("shifted", "[[5, 4], [4, 5]]"),
        ("again", "[[5, 4], [4, 5]]"),
    ):
        script("tokenize_corpus")(
            [
                str(RECIPE / "hparams" / "tokenize.yaml"),
                f"--manifest_folder={manifests}",
                f"--output_folder={tmp_path / name}",
                f"--pitch_ratios={ratios}",
                "--splits=[valid]",
                *tokenizer,
            ]
        )
        corpus = load_corpus(tmp_path / name / "valid")
        units[name] = torch.cat(list(corpus["phonetic_units"]))
    assert torch.equal(units["shifted"], units["again"])
    assert len(units["plain"]) == len(units["shifted"])
    assert not torch.equal(units["plain"], units["shifted"])


def test_a_tokenizer_must_be_named(manifests, tmp_path):
    arguments = [
        str(RECIPE / "hparams" / "tokenize.yaml"),
        f"--manifest_folder={manifests}",
        f"--output_folder={tmp_path}",
    ]
    with pytest.raises(ValueError, match="name the tokenizer"):
        script("tokenize_corpus")(arguments)


def test_units_of_another_tokenizer(corpus, tokenizer, tmp_path):
    source = Path(tokenizer[0].partition("=")[2])
    other = shutil.copytree(source, tmp_path / "phonetic")
    state = load_file(other / "model.safetensors")
    state["quantizer.layers.0.weight"] += 1
    save_file(state, other / "model.safetensors")
    parts = [f"--phonetic={other}", *tokenizer[1:]]
    arguments = train_arguments("expressive", corpus, parts, tmp_path / "out")
    with pytest.raises(CorpusError, match="another phonetic tokenizer"):
        script("train")(arguments)


def test_report(manifests, tokenizer, trained, tmp_path):
    vocoders = [f"--{kind}={f / 'vocoder'}" for kind, f in trained.items()]
    script("evaluate")(
        [
            str(RECIPE / "hparams" / "evaluate.yaml"),
            f"--manifest_folder={manifests}",
            f"--output_folder={tmp_path}",
            *tokenizer,
            *vocoders,
        ]
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    base, expressive = summary["base"], summary["expressive"]
    assert expressive["bits_per_second"] > base["bits_per_second"] > 0
    assert 0 <= base["f0_frame_error"] <= 1
    assert base["mel_distance"] > 0
    assert "WER" not in base
    assert set(summary["original"]) == {"style_accuracy"}
    table = (tmp_path / "table.md").read_text()
    assert "F0 frame error" in table and "WER" not in table
    rows = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert len(rows) == 4 * 5
    assert json.loads(rows[1])["heard_style"] in STYLES
    assert (tmp_path / "f0.png").stat().st_size > 10_000
    assert len(list((tmp_path / "wavs").iterdir())) == 4 * 5


@pytest.mark.slow
def test_two_processes(corpus, tokenizer, tmp_path, torchrun):
    arguments = train_arguments("base", corpus, tokenizer, tmp_path / "out")
    torchrun(RECIPE / "train.py", *arguments)
    assert load_part("vocoder", tmp_path / "out" / "vocoder").speakers
