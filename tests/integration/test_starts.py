"""What trainings start from, where a model that ships is carried over."""

import importlib.util
from pathlib import Path

import pytest
import torch

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.inference import SpeechCodec
from spiritlm_plugin.integrations.parts import load_tokenizer, read_parts
from spiritlm_plugin.lobes.language_model import load_language_model
from spiritlm_plugin.lobes.pitch import PitchQuantizer
from spiritlm_plugin.lobes.vocoder import UnitVocoder
from spiritlm_plugin.pretrained.folders import local_folder
from spiritlm_plugin.training.vocoder_start import load_pretrained

RECIPES = Path(__file__).parents[2] / "recipes" / "TinySpeech"


def load_script(name):
    path = RECIPES / name / "start.py"
    spec = importlib.util.spec_from_file_location(f"{name}_start", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shipped_tokenizer():
    return SpeechCodec.from_hparams("tinyspeech").mods.tokenizer


@pytest.fixture(scope="module")
def spanish(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spanish")
    load_script("spanish").write_start(folder)
    return folder


@pytest.fixture(scope="module")
def carried(spanish, tinyspeech, tmp_path_factory):
    """The shipped model, carried over to its own units of all streams."""
    folder = tmp_path_factory.mktemp("carried")
    script, shipped = load_script("voices"), shipped_tokenizer()

    def load(phonetic, pitch, style):
        tokenizer = load_tokenizer(phonetic)
        tokenizer.pitch, tokenizer.style = shipped.pitch, shipped.style
        return tokenizer

    script.load_tokenizer = load
    script.write_start(folder, tinyspeech, spanish / "phonetic", "its", "own")
    return folder


def of_two_voices(folder):
    """Return a vocoder of a known and a new voice, as it begins."""
    shipped = SpeechCodec.from_hparams("tinyspeech", "hyperparams_base.yaml")
    old = shipped.mods.vocoder
    new = UnitVocoder(
        phonetic_units=200,
        embedding_dim=64,
        duration_dim=64,
        speakers=["ben", "zoe"],
        recognizes_speakers=True,
        global_styles=3,
        generator={
            "channels": 256,
            "upsample_rates": [5, 4, 4, 4, 2],
            "upsample_kernels": [11, 8, 8, 8, 4],
            "resblock_kernels": [3, 7],
            "resblock_dilations": [[1, 3, 5], [1, 3, 5]],
            "frame_dilations": [1, 3, 9],
        },
    )
    load_pretrained(folder, new)
    voices = [v.embeddings["speaker"].weight for v in (old, new)]
    return old, *voices


def test_a_vocoder_keeps_the_voices_that_it_knows(spanish):
    old, before, after = of_two_voices(spanish / "vocoder")
    ben = old.speakers.index("ben")
    torch.testing.assert_close(after[0], before[ben])
    torch.testing.assert_close(after[1], before.mean(0))


def test_carried_vocoders_do_so_too(carried):
    old, before, after = of_two_voices(carried / "vocoder_base")
    torch.testing.assert_close(after[0], before[old.speakers.index("ben")])
    parts = read_parts(vocoder=carried / "vocoder")
    assert "embeddings.pitch.weight" in parts.states["vocoder"]


def test_units_that_are_the_same_keep_what_is_known_of_them(
    carried, tinyspeech
):
    script = load_script("voices")
    tokenizer = shipped_tokenizer().phonetic
    items = list(load_manifest(tinyspeech / "valid").values())
    known = {item["speaker"] for item in items}
    shares = script.unit_shares(tokenizer, tokenizer, items, known)
    torch.testing.assert_close(shares.sum(1), torch.ones(200))
    frames = torch.cat(
        [script.units_of(tokenizer, read_audio(item["wav"])) for item in items]
    ).bincount(minlength=200)
    assert int(frames.count_nonzero()) > 50
    # A prior of five frames stands against those that were counted.
    least = frames / (frames + 5)
    assert bool((shares.diagonal() >= least - 1e-4).all())

    shipped = local_folder("tinyspeech", "hyperparams.yaml")
    for name in ("language_model", "language_model_base"):
        old, new = (
            load_language_model(folder / name) for folder in (shipped, carried)
        )
        ids = new.vocabulary.speech_tokens()
        assert ids == old.vocabulary.speech_tokens()
        units = torch.tensor([ids[f"[Hu{unit}]"] for unit in range(200)])
        rest = torch.ones(len(new.vocabulary), dtype=torch.bool)
        rest[[ids[n] for n in ids if n[1:3] in ("Hu", "Pi", "St")]] = False
        weights = [
            lm.model.get_input_embeddings().weight.detach() for lm in (old, new)
        ]
        before, after = (weight[: len(rest)][rest] for weight in weights)
        assert torch.equal(before, after)
        before, after = (weight[units] for weight in weights)
        torch.testing.assert_close(after, shares @ before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("stream", "count"), [("pitch", 64), ("style", 24)])
def test_so_do_units_of_pitch_and_style(carried, tinyspeech, stream, count):
    script = load_script("voices")
    codec = SpeechCodec.from_hparams("tinyspeech")
    part = getattr(codec.mods.tokenizer, stream)
    items = list(load_manifest(tinyspeech / "valid").values())
    shares = script.prosody_shares(part, part, count, items)
    torch.testing.assert_close(shares.sum(1), torch.ones(count))
    frames = torch.cat(
        [script.units_of(part, read_audio(item["wav"])) for item in items]
    ).bincount(minlength=count)
    assert int(frames.count_nonzero()) > 5
    least = frames / (frames + 5)
    assert bool((shares.diagonal() >= least - 1e-3).all())

    name = f"embeddings.{stream}.weight"
    after = read_parts(vocoder=carried / "vocoder").states["vocoder"][name]
    before = codec.mods.vocoder.get_parameter(name).detach()
    torch.testing.assert_close(after, shares @ before, atol=1e-5, rtol=1e-4)


def test_units_that_are_more_are_refused(tinyspeech):
    script, old = load_script("voices"), shipped_tokenizer()
    new = shipped_tokenizer()
    new.pitch.quantizer = PitchQuantizer(units=70)
    items = list(load_manifest(tinyspeech / "valid").values())[:1]
    with pytest.raises(ValueError, match="70 pitch units .* model's 64"):
        script.stream_shares(old, new, items, {items[0]["speaker"]})


def test_a_voice_that_is_not_known_tells_by_its_phones_alone(tinyspeech):
    script = load_script("voices")
    tokenizer = shipped_tokenizer().phonetic
    items = list(load_manifest(tinyspeech / "valid").values())
    one = items[0]["speaker"]
    others = [item for item in items if item["speaker"] != one]
    strangers = script.unit_shares(tokenizer, tokenizer, others, {one})
    torch.testing.assert_close(strangers.sum(1), torch.ones(200))
    # Nothing was said by who is known, so nothing is known.
    torch.testing.assert_close(strangers, torch.full((200, 200), 1 / 200))
