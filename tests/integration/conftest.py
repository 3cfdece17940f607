"""Models and recordings that the integration tests share."""

from __future__ import annotations

import shutil
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from spiritlm_plugin import Speech, SpiritLM, Text
from spiritlm_plugin.integrations.convert import convert_release
from tests.integration.helpers import LENGTHS, VARIANTS, script_ids

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def models(load, checkpoints):
    """Both models, in float32, in which batches are exact."""
    return {v: load(checkpoints, v, "float32") for v in VARIANTS}


@pytest.fixture(scope="session")
def base(models):
    return models["base"]


@pytest.fixture(scope="session")
def expressive(models):
    return models["expressive"]


@pytest.fixture(params=VARIANTS)
def lm(request, models):
    return models[request.param]


@pytest.fixture(scope="session")
def tinyspeech(tmp_path_factory):
    """Folder of a little TinySpeech, of another seed than what ships saw."""
    folder = tmp_path_factory.mktemp("tinyspeech")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "recipes" / "TinySpeech"))
        from tinyspeech_prepare import prepare_tinyspeech

        prepare_tinyspeech(folder, "debug", seed=11, jobs=1)
        for name in [n for n in sys.modules if n.startswith("tinyspeech")]:
            patch.delitem(sys.modules, name)
    return folder


@pytest.fixture(scope="session")
def samples(recording):
    return soundfile.read(recording, dtype="float32")[0]


@pytest.fixture(scope="session")
def wavs(samples):
    """Recordings of unequal length and loudness, some of them noise."""
    noise = np.random.default_rng(0).normal(size=max(LENGTHS)) / 10
    kinds = [samples, noise.astype(np.float32), samples[::-1].copy()]
    return [
        torch.from_numpy(kinds[i % 3][:n] / (i + 1))
        for i, n in enumerate(LENGTHS)
    ]


@pytest.fixture(scope="session")
def prompts_of(models, samples):
    """Return a model's prompts, of unequal length and in both modalities."""
    ends = ((0, None), (0, 9000), (9000, 20000), (5000, 9000), (0, 4000))
    wavs = [samples[start:end] for start, end in ends]

    @cache
    def prompts(lm: SpiritLM):
        speech = [Speech(units) for units in lm.encode_batch(wavs)]
        return [
            [Text("the old man walked")],
            [speech[0]],
            [Text("a")],
            [Text("he said"), speech[1]],
            [speech[2], Text(" and then they were gone")],
            [speech[3], speech[4]],
        ]

    return prompts


@pytest.fixture(scope="session")
def folders(checkpoints, tmp_path_factory):
    """Both models as SpeechBrain pretrained folders."""
    root = tmp_path_factory.mktemp("pretrained")
    return {v: convert_release(checkpoints, v, root / v) for v in VARIANTS}


@pytest.fixture
def scripted(checkpoints):
    """Return a function that makes a model that has learned one sentence.

    Each token is followed by the next of the script, whatever is before it:
    what layers add is zero, and each embedding points at one output. Tokens
    must not repeat.
    """

    def make(variant: str, prompt, output: str, script: str) -> SpiritLM:
        lm = SpiritLM.from_release(checkpoints, variant, "float32")
        chain = [lm.vocabulary.encode(prompt, output)[-1]]
        chain += script_ids(lm.vocabulary, script)
        assert len(set(chain)) == len(chain)
        llama = lm.mods.language_model.model
        with torch.no_grad():
            for layer in llama.model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            llama.model.norm.weight.fill_(1)
            embedding = llama.get_input_embeddings().weight.zero_()
            head = llama.get_output_embeddings().weight.zero_()
            for i, (token, following) in enumerate(zip(chain, chain[1:])):
                embedding[token, i] = 1
                head[following, i] = 10
        return lm

    return make


@pytest.fixture
def copied(checkpoints, tmp_path):
    """A copy of the checkpoints, to be damaged."""
    return Path(shutil.copytree(checkpoints, tmp_path / "checkpoints"))


@pytest.fixture
def copied_folder(folders, tmp_path):
    """A copy of the pretrained Base folder, to be damaged."""
    return Path(shutil.copytree(folders["base"], tmp_path / "model"))
