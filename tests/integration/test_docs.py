"""The docs and the READMEs: their code runs, their commands are right.

Python blocks run, a page's in one namespace. Of the shell's blocks each command
is taken to where its script knows that it understands it: a recipe has checked
its YAML file and all overrides, any other script has parsed its arguments.
"""

from __future__ import annotations

import argparse
import configparser
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser

from spiritlm_plugin.utils import recipes
from spiritlm_plugin.utils.configuration import ConfigurationError
from tests.integration.commands import (
    ASSIGNMENT,
    SHELLS,
    blocks_of,
    commands_of,
)

ROOT = Path(__file__).parents[2]
# Pages of which code and commands are tried.
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("recipes/**/README.md")),
    *sorted(ROOT.glob("spiritlm_plugin/pretrained/*/README.md")),
]
LINK = re.compile(r"\]\(([^()#:\s]+)(?:#[^()\s]*)?\)")


class Understood(Exception):
    """A command's script knows what it is asked for."""


def setup_file() -> configparser.ConfigParser:
    """Return the package's metadata."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def entry_point(program: str):
    """Return the function of a program that the package installs."""
    lines = setup_file()["options.entry_points"]["console_scripts"].split("\n")
    names = dict(line.split(" = ") for line in lines if line)
    assert program in names, f"no program {program} in setup.cfg"
    module, function = names[program].split(":")
    return getattr(import_module(module), function)


class Commands:
    """Tries the commands of a page out.

    Arguments
    ---------
    page : Path
        Whose commands run in its folder or in the repository's.
    monkeypatch
        Of pytest.
    """

    def __init__(self, page: Path, monkeypatch: pytest.MonkeyPatch):
        self.monkeypatch = monkeypatch
        self.folders = [page.parent, ROOT]
        self.programs = {
            "apt-get": self.install_packages,
            "cd": self.change_folder,
            "docker": self.docker,
            "export": lambda arguments: None,
            "make": self.make,
            "pip": self.install,
            "python": self.python,
            "ray": self.ray,
            "sbatch": self.sbatch,
            "torchrun": self.torchrun,
        }

    def check(self, command: list[str]) -> None:
        """Take a command to where it is understood."""
        program, *arguments = command
        if program in self.programs:
            self.programs[program](arguments)
        elif program.startswith("spiritlm-"):
            self.is_understood(program, entry_point(program), arguments)
        else:
            assert os.access(self.find(program), os.X_OK), program

    def find(self, name: str) -> Path:
        """Return a file, and go to where it is named from."""
        for folder in self.folders:
            if (folder / name).exists():
                self.monkeypatch.chdir(folder)
                return folder / name
        raise AssertionError(
            f"no {name} in {', '.join(map(str, self.folders))}"
        )

    def change_folder(self, arguments: list[str]) -> None:
        [name] = arguments
        folder = self.find(name).resolve()
        self.folders = [folder, *self.folders[-2:]]

    def make(self, arguments: list[str]) -> None:
        rules = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = [a for a in arguments if not ASSIGNMENT.fullmatch(a)]
        for target in targets:
            assert re.search(rf"^{target}:", rules, re.MULTILINE), target

    def install(self, arguments: list[str]) -> None:
        assert arguments[0] == "install", arguments
        extras = setup_file()["options.extras_require"]
        for argument in arguments[1:]:
            for names in re.findall(r"^\.\[(.*)\]$", argument):
                assert {*names.split(",")} <= {*extras}, argument

    def install_packages(self, arguments: list[str]) -> None:
        """Packages of Debian, whose names only Debian knows."""
        assert arguments[0] in ("install", "download"), arguments

    def docker(self, arguments: list[str]) -> None:
        """Take what runs in the container for a command of the repository."""
        assert arguments[0] in ("build", "run"), arguments
        if arguments[0] == "run":
            image = arguments.index("spiritlm")
            command = arguments[image + 1 :]
            self.check([w.replace("/opt/spiritlm", str(ROOT)) for w in command])

    def ray(self, arguments: list[str]) -> None:
        assert arguments[0] == "start", arguments

    def sbatch(self, arguments: list[str]) -> None:
        """Leave out the options of SLURM, and what is added by its script."""
        first = next(i for i, a in enumerate(arguments) if a.endswith(".sh"))
        script = self.find(arguments[first])
        assert os.access(script, os.X_OK)
        starts = {"torchrun.sh": self.torchrun, "ray.sh": self.python}
        starts[script.name](arguments[first + 1 :])

    def torchrun(self, arguments: list[str]) -> None:
        """Leave out the options of torchrun itself."""
        if "--no-python" in arguments:
            self.check(arguments[arguments.index("--no-python") + 1 :])
            return
        first = next(i for i, a in enumerate(arguments) if a.endswith(".py"))
        self.python(arguments[first:])

    def python(self, arguments: list[str]) -> None:
        script, *options = arguments
        if script == "-m":
            module, *options = options
            self.monkeypatch.chdir(ROOT)
            self.is_understood(
                module,
                lambda: runpy.run_module(module, run_name="__main__"),
                options,
            )
            return
        path = self.find(script)
        with self.monkeypatch.context() as patch:
            # As Python does; and what one script imports is not another's.
            patch.syspath_prepend(str(path.parent))
            before = {*sys.modules}
            self.is_understood(
                script,
                lambda: runpy.run_path(str(path), run_name="__main__"),
                options,
            )
            for name in {*sys.modules} - before:
                file = getattr(sys.modules[name], "__file__", None) or ""
                if Path(file).is_relative_to(ROOT / "recipes"):
                    del sys.modules[name]

    def is_understood(self, name: str, main, arguments: list[str]) -> None:
        """Run a script until it has understood its command line."""
        command = f"{name} {shlex.join(arguments)}"
        check, parse = recipes.check_configuration, _parse_arguments

        def stop_after(function):
            def stopped(*args, **kwargs):
                function(*args, **kwargs)
                raise Understood

            return stopped

        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "argv", [name, *arguments])
            patch.setattr(recipes, "check_configuration", stop_after(check))
            patch.setattr(
                argparse.ArgumentParser, "parse_args", stop_after(parse)
            )
            try:
                main()
            except Understood:
                return
            except SystemExit as error:
                raise AssertionError(f"{command}: see above") from error
        raise AssertionError(f"{command}: it ran without looking at arguments")


_parse_arguments = argparse.ArgumentParser.parse_args


@pytest.fixture
def workplace(tmp_path, small, monkeypatch):
    """A folder with the files that the pages name."""
    boats, listen = (small / "audio" / f"{n}.wav" for n in ("boats", "listen"))
    shutil.copy(boats, tmp_path / "question.wav")
    shutil.copy(listen, tmp_path / "answer.wav")
    (tmp_path / "checkpoints").symlink_to(small / "checkpoints")
    speech = tmp_path / "my_speech"
    speech.mkdir()
    for name in "abc":
        shutil.copy(boats, speech / f"{name}.wav")
        (speech / f"{name}.txt").write_text("Two boats\n")
    monkeypatch.chdir(tmp_path)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def convert(example) -> None:
    """Run a page's `spiritlm-convert`, which later blocks build on."""
    for program, *arguments in commands_of(example.parsed):
        if program == "spiritlm-convert":
            entry_point(program)(arguments)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks_of(p, "python")], ids=name_of
)
@pytest.mark.usefixtures("workplace")
def test_python_runs(page):
    parsers = [PythonCodeBlockParser()]
    parsers += [CodeBlockParser(shell, convert) for shell in SHELLS]
    for example in Sybil(parsers).parse(page):
        example.evaluate()


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks_of(p, *SHELLS)], ids=name_of
)
def test_commands_are_right(page, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    checker = Commands(page, monkeypatch)
    # A page's variables hold in its later blocks, too.
    for command in commands_of("\n".join(blocks_of(page, *SHELLS))):
        checker.check(command)


@pytest.mark.parametrize(
    "page", sorted({*PAGES, *ROOT.glob("*.md")}), ids=name_of
)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    missing = [
        link for link in LINK.findall(text) if not (page.parent / link).exists()
    ]
    assert not missing


def test_computed_costs_are_those_of_the_script():
    """The page's tables are what the script prints."""
    costs = runpy.run_path(str(ROOT / "docs" / "costs.py"))
    rates = {name: rate.value for name, rate in costs["RATES"].items()}
    page = (ROOT / "docs" / "at_size.md").read_text(encoding="utf-8")
    for table in costs["tables"]([960, 44_500, 60_000], [1, 8, 64], rates):
        assert table in page


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Make two nodes of SLURM, whose programs say how they were called."""
    programs = {
        "scontrol": 'printf "n1\\nn2\\n"',
        "srun": 'echo srun "$@"',
        "ray": "exit 0",
        "python": 'echo python "$@"',
    }
    for name, line in programs.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for name, value in {
        "JOB_ID": 7,
        "JOB_NODELIST": "n[1-2]",
        "NNODES": 2,
        "GPUS_ON_NODE": 8,
        "CPUS_PER_TASK": 64,
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))


@pytest.mark.parametrize(
    "name, expected",
    {
        "torchrun": {
            "srun --kill-on-bad-exit=1 torchrun --nnodes 2 --nproc_per_node 8 "
            "--rdzv_backend c10d --rdzv_endpoint n1:29500 --rdzv_id 7 "
            "train.py hparams/a.yaml --texts [a b]"
        },
        "ray": {
            "srun --nodes=1 --ntasks=1 --nodelist=n1 ray start --head "
            "--port=6379 --block",
            "srun --nodes=1 --ntasks=1 --exclude=n1 ray start --address "
            "n1:6379 --block",
            "python train.py hparams/a.yaml --texts [a b] --engine ray",
        },
    }.items(),
    ids=["torchrun", "ray"],
)
@pytest.mark.usefixtures("cluster")
def test_slurm_starts_what_it_is_given(name, expected):
    script = ROOT / "docs" / "slurm" / f"{name}.sh"
    command = [script, "train.py", "hparams/a.yaml", "--texts", "[a b]"]
    # What runs in the background holds the output open, too.
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True
    )
    assert {*done.stdout.splitlines()} == expected


def test_a_wrong_command_is_found(tmp_path, monkeypatch):
    """What this test is for: a key that no YAML has, a file that is not there."""
    checker = Commands(tmp_path / "README.md", monkeypatch)
    script = "recipes/TinySpeech/asr/evaluate.py"
    yaml = "recipes/TinySpeech/asr/hparams/evaluate.yaml"
    given = ["--manifest_folder", "data"]
    checker.check(["python", script, yaml, *given])
    for wrong in (
        ["python", script, yaml, *given, "--shotz", "3"],
        ["python", script, yaml, *given, "--shots", "three"],
        ["python", script, yaml],
        ["python", "recipes/TinySpeech/asr/evalaute.py", yaml, *given],
        ["spiritlm-assemble", "folder", "--phonetics", "part"],
        ["pip", "install", ".[trian]"],
        ["make", "tset"],
        ["unknown"],
    ):
        with pytest.raises((AssertionError, ConfigurationError)):
            checker.check(wrong)
