"""Tests of ``spiritlm_plugin.training.sharding``.

As a script, this file trains two small models that two processes share:
``torchrun test_sharding.py FOLDER``.
"""

from functools import partial
from pathlib import Path

import pytest
import speechbrain as sb
import torch
import torch.distributed as dist
from speechbrain.utils.distributed import ddp_init_group, if_main_process
from torch.distributed.fsdp import FSDPModule

from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes.language_model import new_language_model
from spiritlm_plugin.training.checkpointer import AtomicCheckpointer
from spiritlm_plugin.training.sharding import (
    ShardedState,
    full_state,
    hold,
    shard,
)
from spiritlm_plugin.utils.recipes import run

SETTINGS = {
    "untied": {"tie_word_embeddings": False},
    "tied": {"tie_word_embeddings": True},
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2}
STEPS, ACCUMULATION, SAVED_AT = 5, 2, 3
OPTIONS = {
    "device": "cpu",
    "distributed_backend": "gloo",
    "grad_accumulation_factor": ACCUMULATION,
    "max_grad_norm": 0.5,
}


class ToyBrain(sb.Brain):
    """Trains a language model, in one process or shared out."""

    def compute_forward(self, batch, stage):
        return self.modules.lm(batch)

    def compute_objectives(self, logits, batch, stage):
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()
        )

    def _wrap_distributed(self):
        if self.distributed_launch:
            shard(self.modules.lm, "fp32", self.device)

    def init_optimizers(self):
        self.optimizer = self.opt_class(self.modules.lm.parameters())
        self.optimizers_dict = {"opt_class": self.optimizer}
        self.checkpointer.add_recoverable(
            "sharded", ShardedState(self.modules.lm, self.optimizer)
        )


def make_model(seed=0, **config):
    torch.manual_seed(seed)
    text = train_text_tokenizer(["the cat sat on the mat"], 280)
    vocabulary = Vocabulary.extend(text, phonetic=50)
    return new_language_model(LLAMA | config, vocabulary)


def make_brain(folder, setting, seed=0):
    """Start, or go on from a checkpoint."""
    lm = make_model(seed, **SETTINGS[setting])
    lm.model.gradient_checkpointing_enable({"use_reentrant": False})
    brain = ToyBrain(
        modules={"lm": lm},
        opt_class=lambda weights: torch.optim.AdamW(weights, lr=0.01),
        run_opts=OPTIONS,
        checkpointer=AtomicCheckpointer(folder),
    )
    brain.on_fit_start()
    brain.modules.train()
    return brain


def generate(lm, tokens):
    prompt = torch.arange(3)[None]
    length = {"min_new_tokens": tokens, "max_new_tokens": tokens}
    ids = lm.model.generate(prompt, do_sample=False, **length)
    return ids[0].tolist()


def train(brain, save=False):
    """Return the mean loss of each batch, by its number."""
    rank, size = 0, 1
    if dist.is_initialized():
        rank, size = dist.get_rank(), dist.get_world_size()
    generator = torch.Generator().manual_seed(1)
    batches = torch.randint(
        380, (STEPS * ACCUMULATION, 4, 12), generator=generator
    )
    losses = {}
    while brain.step < len(batches):
        batch = batches[brain.step].chunk(size)[rank]
        brain.step += 1
        loss = brain.fit_batch(batch)
        if size > 1:
            dist.all_reduce(loss)
        losses[brain.step] = float(loss) / size
        if save and brain.step == SAVED_AT * ACCUMULATION:
            # After a forward without a backward, weights are not shared out.
            generate(brain.modules.lm, 2)
            brain.checkpointer.save_checkpoint()
    return losses


@pytest.fixture
def one_process():
    """A process group of this process alone."""
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_a_model(tmp_path, two_processes):
    # First a whole run, which saves, then one that goes on from there.
    for name in ("whole", "resumed"):
        two_processes(__file__, tmp_path, name)
    for setting in SETTINGS:
        whole, resumed = (
            torch.load(tmp_path / f"{name}-{setting}.pt")
            for name in ("whole", "resumed")
        )
        check_training(tmp_path, setting, whole["losses"])
        check_start(setting, whole)
        check_resuming(tmp_path, setting, whole, resumed)
        check_weights(setting, whole)


def check_training(folder, setting, losses):
    expected = train(make_brain(folder / "alone" / setting, setting))
    assert losses == pytest.approx(expected, abs=1e-4)
    # They learn, or it would not be worth much.
    assert len(set(losses.values())) == STEPS * ACCUMULATION


def check_start(setting, whole):
    """Both processes have, bit for bit, the weights that one makes alone."""
    model = make_model(**SETTINGS[setting]).model
    for name, weight in model.state_dict().items():
        assert torch.equal(whole["start"][name], weight), name
    for buffers in whole["buffers"]:
        assert buffers.keys() == dict(model.named_buffers()).keys()
        for name, buffer in model.named_buffers():
            assert torch.equal(buffers[name], buffer), name


def check_resuming(folder, setting, whole, resumed):
    later = {n: x for n, x in whole["losses"].items() if n > 6}
    assert resumed["losses"] == later and len(later) == 4
    for name, weight in whole["weights"].items():
        assert torch.equal(resumed["weights"][name], weight), name
    alone = make_brain(folder / setting, setting, seed=9)
    assert alone.optimizer_step == SAVED_AT
    assert train(alone) == pytest.approx(later, abs=1e-4)


def check_weights(setting, whole):
    lm = make_model(seed=9, **SETTINGS[setting])
    lm.model.load_state_dict(whole["weights"])
    tied = "model.embed_tokens.weight", "lm_head.weight"
    embedding, head = (whole["weights"][name] for name in tied)
    assert (embedding.data_ptr() == head.data_ptr()) == (setting == "tied")
    logits = lm(torch.arange(12)[None])
    torch.testing.assert_close(whole["logits"], logits, atol=1e-5, rtol=0)
    short, long = whole["generated"]
    assert long == generate(lm, 6) and short == generate(lm, 3) == long[:6]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_all_decoder_layers_are_shared(one_process, config, precision):
    lm, plain = make_model(**config), make_model(**config)
    shard(lm, precision)
    assert sum(isinstance(m, FSDPModule) for m in lm.modules()) == 3
    ids = torch.arange(12)[None]
    logits = lm(ids)
    is_half = precision == "bf16"
    assert (logits.dtype == torch.bfloat16) == is_half
    bound = 0.02 if is_half else 1e-6
    torch.testing.assert_close(logits.float(), plain(ids), atol=bound, rtol=0)
    logits.float().logsumexp(-1).sum().backward()
    for weight in lm.parameters():
        assert weight.dtype == weight.grad.dtype == torch.float32


def test_what_cannot_be_shared_is_refused(one_process):
    with pytest.raises(ValueError, match="fp32 or bf16, got 'fp16'"):
        shard(make_model(), "fp16")
    lm = make_model()
    lm.model._no_split_modules = None
    with pytest.raises(ValueError, match="no decoder layers in LlamaForC"):
        shard(lm, "fp32")


def test_a_saved_folder_is_a_stock_one(one_process, tmp_path):
    from transformers import AutoModelForCausalLM

    lm = make_model(**SETTINGS["tied"])
    shard(lm, "bf16")
    ids = torch.arange(12)[None]
    for dtype in (None, "bfloat16"):
        folder = tmp_path / str(dtype)
        lm.save(folder, full_state(lm), dtype)
        config = (folder / "config.json").read_text()
        assert '"LlamaForCausalLM"' in config
        loaded = AutoModelForCausalLM.from_pretrained(folder)
        assert str(loaded.dtype) == f"torch.{dtype or 'float32'}"
        torch.testing.assert_close(
            loaded(ids).logits, lm(ids), atol=0.02, rtol=0, check_dtype=False
        )


def start(setting):
    """Return the weights of a model that only the main process has made."""
    make = (
        partial(make_model, **SETTINGS[setting]) if if_main_process() else None
    )
    lm = hold(make)
    assert lm.to("cpu").device.type == "meta"  # as a Brain moves it
    shard(lm, "fp32")
    buffers = [None] * 2
    dist.all_gather_object(buffers, dict(lm.model.named_buffers()))
    return {"start": full_state(lm), "buffers": buffers}


def main(arguments):
    folder, name, *_ = arguments
    ddp_init_group(OPTIONS)
    for setting in SETTINGS:
        started = start(setting)
        brain = make_brain(Path(folder) / setting, setting)
        losses = train(brain, save=name == "whole")
        lm = brain.modules.lm.eval()
        generated = [None] * 2
        ids = generate(lm, 3 + 3 * dist.get_rank())
        dist.all_gather_object(generated, ids)
        result = {"losses": losses, "generated": generated, **started}
        result["logits"] = lm(torch.arange(12)[None]).detach()
        result["weights"] = full_state(lm)
        assert bool(result["weights"]) == if_main_process()
        if if_main_process():
            torch.save(result, Path(folder) / f"{name}-{setting}.pt")


if __name__ == "__main__":
    run(main)
