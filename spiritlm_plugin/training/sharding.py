"""Language models that outgrow one GPU: FSDP2 and its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import ddp_broadcast
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel

from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes.document_attention import BY_DOCUMENT
from spiritlm_plugin.lobes.language_model import LanguageModel
from spiritlm_plugin.training.sharded_checkpoints import (
    load_sharded,
    save_sharded,
    staged,
)
from spiritlm_plugin.utils.processes import rank_and_world_size

_POLICIES = {
    "fp32": MixedPrecisionPolicy(),
    "bf16": MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32
    ),
}


def hold(make: Callable[[], LanguageModel]) -> LanguageModel:
    """Make a model in the main process, and its shape alone in all others.

    Its weights wait on the main process's CPU until `shard` shares them out:
    no other process reads them, and none but that one holds them all. So they
    do not depend on how many processes there are.

    Arguments
    ---------
    make : callable
        Makes the model, and draws its weights; called in the main process.

    Returns
    -------
    LanguageModel
        Without weights: it cannot be called, and stays as it is where modules
        are moved.

    Example
    -------
    >>> folder = f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    >>> lm = hold(lambda: load_language_model(folder))
    >>> lm.device, len(lm.held) > 0
    (device(type='meta'), True)
    """
    lm = make() if _is_main() else None
    shape = ddp_broadcast(None if lm is None else _shape(lm))
    if lm is None:
        lm, held = _from_shape(*shape), {}
    else:
        held = _weights(lm.model)
    _empty(lm.model, "meta")
    lm.held = held
    return lm


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _is_main() -> bool:
    return rank_and_world_size()[0] == 0


def _shape(lm: LanguageModel) -> tuple[Any, ...]:
    model = lm.model
    return model.config, model.generation_config, model.dtype, lm.vocabulary


def _from_shape(
    config: Any, generation: Any, dtype: torch.dtype, vocabulary: Vocabulary
) -> LanguageModel:
    from transformers import AutoModelForCausalLM

    attention = config._attn_implementation
    if attention == BY_DOCUMENT:
        attention = "sdpa"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attention
        )
    model.generation_config = generation
    return LanguageModel(model, vocabulary)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Return weights and buffers, of which some are in no state dict."""
    buffers = {n: x.clone() for n, x in model.named_buffers()}
    return {**model.state_dict(), **buffers}


def _empty(model: PreTrainedModel, device: torch.device | str) -> None:
    """Leave the shape of a model, with weights of no value, on a device."""
    model.to_empty(device=device)
    model.tie_weights()


def shard(
    lm: LanguageModel, precision: str, device: torch.device | str = "cpu"
) -> None:
    """Share a language model out among all processes, with FSDP2.

    Each keeps its part of the weights, of the gradients and of the optimizer's
    state, and gets the other parts of a decoder layer while it computes that
    layer. The weights are those of the main process, which sends them out one
    by one; an optimizer is made afterwards. All processes call the model, and
    ``lm.model.generate``, together.

    Source: Zhao et al., "PyTorch FSDP", VLDB 2023.

    Arguments
    ---------
    lm : LanguageModel
        Of `hold`; or of the same shape in each process.
    precision : str
        ``"fp32"``, or ``"bf16"`` to compute in bfloat16: weights are kept, and
        gradients added up, as they are and in float32.
    device : torch.device or str
        Of this process.

    Raises
    ------
    RuntimeError
        If there is no process group.
    ValueError
        If the precision is not known, or the model names no decoder layers.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> shard(lm, "bf16")
    Traceback (most recent call last):
    ...
    RuntimeError: a model is shared out among processes; start with torchrun
    """
    if not dist.is_initialized():
        raise RuntimeError(
            "a model is shared out among processes; start with torchrun"
        )
    if precision not in _POLICIES:
        raise ValueError(
            f"precision should be {' or '.join(_POLICIES)}, got {precision!r}"
        )
    # By default FSDP takes a GPU where there is one, whatever the model does.
    kind = torch.device(device).type
    mesh = init_device_mesh(kind, (dist.get_world_size(),))
    policy = _POLICIES[precision]
    layers = _decoder_layers(lm.model)
    weights, lm.held = lm.held, None
    if weights is None:
        weights = _weights(lm.model) if _is_main() else {}
        _empty(lm.model, "meta")
    for module in (*layers, lm.model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
    _empty(lm.model, device)
    _send(weights, lm.model)
    # Makes `generate` go on in all processes until the last one is done. By
    # torch's types a module holds nothing but tensors and modules.
    lm.model._is_fsdp_managed_module = True  # type: ignore[assignment]


def _send(weights: dict[str, Tensor], model: PreTrainedModel) -> None:
    """Fill a model in all processes with the weights of the main one."""
    for name, buffer in model.named_buffers():
        if _is_main():
            buffer.copy_(weights[name])
        dist.broadcast(buffer, 0)
    names = model.state_dict().keys() & weights.keys()
    set_model_state_dict(
        model,
        {name: weights[name] for name in names},
        options=StateDictOptions(
            full_state_dict=True, broadcast_from_rank0=True
        ),
    )


def _decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    names = set(model._no_split_modules or ())
    lists = (m for m in model.modules() if isinstance(m, nn.ModuleList))
    layers = [
        layer
        for layers in lists
        for layer in layers
        if type(layer).__name__ in names
    ]
    if not layers:
        raise ValueError(
            f"found no decoder layers in {type(model).__name__}; set its "
            "_no_split_modules to the names of their classes"
        )
    return layers


def full_state(lm: LanguageModel) -> dict[str, Tensor]:
    """Collect the weights of a model that is shared out.

    Arguments
    ---------
    lm : LanguageModel
        All processes call this together.

    Returns
    -------
    dict of str to Tensor
        On the CPU, for `LanguageModel.save`; empty but in the main process.
        Tied weights are one tensor.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> full_state(lm).keys() == lm.model.state_dict().keys()
    True
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: dict[str, Any] = get_model_state_dict(lm.model, options=options)
    first: dict[nn.Parameter, str] = {}
    for name, weight in lm.model.named_parameters(remove_duplicate=False):
        if name in state:
            state[name] = state[first.setdefault(weight, name)]
    return state


@partial(register_checkpoint_hooks, save_on_main_only=False)
class ShardedState:
    """A model and its optimizer, to be saved by SpeechBrain's checkpointer.

    Each process writes its part, see `save_sharded`. Any number of processes
    may go on from there; a single one without `shard`, too.

    Arguments
    ---------
    lm : LanguageModel
        Usually shared out by `shard`.
    optimizer : torch.optim.Optimizer
        Of the model's parameters. If it has made no step when it is saved, it
        makes one of size zero, which it counts.

    Example
    -------
    >>> from spiritlm_plugin.training.checkpointer import AtomicCheckpointer
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> state = ShardedState(lm, torch.optim.AdamW(lm.parameters()))
    >>> checkpointer = AtomicCheckpointer(tmp, {"sharded": state})
    >>> saved = checkpointer.save_checkpoint()
    >>> sorted(path.name for path in saved.paramfiles["sharded"].iterdir())
    ['.metadata', '__0_0.distcp']
    >>> checkpointer.recover_if_possible().path == saved.path
    True
    """

    def __init__(self, lm: LanguageModel, optimizer: torch.optim.Optimizer):
        self.lm = lm
        self.optimizer = optimizer
        # What is written while training goes on has a group of its own; of its
        # type versions of torch do not agree.
        self._group: Any = dist.new_group(backend="gloo") if _joined() else None

    def stage(self, path: Path) -> Callable[[], None]:
        """Copy this process's part to the CPU; return what writes it."""
        return partial(save_sharded, staged(self._state()), path, self._group)

    def _state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.lm.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}

    @mark_as_saver
    def _save(self, path: Path) -> None:
        self.stage(path)()

    @mark_as_loader
    def _load(self, path: Path, end_of_epoch: bool) -> None:
        state = self._state()
        load_sharded(state, path)
        set_state_dict(
            self.lm.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
