"""The parts that ship with the package, on speech that they have not heard."""

from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from spiritlm_plugin import SpeechCodec, SpeechUnits, SpiritLM
from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.corpus.unit_store import fingerprints
from spiritlm_plugin.metrics.pitch import PitchErrorStats
from spiritlm_plugin.metrics.recognition import WordErrorStats
from spiritlm_plugin.metrics.resynthesis import unit_agreement
from spiritlm_plugin.metrics.units import frame_labels, joint_counts, pnmi
from spiritlm_plugin.pretrained.folders import local_folder

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "spiritlm_plugin" / "pretrained" / "tinyspeech"
ESPEAK = ["anna", "ben", "cora", "dan", "ella", "finn"]
NATURAL = "alan awb bdl clb joe kal16 ked pam pia rms".split()


@pytest.fixture(scope="module")
def corpus(tinyspeech):
    """Test utterances; the seed is not that of the training."""
    items = load_manifest(tinyspeech / "test.json")
    return {name: items[name] for name in list(items)[:24]}


@pytest.fixture(scope="module")
def wavs(corpus):
    return [read_audio(item["wav"]) for item in corpus.values()]


@pytest.fixture(scope="module")
def expressive():
    return SpeechCodec.from_hparams("tinyspeech")


@pytest.fixture(scope="module")
def base():
    return SpeechCodec.from_hparams(
        "tinyspeech", hparams_file="hyperparams_base.yaml"
    )


@pytest.fixture(scope="module")
def units(expressive, wavs):
    return expressive.encode_batch(wavs)


def test_a_codec_does_not_load_the_language_model(base, expressive):
    assert base.mods["language_model"] is None
    assert expressive.mods["language_model"] is None


@pytest.mark.parametrize("variant", ["base", "expressive"])
def test_the_engine_of_a_voice_is_told_by_its_units(variant, units, request):
    """Units that mean phones tell eSpeak's six voices badly from each other."""
    vocoder = request.getfixturevalue(variant).mods.vocoder
    told = [vocoder.speakers[vocoder.speaker_of(u.phonetic)] for u in units]
    right = [name in ESPEAK for name in told]
    assert sum(right) >= 0.9 * len(right)


def speak(codec, units, corpus):
    """Resynthesize each item with its own voice."""
    voices = [item["speaker"] for item in corpus.values()]
    wavs, lengths = codec.decode_batch(units, speaker=voices)
    samples = (lengths * wavs.shape[1]).round().long().tolist()
    return [wav[:n] for wav, n in zip(wavs, samples)]


@pytest.fixture(scope="module")
def spoken(base, expressive, units, corpus):
    plain = [item.base() for item in units]
    return {
        "base": speak(base, plain, corpus),
        "expressive": speak(expressive, units, corpus),
    }


def contours(codec, wavs):
    """Return F0, voicing and the frames of each recording."""
    lengths = torch.tensor([len(wav) for wav in wavs])
    with torch.inference_mode():
        return codec.mods.tokenizer.pitch.f0(pad_sequence(wavs, True), lengths)


def test_the_folder_is_small_and_says_what_it_is():
    size = sum(f.stat().st_size for f in FOLDER.rglob("*") if f.is_file())
    assert size < 80e6
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for word in ("train_shipped.sh", "seed", "Apache-2.0", "WER"):
        assert word in card


def test_both_share_a_tokenizer_and_voices(base, expressive, units, wavs):
    assert base.speakers == expressive.speakers == sorted(ESPEAK + NATURAL)
    for one, both in zip(base.encode_batch(wavs[:3]), units):
        assert one.pitch is None
        assert torch.equal(one.phonetic, both.phonetic)


def test_units_carry_phones(units, corpus):
    labels = [
        frame_labels(item["phones"], len(stream.phonetic))
        for item, stream in zip(corpus.values(), units)
    ]
    index = {x: i for i, x in enumerate(sorted({x for r in labels for x in r}))}
    counts = joint_counts(
        torch.cat([stream.phonetic for stream in units]),
        torch.tensor([index[x] for row in labels for x in row]),
        201,
        len(index),
    )
    assert pnmi(counts) > 0.6


@pytest.mark.parametrize("name", ["base", "expressive"])
def test_resynthesis_keeps_units(name, expressive, spoken, units):
    again = expressive.encode_batch(spoken[name])
    assert unit_agreement(units, again)["unit_edit_distance"] < 0.5


def test_expressive_keeps_the_melody(expressive, spoken, wavs):
    true = contours(expressive, wavs)
    errors = {}
    for name, made in spoken.items():
        made = [wav[: len(t)] for wav, t in zip(made, wavs)]
        f0, voiced, frames = contours(expressive, made)
        n = f0.shape[1]
        stats = PitchErrorStats()
        ids = [str(i) for i in range(len(made))]
        stats.append(ids, f0, voiced, true[0][:, :n], true[1][:, :n], frames)
        errors[name] = stats.summarize()["f0_frame_error"]
    assert errors["expressive"] < errors["base"] / 2


def test_streams_without_durations_are_spoken(expressive, units):
    merged = units[0].deduplicate()
    assert not merged.full_rate
    wavs, _ = expressive.decode_batch([merged], speaker="ben", seed=0)
    seconds = wavs.shape[1] / 16000
    assert 0.5 < seconds / units[0].duration < 2


def test_names_of_styles_are_those_of_the_corpus(
    base, expressive, units, corpus
):
    assert base.styles == expressive.styles == ["happy", "neutral", "sad"]
    right = [
        unit in expressive.style_units(item["style"])
        for stream, item in zip(units, corpus.values())
        for unit in stream.style.tolist()
    ]
    assert sum(right) >= 0.95 * len(right)


def test_a_style_is_a_choice_of_base(base, expressive, units):
    """A sad voice is lower than a happy one."""
    plain = [item.base() for item in units]
    heights = {}
    for style in base.styles:
        wavs, _ = base.decode_batch(plain, "anna", style)
        f0, voiced, _ = contours(expressive, list(wavs))
        heights[style] = float(f0[voiced > 0].log().mean())
    assert heights["sad"] < heights["neutral"] < heights["happy"]


def test_a_text_is_read_in_a_natural_voice(corpus):
    lm = SpiritLM.from_hparams("tinyspeech", "hyperparams_base.yaml")
    [item] = list(corpus.values())[:1]
    wavs, lengths = lm.synthesize([item["text"]], speaker="clb")
    assert wavs.shape[1] > 8000 and float(wavs.std()) > 1e-2


@pytest.mark.parametrize("name", ["hyperparams_base", "hyperparams"])
def test_language_models_understand(name, corpus, wavs):
    lm = SpiritLM.from_hparams("tinyspeech", hparams_file=f"{name}.yaml")
    heard = lm.transcribe_batch(wavs, max_new_tokens=100)
    errors = WordErrorStats()
    texts = [item["text"] for item in corpus.values()]
    errors.append(list(corpus), heard, texts)
    assert errors.summarize("WER") < 30


@pytest.mark.parametrize("name", ["hyperparams_base", "hyperparams"])
def test_a_natural_voice_never_heard_is_understood(name):
    """Flite's slt, who is in no training, says what the file is called."""
    path = ROOT / "tests" / "assets" / "get_me_the_paper_please.flac"
    lm = SpiritLM.from_hparams("tinyspeech", hparams_file=f"{name}.yaml")
    heard = lm.transcribe_file(path, num_beams=4)
    assert heard == path.stem.replace("_", " ")


def test_what_does_not_ship_is_refused_by_name():
    with pytest.raises(FileNotFoundError, match="ships.*tinyspeech"):
        SpeechCodec.from_hparams("bigspeech")


def test_a_model_of_that_name_comes_first(tmp_path, monkeypatch):
    folder = tmp_path / "tinyspeech"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    assert local_folder("tinyspeech") == FOLDER.resolve()
    (folder / "hyperparams.yaml").touch()
    assert local_folder("tinyspeech") == folder.resolve()


def test_units_of_other_tokenizers_are_refused(expressive):
    with pytest.raises(ValueError, match="out of range"):
        expressive.decode_batch([SpeechUnits([450], pitch=[0], style=[0])])


def test_a_corpus_fits_whatever_the_number_of_threads(expressive):
    """Loading fuses weights, which must not change with who adds them up."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        other = SpeechCodec.from_hparams("tinyspeech")
    finally:
        torch.set_num_threads(threads)
    one, other = (fingerprints(c.mods.tokenizer) for c in (expressive, other))
    assert one == other


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_corpus_fits_on_a_gpu_too():
    one, other = (
        SpeechCodec.from_hparams("tinyspeech", run_opts={"device": device})
        for device in ("cpu", "cuda")
    )
    assert fingerprints(one.mods.tokenizer) == fingerprints(
        other.mods.tokenizer
    )
