"""Speaker embeddings as SpeechBrain's own interface gives them, and opinions."""

import math
import sys
from types import SimpleNamespace

import pytest
import soundfile
import torch
from speechbrain.inference.classifiers import EncoderClassifier

from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.metrics.speech_quality import (
    SpeechQuality,
    load_opinion,
    load_speaker_encoder,
    mean_with_interval,
    quality_figures,
)
from tests.unit.judges import save_speaker_encoder


@pytest.fixture
def folder(tmp_path):
    return save_speaker_encoder(tmp_path / "ecapa")


@pytest.fixture
def voice(recording):
    return torch.from_numpy(soundfile.read(recording, dtype="float32")[0])


def change(folder, old, new):
    path = folder / "hyperparams.yaml"
    yaml = path.read_text()
    assert old in yaml
    path.write_text(yaml.replace(old, new))


def test_embeddings_are_those_of_speechbrain(folder, voice, tmp_path):
    theirs = EncoderClassifier.from_hparams(
        str(folder), savedir=str(tmp_path / "saved"), run_opts={"device": "cpu"}
    )
    ours = load_speaker_encoder(folder)
    for wav in (voice, voice[:1280], torch.randn(20000)):
        with torch.no_grad():
            expected = theirs.encode_batch(wav).flatten()
        torch.testing.assert_close(ours(wav), expected)
        assert expected.shape == (12,)


def test_similarity(folder, voice):
    quality = SpeechQuality(speaker_encoder=folder)
    noise = torch.randn(9000)
    made = [voice, voice, noise, None, voice[:1279], voice]
    real = [voice, noise, voice, voice, voice, None]
    found = [row["speaker_similarity"] for row in quality(made, real)]
    assert found[0] == pytest.approx(1)
    assert found[1] == pytest.approx(found[2]) and -1 <= found[1] < 0.999
    assert found[3:] == [None, None, None]
    encoder = load_speaker_encoder(folder)
    one, other = encoder(voice).double(), encoder(noise).double()
    cosine = (one @ other) / (one.norm() * other.norm())
    assert found[1] == pytest.approx(float(cosine), abs=1e-5)
    with pytest.raises(ValueError, match="1 recordings and 2 voices"):
        quality([voice], [voice, voice])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "!new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
            "!new:torch.nn.LSTM",
            "embedding_model is !new:torch.nn.LSTM, not",
        ),
        (
            "compute_features: !new",
            "features: !new",
            "compute_features is None",
        ),
        (
            "    n_mels: !ref <n_mels>\n",
            "    n_mels: 40\n    sample_rate: 8000\n",
            "hears 8000 Hz",
        ),
        ("attention_channels: 8", "attention: 8", "cannot be built"),
        ("lin_neurons: 12", "lin_neurons: !ref <n_mels> * 2", "no plain value"),
        ("lin_neurons: 12", "lin_neurons: {a: 1}", "no plain value"),
        ("channels: [16", "channels: !apply:list [16", "no plain value"),
        ("n_mels: 40", "n_mels: [", "as YAML"),
    ],
)
def test_folders_that_are_refused(folder, old, new, message):
    change(folder, old, new)
    with pytest.raises(ValueError, match=message):
        load_speaker_encoder(folder)


@pytest.mark.parametrize("name", ["channels", "n_mels", "classifier"])
def test_nothing_else_is_built(folder, name, tmp_path):
    """What a folder calls is data."""
    marker = tmp_path / "called"
    call = f"!apply:pathlib.Path.touch [!apply:pathlib.Path ['{marker}']]\n"
    lines = (folder / "hyperparams.yaml").read_text().splitlines()
    yaml = [
        f"{line.partition(':')[0]}: {call}"
        if line.strip().startswith(f"{name}:") and "<" not in line
        else line
        for line in lines
    ]
    if name == "classifier":
        yaml = [line for line in lines if "out_neurons" not in line]
        yaml.append(f"more: {call}")
    (folder / "hyperparams.yaml").write_text("\n".join(yaml))
    if name == "classifier":
        load_speaker_encoder(folder)
    else:
        with pytest.raises(ValueError, match="no plain value"):
            load_speaker_encoder(folder)
    assert not marker.exists()


def test_weights_that_do_not_fit(folder, tmp_path):
    change(folder, "lin_neurons: 12", "lin_neurons: 13")
    with pytest.raises(CheckpointError, match=r"fc\."):
        load_speaker_encoder(folder)
    weights = folder / "embedding_model.ckpt"
    torch.save({"model": SimpleNamespace()}, weights)
    with pytest.raises(CheckpointError, match="as plain data"):
        load_speaker_encoder(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="embedding_model"):
        load_speaker_encoder(folder)
    with pytest.raises(FileNotFoundError):
        load_speaker_encoder(tmp_path / "none")


@pytest.fixture
def opinions(monkeypatch):
    """Replace the package by one that scores a recording's peak."""
    heard = []

    def run(samples, rate):
        heard.append((samples, rate))
        return {"ovrl_mos": 1 + abs(samples).max(), "sig_mos": 0}

    module = SimpleNamespace(dnsmos=SimpleNamespace(run=run))
    monkeypatch.setitem(sys.modules, "speechmos", module)
    return heard


def test_opinions(opinions):
    quality = SpeechQuality(mos="dnsmos")
    made = [torch.full((1280,), 0.5), None, torch.ones(1279), torch.zeros(0)]
    rows = quality([*made, torch.full((2000,), -3.0)])
    assert [row["mos"] for row in rows] == [1.5, None, None, None, 2.0]
    assert all(row["speaker_similarity"] is None for row in rows)
    assert [rate for _, rate in opinions] == [16000, 16000]
    # As a file would hold it.
    assert opinions[1][0].min() == -1


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "speechmos", None)
    with pytest.raises(ImportError, match="pip install speechmos"):
        load_opinion("dnsmos")
    with pytest.raises(ValueError, match="'utmos'; there is dnsmos"):
        SpeechQuality(mos="utmos")


@pytest.mark.slow
def test_the_real_package(voice):
    quality = SpeechQuality(mos="dnsmos")
    torch.manual_seed(1)
    noisy = voice + 0.1 * torch.randn(len(voice))
    clean, dirty = (row["mos"] for row in quality([voice, noisy]))
    assert 1 <= dirty < clean - 0.5 and clean <= 5


def test_means_and_intervals():
    values = [1.0, None, 3.0, 3.0]
    found = mean_with_interval(values, ["ann", "bob", "ann", "cid"])
    assert found["mean"] == pytest.approx(7 / 3) and found["count"] == 3
    # Of Ann's two and Cid's one.
    margin = 12.7062 * math.sqrt(2 * 2 * (2 / 3) ** 2) / 3
    assert found["interval"] == pytest.approx([0, 7 / 3 + margin], rel=1e-4)
    alone = mean_with_interval(values, ["ann"] * 4)
    assert alone["mean"] == pytest.approx(7 / 3) and alone["interval"] is None
    nothing = mean_with_interval([None])
    assert nothing == {"mean": None, "interval": None, "count": 0}
    rows = [{"mos": value, "speaker_similarity": None} for value in values]
    figures = quality_figures(rows, ["ann", "bob", "ann", "cid"])
    assert figures == {
        "mos": found["mean"],
        "mos_interval": found["interval"],
    }
