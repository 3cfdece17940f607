"""Tokenizing on a cluster of Ray whose machines are lost, and by torchrun."""

import importlib.util
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from spiritlm_plugin.dataio.corpus.manifests import open_source, write_manifest
from spiritlm_plugin.dataio.corpus.unit_store import (
    fingerprints,
    tokenize_corpus,
)
from spiritlm_plugin.lobes.phonetic import KMeansQuantizer, PhoneticTokenizer
from spiritlm_plugin.lobes.speech_tokenizer import SpeechTokenizer
from spiritlm_plugin.utils.engines import run
from spiritlm_plugin.utils.placing import Placed

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parents[2] / "recipes" / "LibriSpeech" / "pretraining"
SHARDS = 20
# What torchrun runs: of two processes one waits until the other has done all
# else, or fails.
SCRIPT = """
import sys, time
from pathlib import Path
import torch.distributed as dist
from spiritlm_plugin.utils.engines import run
from spiritlm_plugin.utils.recipes import run as run_recipe

folder, fails = Path(sys.argv[1]), sys.argv[2] == "fails"
tasks = {f"task{i}": float(i) for i in range(9)}

def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)

def make_worker():
    rank = dist.get_rank()
    def work(key):
        (folder / f"{key}.begun.{rank}").touch()
        wait_for(lambda: any(folder.glob(f"*.begun.{1 - rank}")))
        if rank == 0 and fails:
            raise OSError(f"no {key}")
        if rank == 0:
            wait_for(lambda: len(list(folder.glob("*.done.*"))) == 8)
        (folder / f"{key}.done.{rank}").touch()
    return work

def main(arguments):
    dist.init_process_group("gloo")
    run(tasks, make_worker, "testing")
    assert len(list(folder.glob("*.done.*"))) == 9
    run({"more": 1.0}, lambda: (folder / "more").write_text, "testing")
    assert (folder / "more").is_file()

run_recipe(main)
"""


@pytest.fixture
def log(caplog, monkeypatch):
    """What is logged, also where SpeechBrain has set up loggers."""
    monkeypatch.setattr(logging.getLogger("spiritlm_plugin"), "propagate", True)
    return caplog


def make_tokenizer():
    torch.manual_seed(0)
    quantizer = KMeansQuantizer(39, 20)
    torch.nn.init.normal_(quantizer.centres)
    return SpeechTokenizer(PhoneticTokenizer(None, quantizer)).eval()


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    """Two utterances a shard, shards of unequal length."""
    folder = tmp_path_factory.mktemp("manifests")
    generator = np.random.default_rng(0)
    items = {}
    for i in range(2 * SHARDS):
        samples = generator.normal(size=8000 + 160 * (i % 7)) / 9
        soundfile.write(folder / f"{i}.wav", samples, 16000)
        items[f"u{i}"] = {
            "wav": f"{{data_root}}/{i}.wav",
            "duration": len(samples) / 16000,
            "text": "all day",
        }
    write_manifest(items, folder / "train.json")
    return folder


def tokenize(manifests, folder, tokenizer=None, **options):
    network = make_tokenizer()
    tokenize_corpus(
        open_source(manifests / "train"),
        folder,
        tokenizer or Placed(network, "cpu"),
        fingerprints(network),
        shard_seconds=0.7,
        device="cpu",
        **options,
    )


def contents(folder):
    files = (p for p in sorted(folder.iterdir()) if p.suffix != ".json")
    return {p.name: p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def alone(manifests, tmp_path_factory):
    """The folder of units that one process made, undisturbed."""
    folder = tmp_path_factory.mktemp("alone") / "train"
    tokenize(manifests, folder)
    assert len(contents(folder)) == SHARDS
    return folder


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes of a CPU each; RAY_ADDRESS names it."""
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    from ray.cluster_utils import Cluster

    # Ray's sockets lie there: their paths must be short.
    folder = tempfile.mkdtemp(prefix="ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        # Wherever its sockets lie, the cluster's address is written here.
        Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)
        cluster = Cluster()
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, temp_dir=folder)
            patch.setenv("RAY_ADDRESS", cluster.address)
            yield cluster
        finally:
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def slowly(tokenizer, marks):
    """Return a tokenizer that takes its time, and tells where it runs."""

    # In here, so that it is sent to workers, which know no tests.
    class Slowly:
        def __call__(self, wavs):
            import ray

            node = ray.get_runtime_context().get_node_id()
            Path(marks, f"{node}.{os.getpid()}").touch()
            time.sleep(0.25)
            return tokenizer(wavs)

    return Slowly()


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_node_and_a_worker_are_lost(cluster, manifests, alone, tmp_path):
    units, marks = tmp_path / "train", tmp_path / "marks"
    marks.mkdir()
    lost = []

    def made():
        return len(list(units.glob("*.arrow")))

    def lose():
        wait_for(lambda: len(list(marks.iterdir())) == 2 and made() > 3)
        [node] = [n for n in cluster.list_all_nodes() if not n.head]
        lost.append(node.node_id)
        cluster.remove_node(node, allow_graceful=False)
        before = made()
        wait_for(lambda: made() > before + 3)
        [mark] = [m for m in marks.iterdir() if node.node_id not in m.name]
        lost.append(mark.suffix[1:])
        os.kill(int(mark.suffix[1:]), signal.SIGKILL)

    loser = threading.Thread(target=lose)
    loser.start()
    tokenizer = slowly(Placed(make_tokenizer(), "cpu"), str(marks))
    tokenize(manifests, units, tokenizer, engine="ray")
    loser.join()
    assert len(lost) == 2
    # One on the lost node, the one that was killed, and who came for it.
    assert len(list(marks.iterdir())) == 3
    assert contents(units) == contents(alone)
    assert (units / "corpus.json").read_text() == (
        alone / "corpus.json"
    ).read_text()
    assert not list(units.glob("*.partial"))


def test_an_error_names_its_task(cluster, log):
    def make_worker():
        def work(key):
            if key == "b":
                raise OSError(f"no {key}")

        return work

    with pytest.raises(OSError, match="no b"):
        # No machine has so many processors.
        run({"a": 1.0, "b": 2.0}, make_worker, "testing", engine="ray", cpus=9)
    assert "testing: task b failed" in log.text


def test_a_task_that_kills_workers_is_given_up(cluster):
    def make_worker():
        return lambda key: os._exit(1)

    with pytest.raises(RuntimeError, match="testing: 5 workers died of task a"):
        run({"a": 1.0}, make_worker, "testing", engine="ray")


def test_the_recipe_on_a_cluster(cluster, manifests, tmp_path):
    spec = importlib.util.spec_from_file_location(
        "tokenize_corpus", RECIPE / "tokenize_corpus.py"
    )
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    for engine in ("torchrun", "ray"):
        recipe.main(
            [
                str(RECIPE / "hparams" / "tokenize.yaml"),
                f"--manifest_folder={manifests}",
                f"--output_folder={tmp_path / engine}",
                "--codec=tinyspeech",
                "--splits=[train]",
                "--shard_seconds=3",
                "--workers=1",
                f"--engine={engine}",
                "--device=cpu",
                "--precision=bf16",
            ]
        )
    ray, torchrun = tmp_path / "ray" / "train", tmp_path / "torchrun" / "train"
    assert list(contents(ray)) == ["merged-00000.arrow"]
    assert contents(ray) == contents(torchrun)
    assert '"precision": "bf16"' in (ray / "corpus.json").read_text()


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    (tmp_path / "done").mkdir()
    return path


def test_a_slow_process_of_torchrun_does_less(script, torchrun):
    done = script.parent / "done"
    torchrun(script, done, "works")
    ranks = [path.suffix for path in done.glob("*.done.*")]
    assert sorted(ranks) == [".0"] + 8 * [".1"]
    [slow] = done.glob("*.done.0")
    # The largest are begun first.
    assert slow.name[:5] in ("task7", "task8")


def test_an_error_in_a_process_of_torchrun_ends_all(script, torchrun, capfd):
    ended = torchrun(script, script.parent / "done", "fails", check=False)
    assert ended.returncode != 0
    text = capfd.readouterr().err
    assert "OSError: no task" in text
    assert "testing: task task" in text
