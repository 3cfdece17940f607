"""Fine-tuning: the docs' commands on a folder of recordings, in debug size."""

import csv
import importlib.util
import json
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from spiritlm_plugin import Speech, SpiritLM, Text
from spiritlm_plugin.dataio.corpus.command import main as prepare
from spiritlm_plugin.dataio.units.segments import Break
from tests.integration.commands import blocks_of, commands_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "finetuning.md"
WORDS = "the two boats lay by the shore all day".split()
SMALL = [
    "--row_tokens=128",
    "--step_rows=4",
    "--epoch_steps=2",
    "--number_of_epochs=1",
    "--valid_steps=1",
    "--warmup_steps=1",
    "--sample_count=1",
    "--judged_count=2",
    "--workers=0",
    "--export_dtype=float32",
    "--device=cpu",
    "--precision=fp32",
]


def run_script(path, arguments):
    path = ROOT / path
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(arguments)


@pytest.fixture(scope="module")
def recordings(recording, tmp_path_factory):
    """A folder as a user has it: five conversations of three turns."""
    folder = tmp_path_factory.mktemp("my_speech")
    samples, rate = soundfile.read(recording)
    with open(folder / "metadata.csv", "w", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow("file_name text speaker group position".split())
        for i in range(15):
            name, text = f"{i}.wav", " ".join(WORDS[i % 4 : i % 4 + 4])
            piece = samples[800 * i : 800 * i + 16000]
            soundfile.write(folder / name, piece, rate)
            table.writerow([name, text, "ab"[i % 2], f"g{i // 3}", i % 3])
    return folder


@pytest.fixture(scope="module")
def page():
    """The docs' commands, as lists of words."""
    [block] = [b for b in blocks_of(PAGE, "sh") if "spiritlm-push" in b]
    return list(commands_of(block))


@pytest.fixture(scope="module")
def units(page, recordings, folders, tmp_path_factory):
    """The first two commands: what was prepared, and its units."""
    folder = tmp_path_factory.mktemp("units")
    first, second = page[:2]
    known = {"my_speech": str(recordings), "MODEL": str(folders["base"])}
    known |= {
        "data/mine": str(folder / "mine"),
        "units/my_speech": str(folder / "units"),
    }
    assert first[0] == "spiritlm-prepare"
    shares = ["--valid_share", "0.3", "--test_share", "0.3"]
    prepare([*[known.get(word, word) for word in first[1:4]], *shares])
    run_script(second[1], [known.get(w, w) for w in second[2:]])
    return folder


@pytest.fixture(scope="module")
def arguments(page, units, folders):
    """Return the third command with more options, as a script and words."""

    def make(output, *more):
        known = {"MODEL": str(folders["base"]), "results/mine": str(output)}
        known |= {"[units/my_speech]": f"[{units / 'units'}]"}
        words = [known.get(word, word) for word in page[2][2:]]
        options = dict(zip(words[1::2], words[2::2]))
        for option in (*SMALL, *more):
            name, _, value = option.partition("=")
            options[name] = value
        return [
            page[2][1],
            words[0],
            *[f"{name}={value}" for name, value in options.items()],
        ]

    return make


@pytest.fixture(scope="module")
def train(arguments, tmp_path_factory):
    """Run it; return the output folder."""

    def run(*more):
        output = tmp_path_factory.mktemp("finetuned")
        script, *options = arguments(output, *more)
        run_script(script, options)
        return output

    return run


@pytest.fixture(scope="module")
def trained(train):
    return train()


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module", autouse=True)
def root_for_module():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_four_of_the_five_commands(page, trained, units, tmp_path):
    assert len(page) == 5 and page[4][0] == "spiritlm-push"
    known = {
        "data/mine": str(units / "mine"),
        "results/mine/model": str(trained / "model"),
        "results/mine_asr": str(tmp_path / "asr"),
    }
    words = [known.get(word, word) for word in page[3][2:]]
    few = ["--utterances", "2", "--max_new_tokens", "4"]
    run_script(page[3][1], [*words, *few])
    assert (tmp_path / "asr" / "report.md").is_file()


def test_the_model_was_trained_on_transcribing(trained, recording, folders):
    old = SpiritLM.from_hparams(folders["base"])
    assert "asr" not in old.vocabulary.markers
    lm = SpiritLM.from_hparams(trained / "model")
    assert isinstance(lm.transcribe_file(recording, max_new_tokens=3), str)
    log = (trained / "train_log.txt").read_text()
    assert "train loss_text" in log and "valid WER" in log
    assert "loss_phonetic" not in log  # speech is asked, not learned
    before = weights(folders["base"] / "language_model")
    after = weights(trained / "model" / "language_model")
    changed = {n for n, w in before.items() if not torch.equal(w, after[n])}
    assert any("q_proj" in name for name in changed)
    assert not any("layernorm" in name for name in changed)
    record = json.loads((trained / "model" / "training.json").read_text())
    assert record["steps"] == 2


def test_all_weights_and_conversations(train, recording):
    output = train("--lora={r: 0}", "--mode=turns")
    log = (output / "train_log.txt").read_text()
    assert "train loss_phonetic" in log and "train loss_text" in log
    lm = SpiritLM.from_hparams(output / "model")
    prompt = [Text("the boats"), Break(), Speech(recording), Break()]
    answer = lm.generate(prompt, "text", max_new_tokens=3, seed=0)
    assert answer.end_reason in ("max_new_tokens", "end_of_sequence")


def test_labels_that_no_utterance_has(train):
    with pytest.raises(ValueError, match="lack speech units or the label"):
        train("--mode=intent")


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", [False, True], ids=["ddp", "fsdp"])
def test_two_processes_follow_one(
    arguments, train, tmp_path, two_processes, fsdp
):
    options = [f"--lora={{r: {0 if fsdp else 2}}}", "--mode=speech"]
    alone = train(*options)
    script, *words = arguments(tmp_path, *options, f"--fsdp={fsdp}")
    two_processes(ROOT / script, ROOT / words[0], *words[1:])
    expected = weights(alone / "model" / "language_model")
    for name, tensor in weights(tmp_path / "model" / "language_model").items():
        assert torch.allclose(tensor, expected[name], atol=1e-4), name
