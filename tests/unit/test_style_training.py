"""Tests of what trains the style tokenizer."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.cluster import KMeans
from torch import nn
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
)

from spiritlm_plugin.dataio.audio.recordings import map_recordings
from spiritlm_plugin.integrations.export import export_style
from spiritlm_plugin.lobes.style import StyleTokenizer
from spiritlm_plugin.training import style
from spiritlm_plugin.training.style_clusters import (
    nearest_cluster,
    take_off_speakers,
)

STYLE = Path(__file__).parents[2] / "recipes" / "TinySpeech" / "style"
WAV2VEC2 = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 12,
    "layerdrop": 0.0,
}
SECOND = 16000


def script(name):
    spec = importlib.util.spec_from_file_location(name, STYLE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def evaluate():
    return script("evaluate")


@pytest.fixture
def tokenizer():
    tokenizer = StyleTokenizer(WAV2VEC2, units=5).eval()
    for parameter in tokenizer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return tokenizer


def test_arguments_make_the_same_tokenizer(tokenizer):
    again = StyleTokenizer(**tokenizer.arguments).eval()
    again.load_state_dict(tokenizer.state_dict())
    wavs, lengths = torch.randn(2, 30000), torch.tensor([30000, 20000])
    expected, _ = tokenizer.logits(wavs, lengths)
    assert torch.equal(again.logits(wavs, lengths)[0], expected)


def test_logits_are_of_features(tokenizer):
    wavs, lengths = torch.randn(2, 30000), torch.tensor([30000, 15000])
    features, feature_lengths = tokenizer.features(wavs, lengths)
    logits, logit_lengths = tokenizer.logits(wavs, lengths)
    assert features.shape == (2, 2, 12)
    assert feature_lengths.tolist() == logit_lengths.tolist() == [2, 1]
    assert torch.equal(tokenizer.classifier(features), logits)


def test_start_from_wav2vec2(tmp_path):
    model = Wav2Vec2Model(Wav2Vec2Config(**WAV2VEC2)).eval()
    model.save_pretrained(tmp_path)
    tokenizer = StyleTokenizer.from_wav2vec2(tmp_path, 7, layerdrop=0.0).eval()
    wav = torch.randn(1, SECOND)
    normal = (wav - wav.mean()) / wav.std(correction=0)
    hidden = model(normal).last_hidden_state.mean(1, keepdim=True)
    features, _ = tokenizer.features(wav, torch.tensor([SECOND]))
    expected = tokenizer.projector(hidden)
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-3)
    assert tokenizer.arguments["units"] == 7
    frozen = {n for n, p in tokenizer.named_parameters() if not p.requires_grad}
    assert frozen
    assert all("feature_extractor" in name for name in frozen)


def test_export(tokenizer, tmp_path):
    export_style(tmp_path, tokenizer)
    model = Wav2Vec2ForSequenceClassification.from_pretrained(tmp_path).eval()
    wav = torch.randn(1, SECOND)
    normal = (wav - wav.mean()) / (wav.var(correction=0) + 1e-7).sqrt()
    logits, lengths = tokenizer.logits(wav, torch.tensor([SECOND]))
    assert lengths.tolist() == [1]
    expected = model(normal).logits
    torch.testing.assert_close(logits[:, 0], expected, atol=1e-4, rtol=1e-3)


def test_training_reaches_all_parameters(tokenizer):
    classifier = style.Classifier(tokenizer).train()
    logits, _ = classifier(torch.randn(2, 30000), torch.tensor([30000, 9000]))
    logits.square().sum().backward()
    for name, parameter in classifier.named_parameters():
        # Else DistributedDataParallel waits for it.
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_crops_keep_their_labels():
    torch.manual_seed(0)
    lengths = torch.tensor([10 * SECOND, 4 * SECOND + 5000, 2 * SECOND + 1])
    seconds = torch.arange(10)
    # The sample value, times ten, is the second.
    wavs = (seconds / 10).repeat_interleave(SECOND).repeat(3, 1)
    labels = seconds.repeat(3, 1)
    starts = set()
    for _ in range(50):
        cut, cut_lengths, cut_labels = style.crop(wavs, lengths, labels, 3)
        assert cut.shape == (3, 3 * SECOND)
        for i in range(3):
            n = int(cut_lengths[i])
            assert 2 * SECOND < n <= 3 * SECOND
            assert not cut[i, n:].any()
            for j in range(-(-n // SECOND)):
                value = cut[i, j * SECOND] * 10
                assert round(float(value)) == cut_labels[i, j]
            starts.add((i, int(cut_labels[i, 0])))
    # All starts occur, and none that leaves little.
    assert starts == {(0, k) for k in range(8)} | {
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
    }


def test_short_batches_are_not_cropped():
    batch = torch.randn(2, 100), torch.tensor([100, 50]), torch.zeros(2, 1)
    for before, after in zip(batch, style.crop(*batch, 3)):
        assert before is after


def test_labels(tmp_path):
    items = {"a": {"style": "sad", "duration": 2.1}}
    hparams = {"styles": ["happy", "sad"], "labels_folder": None}
    assert style.read_labels(hparams, "train", items) == {"a": [1, 1, 1]}
    with pytest.raises(ValueError, match=r"\['sad'\]; add them"):
        style.read_labels(hparams | {"styles": ["happy"]}, "train", items)
    hparams["labels_folder"] = tmp_path
    with pytest.raises(FileNotFoundError, match="run cluster.py"):
        style.read_labels(hparams, "train", items)
    (tmp_path / "train.json").write_text('{"a": [4, 2, 2], "b": [1]}')
    assert style.read_labels(hparams, "train", items)["a"] == [4, 2, 2]
    with pytest.raises(ValueError, match="'c' and 0 more"):
        style.read_labels(hparams, "train", items | {"c": {}})


def test_nearest_cluster(tokenizer):
    wavs, lengths = torch.randn(4, 5 * SECOND), torch.full((4,), 5 * SECOND)
    with torch.no_grad():
        features, _ = tokenizer.features(wavs, lengths)
    rows = features.flatten(0, 1).numpy()
    kmeans = KMeans(6, n_init=1, random_state=0).fit(rows)
    centres = torch.from_numpy(kmeans.cluster_centers_)
    clustered = nearest_cluster(tokenizer, centres, 0.3).eval()
    with torch.no_grad():
        logits, _ = clustered.logits(wavs, lengths)
    assert logits.argmax(-1).flatten().tolist() == kmeans.labels_.tolist()
    # Scores differ as log-likelihoods of Gaussians do.
    distances = torch.cdist(features[0], centres).square() / (2 * 0.3)
    torch.testing.assert_close(
        logits[0].log_softmax(-1),
        (-distances).log_softmax(-1),
        atol=1e-3,
        rtol=1e-3,
    )


def test_speakers_are_taken_off():
    generator = np.random.default_rng(0)
    style = {"happy": 3.0, "sad": -3.0}
    offset = {"anna": [1.0, 0], "ben": [0, 5.0]}
    items, features = {}, {}
    for i in range(40):
        name, speaker = f"u{i}", ["anna", "ben"][i % 2]
        items[name] = {
            "speaker": speaker,
            # How often a speaker is happy does not matter.
            "style": "happy" if i % 8 in (0, 1, 3, 5) else "sad",
        }
        rows = generator.normal(size=(3, 2)) * 0.1
        features[name] = rows + style[items[name]["style"]] + offset[speaker]
    means = {}
    result = take_off_speakers(features, items, means)
    for name, rows in result.items():
        expected = np.array([0.5, 2.5]) + style[items[name]["style"]]
        assert np.abs(rows - expected).max() < 0.5
    # Later splits are measured by the same means; new speakers by their own.
    new = {"x": {"speaker": "cora", "style": "sad"}}
    [rows] = take_off_speakers(
        {"x": np.full((2, 2), 99.0)}, new, means
    ).values()
    np.testing.assert_allclose(rows, np.tile(means[None, "sad"], (2, 1)))


def test_what_units_tell(evaluate):
    class Units(evaluate.Units):
        def __init__(self, streams, items):
            self.streams = {k: np.array(v) for k, v in streams.items()}
            self.items = items
            self.seconds = np.concatenate(list(self.streams.values()))
            self.histograms = np.stack(
                [np.bincount(s, minlength=4) for s in self.streams.values()]
            )

    items = {
        "a": {"style": "sad", "speaker": "anna"},
        "b": {"style": "happy", "speaker": "anna"},
        "c": {"style": "sad", "speaker": "ben"},
        "d": {"style": "happy", "speaker": "ben"},
    }
    streams = {"a": [0, 0, 1], "b": [2, 3], "c": [1, 0], "d": [3, 3, 2]}
    units = Units(streams, items)
    style = evaluate.Teller(units, "style").accuracies(units)
    assert style["style_a_second"] == style["style_an_utterance"] == 1
    assert style["style_by_chance"] == 0.5
    speaker = evaluate.Teller(units, "speaker").accuracies(units)
    assert speaker["speaker_a_second"] == 0.6


def test_map_recordings(tmp_path):
    items = {}
    for i, n in enumerate([4000, 16000, 9000, 15000]):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, np.full(n, (i + 1) / 8), 16000, subtype="FLOAT")
        items[f"u{i}"] = {"wav": str(path), "duration": n / 16000}
    sizes = []

    def halve(wavs, lengths):
        sizes.append(len(wavs))
        return wavs[:, ::2] / 2, (lengths + 1) // 2

    results = dict(map_recordings(halve, items, batch_seconds=2.0))
    assert sorted(sizes) == [1, 1, 2]
    for i, n in enumerate([4000, 16000, 9000, 15000]):
        assert results[f"u{i}"].tolist() == [(i + 1) / 16] * (n // 2)
