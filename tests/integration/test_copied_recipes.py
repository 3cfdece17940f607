"""Each recipe, copied out of the repository, with the package from a wheel.

The rows of tests/recipes are run by one interpreter that has imported what all
of them need, and forks for each.
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
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from tests.integration.helpers import save_recognizer
from tests.integration.paper_data import write_data

ROOT = Path(__file__).parents[2]
SAMPLES = "results/samples"
# Their commands run one after the other in test_sequences.
SEQUENCES = {"Expresso", "LibriSpeech"}
ROWS = {
    row["Hparam_file"]: row
    for table in sorted((ROOT / "tests" / "recipes").glob("*.csv"))
    if table.stem not in SEQUENCES
    for row in csv.DictReader(table.read_text("utf-8").splitlines())
}
# Of TinySpeech, in the order of training, and what others read of them.
MAKES_SAMPLES = {
    "phonetic/hparams/hubert.yaml": "hubert",
    "phonetic/hparams/quantizer.yaml": "phonetic",
    "pitch/hparams/train.yaml": "pitch",
    "style/hparams/features.yaml": "features",
    "style/hparams/cluster.yaml": "clusters",
    "style/hparams/units.yaml": "style",
    "vocoder/hparams/tokenize.yaml": "units",
    "vocoder/hparams/base.yaml": "vocoder_base",
    "vocoder/hparams/expressive.yaml": "vocoder_expressive",
    "pretraining/hparams/text.yaml": "text",
    "sentiment/hparams/text_classifier.yaml": "stsp/model/text",
    "sentiment/hparams/speech_classifier.yaml": "stsp/model/speech",
}
RUNNER = """
import importlib, json, os, runpy, sys, traceback
root, site, jobs = sys.argv[1:]
sys.path[:] = [path for path in sys.path if path not in ("", root)]
import spiritlm_plugin
assert spiritlm_plugin.__file__.startswith(site), spiritlm_plugin.__file__
for room in ("training", "evaluation"):
    for file in sorted(os.listdir(f"{site}/spiritlm_plugin/{room}")):
        if file.endswith(".py") and file != "__init__.py":
            importlib.import_module(f"spiritlm_plugin.{room}.{file[:-3]}")
for name, job in json.load(open(jobs)).items():
    if pid := os.fork():
        _, status, usage = os.wait4(pid, 0)
        status = os.waitstatus_to_exitcode(status)
        seconds = round(usage.ru_utime + usage.ru_stime, 1)
        print(json.dumps([name, [status, seconds]]), flush=True)
        continue
    with open(job["log"], "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        os.chdir(job["folder"])
        sys.argv = [job["script"], *job["arguments"]]
        sys.path.insert(0, job["folder"])
        runpy.run_path(job["script"], run_name="__main__")
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder that a wheel of the package is installed into."""
    folder = tmp_path_factory.mktemp("wheel")
    # Of a copy: setuptools builds inside the sources.
    sources = folder / "sources"
    shutil.copytree(
        ROOT / "spiritlm_plugin",
        sources / "spiritlm_plugin",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, sources)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "."]
        + ["-w", str(folder)],
        cwd=sources,
        check=True,
    )
    shutil.rmtree(sources)
    [wheel] = folder.glob("*.whl")
    site = folder / "site"
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--no-compile", str(wheel)]
        + ["--target", str(site)],
        check=True,
    )
    return site


@pytest.fixture(scope="module")
def environment(site):
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PYTHONPATH": str(site),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PATH": paths,
    }


class Jobs:
    """What is run, in order; what a row makes may be what others read."""

    def __init__(self, folder):
        self.folder = folder
        self.samples = folder / "samples"
        self.jobs = {}

    def add(self, name, script, *arguments):
        """Run a script of the recipes in a copy of its folder."""
        number = len(self.jobs)
        copy = self.folder / "recipes" / f"{script.parent.name}_{number}"
        shutil.copytree(script.parent, copy)
        self.jobs[name] = {
            "folder": str(copy),
            "script": script.name,
            "arguments": list(map(str, arguments)),
            "log": str(self.folder / f"{number}.log"),
        }

    def add_row(self, name, *options, output=None):
        """Run a row of a table, with its flags."""
        output = output or self.folder / "outputs" / str(len(self.jobs))
        flags = ROWS[name]["test_debug_flags"]
        self.add(
            name,
            ROOT / ROWS[name]["Script_file"],
            f"hparams/{Path(name).name}",
            *shlex.split(flags.replace(SAMPLES, str(self.samples))),
            "--device=cpu",
            f"--output_folder={output}",
            *options,
        )
        self.jobs[name]["output"] = str(output)


def write_preferences(folder):
    """Write pairs of answers, as users' own."""
    folder.mkdir(parents=True)
    for split, count in {"train": 4, "valid": 2}.items():
        lines = [
            {
                "id": f"{split}{i}",
                "output": "text",
                "prompt": [["speech", f"[Hu{i}][Hu{i + 1}]"]],
                "chosen": {"segments": [["text", "a farmer"]], "ended": True},
                "rejected": {"segments": [["text", "a"]], "ended": True},
            }
            for i in range(count)
        ]
        (folder / f"{split}.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines)
        )


def list_jobs(folder):
    """Return the jobs, those of TinySpeech first, in the order of training."""
    jobs = Jobs(folder)
    corpus, samples = ROOT / "recipes" / "TinySpeech", jobs.samples
    save_recognizer(samples / "recognizer")
    noise = np.random.default_rng(0).normal(size=160_000) / 10
    write_data(samples / "paper", noise)
    write_preferences(samples / "pairs")
    prepare = corpus / "tinyspeech_prepare.py"
    jobs.add("corpus", prepare, samples / "corpus", "--size=debug")
    # The benchmark of sentiment has more texts than the smallest corpus.
    small = samples / "small", "--size=small", "--splits=train,valid,test"
    jobs.add("small", prepare, *small)
    prepare = corpus / "tinyspeech_stsp_prepare.py"
    jobs.add("stsp", prepare, samples / "small", samples / "stsp")
    kmeans = (
        corpus / "phonetic" / "train_kmeans.py",
        "hparams/kmeans.yaml",
        f"--manifest_folder={samples / 'corpus'}",
        "--debug",
    )
    jobs.add("targets", *kmeans, f"--output_folder={samples / 'targets'}")
    for path, sample in MAKES_SAMPLES.items():
        name = f"recipes/TinySpeech/{path}"
        jobs.add_row(name, output=samples / sample)
        if sample == "hubert":
            jobs.add(
                "kmeans",
                *kmeans,
                f"--output_folder={samples / 'kmeans'}",
                f"--hubert={samples / 'hubert' / 'hubert'}",
                "--units=20",
            )
        if sample == "vocoder_expressive":
            script = folder / "assemble" / "assemble.py"
            script.parent.mkdir()
            script.write_text(
                "from spiritlm_plugin.integrations.assemble import main\nmain()"
            )
            parts = [
                f"--{part}={samples / part / part}"
                for part in ("phonetic", "pitch", "style")
            ]
            vocoders = [
                f"--vocoder={samples / 'vocoder_expressive' / 'vocoder'}",
                f"--base_vocoder={samples / 'vocoder_base' / 'vocoder'}",
            ]
            jobs.add("codec", script, samples / "codec", *parts, *vocoders)
    for name in ROWS:
        if name not in jobs.jobs:
            jobs.add_row(name)
    return jobs.jobs


@pytest.fixture(scope="module")
def outcomes(site, environment, tmp_path_factory):
    """Status and job of each row."""
    folder = tmp_path_factory.mktemp("copies")
    jobs = list_jobs(folder)
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    # With --debug SpeechBrain's checkpoints are in temporary folders, which
    # processes that end at once leave behind.
    with TemporaryDirectory(dir=folder) as temporary:
        done = subprocess.run(
            [sys.executable, "-c", RUNNER, str(ROOT), str(site), str(path)],
            env=environment | {"TMPDIR": temporary},
            cwd=folder,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    found = dict(map(json.loads, done.stdout.splitlines()))
    for name, (_, seconds) in found.items():
        print(f"{seconds:6.1f} CPU s", name)
    return {name: (found[name][0], jobs[name]) for name in jobs}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_copied_recipe_runs(outcomes, name):
    status, job = outcomes[name]
    log = Path(job["log"]).read_text(encoding="utf-8", errors="replace")
    assert status == 0, log[-3000:]
    [files] = re.findall(
        r"file_exists=\[(.+?)\]", ROWS[name]["test_debug_checks"]
    )
    for file in files.split(","):
        assert (Path(job["output"]) / file).is_file()


@pytest.mark.slow
def test_the_interface_needs_no_repository(environment, tmp_path):
    code = (
        "import sys; sys.path.remove('')\n"
        f"assert {str(ROOT)!r} not in sys.path[:2]\n"
        "from speechbrain.inference import SpiritLM\n"
        "lm = SpiritLM.from_hparams('tinyspeech')\n"
        "print(lm.generate([('text', 'the cat')], 'text', seed=0,"
        " max_new_tokens=3).end_reason)\n"
        "import spiritlm_plugin; print(spiritlm_plugin.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    reason, file = done.stdout.split()[-2:]
    assert reason in ("max_new_tokens", "end_of_sequence")
    assert file.startswith(environment["PYTHONPATH"])
