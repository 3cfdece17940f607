"""Tests of the tokenizers' and the vocoder's modules on small networks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
)

from spiritlm_plugin.inference import SpeechCodec
from spiritlm_plugin.lobes import hifigan
from spiritlm_plugin.lobes.durations import DurationPredictor
from spiritlm_plugin.lobes.hifigan import HifiGanGenerator
from spiritlm_plugin.lobes.masking import frame_mask
from spiritlm_plugin.lobes.phonetic import (
    KMeansQuantizer,
    LinearQuantizer,
    fill_blanks,
)
from spiritlm_plugin.lobes.pitch import FCPE, PitchQuantizer, PitchTokenizer
from spiritlm_plugin.lobes.speech_encoder import SpeechEncoder
from spiritlm_plugin.lobes.style import StyleTokenizer, _pool
from tests.benchmarks import benchmark_tokenizing
from tests.benchmarks.benchmark_inference import recordings

TRANSFORMER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def batch_of(items):
    """Pad items along the last axis with noise that is to be ignored."""
    longest = max(item.shape[-1] for item in items)
    batch = torch.randn(len(items), *items[0].shape[:-1], longest)
    for row, item in zip(batch, items):
        row[..., : item.shape[-1]] = item
    return batch, torch.tensor([item.shape[-1] for item in items])


def randomize(module):
    """Give all weights values, norms and biases among them."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


# Phonetic and style


@given(
    st.lists(
        st.lists(st.integers(0, 3), min_size=1, max_size=9),
        min_size=1,
        max_size=3,
    ),
    st.integers(0, 2),
)
def test_fill_blanks(items, more):
    blank = 3
    units = torch.full((len(items), max(map(len, items)) + more), 1)
    for row, item in zip(units, items):
        row[: len(item)] = torch.tensor(item)
    lengths = torch.tensor([len(item) for item in items])
    filled = fill_blanks(units, lengths, blank)
    for row, item in zip(filled.tolist(), items):
        for i in range(len(item)):
            # To the left, and round the end: index -1 is the last.
            left = [item[i - k] for k in range(len(item))]
            expected = next((u for u in left if u != blank), blank)
            assert row[i] == expected
        assert row[len(item) :] == [1] * (len(row) - len(item))


def test_linear_quantizer():
    quantizer = LinearQuantizer(6, units=3, hidden_dims=(15, 14))
    features = torch.randn(2, 40, 6) * 9
    classes = quantizer.layers(features).argmax(-1)
    assert (classes == 3).any() and len(classes.unique()) == 4
    lengths = torch.tensor([40, 13])
    units = quantizer(features, lengths)
    assert torch.equal(units, fill_blanks(classes, lengths, 3))
    assert isinstance(quantizer.layers[1], nn.LeakyReLU)
    assert quantizer.layers[1].negative_slope == 0.01


def test_kmeans_quantizer_takes_the_nearest():
    quantizer = KMeansQuantizer(6, units=50)
    quantizer.centres.copy_(torch.randn(50, 6) * torch.rand(50, 1) * 4)
    features = torch.randn(3, 200, 6) * 2
    distances = torch.cdist(features.double(), quantizer.centres.double())
    units = quantizer(features, torch.tensor([200, 100, 1]))
    assert torch.equal(units, distances.argmin(-1))
    assert len(units.unique()) > 25


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("eps", [None, 1e-5])
def test_speech_encoder(eps, prepared):
    model = randomize(HubertModel(HubertConfig(**TRANSFORMER)))
    wavs = [torch.randn(n) * 3 + 1 for n in (24000, 16123, 400, 1280)]
    wavs.append(torch.randn(3000) * 1e-3)  # quiet enough to see epsilons
    expected = []
    for wav in wavs:
        if eps is not None:
            wav = (wav - wav.mean()) / (wav.var(correction=0) + eps).sqrt()
        expected.append(model(wav[None]).last_hidden_state[0])
    encoder = SpeechEncoder(model, eps)
    if prepared:
        encoder.prepare_for_inference()
    features, lengths = encoder(*batch_of(wavs))
    assert lengths.tolist() == [len(e) for e in expected]
    for row, e in zip(features, expected):
        torch.testing.assert_close(row[: len(e)], e, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "config", [{"feat_extract_norm": "layer"}, {"do_stable_layer_norm": True}]
)
def test_speech_encoder_refuses_other_models(config):
    model = HubertModel(HubertConfig(**TRANSFORMER, **config))
    with pytest.raises(ValueError, match="feat_extract_norm='group'"):
        SpeechEncoder(model)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.integers(0, 9),
    st.integers(1, 12),
)
def test_style_pooling(lengths, more, frames):
    features = torch.randn(len(lengths), max(lengths) + more, 3)
    pooled, counts = _pool(features, torch.tensor(lengths), frames)
    assert counts.tolist() == [math.ceil(n / frames) for n in lengths]
    for row, item, n in zip(pooled, features, lengths):
        for i, start in enumerate(range(0, n, frames)):
            mean = item[start : min(start + frames, n)].mean(0)
            torch.testing.assert_close(row[i], mean)


def test_style_tokenizer():
    config = {**TRANSFORMER, "classifier_proj_size": 12}
    model = Wav2Vec2ForSequenceClassification(
        Wav2Vec2Config(**config, num_labels=9)
    )
    randomize(model)
    tokenizer = StyleTokenizer(config, units=9, frames=20).eval()
    tokenizer.encoder.model.load_state_dict(model.wav2vec2.state_dict())
    tokenizer.projector.load_state_dict(model.projector.state_dict())
    tokenizer.classifier.load_state_dict(model.classifier.state_dict())
    wavs = [torch.randn(n) * 0.1 - 0.4 for n in (20000, 16000, 1280)]
    wavs.append(torch.randn(4000) * 1e-4)  # quiet enough to see epsilons
    wavs_and_lengths = batch_of(wavs)
    logits, lengths = tokenizer.logits(*wavs_and_lengths)
    units, _ = tokenizer(*wavs_and_lengths)
    for wav, row, chosen, n in zip(wavs, logits, units, lengths.tolist()):
        wav = (wav - wav.mean()) / (wav.var(correction=0) + 1e-7).sqrt()
        hidden = model.wav2vec2(wav[None]).last_hidden_state[0]
        parts = model.projector(hidden).split(20)
        expected = torch.stack([model.classifier(p.mean(0)) for p in parts])
        assert n == len(expected)
        torch.testing.assert_close(row[:n], expected, atol=2e-4, rtol=1e-3)
        assert torch.equal(chosen[:n], row[:n].argmax(-1))


# Pitch


def voice(samples, pitch, seed=0):
    """Make a buzz that glides from a pitch, with noise and pauses in it."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 16000
    phase = 2 * torch.pi * torch.cumsum(pitch * (1 + 0.3 * time), 0) / 16000
    buzz = sum(torch.sin(k * phase) / k for k in range(1, 12)) / 4
    buzz = buzz * (torch.sin(2 * torch.pi * 1.7 * time) > -0.4)
    return buzz + 0.002 * torch.randn(samples, generator=generator)


@pytest.fixture(scope="module")
def fcpe():
    return FCPE().eval()


@pytest.fixture(scope="module")
def wavs():
    wavs = [voice(32000, 110), voice(17777, 230), voice(1280, 150)]
    low = voice(24000, 47)
    quiet = torch.zeros(4000)
    hiss = 0.1 * torch.randn(6000, generator=torch.Generator().manual_seed(1))
    return [*wavs, quiet, torch.cat([hiss, wavs[1][:9000], hiss]), low]


def test_fcpe_is_torchfcpe(fcpe, wavs):
    import torchfcpe

    reference = torchfcpe.spawn_bundled_infer_model("cpu")
    seen = set()
    for wav in wavs:
        f0, voiced, lengths = fcpe(wav[None], torch.tensor([len(wav)]))
        frames = len(wav) // 80 + 1
        assert lengths.tolist() == [frames]
        assert f0.shape == voiced.shape == (1, frames)
        if not voiced.any():
            assert not f0.any()  # torchfcpe does not define it
            continue
        expected, unvoiced = reference.infer(
            wav[None, :, None],
            16000,
            decoder_mode="local_argmax",
            threshold=0.05,
            f0_min=50,
            f0_max=1100,
            interp_uv=True,
            output_interp_target_length=frames,
            retur_uv=True,
        )
        assert torch.equal(voiced[0], 1 - unvoiced[0, :, 0])
        torch.testing.assert_close(f0, expected[..., 0], rtol=1e-4, atol=0.01)
        seen.update(voiced.unique().tolist())
    assert seen == {0.0, 1.0}


def test_fcpe_finds_the_pitch(fcpe):
    time = torch.arange(16000) / 16000
    for pitch in (90.0, 180.0, 330.0):
        wav = sum(torch.sin(2 * torch.pi * pitch * k * time) for k in (1, 2, 3))
        f0, voiced, _ = fcpe(wav[None] / 4, torch.tensor([16000]))
        assert voiced[0, 20:-20].all()
        assert (f0[0, 20:-20] / pitch - 1).abs().max() < 0.01


def test_fcpe_in_a_batch(fcpe, wavs):
    f0, voiced, lengths = fcpe(*batch_of(wavs))
    assert f0.shape == (6, 401)
    for i, wav in enumerate(wavs):
        alone, is_voiced, [n] = fcpe(wav[None], torch.tensor([len(wav)]))
        assert int(n) == int(lengths[i])
        assert torch.equal(voiced[i, :n], is_voiced[0])
        torch.testing.assert_close(f0[i, :n], alone[0], rtol=1e-4, atol=0.01)
        assert not f0[i, n:].any() and not voiced[i, n:].any()
    assert not voiced[3].any() and not f0[3].any()  # silence


def test_unvoiced_frames_lie_between_those_of_their_item(fcpe, monkeypatch):
    # Behind an item all is voiced, and none of its business.
    hertz = torch.full((3, 12), 300.0)
    hertz[0, :7] = torch.tensor([0.0, 100, 0, 0, 160, 0, 0])
    hertz[1, :12] = torch.tensor([200.0, 0] * 6)
    hertz[2, :4] = 0.0
    lengths = torch.tensor([6 * 160, 11 * 160 + 80, 3 * 160 + 159])
    monkeypatch.setattr(fcpe, "_salience", lambda mels, counts: hertz)
    monkeypatch.setattr(
        fcpe.network, "latent2cents_local_decoder", lambda x, threshold: x
    )
    monkeypatch.setattr(fcpe.network, "cent_to_f0", lambda x: x[..., None])
    f0, voiced, frames = fcpe(torch.zeros(3, 2000), lengths)
    assert frames.tolist() == [13, 24, 8]
    filled = [100, 100, 120, 140, 160, 160, 160]
    assert f0[0, :13].tolist() == [x for x in filled for _ in "ab"][:13]
    assert voiced[0, :13].tolist() == [0, 0, 1, 1, *[0] * 4, 1, 1, 0, 0, 0]
    assert (f0[1] == 200).all() and voiced[1].tolist() == [1, 1, 0, 0] * 6
    for row, count in zip(range(3), [13, 24, 0]):
        assert not f0[row, count:].any() and not voiced[row, count:].any()


def test_pitch_units_are_those_of_a_recording_alone(fcpe):
    torch.manual_seed(0)
    quantizer = PitchQuantizer(64, width=8, output_width=16)
    nn.init.normal_(quantizer.codebook, std=0.3)
    tokenizer = PitchTokenizer(fcpe, quantizer)
    # All remainders of a frame, in no order, twice the same length.
    lengths = [1280, 9999, 16000, 1439, 12345, 16000, 1440, 2000, 5041]
    wavs = [voice(n, 100 + 17 * i, seed=i) for i, n in enumerate(lengths)]
    alone = []
    for wav in wavs:
        [units], [count] = tokenizer(wav[None], torch.tensor([len(wav)]))
        alone.append(units[:count].tolist())
    for chosen in (range(9), [3, 0], [2, 5], [8, 1, 6]):
        units, counts = tokenizer(*batch_of([wavs[i] for i in chosen]))
        found = [row[:n].tolist() for row, n in zip(units, counts.tolist())]
        assert found == [alone[i] for i in chosen]
    assert len({unit for units in alone for unit in units}) > 10


@pytest.mark.parametrize("downs", [1, 4])
def test_pitch_quantizer_in_a_batch(downs):
    quantizer = PitchQuantizer(16, width=6, output_width=4, downs=downs)
    randomize(quantizer)
    quantizer.codebook.normal_(std=2.0)
    items = [torch.randn(2, n) for n in (201, 160, 97, 33, 16)]
    batch, lengths = batch_of(items)
    for row, n in zip(batch, lengths):
        row[:, n:] = 0
    encoded, counts = quantizer.encode(batch, lengths)
    units, _ = quantizer(batch, lengths)
    assert counts.tolist() == [n // 2**downs for n in lengths.tolist()]
    for i, item in enumerate(items):
        one = torch.tensor([item.shape[1]])
        alone = quantizer.encode(item[None], one)[0][0].T
        n = len(alone)
        assert n == int(counts[i])
        torch.testing.assert_close(
            encoded[i, :, :n].T, alone, atol=1e-4, rtol=1e-4
        )
        nearest = torch.cdist(alone.double(), quantizer.codebook.double())
        assert torch.equal(units[i, :n], nearest.argmin(1))


@pytest.mark.parametrize("center", [True, False])
def test_pitch_tokenizer_centres_on_voiced_frames(center):
    f0 = torch.tensor([[100.0, 150, 200, 0, 0], [0, 0, 0, 0, 0]])
    voiced = torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
    seen = []

    def quantizer(features, lengths):
        seen.append(features)
        return features[:, 0].long(), lengths

    tokenizer = PitchTokenizer(
        lambda wavs, lengths: (f0, voiced, lengths // 80 + 1),
        quantizer,
        center,
    )
    _, lengths = tokenizer(torch.zeros(2, 400), torch.tensor([320, 400]))
    assert lengths.tolist() == [5, 6]
    [features] = seen
    assert torch.equal(features[:, 1], voiced)
    mean = 150.0 if center else 0.0
    row = [100 - mean, 150 - mean, 200 - mean, 0, 0]
    assert features[:, 0].tolist() == [row, [0] * 5]


# All three


def test_few_units_change_in_bfloat16():
    tokenizer = SpeechCodec.from_hparams("tinyspeech").mods.tokenizer
    wavs = recordings([2.7, 1.01, 0.5])
    exact = tokenizer(wavs)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = tokenizer(wavs)
    # Measured: 1 of 515 phonetic units, and none of the others.
    for stream, most in (("phonetic", 0.02), ("pitch", 0), ("style", 0.1)):
        one, other = (
            torch.cat([getattr(units, stream) for units in found])
            for found in (exact, reduced)
        )
        assert int((one != other).sum()) <= most * len(one)
        assert len(one.unique()) > 1


def test_the_benchmark_of_tokenizing_runs(capsys):
    threads = f"--threads={torch.get_num_threads()}"
    benchmark_tokenizing.main(
        ["--quick", "--seconds=9", "--repeats=1", threads]
    )
    rows = [x for x in capsys.readouterr().out.splitlines() if x[:1] == "|"]
    names = ["phonetic", "pitch", "style", "all three"]
    assert [row.split(" | ")[0] for row in rows[2:]] == [
        f"| {n}" for n in names
    ]
    for row in rows[2:]:
        _, wall, cpu, memory = row.strip("| ").split(" | ")
        assert min(float(wall), float(cpu), float(memory.replace(",", ""))) > 0


# Vocoder


@pytest.fixture(params=[(), (1, 3)], ids=["plain", "frame_block"])
def generator(request):
    shape = 4, 16, [5, 4], [11, 8], [3, 5], [[1, 3], [1, 2]]
    return randomize(HifiGanGenerator(*shape, frame_dilations=request.param))


def zero_padded_generator(generator, x):
    """HiFi-GAN with torch's own one-dimensional functions."""
    from torch.nn.functional import conv1d, conv_transpose1d, leaky_relu

    def run(module, x, function=conv1d, **options):
        weight = module.weight.squeeze(2)
        return function(x, weight, module.bias, **options)

    def run_block(block, x, kernel, dilations):
        half = (kernel - 1) // 2
        for first, second, d in zip(block.dilated, block.plain, dilations):
            y = run(first, leaky_relu(x, 0.1), padding=half * d, dilation=d)
            x = x + run(second, leaky_relu(y, 0.1), padding=half)
        return x

    x = run(generator.input, x, padding=3)
    if generator.frames is not None:
        x = run_block(generator.frames, x, 3, (1, 3))
    for stage, rate, padding in zip(generator.stages, (5, 4), (3, 2)):
        x = run(
            stage.upsampler,
            leaky_relu(x, 0.1),
            conv_transpose1d,
            stride=rate,
            padding=padding,
        )
        x = sum(
            run_block(block, x, kernel, dilations)
            for block, kernel, dilations in zip(
                stage.blocks, (3, 5), ((1, 3), (1, 2))
            )
        )
        x = x / 2
    return run(generator.output, leaky_relu(x), padding=3).tanh()


@pytest.mark.parametrize("prepared", [False, True])
def test_generator_in_a_batch(generator, prepared):
    items = [torch.randn(4, n) for n in (30, 17, 4, 1)]
    expected = [zero_padded_generator(generator, i[None])[0] for i in items]
    if prepared:
        generator.prepare_for_inference()
    wavs = generator(*batch_of(items))
    assert generator.hop == 20 and wavs.shape == (4, 1, 600)
    for row, item, wav in zip(wavs, items, expected):
        n = wav.shape[1]
        assert n == 20 * item.shape[1]
        torch.testing.assert_close(row[:, :n], wav, atol=1e-4, rtol=1e-4)
        assert not row[:, n:].any()


def test_a_new_frame_block_adds_nothing():
    shape = 4, 16, [5, 4], [11, 8], [3, 5], [[1, 3], [1, 2]]
    plain = randomize(HifiGanGenerator(*shape))
    deep = HifiGanGenerator(*shape, frame_dilations=[1, 3])
    missing, unknown = deep.load_state_dict(plain.state_dict(), strict=False)
    assert not unknown and all(name.startswith("frames.") for name in missing)
    x, lengths = torch.randn(1, 4, 30), torch.tensor([30])
    assert torch.equal(deep(x, lengths), plain(x, lengths))
    deep.prepare_for_inference()
    torch.testing.assert_close(
        deep(x, lengths), plain(x, lengths), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("frames", [1, 60, 61, 200])
def test_generator_in_pieces(generator, monkeypatch, frames):
    monkeypatch.setattr(hifigan, "_PIECE_SAMPLES", 60 * 20)
    x = torch.randn(4, frames)
    whole = generator(x[None], torch.tensor([frames]))[0, 0]
    torch.testing.assert_close(
        generator.synthesize(x), whole, atol=1e-5, rtol=1e-5
    )


def test_generator_can_be_trained_in_a_batch(generator):
    items = [torch.randn(4, n) for n in (9, 5)]

    def gradients(batches):
        generator.zero_grad()
        with torch.enable_grad():
            sum(
                generator(x, lengths).square().sum() for x, lengths in batches
            ).backward()
        return [p.grad.clone() for p in generator.parameters()]

    together = gradients([batch_of(items)])
    alone = gradients([batch_of([item]) for item in items])
    for ours, theirs in zip(together, alone):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_duration_predictor_in_a_batch():
    predictor = randomize(DurationPredictor(5, 7))
    items = [torch.randn(n, 5) for n in (12, 7, 2, 1)]
    batch, lengths = batch_of([item.T for item in items])
    out = predictor(batch.transpose(1, 2), frame_mask(lengths, 12))
    for row, item in zip(out, items):
        # Conv, ReLU, LayerNorm, twice, and a linear map.
        x = item[None]
        for conv, norm in (
            (predictor.conv1, predictor.norm1),
            (predictor.conv2, predictor.norm2),
        ):
            x = norm(conv(x.transpose(1, 2)).relu().transpose(1, 2))
        expected = predictor.output(x)[0, :, 0]
        torch.testing.assert_close(row[: len(item)], expected)
