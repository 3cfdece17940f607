"""Tests of what trains the pitch quantizer."""

import os
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
from torch import nn
from torch.nn import functional as F

from spiritlm_plugin.dataio.audio.f0_cache import F0Cache
from spiritlm_plugin.integrations.export import export_pitch
from spiritlm_plugin.integrations.release import _read_pitch
from spiritlm_plugin.lobes.pitch import PitchQuantizer
from spiritlm_plugin.lobes.pitch_vqvae import PitchDecoder, PitchVQVAE
from spiritlm_plugin.training.pitch import crop

QUANTIZER = {
    "units": 16,
    "width": 8,
    "output_width": 6,
    "downs": 3,
    "depth": 2,
    "block_ratio": 1.5,
    "dilation_growth": 2,
}


def features(*frames):
    """Return a batch of smooth contours in Hz, voiced here and there."""
    batch = torch.zeros(len(frames), 2, max(frames))
    for row, n in zip(batch, frames):
        phase = torch.rand(2, 1) * 6
        time = torch.arange(n) / 40
        row[0, :n] = 60 * torch.sin(time + phase[0])
        row[1, :n] = (torch.sin(time / 2 + phase[1]) > -0.5).float()
    return batch, torch.tensor(frames)


def seeded(vqvae, *frames):
    """Let the codebook start at vectors of a batch."""
    vqvae.train()
    with torch.no_grad():
        vqvae(*features(*frames))
    return vqvae.eval()


def test_decoder_mirrors_the_encoder():
    sizes = {k: v for k, v in QUANTIZER.items() if k != "units"}
    decoder = PitchDecoder(**sizes)
    quantizer = PitchQuantizer(**QUANTIZER)
    x, lengths = features(64, 40)
    encoded, code_lengths = quantizer.encode(x, lengths)
    decoded = decoder(encoded, code_lengths)
    assert decoded.shape == x.shape


def test_padding_changes_nothing():
    torch.manual_seed(1)
    vqvae = seeded(PitchVQVAE(QUANTIZER), 160, 160)
    x, lengths = features(160, 83, 8)
    noise = torch.randn_like(x)
    noise[:, 1] = 1
    for row, n in zip(noise, lengths):
        row[:, :n] = 0
    together = vqvae(x, lengths)
    assert together.lengths.tolist() == [160, 80, 8]
    for i, n in enumerate(lengths.tolist()):
        alone = vqvae(x[i : i + 1, :, :n], lengths[i : i + 1])
        coded = n // 8 * 8
        for name in ("f0", "voicing"):
            torch.testing.assert_close(
                getattr(together, name)[i, :coded],
                getattr(alone, name)[0],
                atol=1e-3,
                rtol=1e-4,
            )
        units = together.units[i]
        assert units[: n // 8].tolist() == alone.units[0].tolist()
        assert (units[n // 8 :] == -1).all()


def test_export_eats_hertz():
    vqvae = seeded(PitchVQVAE(QUANTIZER, f0_scale=30.0), 160, 160)
    x, lengths = features(200, 97)
    expected = vqvae(x, lengths).units
    units, unit_lengths = vqvae.export()(x, lengths)
    for row, e, n in zip(units, expected, unit_lengths.tolist()):
        assert row[:n].tolist() == e[:n].tolist()
    assert len(expected.unique()) > 3


def test_gradient_passes_straight_through():
    vqvae = PitchVQVAE(QUANTIZER)
    result = vqvae(*features(64))
    result.f0.square().mean().backward()
    first = vqvae.quantizer.stages[0][0].weight
    assert first.grad.abs().sum() > 0
    assert not vqvae.quantizer.codebook.requires_grad


def test_commitment_is_the_distance_to_the_code():
    vqvae = seeded(PitchVQVAE(QUANTIZER), 160)
    x, lengths = features(64, 32)
    scaled = x / torch.tensor([[vqvae.f0_scale], [1.0]])
    result = vqvae(x, lengths)
    encoded, _ = vqvae.quantizer.encode(scaled, lengths)
    inside = result.units >= 0
    codes = vqvae.quantizer.codebook[result.units[inside]]
    expected = F.mse_loss(encoded.transpose(1, 2)[inside], codes)
    torch.testing.assert_close(result.commitment, expected)


def test_codes_move_to_the_mean_of_their_vectors():
    vqvae = PitchVQVAE({**QUANTIZER, "units": 3}, decay=0.9)
    centres = torch.tensor([[0.0] * 6, [5.0] * 6, [-5.0] * 6])
    vqvae.quantizer.codebook.copy_(centres / 2 + 1)
    vqvae.sums.copy_(vqvae.quantizer.codebook)
    vqvae.counts.fill_(1)
    for _ in range(100):
        noise = torch.randn(30, 6) * 0.1
        vectors = centres[torch.arange(30) % 3] + noise
        vqvae._follow(vectors, vqvae.quantizer.nearest(vectors))
    codebook = vqvae.quantizer.codebook
    distances = torch.cdist(centres, codebook).min(1).values
    assert distances.max() < 0.1
    assert vqvae.counts.tolist() == pytest.approx([10, 10, 10], rel=0.01)


def test_unused_codes_start_anew():
    torch.manual_seed(3)
    vqvae = PitchVQVAE(QUANTIZER, decay=0.5)
    assert not vqvae.quantizer.codebook.any()
    seeded(vqvae, 320, 320)
    codebook = vqvae.quantizer.codebook
    assert len(codebook.unique(dim=0)) > 10
    codebook[:4] = 1e4  # far from everything
    vqvae.sums[:4] = 1e4 * vqvae.counts[:4, None]
    vqvae.train()
    for _ in range(12):
        vqvae(*features(320, 320))
    assert codebook.abs().max() < 1e3


def test_codebook_stands_still_in_evaluation():
    vqvae = seeded(PitchVQVAE(QUANTIZER), 160)
    before = {k: v.clone() for k, v in vqvae.state_dict().items()}
    vqvae(*features(160))
    for name, tensor in vqvae.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_it_learns():
    torch.manual_seed(0)
    vqvae = PitchVQVAE({**QUANTIZER, "width": 16})
    optimizer = torch.optim.Adam(vqvae.parameters(), 1e-2)
    x, lengths = features(*[160] * 8)
    losses = []
    for _ in range(100):
        result = vqvae(x, lengths)
        f0_loss = F.smooth_l1_loss(result.f0 / 50, x[:, 0] / 50)
        voicing = F.binary_cross_entropy_with_logits(result.voicing, x[:, 1])
        loss = f0_loss + voicing + 0.1 * result.commitment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(f0_loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert len(result.units.unique()) > 8


@pytest.mark.parametrize("center", [True, False])
def test_released_form(tmp_path, center):
    vqvae = seeded(PitchVQVAE(QUANTIZER), 160)
    quantizer = vqvae.export()
    export_pitch(tmp_path, {"center": center, **QUANTIZER}, quantizer)
    arguments, state = _read_pitch(tmp_path)
    assert arguments == {"center": center, **QUANTIZER}
    del arguments["center"]
    again = PitchQuantizer(**arguments)
    again.load_state_dict(state)
    x, lengths = features(200, 97)
    assert torch.equal(again(x, lengths)[0], quantizer(x, lengths)[0])


def test_crop():
    lengths = torch.tensor([60, 33, 20])
    batch = torch.arange(60.0).expand(3, 2, 60)
    firsts = set()
    for _ in range(200):
        pieces, piece_lengths = crop(batch, lengths, 32)
        assert pieces.shape == (3, 2, 32)
        assert piece_lengths.tolist() == [32, 32, 20]
        for i, n in enumerate(piece_lengths.tolist()):
            first = float(pieces[i, 0, 0])
            assert pieces[i, 1, :n].tolist() == [first + j for j in range(n)]
            assert first + n <= lengths[i]
            firsts.add((i, first))
    assert {(1, 0), (1, 1), (2, 0), (0, 28)} <= firsts
    assert crop(batch, lengths, 60)[0] is batch


class Extractor(nn.Module):
    """The first sample as F0, 10 frames a second; counts its calls."""

    def __init__(self, setting=1):
        super().__init__()
        self.setting = setting
        self.seen = 0

    def extra_repr(self):
        return f"setting={self.setting}"

    def forward(self, wavs, lengths):
        self.seen += len(wavs)
        frames = lengths // 1600
        f0 = wavs[:, :1].expand(-1, int(frames.max())) * 1000
        return f0, (f0 > 200).float(), frames


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setattr("spiritlm_plugin.dataio.audio.f0_cache._SHARD", 2)
    items = {}
    for i in range(5):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, np.full(3200 * (i + 1), i / 8), 16000)
        items[f"u{i}"] = {"wav": str(path), "duration": 0.2 * (i + 1)}
    return items


def test_cache(tmp_path, corpus):
    extractor = Extractor()
    cache = F0Cache(tmp_path / "f0", corpus, extractor)
    cache.fill()
    assert extractor.seen == 5
    for i in range(5):
        f0, voiced = cache[f"u{i}"]
        assert f0.tolist() == pytest.approx([i * 125] * 2 * (i + 1))
        assert voiced.tolist() == [float(i >= 2)] * 2 * (i + 1)
    # A second run finds everything.
    extractor = Extractor()
    F0Cache(tmp_path / "f0", corpus, extractor).fill()
    assert extractor.seen == 0


def test_cache_goes_on_where_it_was(tmp_path, corpus):
    F0Cache(tmp_path / "f0", corpus, Extractor()).fill()
    (tmp_path / "f0" / "00001.safetensors").unlink()
    damaged = tmp_path / "f0" / "00000.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:20])
    extractor = Extractor()
    cache = F0Cache(tmp_path / "f0", corpus, extractor)
    cache.fill()
    assert extractor.seen == 4
    assert cache["u3"][0][0] == pytest.approx(375)


def test_cache_of_other_recordings_or_settings(tmp_path, corpus):
    F0Cache(tmp_path / "f0", corpus, Extractor()).fill()
    extractor = Extractor(setting=2)
    F0Cache(tmp_path / "f0", corpus, extractor).fill()
    assert extractor.seen == 5
    later = time.time() + 10
    os.utime(corpus["u4"]["wav"], (later, later))
    extractor = Extractor(setting=2)
    F0Cache(tmp_path / "f0", corpus, extractor).fill()
    assert extractor.seen == 1


def buzz(hertz, seconds):
    """Return a voice of harmonics."""
    time = torch.arange(int(seconds * 16000)) / 16000
    phase = 2 * torch.pi * hertz * (time + 0.05 * torch.sin(5 * time))
    return sum(torch.sin(k * phase) / k for k in range(1, 6))


@pytest.fixture
def yaapt():
    pytest.importorskip("amfm_decompy")
    from spiritlm_plugin.lobes.yaapt import YAAPT

    return YAAPT


@pytest.mark.parametrize("samples", [16000, 16079, 15921])
def test_yaapt_is_the_package_called_as_released(yaapt, samples):
    from amfm_decompy import basic_tools, pYAAPT

    generator = torch.Generator().manual_seed(0)
    wav = 0.1 * torch.cat([torch.zeros(3000), buzz(140, 0.5), buzz(210, 1)])
    wav = wav[:samples] + 0.1 * torch.randn(samples, generator=generator)
    frames = samples // 80
    given = wav.double().numpy()
    given = np.pad(given[: 80 * frames] * (0.95 / np.abs(given).max()), 160)
    expected = pYAAPT.yaapt(
        basic_tools.SignalObj(given, 16000),
        frame_length=20.0,
        frame_space=5.0,
        tda_frame_length=25.0,
        nccf_thresh1=0.25,
    ).samp_values
    f0, voiced, lengths = yaapt(workers=1)(wav[None], torch.tensor([len(wav)]))
    assert lengths.tolist() == [frames] == [len(expected)]
    is_voiced = expected > 0
    assert voiced[0].tolist() == is_voiced.tolist()
    assert 0.3 < is_voiced.mean() < 0.95
    np.testing.assert_allclose(
        f0[0, is_voiced].numpy(), expected[is_voiced], rtol=1e-6
    )
    # Unvoiced before the first voice, which is held.
    first = int(is_voiced.argmax())
    assert first > 10
    assert set(f0[0, :first].tolist()) == {float(f0[0, first])}


def test_yaapt_of_a_whisper_is_that_of_a_shout(yaapt):
    wav = torch.cat([torch.zeros(3000), buzz(140, 0.5), buzz(210, 0.5)]) / 8
    noise = torch.randn(len(wav), generator=torch.Generator().manual_seed(0))
    wav = wav + 1e-3 * noise
    wavs = torch.stack([wav, wav * 2**-13])
    f0, voiced, _ = yaapt(workers=1)(wavs, torch.tensor([len(wav)] * 2))
    assert torch.equal(f0[0], f0[1]) and torch.equal(voiced[0], voiced[1])
    assert voiced.any()


@pytest.mark.parametrize("hertz", [110.0, 230.0])
def test_yaapt_in_a_batch(yaapt, hertz):
    silence = torch.zeros(8000)
    wav = torch.cat([silence, 0.1 * buzz(hertz, 1), silence])
    wavs = torch.stack([wav, wav])
    wavs[1, 20000:] = 7.0  # behind the second item
    f0, voiced, lengths = yaapt(workers=1)(wavs, torch.tensor([32000, 20000]))
    assert lengths.tolist() == [400, 250]
    near = pytest.approx(hertz, rel=0.3)
    assert all(value == near for value in f0[0, 150:250].tolist())
    assert voiced[0, 120:280].mean() > 0.9
    assert voiced[0, :80].mean() == voiced[0, 320:].mean() == 0
    assert (f0[0] > 0).all()  # interpolated
    assert not f0[1, 250:].any()


def test_yaapt_makes_what_the_quantizer_takes(yaapt):
    wav = 0.1 * buzz(150, 1)
    f0, voiced, lengths = yaapt(workers=1)(wav[None], torch.tensor([16000]))
    vqvae = seeded(PitchVQVAE(QUANTIZER), 160)
    result = vqvae(torch.stack([f0, voiced], 1), lengths)
    assert result.units.shape == (1, 200 // 8)


def test_yaapt_without_a_voice(yaapt):
    wavs = torch.stack([torch.zeros(1600), 1e-3 * torch.randn(1600)])
    f0, voiced, _ = yaapt(workers=1)(wavs, torch.tensor([1600, 1280]))
    assert f0.isfinite().all()
    assert not voiced[0].any() and not f0[0].any()


@pytest.mark.slow
def test_yaapt_by_two_workers(yaapt):
    wavs = torch.stack([buzz(120, 0.3), buzz(200, 0.3), buzz(150, 0.3)])
    lengths = torch.tensor([4800, 4000, 1280])
    one, two = (yaapt(workers)(wavs, lengths) for workers in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, two))


def test_yaapt_and_its_settings_are_told_from_others(yaapt, tmp_path, corpus):
    """F0 of other extractors or settings is not taken for its own."""
    F0Cache(tmp_path / "f0", corpus, Extractor()).fill()
    cache = F0Cache(tmp_path / "f0", corpus, yaapt(workers=1))
    cache.fill()
    assert len(cache["u1"][0]) == 6400 // 80
    said = cache.extractor.extra_repr()
    for setting in ("frame_length=20.0", "nccf_thresh1=0.25", "AMFM_decompy="):
        assert setting in said


def test_yaapt_takes_a_worker_at_least(yaapt):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        yaapt(workers=0)


def test_workers_are_a_share_of_the_cores(yaapt, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert yaapt().workers == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert yaapt().workers == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert yaapt().workers == 1


def test_yaapt_is_optional(monkeypatch):
    from spiritlm_plugin.lobes.yaapt import YAAPT

    monkeypatch.setitem(sys.modules, "amfm_decompy", None)
    with pytest.raises(ImportError, match="pip install AMFM_decompy"):
        YAAPT()
