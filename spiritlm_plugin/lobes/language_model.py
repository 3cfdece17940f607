"""The interleaved language model: any causal LM over the joint vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from spiritlm_plugin.dataio.checkpoints import (
    CheckpointError,
    check_weights,
    other_than_floats,
    require_files,
    writing_model,
)
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes.document_attention import (
    BY_DOCUMENT,
    Documents,
    attend_by_document,
)
from spiritlm_plugin.lobes.language_model_config import (
    context_of,
    freeze_other_senses,
    set_context,
    set_token_ids,
    settle_generation,
)
from spiritlm_plugin.lobes.quantized_weights import quantize_linear_maps

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Of hidden states, and weight and bias of the projection; or of logits.
Score = Callable[[Tensor, "Tensor | None", "Tensor | None"], Any]
# Matrix products are fast where sizes are multiples of this.
ROW_MULTIPLE = 64


class LanguageModel(nn.Module):
    """A causal language model of transformers with Spirit LM's vocabulary.

    Source: Nguyen et al., "SpiRit-LM", TACL 2025, section 3.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        Any causal LM.
    vocabulary : Vocabulary
        Of text and speech tokens; the model's embedding needs a row for each.

    Raises
    ------
    ValueError
        If the embedding has fewer rows than the vocabulary has ids.

    Example
    -------
    >>> lm = load_language_model(
    ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
    ... )
    >>> lm(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 1112])
    """

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary):
        super().__init__()
        self.model = model
        self.vocabulary = vocabulary
        vocabulary.allowed("any", self.rows)  # raises if rows are missing
        attend_by_document(model)
        settle_generation(model, vocabulary)
        freeze_other_senses(model)
        # Whether documents of packed rows run apart; see `keep_documents_apart`.
        self.apart = False
        # Whether tokens have rows that have learned nothing yet.
        self.new_tokens = False
        # Whether logits are a projection and nothing else; found when needed.
        self._only_projects: bool | None = None
        # Weights that wait to be shared out among processes, by name.
        self.held: dict[str, Tensor] | None = None
        # Of the weights of linear maps; see `quantize`.
        self.quantized: str | None = None

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> LanguageModel:
        # A shape whose weights wait has nothing to move.
        return self if self.held is not None else super()._apply(fn, recurse)

    @property
    def rows(self) -> int:
        """Rows of the embedding."""
        embedding = cast(nn.Embedding, self.model.get_input_embeddings())
        return embedding.num_embeddings

    @property
    def context(self) -> int:
        """Tokens that the model can see at once; see `context_of`."""
        return context_of(self.model.config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        score: Score | None = None,
    ) -> Any:
        """Return next-token logits, or what is made of the last hidden states.

        Arguments
        ---------
        ids : Tensor
            Token ids, shape (batch, tokens).
        mask : Tensor, optional
            True where there is a token, shape (batch, tokens).
        positions : Tensor, optional
            Of each token in its document, where a row holds several: without
            a mask, attention stays inside them, or with ``apart`` each runs
            by itself. Best left on the CPU, where documents are looked up.
            Shape (batch, tokens).
        score : callable, optional
            Called with hidden states, shape (batch, tokens, width), and weight
            and bias of the projection to logits, so that a loss need not have
            all of them at once; or, of a model that does more than project,
            with its logits, None and None.

        Returns
        -------
        Tensor
            Shape (batch, tokens, rows); or what ``score`` returns.
        """
        if self.apart and positions is not None and mask is None:
            states = self._apart(ids, positions, score is not None)
        else:
            run = self._packed(ids, mask, positions)
            states = self._states(run, score is not None)
        if score is None:
            return states
        if not self._only_projects:
            return score(states, None, None)
        head = cast(nn.Linear, self.model.get_output_embeddings())
        return score(states, head.weight, head.bias)

    def _packed(
        self, ids: Tensor, mask: Tensor | None, positions: Tensor | None
    ) -> Callable[[], Any]:
        """Return what runs the model on rows as they are."""
        packed: dict[str, Any] = {}
        by_document = self.model.config._attn_implementation == BY_DOCUMENT
        if by_document and positions is not None and mask is None:
            packed["documents"] = Documents.of(positions, ids.device)
        if positions is not None:
            positions = positions.to(ids.device, non_blocking=True)
        # With a cache transformers would not look for documents.
        return partial(
            self.model,
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=False,
            **packed,
        )

    @torch.compiler.disable  # shapes change with every batch
    def _apart(self, ids: Tensor, positions: Tensor, hidden: bool) -> Tensor:
        """Return states in the order of rows, of documents that run apart.

        What they are padded with is behind them, where nothing is seen.
        """
        batches = Documents.of(positions, ids.device).batches
        states = [
            self._states(self._packed(batch, None, None), hidden)
            for batch in batches.take(ids)
        ]
        return batches.give_back(states, len(ids))

    def _states(self, run: Callable[[], Any], hidden: bool) -> Tensor:
        """Return last hidden states, or logits if these are more, or asked for."""
        if not hidden or self._only_projects is False:
            return run().logits
        head = cast(nn.Linear, self.model.get_output_embeddings())
        found, first = _hold_hidden(run, head)
        if self._only_projects is None:
            with torch.no_grad():
                again = head(found[:, :1])
            self._only_projects = bool(torch.allclose(first, again))
        return found if self._only_projects else run().logits

    def log_likelihood(
        self, contexts: list[list[int]], continuations: list[list[int]]
    ) -> Tensor:
        """Return the log-likelihood of each continuation in its context.

        Arguments
        ---------
        contexts, continuations : list of list of int
            Token ids; a context must not be empty.

        Returns
        -------
        Tensor
            Natural logarithms, summed over the tokens of a continuation,
            float32 on the CPU, shape (batch,).

        Raises
        ------
        ValueError
            If an item is longer than the model's context.
        """
        items = [a + b for a, b in zip(contexts, continuations)]
        self.check_lengths(items)
        # Padded in front, all continuations stand at the end, and only there
        # are logits made: a row of the vocabulary for each token of the
        # contexts would not fit in memory.
        ids, mask = pad_in_front(items, self.vocabulary.eos_id)
        ids, mask = ids.to(self.device), mask.to(self.device)
        counts = torch.tensor([len(c) for c in continuations])
        longest = int(counts.max())
        logits = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            logits_to_keep=longest + 1,
        ).logits[:, :-1]
        targets = ids[:, -longest:].unsqueeze(-1)
        scores = logits.float().log_softmax(-1).gather(-1, targets).squeeze(-1)
        scored = torch.arange(longest) >= longest - counts[:, None]
        return (scores.cpu() * scored).sum(1)

    def quantize(self, form: str) -> None:
        """Keep the weights of linear maps in fewer bits, for inference alone.

        Of a head that is tied to the embedding too; the embedding stays.

        Arguments
        ---------
        form : str
            ``"bf16"``, ``"int8"`` or ``"int4"``; see `quantize_linear_maps`.

        Raises
        ------
        ValueError, ImportError
            If that cannot be done; as of `quantize_linear_maps`.

        Example
        -------
        >>> lm = load_language_model(
        ...     f"{checkpoints}/spiritlm_model/spirit-lm-base-7b"
        ... )
        >>> before = lm(torch.tensor([[1, 2, 3]]))
        >>> lm.quantize("int8")
        >>> after = lm(torch.tensor([[1, 2, 3]]))
        >>> 0 < ((after - before).norm() / before.norm()).item() < 0.05
        True
        """
        if self.quantized is not None:
            raise ValueError(
                f"the language model is quantized to {self.quantized}; load it "
                f"again for {form}"
            )
        head = self.model.get_output_embeddings()
        quantize_linear_maps(self.model, form, head)
        self.quantized = form

    def save(
        self,
        folder: str | Path,
        state: dict[str, Tensor] | None = None,
        dtype: str | None = None,
    ) -> None:
        """Write a stock transformers folder, with the tokenizer's files.

        Arguments
        ---------
        folder : str or Path
            Is made, or its files are replaced.
        state : dict, optional
            The weights, of a model that is shared out among processes.
        dtype : str, optional
            To save in, such as ``"bfloat16"``; by default that of the weights.

        Raises
        ------
        DiskFullError
            If there is no room; the folder is as it was.
        ValueError
            If it is quantized.
        """
        if self.quantized is not None:
            raise ValueError(
                f"weights of {self.quantized} are for inference; save the "
                "language model before it is quantized"
            )
        model = self.model
        if dtype is not None:
            kind = getattr(torch, dtype)
            state = model.state_dict() if state is None else state
            state = {name: x.to(kind) for name, x in state.items()}
            settings = model.generation_config
            model = type(model)._from_config(model.config, dtype=kind)
            model.generation_config = settings
            model.load_state_dict(state)
            state = None
        with writing_model(folder) as new:
            model.save_pretrained(new, state_dict=state)
            self.vocabulary.save(new)

    def check_lengths(self, items: list[list[int]]) -> None:
        """Raise ValueError for an item longer than the context."""
        longest = max(len(item) for item in items)
        if longest > self.context:
            raise ValueError(
                f"{longest} tokens are more than the model's context of "
                f"{self.context}; shorten the prompt"
            )


def _hold_hidden(
    run: Callable[[], Any], head: nn.Module
) -> tuple[Tensor, Tensor]:
    """Run a model; return its last hidden states and its first token's logits.

    It is run from its top, where FSDP and adapters do their work.
    """
    held: list[Tensor] = []

    def hold(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        held.append(inputs[0])
        return (inputs[0][:, :1],)

    handle = head.register_forward_pre_hook(hold)
    try:
        first = run().logits
    finally:
        handle.remove()
    return held[0], first


def pad_in_front(
    items: Sequence[Sequence[int]], filler: int
) -> tuple[Tensor, Tensor]:
    """Batch token ids of unequal length, with padding in front.

    Returns
    -------
    ids : Tensor
        Shape (batch, tokens).
    mask : Tensor
        True where there is a token, shape (batch, tokens).

    Example
    -------
    >>> pad_in_front([[1, 2], [3]], filler=0)
    (tensor([[1, 2],
            [0, 3]]), tensor([[ True,  True],
            [False,  True]]))
    """
    longest = max(len(item) for item in items)
    ids = torch.full((len(items), longest), filler)
    mask = torch.zeros(len(items), longest, dtype=torch.bool)
    for row, seen, item in zip(ids, mask, items):
        row[longest - len(item) :] = torch.tensor(item)
        seen[longest - len(item) :] = True
    return ids, mask


def load_language_model(
    folder: str | Path,
    dtype: str = "auto",
    rotary_dtype: str | None = None,
    context: int | None = None,
) -> LanguageModel:
    """Read a language model from a stock transformers folder.

    Arguments
    ---------
    folder : str or Path
        With ``config.json``, weights (safetensors, or pickles of plain
        tensors) and the tokenizer's files.
    dtype : str
        As in transformers; ``"auto"`` is the dtype of the weights.
    rotary_dtype : str, optional
        Round the rotary embedding's frequencies to this type. The released
        models were run with them in bfloat16, which moves the logits of a
        prompt of 60 tokens by 0.2%.
    context : int, optional
        Tokens that it can see at once; by default the model's own.

    Raises
    ------
    FileNotFoundError
        If a file is missing; all missing ones are named.
    CheckpointError
        If a file is damaged, the weights do not fit the configuration, or some
        are NaN, infinite or no floating numbers.
    ValueError
        If it cannot get that context.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = Path(folder)
    require_files(folder, ["config.json"])
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        require_files(folder, ["model.safetensors"])
    vocabulary = _load_vocabulary(folder)
    options: dict[str, Any] = {}
    if context is not None:
        options["config"] = AutoConfig.from_pretrained(
            folder, trust_remote_code=False
        )
        set_context(options["config"], context)
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            output_loading_info=True,
            weights_only=True,
            trust_remote_code=False,
            **options,
        )
    except Exception as error:  # of pickle, safetensors, json, ...
        raise CheckpointError(
            f"cannot load the language model in {folder}: {error} Check that "
            "its weights were downloaded whole and fit its config.json"
        ) from error
    # Its types know the model alone, not what it was asked for beside it.
    model, report = cast("tuple[PreTrainedModel, dict[str, Any]]", loaded)
    problems = [
        f"{key.removesuffix('_keys')} {name}"
        for key in ("missing_keys", "mismatched_keys", "unexpected_keys")
        for name in report.get(key, ())
        # Older checkpoints hold what is computed today.
        if not str(name).endswith("rotary_emb.inv_freq")
    ]
    if problems:
        raise CheckpointError(
            f"the weights in {folder} do not fit its config.json: "
            f"{', '.join(problems[:8])}"
        )
    _check_types(model, folder)
    check_weights(dict(model.named_parameters()), folder)
    if rotary_dtype is not None:
        for name, buffer in model.named_buffers():
            if name.endswith("inv_freq"):
                buffer.copy_(buffer.to(getattr(torch, rotary_dtype)))
    return LanguageModel(model.eval(), vocabulary)


def _load_vocabulary(folder: Path) -> Vocabulary:
    try:
        return Vocabulary.load(folder)
    except FileNotFoundError:
        raise
    except Exception as error:  # what a damaged file raises is not defined
        raise CheckpointError(
            f"cannot read the tokenizer in {folder}: {error}; check that its "
            "files were downloaded whole"
        ) from error


def _check_types(model: PreTrainedModel, folder: Path) -> None:
    """Refuse integers as weights, which transformers would take."""
    if getattr(model.config, "quantization_config", None) is not None:
        return
    # In files the names of the model's body may stand without its own.
    prefix = f"{model.base_model_prefix}."
    names = {name.removeprefix(prefix) for name, _ in model.named_parameters()}
    problems = [
        f"{name} is of {kind}"
        for name, kind in other_than_floats(folder).items()
        if name.removeprefix(prefix) in names
    ]
    if problems:
        raise CheckpointError(
            f"the weights in {folder} are no floating numbers: "
            f"{', '.join(problems[:8])}; download them again"
        )


def new_language_model(
    config: dict[str, Any], vocabulary: Vocabulary
) -> LanguageModel:
    """Make a language model with random weights.

    Arguments
    ---------
    config : dict
        Arguments of the transformers configuration, ``model_type`` among them.
        The embedding gets a row for each id of the vocabulary, rounded up to
        a multiple of 64; a larger ``vocab_size`` adds spare rows.
    vocabulary : Vocabulary
        Of text and speech tokens.

    Returns
    -------
    LanguageModel
        In float32, ready for inference.

    Raises
    ------
    ValueError
        If transformers does not know the ``model_type``, or it is missing.

    Example
    -------
    >>> from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
    >>> text = train_text_tokenizer(["the cat sat on the mat"], 280)
    >>> lm = new_language_model(
    ...     {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1,
    ...      "num_attention_heads": 2, "intermediate_size": 16},
    ...     Vocabulary.extend(text, phonetic=50),
    ... )
    >>> lm(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 384])
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if "model_type" not in config:
        raise ValueError(
            "the configuration of a language model needs a model_type, such "
            f"as 'llama'; got {', '.join(config) or 'nothing'}"
        )
    rows = -(-len(vocabulary) // ROW_MULTIPLE) * ROW_MULTIPLE
    sizes = {"vocab_size": max(rows, config.get("vocab_size", 0))}
    made = AutoConfig.for_model(**{**config, **sizes})
    set_token_ids(made, vocabulary)
    model = AutoModelForCausalLM.from_config(made)
    lm = LanguageModel(model.eval(), vocabulary)
    lm.new_tokens = True
    return lm
