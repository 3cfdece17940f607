"""Tests of what trains the phonetic tokenizer."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from speechbrain import Stage
from speechbrain.augment.time_domain import AddNoise
from transformers import HubertConfig, HubertModel

from spiritlm_plugin.integrations import release
from spiritlm_plugin.integrations.export_phonetic import export_quantizer
from spiritlm_plugin.integrations.parts import load_part, save_part
from spiritlm_plugin.lobes.augmentation import (
    Equalizer,
    Noise,
    PitchShift,
    Reverberation,
    Telephone,
    TimeStretch,
)
from spiritlm_plugin.lobes.hubert_pretraining import (
    MaskedUnitPrediction,
    hubert_arguments,
    span_mask,
)
from spiritlm_plugin.lobes.mfcc import MFCC
from spiritlm_plugin.lobes.phonetic import (
    KMeansQuantizer,
    LinearQuantizer,
    PhoneticTokenizer,
)
from spiritlm_plugin.lobes.speech_encoder import SpeechEncoder
from spiritlm_plugin.training.hubert import HubertBrain

# A hop of 640 samples, as the released HuBERT has it.
HUBERT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "conv_dim": [8] * 8,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2, 2],
    "num_feat_extract_layers": 8,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
STILL = {
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
}


def batch_of(wavs):
    """Pad waveforms with noise that is to be ignored."""
    batch = torch.randn(len(wavs), max(map(len, wavs)))
    for row, wav in zip(batch, wavs):
        row[: len(wav)] = wav
    return batch, torch.tensor([len(wav) for wav in wavs])


# One clock for all features

ENCODER = SpeechEncoder(HubertModel(HubertConfig(**HUBERT)))
CEPSTRA = MFCC()


@given(st.integers(720, 100_000))
def test_cepstra_have_the_frames_of_a_hubert(samples):
    frames = int(ENCODER.output_lengths(torch.tensor(samples)))
    assert int(CEPSTRA.output_lengths(torch.tensor(samples))) == frames
    least = ENCODER.input_length(frames)
    assert least <= samples < ENCODER.input_length(frames + 1)


def test_frames_of_twice_the_rate_are_pooled_to_the_clock():
    kernels = {"conv_kernel": HUBERT["conv_kernel"][:7], "conv_dim": [8] * 7}
    fast = {**HUBERT, **kernels, "conv_stride": HUBERT["conv_stride"][:7]}
    fast["num_feat_extract_layers"] = 7
    tokenizer = PhoneticTokenizer(fast, KMeansQuantizer(16, 9), pool=2).eval()
    wavs, lengths = batch_of([torch.randn(n) for n in (16000, 9999, 720)])
    with torch.no_grad():
        features, frames = tokenizer.features(wavs, lengths)
        every, _ = tokenizer.encoder(wavs, lengths)
    assert torch.equal(frames, MFCC().output_lengths(lengths))
    pair = (every[:, 0] + every[:, 1]) / 2
    torch.testing.assert_close(features[:, 0], pair)


def test_cepstra_in_a_batch():
    mfcc = MFCC()
    wavs = [torch.randn(n) for n in (20000, 5555, 720)]
    features, lengths = mfcc(*batch_of(wavs))
    assert features.shape == (3, 31, 39)
    for wav, row, n in zip(wavs, features, lengths.tolist()):
        alone, [frames] = mfcc(wav[None], torch.tensor([len(wav)]))
        assert n == frames == alone.shape[1]
        torch.testing.assert_close(row[:n], alone[0])
        assert not row[n:].any()


def test_cepstra_are_means_over_what_a_frame_hears():
    wav = torch.randn(4000)
    features, _ = MFCC()(wav[None], torch.tensor([4000]))
    heard = [wav[640 * i : 640 * i + 720] for i in range(5)]
    cepstra = torch.stack([MFCC().cepstra(piece) for piece in heard])
    assert cepstra.shape[1:] == (13, 3)
    means = cepstra.mean(2)
    # Those of the utterance are taken off.
    torch.testing.assert_close(
        features[0, 1:5, :13] - features[0, :1, :13],
        means[1:] - means[:1],
        rtol=1e-3,
        atol=1e-3,
    )
    torch.testing.assert_close(
        features[0].mean(0), torch.zeros(39), rtol=0, atol=1e-4
    )


def test_cepstra_make_a_phonetic_part(tmp_path):
    quantizer = {"input_dim": 39, "units": 7}
    tokenizer = PhoneticTokenizer(None, KMeansQuantizer(**quantizer)).eval()
    wavs, lengths = batch_of([torch.randn(16000), torch.randn(4000)])
    features, _ = tokenizer.features(wavs, lengths)
    tokenizer.quantizer.centres.copy_(features[0, ::3][:7])
    arguments = {"hubert": None, "quantizer": quantizer}
    part = load_part("phonetic", save_part(tmp_path, arguments, tokenizer))
    units, frames = part(wavs, lengths)
    assert units[0, ::3][:7].tolist() == list(range(7))
    assert frames.tolist() == [24, 6]


# Masked prediction


def test_masked_frames_are_those_of_transformers():
    model = HubertModel(HubertConfig(**HUBERT, **STILL)).train()
    wav = torch.randn(1, 12000)
    masked = torch.rand(1, 18) < 0.5
    expected = model(wav, mask_time_indices=masked).last_hidden_state
    features, _ = SpeechEncoder(model)(wav, torch.tensor([12000]), masked)
    torch.testing.assert_close(features, expected, atol=2e-4, rtol=1e-3)


def test_training_in_a_batch_is_training_alone():
    encoder = SpeechEncoder(HubertModel(HubertConfig(**HUBERT, **STILL)))
    encoder.train()
    wavs = [torch.randn(n) for n in (9000, 6500)]

    def gradients(batches):
        encoder.zero_grad()
        for batch, lengths in batches:
            features, frames = encoder(batch, lengths)
            for row, n in zip(features, frames):
                row[:n].square().sum().backward(retain_graph=True)
        return {
            name: p.grad.clone()
            for name, p in encoder.named_parameters()
            if p.grad is not None
        }

    together = gradients([batch_of(wavs)])
    alone = gradients([batch_of([wav]) for wav in wavs])
    assert together.keys() == alone.keys()
    # All but the mask, which nothing is replaced with.
    assert len(alone) == len(list(encoder.parameters())) - 1
    for name, gradient in alone.items():
        torch.testing.assert_close(
            together[name], gradient, atol=2e-3, rtol=2e-3, msg=name
        )


def test_layers_are_dropped_in_training_only():
    config = HubertConfig(**HUBERT, **{**STILL, "layerdrop": 1.0})
    encoder = SpeechEncoder(HubertModel(config)).train()
    wav, length = torch.randn(1, 6000), torch.tensor([6000])
    dropped, _ = encoder(wav, length)
    del encoder.model.encoder.layers[:]
    assert torch.equal(encoder(wav, length)[0], dropped)
    assert torch.equal(encoder.eval()(wav, length)[0], dropped)
    encoder = SpeechEncoder(HubertModel(config)).eval()
    kept, _ = encoder(wav, length)
    assert not torch.allclose(kept, dropped)


@pytest.mark.parametrize("length", [1, 5])
def test_span_mask(length):
    mask = span_mask(200, 100, 0.1, length)
    assert mask.shape == (200, 100)
    # The first frames are as likely to be masked as the others.
    for frames in (mask[:, :10], mask[:, 45:55], mask[:, -10:]):
        share = frames.float().mean()
        assert share == pytest.approx(1 - 0.9**length, abs=0.05)
    runs = mask[:, 1:-1].long()
    starts = runs[:, 1:].gt(runs[:, :-1]).nonzero()
    for row, start in starts.tolist():
        run = runs[row, start + 1 :]
        end = start + 1 + int(run.cumprod(0).sum())
        assert end - start - 1 >= length or end == runs.shape[1]


def test_scores_are_cosines():
    model = MaskedUnitPrediction(
        {**HUBERT, **STILL},
        units=5,
        projection_dim=16,
        mask_probability=0.2,
        mask_length=3,
        temperature=0.5,
    )
    wavs, lengths = torch.randn(2, 9000), torch.tensor([9000, 4000])
    scores, frames, masked, _ = model(wavs, lengths)
    assert frames.tolist() == [13, 6] and masked.any() and not masked.all()
    features, _ = model.encoder(wavs, lengths, masked)
    outputs = model.projection(features)
    expected = torch.cosine_similarity(
        outputs[:, :, None], model.embeddings, -1
    )
    torch.testing.assert_close(scores, expected / 0.5, atol=1e-5, rtol=1e-4)


def test_convolutions_get_a_share_of_the_gradient():
    """A tenth of it, but for that of the penalty on their own output."""
    wavs, lengths = torch.randn(2, 9000), torch.tensor([9000, 4000])
    found = []
    for share in (1.0, 0.1):
        torch.manual_seed(0)
        model = MaskedUnitPrediction(
            {**HUBERT, **STILL},
            units=5,
            projection_dim=16,
            mask_probability=0.0,
            mask_length=3,
            feature_gradient=share,
        )
        scores, frames, _, penalty = model(wavs, lengths)
        features = model.encoder.convolve(wavs, lengths)
        inside = torch.arange(features.shape[1]) < frames[:, None]
        expected = features[inside].square().mean()
        torch.testing.assert_close(penalty, expected)
        scores[inside].square().sum().backward()
        encoder = model.encoder.model
        found.append(
            [
                encoder.feature_extractor.conv_layers[1].conv.weight.grad,
                encoder.feature_projection.projection.weight.grad,
            ]
        )
    for share, one, other in zip((0.1, 1.0), *found):
        scale = float(one.abs().max())
        torch.testing.assert_close(
            other / scale, share * one / scale, atol=1e-4, rtol=1e-3
        )


def test_hubert_arguments_make_the_same_model():
    config = HubertConfig(**HUBERT, layer_norm_eps=1e-3)
    model = HubertModel(config).eval()
    arguments = json.loads(json.dumps(hubert_arguments(config, 2)))
    copy = HubertModel(HubertConfig(**arguments)).eval()
    copy.load_state_dict(model.state_dict())
    wav = torch.randn(1, 6000)
    with torch.no_grad():
        assert torch.equal(
            copy(wav).last_hidden_state, model(wav).last_hidden_state
        )
    assert hubert_arguments(config, 1)["num_hidden_layers"] == 1
    with pytest.raises(ValueError, match="from 1 to 2, .* got 3"):
        hubert_arguments(config, 3)


# Robust quantizer


@pytest.mark.parametrize("dim, units", [(16, 50), (64, 20)])
def test_a_quantizer_in_the_released_form_is_read_back(dim, units, tmp_path):
    arguments = {
        "input_dim": dim,
        "units": units,
        "hidden_dims": LinearQuantizer.released_dims(dim, units),
    }
    quantizer = LinearQuantizer(**arguments)
    export_quantizer(tmp_path / "quantizer.pt", quantizer)
    read, state = release._read_quantizer(tmp_path / "quantizer.pt")
    assert read == {**arguments, "hidden_dims": [*arguments["hidden_dims"]]}
    copy = LinearQuantizer(**read)
    copy.load_state_dict(state)
    features = torch.randn(2, 30, dim)
    assert torch.equal(copy.logits(features), quantizer.logits(features))


def test_other_widths_have_no_released_form(tmp_path):
    quantizer = LinearQuantizer(16, 50, (16, 32))
    with pytest.raises(ValueError, match=r"\(25, 34\), got \(16, 32\)"):
        export_quantizer(tmp_path / "quantizer.pt", quantizer)


def test_what_a_hubert_hears_is_changed_in_training_alone():
    class Batch:
        signal = torch.randn(2, 8000), torch.tensor([1.0, 0.5])

        def to(self, device):
            return self

    def quiet(wavs, lengths):
        return 0 * wavs, lengths

    def hear(stage, augmenter):
        heard = []
        brain = SimpleNamespace(
            device="cpu",
            hparams=SimpleNamespace(augmenter=augmenter),
            modules=SimpleNamespace(model=lambda *given: heard.extend(given)),
        )
        HubertBrain.compute_forward(brain, Batch(), stage)
        wavs, lengths = heard
        assert lengths.tolist() == [8000, 4000]
        return bool(wavs.any())

    assert not hear(Stage.TRAIN, quiet)
    assert hear(Stage.TRAIN, None)
    assert hear(Stage.VALID, quiet)


@pytest.mark.parametrize("new, old", [(5, 4), (8, 9)])
def test_pitch_shift(new, old):
    time = torch.arange(16000) / 16000
    wavs = torch.sin(2 * torch.pi * torch.tensor([[300.0], [720.0]]) * time)
    shifted = PitchShift([(new, old)])(wavs)
    assert shifted.shape == wavs.shape
    loudest = torch.fft.rfft(shifted).abs().argmax(1)
    expected = torch.tensor([300.0, 720.0]) * new / old
    torch.testing.assert_close(loudest.float(), expected, atol=2, rtol=0)


@pytest.mark.parametrize("tempo", [0.8, 1.25])
def test_time_stretch(tempo):
    time = torch.arange(16000) / 16000
    wavs = torch.sin(2 * torch.pi * torch.tensor([[300.0], [720.0]]) * time)
    stretched = TimeStretch([tempo])(wavs)
    assert stretched.shape == (2, 16000 / tempo)
    loudest = torch.fft.rfft(stretched).abs().argmax(1) * tempo
    torch.testing.assert_close(
        loudest, torch.tensor([300.0, 720.0]), atol=2, rtol=0
    )


def test_telephone():
    time = torch.arange(16001) / 16000
    hertz = torch.tensor([[100.0], [1000.0], [3000.0], [5000.0]])
    wavs = 0.5 * torch.sin(2 * torch.pi * hertz * time)
    heard = Telephone()(wavs)
    assert heard.shape == wavs.shape
    power = heard[:, 1000:15000].std(1) / wavs[:, 1000:15000].std(1)
    assert power[[0, 3]].max() < 0.05
    assert power[[1, 2]].tolist() == pytest.approx([1, 1], abs=0.05)
    # 8 bits: as of quantization, the noise is 35 dB below.
    error = (heard - wavs)[1, 1000:15000].std() / wavs[1].std()
    assert 0.003 < error < 0.03


def write(path, samples, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.asarray(samples, np.float32), rate, "FLOAT")


def test_noise_is_a_piece_of_a_recording(tmp_path):
    long = torch.arange(1, 5001) / 5000
    write(tmp_path / "music" / "long.wav", long)
    noise = Noise(tmp_path)(torch.zeros(50, 1000))
    starts = {round(float(piece[0] * 5000)) for piece in noise}
    assert len(starts) > 30 and min(starts) < 1000 and max(starts) > 3000
    for piece in noise:
        start = round(float(piece[0] * 5000)) - 1
        torch.testing.assert_close(piece, long[start : start + 1000])


def test_noise_is_repeated_mixed_and_resampled(tmp_path):
    write(tmp_path / "short" / "a.wav", np.ones((300, 2)) * [0.2, 0.4])
    [noise] = Noise(tmp_path / "short")(torch.zeros(1, 1000))
    torch.testing.assert_close(noise, torch.full((1000,), 0.3))
    time = np.arange(8000) / 8000
    write(tmp_path / "slow" / "a.wav", np.sin(2 * np.pi * 500 * time), 8000)
    [noise] = Noise(tmp_path / "slow")(torch.zeros(1, 8000))
    assert int(torch.fft.rfft(noise).abs().argmax()) == 250


def test_noise_is_the_seeds(tmp_path):
    for place in ("one", "other"):
        for i in range(9):
            signal = np.random.default_rng(i).normal(size=2000)
            write(tmp_path / place / f"{i % 3}" / f"{i}.wav", 0.1 * signal)
    found = []
    for place in ("one", "one", "other"):
        noise = Noise(tmp_path / place)
        torch.manual_seed(7)
        found.append([noise(torch.zeros(4, 500)) for _ in range(2)])
    assert torch.equal(*(torch.cat(x) for x in found[:2]))
    assert torch.equal(*(torch.cat(x) for x in found[1:]))
    assert not torch.equal(*found[0])


def test_noise_is_as_loud_as_asked(tmp_path):
    signal = np.random.default_rng(0).normal(size=40000)
    write(tmp_path / "a.flac.wav", 0.01 * signal)
    add = AddNoise(snr_low=10, snr_high=10, noise_funct=Noise(tmp_path))
    wavs = torch.sin(torch.arange(16000) / 9)[None]
    changed = add(wavs, torch.ones(1))[0]
    # The noise is what of it is orthogonal to the tone.
    share = (changed @ wavs[0]) / (wavs[0] @ wavs[0])
    rest = changed - share * wavs[0]
    ratio = 20 * torch.log10(share * wavs.std() / rest.std())
    assert float(ratio) == pytest.approx(10, abs=0.2)


def test_noise_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder.*nowhere"):
        Noise(tmp_path / "nowhere")
    (tmp_path / "README.txt").write_text("no sound")
    (tmp_path / "._a.wav").write_text("of a Mac")
    with pytest.raises(ValueError, match="holds no recording; unpack"):
        Noise(tmp_path)
    write(tmp_path / "bad" / "nan.wav", [0.1, np.nan, 0.1])
    with pytest.raises(ValueError, match="nan.wav is empty, damaged"):
        Noise(tmp_path / "bad")(torch.zeros(1, 3))
    (tmp_path / "text" / "a.wav").parent.mkdir()
    (tmp_path / "text" / "a.wav").write_text("no sound")
    with pytest.raises(ValueError, match="cannot read .*a.wav as audio"):
        Noise(tmp_path / "text")(torch.zeros(1, 3))


def test_rooms_are_those_of_a_folder(tmp_path):
    """From the direct sound on, of which neither sign nor size matters."""
    echo = np.zeros(400)
    echo[[30, 130, 330]] = [-0.5, 0.25, -0.125]
    write(tmp_path / "simulated_rirs" / "small" / "Room-1.wav", echo)
    write(tmp_path / "pointsource_noises" / "noise-free-1.wav", echo[::-1])
    room = Reverberation((0.2, 0.8), (0.0, 10.0), tmp_path)
    click = torch.zeros(2, 1000)
    click[:, 100] = 1.0
    wet = room(click)
    expected = torch.zeros(1000)
    expected[[100, 200, 400]] = torch.tensor([1.0, -0.5, 0.25])
    expected /= expected.norm()
    for heard in wet:
        torch.testing.assert_close(heard, expected, atol=1e-5, rtol=1e-4)


def test_a_channel_of_a_room_is_drawn(tmp_path):
    near, far = np.zeros((2, 200))
    near[[0, 50]] = far[[0, 150]] = [1, 0.5]
    write(tmp_path / "array.wav", np.stack([near, far], 1))
    room = Reverberation((0.2, 0.8), (0.0, 10.0), str(tmp_path))
    click = torch.zeros(30, 500)
    click[:, 0] = 1.0
    echoes = [heard[1:].argmax().item() + 1 for heard in room(click)]
    assert set(echoes) == {50, 150}


def test_rooms_that_cannot_be_used_are_named(tmp_path):
    write(tmp_path / "noise.wav", [0.1] * 9)
    with pytest.raises(ValueError, match='recording without "noise" in its'):
        Reverberation((0.2, 0.8), (0.0, 10.0), tmp_path)
    write(tmp_path / "silent.wav", [0.0] * 9)
    room = Reverberation((0.2, 0.8), (0.0, 10.0), tmp_path)
    with pytest.raises(ValueError, match="silent.wav holds no sound"):
        room(torch.ones(1, 100))


def test_reverberation():
    room = Reverberation((0.3, 0.3), (0.0, 0.0))
    click = torch.zeros(1, 16000)
    click[0, 1000] = 1.0
    wet = room(click)[0]
    assert wet.norm() == pytest.approx(1.0, rel=1e-4)
    assert wet[:1000].abs().max() < 1e-5
    # As much energy in the tail as in the direct sound.
    energy = wet.square()
    assert energy[1000] == pytest.approx(0.5, abs=0.02)
    # 60 dB in 0.3 s: 20 dB in 0.1 s.
    early, late = energy[1001:1401].mean(), energy[2601:3001].mean()
    assert 10 * torch.log10(early / late) == pytest.approx(20, abs=3)


def test_rooms_differ():
    room = Reverberation((0.2, 0.8), (0.0, 10.0))
    wavs = torch.randn(1, 4000).repeat(2, 1)
    one, other = room(wavs)
    assert not torch.allclose(one, other)
    torch.manual_seed(3)
    first = room(wavs)
    torch.manual_seed(3)
    assert torch.equal(room(wavs), first)


def test_equalizer():
    # Noise has all frequencies, so that the curve can be read off.
    wavs = torch.randn(2, 16000).repeat_interleave(2, 0)
    changed = Equalizer(12.0)(wavs)
    assert changed.shape == wavs.shape
    torch.testing.assert_close(changed.norm(dim=1), wavs.norm(dim=1))
    spectra = (torch.fft.rfft(x).abs() for x in (changed, wavs))
    curves = 20 * torch.log10(next(spectra) / next(spectra))
    smooth = curves.unfold(1, 80, 80).median(2).values
    # Two gains differ by 24 dB at most, and neighbours by little.
    assert (smooth.amax(1) - smooth.amin(1)).max() < 25
    assert (smooth.amax(1) - smooth.amin(1)).min() > 2
    assert smooth[:, 10:].diff(dim=1).abs().max() < 3
    # Each waveform has a curve of its own.
    assert not torch.allclose(smooth[0], smooth[1], atol=1)


def test_equalizer_of_nothing():
    wavs = torch.randn(1, 3000)
    torch.testing.assert_close(Equalizer(0.0)(wavs), wavs)
    assert not Equalizer(12.0)(torch.zeros(1, 3000)).any()
