"""Changes of recordings that are drawn for each of them."""

import pytest
import torch
from speechbrain.augment.time_domain import AddNoise
from torch import nn

from spiritlm_plugin.lobes.audio_codec import LossyFile
from spiritlm_plugin.lobes.augmentation import (
    Equalizer,
    Noise,
    PitchShift,
    Telephone,
)
from spiritlm_plugin.lobes.voice_changes import (
    FormantShift,
    RandomChanges,
    change_in_float32,
)

RATE = 16000


def vowel(pitch, formants, seconds=1.0):
    """Return a voice of some formants, 200 Hz wide each."""
    time = torch.arange(int(seconds * RATE)) / RATE
    wav = torch.zeros_like(time)
    for harmonic in range(1, int(7000 / pitch)):
        hertz = harmonic * pitch
        gain = sum(1 / (1 + ((hertz - f) / 200) ** 2) for f in formants)
        wav += gain * torch.sin(2 * torch.pi * hertz * time + harmonic**2)
    return 0.1 * wav


def strongest(wav, low, high):
    """Return the strongest frequency of a band, of Hz."""
    spectrum = torch.fft.rfft(wav * torch.hann_window(len(wav))).abs()
    hertz = torch.fft.rfftfreq(len(wav), 1 / RATE)
    spectrum[(hertz < low) | (hertz > high)] = 0
    return float(hertz[spectrum.argmax()])


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_formants_move_and_the_pitch_stays(factor):
    wav = vowel(80, (700, 2200))
    shifted = FormantShift(factor, factor)(wav[None])[0]
    for formant in (700, 2200):
        moved = formant * factor
        found = strongest(shifted, moved - 300, moved + 300)
        assert abs(found - moved) < abs(found - formant)
        # Still a harmonic of the same pitch.
        assert abs(found - 80 * round(found / 80)) < 2


def test_a_factor_of_one_changes_nothing_but_rounding():
    wavs = torch.stack([vowel(120, (500, 1800)), torch.randn(RATE) / 10])
    same = FormantShift(1.0, 1.0)(wavs)
    assert torch.allclose(same, wavs, atol=1e-4)


def test_silence_stays_silence():
    silent = torch.zeros(2, 5001)
    assert FormantShift(0.8, 1.25)(silent).abs().max() == 0


@pytest.mark.parametrize(
    "change",
    [
        FormantShift(0.8, 1.25),
        PitchShift([(9, 8), (4, 5), (1, 1)]),
        Equalizer(12.0),
        Telephone(),
        LossyFile(["mp3", "opus", "vorbis"], (0.7, 0.99)),
    ],
)
@pytest.mark.parametrize("samples", [1600, 8001])
def test_as_many_samples_come_back_without_harm_to_the_input(change, samples):
    wavs = 0.1 * torch.randn(3, samples)
    before = wavs.clone()
    torch.manual_seed(1)
    changed = change(wavs)
    assert changed.shape == wavs.shape
    assert changed.isfinite().all()
    assert torch.equal(wavs, before)
    torch.manual_seed(1)
    assert torch.equal(change(wavs), changed)


@pytest.mark.parametrize(
    "change", [FormantShift(0.7, 1.4), PitchShift([(9, 8), (8, 9), (5, 4)])]
)
def test_each_waveform_is_changed_by_what_is_drawn_for_it(change):
    torch.manual_seed(0)
    same = vowel(110, (600, 1200), 0.5).expand(8, -1)
    changed = change(same)
    assert len({round(float(row.square().sum()), 6) for row in changed}) > 1


@pytest.mark.parametrize("form", ["mp3", "opus", "vorbis"])
def test_a_lossy_file_keeps_each_sample_at_its_place(form):
    torch.manual_seed(0)
    wav = vowel(130, (650, 1100, 2400)) * torch.linspace(0, 1, RATE)
    left = LossyFile([form], (0.7, 0.7))(wav[None])[0]
    spectra = torch.fft.rfft(left), torch.fft.rfft(wav)
    product = torch.fft.irfft(spectra[0] * spectra[1].conj())
    assert int(product.argmax()) == 0
    assert not torch.equal(left, wav)
    assert (left - wav).norm() < 0.5 * wav.norm()


def test_shares_say_how_many_waveforms_change():
    class Minus(nn.Module):
        def forward(self, wavs):
            return -wavs

    torch.manual_seed(0)
    wavs = torch.ones(2000, 4)
    changes = RandomChanges({"minus": Minus()}, {"minus": 0.3})
    changed, lengths = changes(wavs, torch.ones(2000))
    assert 0.25 < (changed[:, 0] < 0).float().mean() < 0.35
    assert (changed.abs() == 1).all() and (lengths == 1).all()
    assert (wavs == 1).all()
    never = RandomChanges({"minus": Minus()}, {"minus": 0.0})
    assert torch.equal(never(wavs)[0], wavs)


def test_changes_are_exact_whatever_the_precision_of_a_training():
    names = ["formants", "pitch", "equalizer", "telephone"]
    changes = RandomChanges(
        dict(
            zip(
                names,
                [
                    FormantShift(0.8, 1.25),
                    PitchShift([(9, 8), (4, 5)]),
                    Equalizer(12.0),
                    Telephone(),
                ],
            )
        ),
        dict.fromkeys(names, 1.0),
    )
    wavs, lengths = 0.1 * torch.randn(2, 8000), torch.ones(2)
    torch.manual_seed(3)
    expected, _ = changes(wavs, lengths)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = change_in_float32(changes, wavs, lengths)
    assert torch.equal(found, expected)


def test_noise_of_speechbrain_is_one_of_them():
    noise = AddNoise(snr_low=5, snr_high=15, noise_funct=Noise())
    changed, _ = RandomChanges({"noise": noise}, {"noise": 1.0})(
        vowel(100, (700,)).expand(2, -1)
    )
    assert not torch.equal(changed[0], changed[1])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="each change needs its share"):
        RandomChanges({"a": nn.Identity()}, {"b": 0.1})
    with pytest.raises(ValueError, match="share of a must be 0 to 1, got 2"):
        RandomChanges({"a": nn.Identity()}, {"a": 2})
    with pytest.raises(ValueError, match="the least first, got 2"):
        FormantShift(2, 1)
    with pytest.raises(ValueError, match="forms are of mp3, opus, vorbis"):
        LossyFile(["aac"], (0.5, 0.9))
    with pytest.raises(ValueError, match="levels of compression"):
        LossyFile(["mp3"], (0.5, 1.1))

    class Half(nn.Module):
        def forward(self, wavs):
            return wavs[:, ::2]

    with pytest.raises(ValueError, match="half makes 50 samples of 100"):
        RandomChanges({"half": Half()}, {"half": 1.0})(torch.zeros(1, 100))
