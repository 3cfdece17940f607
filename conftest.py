"""What the tests and the examples in the docstrings share."""

import json
import os
import re
import socket
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

# AMX rounds sums of bfloat16 elsewhere than the vectors' processor; oneDNN reads
# this when it is first used.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

SMALL = Path(__file__).parent / "tests" / "conformance" / "small"

# Names that examples use without an import. A package is imported when the
# first example that uses a name of it is run.
_IMPORTS = {
    "FCPE": "spiritlm_plugin.lobes.pitch",
    "Speech": "spiritlm_plugin.dataio.units.segments",
    "SpeechCodec": "spiritlm_plugin.inference",
    "SpeechStream": "spiritlm_plugin.dataio.units.units",
    "SpeechUnits": "spiritlm_plugin.dataio.units.units",
    "SpiritLM": "spiritlm_plugin.inference",
    "Text": "spiritlm_plugin.dataio.units.segments",
    "Vocabulary": "spiritlm_plugin.dataio.units.vocabulary",
    "convert_release": "spiritlm_plugin.integrations.convert",
    "hyperparams": "spiritlm_plugin.integrations.parts",
    "load_language_model": "spiritlm_plugin.lobes.language_model",
    "load_part": "spiritlm_plugin.integrations.parts",
    "read_release": "spiritlm_plugin.integrations.release",
}


def example_text_tokenizer():
    """Return a text tokenizer of a few hundred pieces."""
    from spiritlm_plugin.dataio.units.text_tokenizers import SentencePieceText

    lm = SMALL / "checkpoints" / "spiritlm_model" / "spirit-lm-base-7b"
    return SentencePieceText(lm / "tokenizer.model")


def _shield_lazy_modules():
    """Keep hypothesis from importing SpeechBrain's lazy modules.

    It asks all modules for their files, whereupon these import what they stand
    for, such as k2, and fail.
    """
    importutils = sys.modules.get("speechbrain.utils.importutils")
    if importutils is not None:
        importutils.LazyModule.__file__ = None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems():
    """Run before the hook of hypothesis."""
    _shield_lazy_modules()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
    """Run when fixtures have imported what a test needs."""
    _shield_lazy_modules()


@pytest.fixture(autouse=True)
def _names_of_examples(request):
    """Give an example in a docstring the names that it uses."""
    if not isinstance(request.node, pytest.DoctestItem):
        return
    makers = {
        "checkpoints": lambda: str(SMALL / "checkpoints"),
        "example_text_tokenizer": lambda: example_text_tokenizer,
        "np": lambda: import_module("numpy"),
        "recording": lambda: str(SMALL / "audio" / "boats.wav"),
        "tmp": lambda: request.getfixturevalue("tmp_path"),
        "torch": lambda: import_module("torch"),
    }
    for name, module in _IMPORTS.items():
        makers[name] = lambda m=module, n=name: getattr(import_module(m), n)
    namespace = request.getfixturevalue("doctest_namespace")
    source = "".join(e.source for e in request.node.dtest.examples)
    used = set(re.findall(r"\w+", source))
    namespace.update({n: make() for n, make in makers.items() if n in used})


@pytest.fixture(autouse=True)
def _seed_of_examples(request):
    """Make an example in a docstring draw the same in any order of tests."""
    if isinstance(request.node, pytest.DoctestItem) and "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def small():
    """Folder of the small released checkpoints' test vectors."""
    return SMALL


@pytest.fixture(scope="session")
def checkpoints():
    """Folder of the small checkpoints in the released layout."""
    return SMALL / "checkpoints"


@pytest.fixture(scope="session")
def recording():
    """Path of a recording of 2.4 s."""
    return SMALL / "audio" / "boats.wav"


@pytest.fixture(scope="session")
def load():
    """Load a model of released checkpoints, each only once in a session.

    Arguments are those of `SpiritLM.from_release`. Tests must not change what
    they get.
    """
    from spiritlm_plugin.inference import SpiritLM

    return cache(SpiritLM.from_release)


@pytest.fixture
def torchrun(tmp_path):
    """Run a recipe's script in two processes, on the CPU.

    The address is a number: machines without a network may not know their own
    name, which `--standalone` would ask for.
    """

    def run(script, *arguments, check=True):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "torch.distributed.run"]
        command += ["--nproc_per_node=2", "--master_addr=127.0.0.1"]
        command += [f"--master_port={port}", script, *arguments]
        command += ["--device=cpu", "--distributed_backend=gloo"]
        return subprocess.run(
            list(map(str, command)),
            check=check,
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            timeout=600,
        )

    return run


@pytest.fixture(scope="session")
def launcher():
    """Start what runs scripts in two processes; see `tests.launcher`."""
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.launcher"],
        cwd=Path(__file__).parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield started
    started.stdin.close()
    started.wait(60)


@pytest.fixture
def two_processes(launcher, tmp_path):
    """Run a script in two processes, on the CPU, as torchrun would."""

    def run(script, *arguments, check=True):
        arguments = [*map(str, arguments), "--device=cpu"]
        job = {
            "script": str(script),
            "arguments": [*arguments, "--distributed_backend=gloo"],
            "folder": str(tmp_path),
            "environment": os.environ | {"OMP_NUM_THREADS": "1"},
        }
        launcher.stdin.write(json.dumps(job) + "\n")
        launcher.stdin.flush()
        statuses = json.loads(launcher.stdout.readline())
        if check and any(statuses):
            raise subprocess.CalledProcessError(max(statuses), job["script"])
        return statuses

    return run
