"""Tests of ``spiritlm_plugin.integrations.parts`` and ``assemble``."""

import json

import pytest
import torch

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.inference import SpeechCodec, SpiritLM
from spiritlm_plugin.integrations.assemble import assemble, main
from spiritlm_plugin.integrations.parts import (
    build,
    hyperparams,
    load_part,
    load_tokenizer,
    read_parts,
    save_part,
)
from spiritlm_plugin.integrations.release import read_release


@pytest.fixture(scope="module")
def folders(checkpoints, tmp_path_factory):
    """Parts of the small release, written as recipes write them."""
    root = tmp_path_factory.mktemp("parts")
    made = {}
    for variant, name in (("base", "base_vocoder"), ("expressive", "vocoder")):
        release = read_release(checkpoints, variant)
        modules = build(release)
        for kind, arguments in release.arguments.items():
            key = name if kind == "vocoder" else kind
            made[key] = save_part(root / key, arguments, modules[kind])
    return made


def test_a_part_is_what_was_saved(folders, checkpoints):
    release = read_release(checkpoints, "expressive")
    for kind in ("phonetic", "style", "vocoder"):
        state = load_part(kind, folders[kind]).state_dict()
        expected = release.states[kind]
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[k], v) for k, v in expected.items())


def test_tokenizer_of_parts(folders, checkpoints, load, recording):
    kinds = ("phonetic", "pitch", "style")
    tokenizer = load_tokenizer(*(folders[kind] for kind in kinds))
    expected = load(checkpoints, "expressive").encode_file(recording)
    with torch.inference_mode():
        (units,) = tokenizer([read_audio(recording)])
    for kind in kinds:
        assert torch.equal(getattr(units, kind), getattr(expected, kind))


def test_assembled_folder_has_both_vocoders(folders, recording, tmp_path):
    arguments = [f"--{kind}={folder}" for kind, folder in folders.items()]
    main([str(tmp_path / "model"), *arguments])
    codec = SpeechCodec.from_hparams(tmp_path / "model")
    base = SpeechCodec.from_hparams(
        tmp_path / "model", hparams_file="hyperparams_base.yaml"
    )
    assert codec.mods.vocoder.expressive
    assert not base.mods.vocoder.expressive
    units = codec.encode_file(recording)
    assert units.phonetic.equal(base.encode_file(recording).phonetic)
    for either in (codec, base):
        wavs, _ = either.decode_batch([units])
        assert wavs.shape == (1, 640 * len(units))


def test_half_is_half_the_size_and_sounds_the_same(
    folders, recording, tmp_path
):
    arguments = [f"--{kind}={folder}" for kind, folder in folders.items()]
    sizes, wavs = [], []
    for name, options in (("whole", []), ("half", ["--half"])):
        main([str(tmp_path / name), *arguments, *options])
        files = (tmp_path / name).glob("*.safetensors")
        sizes.append(sum(file.stat().st_size for file in files))
        codec = SpeechCodec.from_hparams(tmp_path / name)
        weights = codec.mods.vocoder.parameters()
        assert {weight.dtype for weight in weights} == {torch.float32}
        if not wavs:
            units = codec.encode_file(recording)
        wavs.append(codec.decode_batch([units])[0])
    assert sizes[1] < 0.7 * sizes[0]
    noise = (wavs[1] - wavs[0]).square().mean()
    assert 0 < noise < 1e-4 * wavs[0].square().mean()


def test_a_long_list_has_an_item_a_line(folders, tmp_path):
    parts = read_parts(
        phonetic=folders["phonetic"], vocoder=folders["base_vocoder"]
    )
    voices = [f"a voice of many words, {i}" for i in range(9)]
    parts.arguments["vocoder"]["speakers"] = voices
    yaml = hyperparams(parts)
    assert max(map(len, yaml.splitlines())) <= 100
    block = yaml[yaml.index("    speakers:") :].splitlines()[1:10]
    assert [json.loads(line.strip(" -")) for line in block] == voices


@pytest.fixture(scope="module")
def language_models(checkpoints):
    models = checkpoints / "spiritlm_model"
    return {
        "language_model": models / "spirit-lm-expressive-7b",
        "base_language_model": models / "spirit-lm-base-7b",
    }


def test_assembled_folder_has_language_models(
    folders, language_models, tmp_path
):
    folder = assemble(tmp_path / "model", **folders, **language_models)
    for name, expressive in (("", True), ("_base", False)):
        lm = SpiritLM.from_hparams(folder, f"hyperparams{name}.yaml")
        assert lm.expressive == expressive


def test_language_model_of_other_units(folders, language_models, tmp_path):
    other = {"language_model": language_models["base_language_model"]}
    with pytest.raises(ValueError, match="knows 0 style units and the token"):
        assemble(tmp_path / "model", **folders, **other)
    assert not (tmp_path / "model").exists()


def test_vocoder_of_another_tokenizer(folders, tmp_path):
    config = json.loads((folders["phonetic"] / "config.json").read_text())
    config["quantizer"]["units"] += 1
    other = tmp_path / "phonetic"
    other.mkdir()
    weights = (folders["phonetic"] / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights)
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="phonetic units and the tokenizer"):
        assemble(tmp_path / "model", **{**folders, "phonetic": other})
    assert not (tmp_path / "model").exists()


def test_command_line_names_what_is_missing(folders, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        main([str(tmp_path / "model"), f"--phonetic={tmp_path / 'nothing'}"])
    assert error.value.code == 1
    assert "config.json" in capsys.readouterr().err


@pytest.mark.parametrize("spoilt", ["config.json", "model.safetensors"])
def test_damaged_part(folders, tmp_path, spoilt):
    for file in folders["style"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / spoilt).write_bytes(b"{")
    with pytest.raises(CheckpointError, match="train it again"):
        read_parts(style=tmp_path)


def test_a_part_that_cannot_be_written_stays_as_it_was(folders, tmp_path):
    part = load_part("style", folders["style"])
    arguments = json.loads((folders["style"] / "config.json").read_text())
    save_part(tmp_path, arguments, part)
    with pytest.raises(TypeError):
        save_part(tmp_path, {"units": object()}, part)
    assert read_parts(style=tmp_path).arguments == {"style": arguments}


def test_a_part_without_its_configuration_is_no_part(folders, tmp_path):
    weights = (folders["style"] / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(FileNotFoundError, match="config.json"):
        read_parts(style=tmp_path)


def test_configuration_that_lacks_an_argument(folders, tmp_path):
    for file in folders["pitch"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    del config["center"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="center") as error:
        load_part("pitch", tmp_path)
    assert str(tmp_path) in str(error.value)


def test_unknown_kind(folders):
    with pytest.raises(ValueError, match="no such kind of part: pitchh"):
        load_part("pitchh", folders["pitch"])
