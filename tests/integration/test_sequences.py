"""From the corpora to the tables, by the commands of the READMEs.

LibriSpeech's and Expresso's READMEs have every command in order. They are run as
they stand there, on small trees laid out like the corpora, in debug size: to each
are added those flags of its configuration's row in tests/recipes that make it
small. Names on the Hub are folders of small models.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration import corpus_trees as trees
from tests.integration import test_stsp_archive
from tests.integration.commands import SHELLS, commands_of

ROOT = Path(__file__).parents[2]
ROWS = {
    row["Hparam_file"]: row["test_debug_flags"]
    for table in sorted((ROOT / "tests" / "recipes").glob("*.csv"))
    for row in csv.DictReader(table.read_text("utf-8").splitlines())
}
# What rows say of the corpus that they are run on.
OF_ANOTHER_CORPUS = re.compile(
    r"--(default_style|split|text_datasets|speech_datasets|text_tokenizer)="
    r"|--model=tinyspeech|.*results/samples"
)
VOCODER = "--vocoder='{generator: {channels: 32}}'"
# And of the size of the corpus and of the networks, which keep their layers.
SMALLER = {
    "recipes/LibriSpeech/phonetic/hparams/hubert.yaml": (
        "--units=20 --model='{hubert: {hidden_size: 48, intermediate_size: 96, "
        "num_attention_heads: 2, conv_dim: [32, 32, 32, 32, 32, 32, 32, 32], "
        "num_conv_pos_embedding_groups: 2}}'"
    ),
    "recipes/Expresso/vocoder/hparams/base.yaml": VOCODER,
    "recipes/Expresso/vocoder/hparams/expressive.yaml": VOCODER,
}
# One interpreter imports what all need, and forks for each command.
RUNNER = """
import importlib, json, os, runpy, sys, traceback
root, log, commands = sys.argv[1:]
for room in ("training", "evaluation"):
    for file in sorted(os.listdir(f"{root}/spiritlm_plugin/{room}")):
        if file.endswith(".py") and file != "__init__.py":
            importlib.import_module(f"spiritlm_plugin.{room}.{file[:-3]}")
for command in json.loads(commands):
    if pid := os.fork():
        _, status, usage = os.wait4(pid, 0)
        if os.waitstatus_to_exitcode(status):
            sys.exit(" ".join(command))
        seconds = usage.ru_utime + usage.ru_stime
        print(f"{seconds:6.1f} CPU s", " ".join(command[:2]))
        continue
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        sys.argv = command
        if command[0].endswith(".py"):
            sys.path.insert(0, os.path.dirname(command[0]))
            runpy.run_path(command[0], run_name="__main__")
        else:
            from spiritlm_plugin.integrations.assemble import main
            main()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)
"""

archive = test_stsp_archive.archive


def sequence(corpus: str) -> list[list[str]]:
    """Return the commands of a README's sequence, as one process runs them."""
    page = ROOT / "recipes" / corpus / "README.md"
    text = page.read_text("utf-8")
    text = text.partition("\n## From the corpus to the table\n")[2]
    blocks = re.findall(
        rf"```(?:{'|'.join(SHELLS)})\n(.*?)```",
        text.partition("\n## ")[0],
        re.DOTALL,
    )
    commands = []
    for command in commands_of("\n".join(blocks)):
        if command[0] == "pip":  # the tests' packages are there
            continue
        if command[0] in ("python", "torchrun"):
            first = [word.endswith(".py") for word in command].index(True)
            command = command[first:]
        commands.append(command)
    return commands


def divide(commands: list[list[str]], script: str):
    """Return the commands before the first of a script, and from it on."""
    names = [command[0] for command in commands]
    [first] = [i for i, n in enumerate(names) if n.endswith(script)][:1]
    return commands[:first], commands[first:]


def made_small(command: list[str]) -> list[str]:
    """Add what its configuration's row has and the command has not."""
    yamls = [word for word in command[1:2] if word.endswith(".yaml")]
    for yaml in yamls:
        flags = [
            flag
            for flag in shlex.split(f"{ROWS[yaml]} {SMALLER.get(yaml, '')}")
            if flag.partition("=")[0] not in command
            and not OF_ANOTHER_CORPUS.match(flag)
        ]
        command = [*command, *flags, "--device=cpu"]
    return command


@pytest.fixture(scope="module")
def workplace(archive, recording, tmp_path_factory):
    """A folder with the corpora and models that the commands name."""
    folder = tmp_path_factory.mktemp("workplace")
    write = trees.writer(trees.speech(recording))
    trees.write_librispeech(folder / "LibriSpeech", write)
    trees.write_expresso(folder / "EXPRESSO", write)
    trees.write_texts(folder / "TEXTS.parquet")
    trees.save_hub_models(folder)
    (folder / "ARCHIVE").symlink_to(archive)
    (folder / "j-hartmann").mkdir()
    tokenizer = "j-hartmann/sentiment-roberta-large-english-3-classes"
    (folder / tokenizer).symlink_to(archive / "tokenizer")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    (folder / "tmp").mkdir()
    yield folder
    shutil.rmtree(folder)  # the vocoders' checkpoints take gigabytes


def test_the_two_sequences_meet():
    """Which of the other's steps go between."""
    libri, expresso = sequence("LibriSpeech"), sequence("Expresso")
    before, after = divide(libri, "tokenize_corpus.py")
    assert before[-1][0].endswith("phonetic/evaluate.py")
    assert after[1][0].endswith("pretraining/train.py")
    before, after = divide(expresso, "pretraining/train.py")
    assert before[-1][:2] == ["spiritlm-assemble", "codec"]
    assert after[-1][0].endswith("STSP/evaluate.py")


@pytest.mark.slow
def test_from_the_corpora_to_the_tables(workplace):
    units, after_codec = divide(sequence("LibriSpeech"), "tokenize_corpus.py")
    codec, expressive = divide(sequence("Expresso"), "pretraining/train.py")
    commands = map(made_small, units + codec + after_codec + expressive)
    log = workplace / "log"
    log.touch()
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, ROOT, log, json.dumps([*commands])],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        # Processes that end by os._exit leave SpeechBrain's folder of --debug.
        | {"TMPDIR": str(workplace / "tmp")},
        cwd=workplace,
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr + log.read_text()[-3000:]
    for report in (
        "phonetic_report/report.md",
        "style_report/report.txt",
        "resynthesis/report.md",
        "base_asr_clean/report.md",
        "base_asr_other/report.md",
        "base_tts_clean/report.md",
        "base_tts_other/report.md",
        "base_continuation/report.md",
        "stsp/report.md",
    ):
        assert (workplace / "results" / report).is_file()
