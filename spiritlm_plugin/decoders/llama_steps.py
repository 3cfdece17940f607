"""The layers of Llama and its kin, run by no more than generation needs.

The modules are the model's own, adapted or quantized as they may be; what is
left out is what transformers does around them for each token. Tokens that all
rows begin with are kept once, and read once a step, whatever the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spiritlm_plugin.lobes.language_model import LanguageModel

_KIN = {f"{name}ForCausalLM" for name in ("Llama", "Mistral", "Qwen2", "Qwen3")}
# Rotary embeddings that look at a token's position and nothing else.
_ROTARY = {"default", "linear", "llama3", "yarn"}

Pair = tuple[Tensor, Tensor]


class Past(NamedTuple):
    """What was computed of tokens in front of others.

    Arguments
    ---------
    pairs : list of tuple of Tensor
        Keys and values of each layer, shape (rows, heads, tokens, channels);
        of one row where all rows have it.
    mask : Tensor
        True where there is a token, shape (rows, tokens).
    """

    pairs: list[Pair]
    mask: Tensor

    @property
    def tokens(self) -> int:
        """Tokens with padding."""
        return self.mask.shape[1]


def is_llama(lm: LanguageModel) -> bool:
    """Tell whether `LlamaSteps` can run a model.

    Its attention has to see all tokens, its rotary embedding nothing but
    positions, and its layers have to be in one place.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> is_llama(lm)
    True
    """
    model, config = lm.model, lm.model.config
    rotary = getattr(config, "rope_parameters", None) or {}
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        type(model).__name__ in _KIN
        and type(model).__module__.startswith("transformers.")
        and not model.training
        and getattr(model, "hf_device_map", None) is None
        and rotary.get("rope_type") in _ROTARY
        and rotary.get("partial_rotary_factor", 1) == 1
        and kinds == {"full_attention"}
        and ("Mistral" not in type(model).__name__ or not config.sliding_window)
    )


class LlamaSteps:
    """A model, as functions of tokens and of what was computed before them.

    Arguments
    ---------
    lm : LanguageModel
        For which `is_llama` is true.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> steps = LlamaSteps(lm)
    >>> ids, mask = torch.tensor([[1, 2, 3]]), torch.ones(1, 3).bool()
    >>> hidden, past = steps.read(ids[:, :2], mask[:, :2])
    >>> after, _ = steps.read(ids[:, 2:], mask[:, 2:], past)
    >>> torch.allclose(after, steps.read(ids, mask)[0], atol=1e-5)
    True
    """

    def __init__(self, lm: LanguageModel):
        # As all of its kin are made.
        self.body = cast(Any, lm.model).model

    def read(
        self, ids: Tensor, mask: Tensor, past: Past | None = None
    ) -> tuple[Tensor, Past]:
        """Read the tokens of prompts.

        Arguments
        ---------
        ids, mask : Tensor
            As of `pad_in_front`, shape (rows, tokens).
        past : Past, optional
            Of what stands before them, in one row for all.

        Returns
        -------
        hidden : Tensor
            Of each row's last token, shape (rows, width).
        past : Past
            Of these tokens, without what stands before them.
        """
        rows, tokens = ids.shape
        begin = 0 if past is None else past.tokens
        positions = (mask.cumsum(1) - 1).clamp(min=0) + begin
        seen: Tensor | None = None
        if begin or not bool(mask.all()):
            causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()
            own = causal.to(mask.device) & mask[:, None]
            # What pads a row sees itself, for want of anything.
            own |= torch.eye(tokens, dtype=torch.bool, device=mask.device)
            seen = F.pad(own, (begin, 0), value=True)[:, None]
        pairs: list[Pair] = []

        def attend(
            number: int, query: Tensor, key: Tensor, value: Tensor
        ) -> Tensor:
            pairs.append((key, value))
            if past is not None:
                key, value = (
                    torch.cat([before.expand(rows, -1, -1, -1), own], 2)
                    for before, own in zip(past.pairs[number], (key, value))
                )
            groups = query.shape[1] // key.shape[1]
            if groups > 1:
                key, value = (
                    x.repeat_interleave(groups, 1) for x in (key, value)
                )
            return F.scaled_dot_product_attention(
                query,
                key,
                value,
                seen,
                is_causal=seen is None,
                scale=self._scale,
            )

        hidden = self._run(ids, positions, attend, last=True)
        return hidden[:, 0], Past(pairs, mask)

    def step(
        self,
        ids: Tensor,
        positions: Tensor,
        store: Callable[[int, Tensor, Tensor], Pair],
        mask: Tensor | None,
        past: Past | None = None,
    ) -> Tensor:
        """Read one token more of each row.

        Arguments
        ---------
        ids, positions : Tensor
            Of the tokens, shape (rows,).
        store : callable
            Takes the number of a layer, keys and values of the tokens, shape
            (rows, heads, 1, channels), and gives those of all tokens so far,
            behind what all rows have.
        mask : Tensor, optional
            True where these are tokens, shape (rows, tokens); by default all
            are.
        past : Past, optional
            Of what all rows begin with, in one row.

        Returns
        -------
        Tensor
            Hidden states, shape (rows, width).
        """
        seen = None if mask is None else mask[:, None, None]

        def attend(
            number: int, query: Tensor, key: Tensor, value: Tensor
        ) -> Tensor:
            key, value = store(number, key, value)
            # Heads that share keys are queries of one head.
            packed = query.reshape(len(ids), key.shape[1], -1, query.shape[-1])
            if past is None:
                found = F.scaled_dot_product_attention(
                    packed, key, value, seen, scale=self._scale
                )
            else:
                found = _attend_twice(
                    packed * self._scale, past.pairs[number], key, value, seen
                )
            return found.reshape(query.shape)

        return self._run(ids[:, None], positions[:, None], attend)[:, 0]

    @property
    def _scale(self) -> float:
        return self.body.layers[0].self_attn.scaling

    def _run(
        self,
        ids: Tensor,
        positions: Tensor,
        attend: Callable[[int, Tensor, Tensor, Tensor], Tensor],
        last: bool = False,
    ) -> Tensor:
        """Run all layers; return hidden states, the last ones if asked."""
        x = self.body.embed_tokens(ids)
        cos, sin = self.body.rotary_emb(x, position_ids=positions)
        half = sin.shape[-1] // 2
        turned = torch.cat([-sin[..., :half], sin[..., half:]], -1)
        rotation = cos[:, None], turned[:, None]
        layers = self.body.layers
        for number, layer in enumerate(layers):
            attention = layer.self_attn
            y = _norm(layer.input_layernorm, x)
            y = attend(number, *_widened(*_project(attention, y, rotation)))
            y = y.to(x.dtype)
            if last and number == len(layers) - 1:
                x, y = x[:, -1:], y[:, :, -1:]
            y = y.transpose(1, 2).reshape(*x.shape[:2], -1)
            x = x + attention.o_proj(y)
            x = x + layer.mlp(_norm(layer.post_attention_layernorm, x))
        return _norm(self.body.norm, x)


def _norm(module: Any, x: Tensor) -> Tensor:
    """Normalize, by one operation in the place of six."""
    weight = module.weight
    if x.dtype != weight.dtype:
        return cast(Tensor, module(x))
    return F.rms_norm(x, weight.shape, weight, module.variance_epsilon)


def _project(
    attention: Any, x: Tensor, rotation: Pair
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, shape (rows, heads, tokens, channels)."""
    rows, tokens, _ = x.shape
    channels = attention.head_dim

    def heads(linear: nn.Module) -> Tensor:
        y = linear(x)
        if tokens == 1:
            return y.reshape(rows, -1, 1, channels)
        return y.reshape(rows, tokens, -1, channels).transpose(1, 2)

    query, key = heads(attention.q_proj), heads(attention.k_proj)
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    sizes = [query.shape[1], key.shape[1]]
    both = torch.cat([query, key], 1)
    cos, sin = rotation
    # Half of the channels in the place of the other.
    turned = torch.addcmul(both * cos, both.roll(channels // 2, -1), sin)
    query, key = turned.split(sizes, 1)
    return query, key, heads(attention.v_proj)


def _widened(*heads: Tensor) -> tuple[Tensor, ...]:
    """Return halves in float32 on a CPU.

    Attention of one token to many is up to eight times as fast in it there,
    for twice the memory of keys and values.
    """
    first = heads[0]
    if first.device.type == "cpu" and first.element_size() == 2:
        return tuple(x.float() for x in heads)
    return heads


def _attend_twice(
    query: Tensor, past: Pair, key: Tensor, value: Tensor, seen: Tensor | None
) -> Tensor:
    """Attend to what all rows have, and to what each has for itself.

    Arguments
    ---------
    query : Tensor
        Scaled, shape (rows, heads, queries, channels).
    past : tuple of Tensor
        Keys and values that all rows have, shape (1, heads, shared, channels).
    key, value : Tensor
        Of each row, shape (rows, heads, tokens, channels).
    seen : Tensor, optional
        True where these are tokens, shape (rows, 1, 1, tokens).
    """
    rows, _, queries, _ = query.shape
    shared = past[0].shape[2]
    # One product with all rows for each head.
    merged = query.transpose(0, 1).flatten(1, 2)
    before = (merged @ past[0][0].mT).unflatten(1, (rows, queries))
    own = query @ key.mT
    if seen is not None:
        own = own.masked_fill(~seen, -torch.inf)
    scores = torch.cat([before.transpose(0, 1), own], -1)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    of_past, of_own = weights.split([shared, key.shape[2]], -1)
    found = of_past.transpose(0, 1).flatten(1, 2) @ past[1][0]
    found = found.unflatten(1, (rows, queries)).transpose(0, 1)
    return found + of_own @ value
