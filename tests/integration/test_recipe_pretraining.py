"""The recipe of the language model, on a few seconds of speech."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from spiritlm_plugin import Speech, SpiritLM, Text
from spiritlm_plugin.dataio.corpus.stores import CorpusError

RECIPES = Path(__file__).parents[2] / "recipes" / "TinySpeech"
RECIPE = RECIPES / "pretraining"
WORDS = "the two boats lay by the shore all day".split()
SMALL = [
    "--row_tokens=160",
    "--context=160",
    "--step_rows=4",
    "--epoch_steps=3",
    "--valid_steps=1",
    "--warmup_steps=2",
    "--sample_count=1",
    "--judged_count=2",
    "--export_dtype=float32",
    "--documents={text_words: [1, 3], speech_words: [1, 3]}",
]
TEXT = [
    *SMALL,
    "--text_pieces=300",
    "--model={hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, "
    "num_attention_heads: 2}",
]


def script(folder, name="train"):
    path = RECIPES / folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def manifests(recording, tmp_path_factory):
    """Pieces of a recording, with words and times."""
    folder = tmp_path_factory.mktemp("manifests")
    samples, rate = soundfile.read(recording)
    for split, count in {"train": 10, "valid": 3}.items():
        items = {}
        for i in range(count):
            path = folder / f"{split}{i}.wav"
            piece = samples[800 * i : 800 * i + 16000]
            soundfile.write(path, piece, rate)
            words = WORDS[i % 4 : i % 4 + 5]
            items[path.stem] = {
                "wav": f"{{data_root}}/{path.name}",
                "duration": len(piece) / rate,
                "text": " ".join(words),
                "intent": "stop music none" if i % 2 else None,
                "words": [
                    [word, 0.2 * k, 0.2 * k + 0.19]
                    for k, word in enumerate(words)
                ],
            }
        (folder / f"{split}.json").write_text(json.dumps(items))
    return folder


@pytest.fixture(scope="module")
def corpus(manifests, folders, tmp_path_factory):
    """Units of a small model whose folder serves as codec."""
    folder = tmp_path_factory.mktemp("corpus")
    yaml = RECIPE / "hparams" / "tokenize.yaml"
    script("pretraining", "tokenize_corpus")(
        [
            str(yaml),
            f"--manifest_folder={manifests}",
            f"--output_folder={folder}",
            f"--codec={folders['expressive']}",
        ]
    )
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    lines = [" ".join(WORDS[i % 5 :]) for i in range(40)]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def text_lm(texts, corpus, folders, tmp_path_factory):
    """The folder of a text language model."""
    output = tmp_path_factory.mktemp("text_lm")
    script("pretraining")(
        [
            str(RECIPE / "hparams" / "text.yaml"),
            f"--text_files=[{texts}]",
            f"--corpus_folders=[{corpus}]",
            f"--codec={folders['expressive']}",
            f"--output_folder={output}",
            "--number_of_epochs=1",
            *TEXT,
        ]
    )
    return output / "model" / "language_model"


@pytest.fixture(scope="module")
def arguments(corpus, text_lm, folders):
    """Return the command line of a training."""

    def make(output, *more, epochs=2):
        command = [
            f"--corpus_folders=[{corpus}]",
            f"--codec={folders['expressive']}",
            f"--pretrained={text_lm}",
            f"--output_folder={output}",
            f"--number_of_epochs={epochs}",
            *SMALL,
            *more,
        ]
        # The last word on each counts.
        options = {option.partition("=")[0]: option for option in command}
        return [str(RECIPE / "hparams" / "expressive.yaml"), *options.values()]

    return make


@pytest.fixture(scope="module")
def trained(arguments, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    script("pretraining")(arguments(output))
    return output


def weights(output):
    return load_file(output / "model" / "language_model" / "model.safetensors")


def losses(output):
    """Return the losses of each epoch, which a killed run may log again."""
    epochs = {}
    for line in (output / "train_log.txt").read_text().splitlines():
        if found := re.match(r"epoch: (\d+),", line):
            values = re.findall(r"loss: ([\d.e+-]+)", line)
            epochs[int(found[1])] = [float(value) for value in values]
    return [value for epoch in sorted(epochs) for value in epochs[epoch]]


def assert_same_weights(one, other):
    expected = weights(other)
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, expected[name]), name


def test_the_model_loads_as_any_other(trained, recording):
    lm = SpiritLM.from_hparams(trained / "model")
    assert lm.expressive
    answer = lm.generate([Speech(recording)], "asr", max_new_tokens=3, seed=0)
    assert isinstance(answer[0], Text)
    plain = AutoModelForCausalLM.from_pretrained(
        trained / "model" / "language_model"
    )
    ids = torch.tensor([lm.vocabulary.encode([Text("the boats")])])
    assert torch.equal(plain(input_ids=ids).logits, lm.mods.language_model(ids))


def test_log_and_samples(trained):
    log = (trained / "train_log.txt").read_text()
    for name in ("text", "phonetic", "pitch", "style"):
        for figure in ("loss", "accuracy"):
            assert f"train {figure}_{name}" in log
            assert f"valid {figure}_{name}" in log
        assert f"valid unigram_{name}" in log
    assert "valid WER" in log and "valid reading_WER" in log
    folder = trained / "samples" / "epoch2"
    lines = (folder / "samples.jsonl").read_text().splitlines()
    samples = {s["task"]: s for s in map(json.loads, lines)}
    assert set(samples) == {"continuation", "transcript", "reading"}
    assert "text" in samples["transcript"]
    assert (folder / samples["continuation"]["file"]).stat().st_size > 1000
    assert list((trained / "tensorboard").iterdir())


def test_speech_tokens_stand_behind_those_of_the_start(trained):
    vocabulary = SpiritLM.from_hparams(trained / "model").vocabulary
    assert len(vocabulary.text) == 300
    assert vocabulary.markers["asr"] >= 300


def killed_run(arguments, calls):
    """Run the recipe in a process that dies in the middle of a step."""
    code = (
        "import os, runpy, signal, sys\n"
        "from spiritlm_plugin.dataio.stream.packed_loader import PackedLoader\n"
        "following, calls = PackedLoader.__next__, []\n"
        "def dying(self):\n"
        "    calls.append(1)\n"
        f"    if len(calls) > {calls}:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return following(self)\n"
        "PackedLoader.__next__ = dying\n"
        f"sys.argv = {[str(RECIPE / 'train.py'), *arguments]!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    return subprocess.run([sys.executable, "-c", code], timeout=300)


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    arguments, trained, tmp_path
):
    command = arguments(tmp_path, "--ckpt_interval_steps=1")
    # One call is the validation's; the second epoch's second step dies.
    result = killed_run(command, 1 + 4)
    assert result.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    script("pretraining")(command)
    assert_same_weights(tmp_path, trained)
    assert losses(tmp_path) == losses(trained)


def test_other_modes_and_a_random_start(arguments, tmp_path):
    script("pretraining")(
        arguments(tmp_path, "--mode=words", "--random_weights=true", epochs=1)
    )
    log = (tmp_path / "train_log.txt").read_text()
    assert "train loss_pitch" in log and "WER" not in log


def test_adapters(arguments, tmp_path, text_lm):
    script("pretraining")(arguments(tmp_path, "--lora={r: 2}", epochs=1))
    before = load_file(text_lm / "model.safetensors")
    after = weights(tmp_path)
    layer = "model.layers.0.{}.weight".format
    for name in ("self_attn.q_proj", "mlp.up_proj"):
        same = torch.equal(before[layer(name)], after[layer(name)])
        assert same == (name == "mlp.up_proj")
    SpiritLM.from_hparams(tmp_path / "model")


def test_units_of_another_codec(arguments, tmp_path):
    command = arguments(tmp_path, "--codec=tinyspeech")
    with pytest.raises(CorpusError, match="another phonetic tokenizer"):
        script("pretraining")(command)


def test_rows_longer_than_the_context(arguments, tmp_path):
    command = arguments(tmp_path, "--row_tokens=200")
    with pytest.raises(ValueError, match="row_tokens 200 are more than"):
        script("pretraining")(command)


def test_debug(arguments, tmp_path):
    script("pretraining")([*arguments(tmp_path, epochs=9), "--debug"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "fsdp, start",
    [(False, "torchrun"), (True, "two_processes")],
    ids=["ddp", "fsdp"],
)
def test_two_processes_follow_one(
    arguments, trained, tmp_path, request, fsdp, start
):
    """Stopped after the first epoch, which all processes can load."""
    run = request.getfixturevalue(start)
    for epochs in (1, 2):
        command = arguments(tmp_path, f"--fsdp={fsdp}", epochs=epochs)
        command += ["--total_steps=6", "--grad_accumulation_factor=2"]
        run(RECIPE / "train.py", *command)
    assert losses(tmp_path) == pytest.approx(losses(trained), abs=1e-2)
    expected = weights(trained)
    for name, tensor in weights(tmp_path).items():
        assert torch.allclose(tensor, expected[name], atol=1e-4), name
    SpiritLM.from_hparams(tmp_path / "model")


@pytest.mark.parametrize("name", ["text", "base", "expressive"])
def test_two_processes_can_share_a_step(name):
    """As the READMEs' commands have it."""
    yaml = (RECIPE / "hparams" / f"{name}.yaml").read_text(encoding="utf-8")
    [rows] = re.findall(r"^step_rows: (\d+)$", yaml, re.MULTILINE)
    assert int(rows) % 2 == 0
