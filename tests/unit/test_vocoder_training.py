"""Tests of what trains a vocoder: crops, losses, discriminators, measures."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from speechbrain import Stage
from speechbrain.lobes.models.HifiGAN import (
    DiscriminatorLoss,
    GeneratorLoss,
    L1SpecLoss,
    MelganFeatureLoss,
    MSEDLoss,
    MSEGLoss,
)

from spiritlm_plugin.dataio.audio.cropping import draw_start, read_piece
from spiritlm_plugin.dataio.units.frames import fill_blanks, unit_frames
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.lobes.discriminators import SmallDiscriminator
from spiritlm_plugin.lobes.feature_loss import PhoneticFeatureLoss
from spiritlm_plugin.lobes.spectral_loss import MultiResolutionSTFTLoss
from spiritlm_plugin.lobes.vocoder import UnitVocoder
from spiritlm_plugin.metrics.recognition import (
    load_recognizer,
)
from spiritlm_plugin.metrics.resynthesis import bit_rate, unit_agreement
from spiritlm_plugin.metrics.style import StyleClassifier


@pytest.fixture
def vocoder():
    torch.manual_seed(0)
    return UnitVocoder(
        phonetic_units=20,
        pitch_units=8,
        style_units=4,
        embedding_dim=8,
        speakers=["ann", "bob"],
        duration_dim=8,
        generator={
            "channels": 32,
            "upsample_rates": [5, 4, 4, 8],
            "upsample_kernels": [11, 8, 8, 16],
            "resblock_kernels": [3],
            "resblock_dilations": [[1]],
        },
    ).eval()


def test_features_judge_the_waveform_and_stay_as_they_are(load, checkpoints):
    tokenizer = load(checkpoints, "base").mods.tokenizer.phonetic
    loss = PhoneticFeatureLoss(tokenizer)
    wav = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    made = (wav + 0.1).requires_grad_()
    loss(made, wav).backward()
    assert made.grad.abs().sum() > 0
    assert all(p.grad is None for p in tokenizer.parameters())


def test_piece_is_what_the_file_holds(recording):
    whole, _ = soundfile.read(recording, dtype="float32")
    piece = read_piece(recording, 6400, 3200)
    assert np.array_equal(piece.numpy(), whole[6400:9600])
    end = read_piece(recording, len(whole) - 100, 300)
    assert np.array_equal(end[:100].numpy(), whole[-100:])
    assert not end[100:].any()
    assert not read_piece(recording, len(whole) + 9, 50).any()


def test_piece_of_another_rate(tmp_path):
    time = np.arange(48000) / 48000
    tone = np.sin(2 * np.pi * 300 * time)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone, tone], 1) / 2, 48000)
    piece = read_piece(path, 4000, 1600)
    expected = np.sin(2 * np.pi * 300 * np.arange(4000, 5600) / 16000) / 2
    assert piece.shape == (1600,)
    assert np.abs(piece.numpy() - expected)[50:-50].max() < 0.01


def test_piece_of_a_damaged_file(tmp_path):
    path = tmp_path / "text.wav"
    path.write_text("no audio")
    with pytest.raises(ValueError, match="prepare the corpus again"):
        read_piece(path, 0, 100)


def test_starts_are_spread():
    generator = torch.Generator().manual_seed(0)
    starts = {draw_start(10, 7, generator) for _ in range(100)}
    assert starts == {0, 1, 2, 3}
    assert draw_start(3, 7, generator) == 0


def test_spectral_loss():
    loss = MultiResolutionSTFTLoss([128, 512])
    torch.manual_seed(0)
    wav = torch.randn(2, 4000)
    near = sum(loss(wav + 0.01 * torch.randn(2, 4000), wav))
    far = sum(loss(torch.randn(2, 4000), wav))
    assert 0 < near < far / 2
    silence = torch.zeros(1, 4000, requires_grad=True)
    sum(loss(silence, wav[:1])).backward()
    assert silence.grad.isfinite().all()


def test_discriminators_in_speechbrains_losses():
    torch.manual_seed(0)
    discriminator = SmallDiscriminator([2, 3], [256], channels=4)
    made = torch.randn(2, 1, 4001, requires_grad=True)
    true = torch.randn(2, 1, 4001)
    scores, features = discriminator(made)
    true_scores, true_features = discriminator(true)
    losses = GeneratorLoss(
        stft_loss=MultiResolutionSTFTLoss([256]),
        stft_loss_weight=1,
        mseg_loss=MSEGLoss(),
        mseg_loss_weight=1,
        feat_match_loss=MelganFeatureLoss(),
        feat_match_loss_weight=1,
        l1_spec_loss=L1SpecLoss(16000, 256, 1024),
        l1_spec_loss_weight=1,
    )(Stage.TRAIN, made, true, scores, features, true_features)
    losses["G_loss"].backward(retain_graph=True)
    assert made.grad.isfinite().all() and made.grad.any()
    discriminator.zero_grad()
    judged = DiscriminatorLoss(MSEDLoss())(scores, true_scores)
    judged["D_loss"].backward()
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_durations_leave_the_embeddings_alone(vocoder):
    vocoder.train()
    units = torch.tensor([[1, 5, 7], [2, 3, 0]])
    log_durations = vocoder.log_durations(units, torch.tensor([3, 2]))
    log_durations[0].sum().backward()
    assert vocoder.embeddings["phonetic"].weight.grad is None
    assert vocoder.duration_predictor.output.weight.grad.any()


@pytest.mark.parametrize("lasts", [1, 3])
def test_calibrated_durations_add_up(vocoder, lasts):
    generator = torch.Generator().manual_seed(0)
    items = [
        torch.randint(21, (count,), generator=generator)  # 20 is blank
        for count in (40, 1, 17)
    ]
    items = [item.repeat_interleave(lasts) for item in items]
    items.append(torch.tensor([20, 20]))
    vocoder.calibrate_durations(items)
    again = vocoder.calibrate_durations(items)
    assert abs(again) < 1e-6
    merged = [fill_blanks(item, 20).unique_consecutive() for item in items]
    predicted = sum(int(f.sum()) for f in vocoder.predict_frames(merged))
    assert predicted == pytest.approx(sum(map(len, items[:3])), abs=3)


def test_training_hears_what_synthesis_makes(vocoder):
    units = SpeechUnits(range(13), pitch=[1, 2, 3, 4, 5, 6], style=[2])
    frames = {name: x[None] for name, x in unit_frames(units).items()}
    with torch.no_grad():
        wavs, lengths = vocoder(frames, torch.tensor([13]), torch.tensor([1]))
        [expected] = vocoder.synthesize([units], [1])
    assert lengths.tolist() == [len(expected)]
    assert torch.allclose(wavs[0], expected, atol=1e-6)


def test_agreement_of_units():
    one = SpeechUnits([1, 1, 2, 3], pitch=[4, 5], style=[6])
    other = SpeechUnits([1, 1, 2, 9], pitch=[4], style=[7])
    figures = unit_agreement([one, one], [one, other])
    assert figures["same_phonetic"] == 7 / 8
    assert figures["same_pitch"] == 1
    assert figures["same_style"] == 1 / 2
    assert figures["unit_edit_distance"] == 1 / 6
    assert "same_pitch" not in unit_agreement([one], [other.base()])


def test_bit_rate():
    units = SpeechUnits([0, 0, 1, 0] * 25, pitch=[3] * 50, style=[1] * 4)
    rates = bit_rate(
        [units, units], {"phonetic": 512, "pitch": 64, "style": 128}
    )
    # 0 0 | 1 | 0 0 0 | 1 | ...: two runs in four frames, and one more.
    assert rates["phonetic"] == pytest.approx(51 * 9 / 4)
    assert rates["pitch"] == pytest.approx(6 / 4)
    assert rates["style"] == pytest.approx(7)
    total = rates["phonetic"] + rates["pitch"] + rates["style"]
    assert math.isclose(rates["total"], total)


class LoopingWhisper:
    """Repeats itself without end, unless it is kept from it."""

    def __init__(self, folder, **options):
        pass

    def transcribe(self, wav, no_repeat_ngram_size=0, **options):
        loops = len(wav) > 5 and not no_repeat_ngram_size
        ratio, text = (15.0, " I know, I know," * 40) if loops else (1, " so ")
        segment = SimpleNamespace(text=text, compression_ratio=ratio)
        return iter([segment]), None


def test_a_recognizer_that_repeats_itself_listens_again(tmp_path, monkeypatch):
    (tmp_path / "model.bin").touch()
    module = SimpleNamespace(WhisperModel=LoopingWhisper)
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    recognize = load_recognizer(tmp_path)
    assert recognize([torch.zeros(4), torch.zeros(9)]) == ["so", "so"]


def test_style_is_heard_from_pitch_and_loudness():
    generator = torch.Generator().manual_seed(0)

    def utterance(style):
        gain, hertz = {"calm": (0.1, 120), "excited": (0.5, 180)}[style]
        wav = gain * torch.randn(16000, generator=generator)
        f0 = hertz * (1 + 0.1 * torch.randn(200, generator=generator))
        return wav, (f0, torch.ones(200))

    styles = ["calm", "excited"] * 10
    wavs, contours = zip(*(utterance(style) for style in styles))
    judge = StyleClassifier().fit(wavs, contours, styles)
    wavs, contours = zip(*(utterance(style) for style in styles))
    assert judge.predict(wavs, contours) == styles
    silence = torch.zeros(16000), (torch.zeros(200), torch.zeros(200))
    assert judge.predict([silence[0]], [silence[1]])[0] in {"calm", "excited"}
