"""Spirit LM as users call it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.units.segments import (
    Segment,
    Speech,
    Text,
    as_prompt,
    as_prompts,
)
from spiritlm_plugin.dataio.units.units import Kind
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary, check_output
from spiritlm_plugin.decoders.constrained import check_sampling
from spiritlm_plugin.decoders.engines import (
    Engine,
    TransformersEngine,
    check_engine,
)
from spiritlm_plugin.decoders.vllm_engine import VllmEngine
from spiritlm_plugin.inference.codec import SpeechCodec
from spiritlm_plugin.inference.generation import Generation, Speaking, Turn
from spiritlm_plugin.inference.run_options import split_run_opts
from spiritlm_plugin.inference.streaming import (
    Output,
    StreamPiece,
    new_tokens,
    output_pieces,
)
from spiritlm_plugin.inference.tasks import Tasks
from spiritlm_plugin.pretrained.building import language_model_arguments
from spiritlm_plugin.pretrained.folders import local_folder
from spiritlm_plugin.utils.arguments import as_list, flag, number, whole_number
from spiritlm_plugin.utils.seeds import draw_seeds

if TYPE_CHECKING:
    from typing_extensions import Self

# Of max_seconds: far beyond any context.
_LONGEST = 1e9


class SpiritLM(SpeechCodec, Tasks):
    """A language model that reads and continues text and speech.

    Source: Nguyen et al., "SpiRit-LM: Interleaved Spoken and Written Language
    Model", TACL 2025. Load one with `from_hparams` (a SpeechBrain pretrained
    folder or Hub repository) or `from_release` (Meta's checkpoints).

    Arguments
    ---------
    *args, **kwargs
        As of `SpeechCodec`; ``modules`` holds ``tokenizer``, ``vocoder`` and
        ``language_model``, which can be quantized, too.
    engine : Engine, optional
        Runs the language model in the place of the module, which is then
        None; by default transformers run the module.

    Example
    -------
    >>> lm = SpiritLM.from_release(checkpoints, "expressive")
    >>> output = lm.generate(
    ...     [Text("the cat"), Speech(recording)], "text", seed=0,
    ...     max_new_tokens=5,
    ... )
    >>> [type(segment).__name__ for segment in output], output.end_reason
    (['Text'], 'max_new_tokens')
    """

    MODULES_NEEDED = ["tokenizer", "vocoder", "language_model"]

    def __init__(self, *args: Any, engine: Engine | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._engine = engine

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        hparams_file: str = "hyperparams.yaml",
        overrides: dict[str, Any] | None = None,
        trust: bool = False,
        engine: str = "transformers",
        engine_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a SpeechBrain pretrained folder.

        Arguments
        ---------
        source, hparams_file, overrides, trust, **kwargs
            As of `SpeechCodec.from_hparams`.
        engine : str
            Which runs the language model: ``"transformers"``, or ``"vllm"``,
            of the extra ``[vllm]``, which loads its weights in the place of
            transformers.
        engine_options : dict, optional
            Of ``vllm.LLM``.

        Raises
        ------
        ValueError
            Also if there is no such engine.
        ImportError
            If the engine is not installed.

        Example
        -------
        >>> lm = SpiritLM.from_hparams("tinyspeech")
        >>> lm.context
        1024
        """
        check_engine(engine, engine_options)
        if engine == "transformers":
            return super().from_hparams(
                source, hparams_file, overrides, trust, **kwargs
            )
        folder = local_folder(source, hparams_file)
        without = {**(overrides or {}), "language_model": None}
        lm = super().from_hparams(
            folder, hparams_file, without, trust, **kwargs
        )
        if lm is not None:
            own = language_model_arguments(folder, hparams_file, overrides)
            lm._engine = VllmEngine(**own, **(engine_options or {}))
        return lm

    @classmethod
    def from_release(
        cls,
        folder: str | Path | None = None,
        variant: str = "expressive",
        dtype: str = "auto",
        engine: str = "transformers",
        engine_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> SpiritLM:
        """Load the released checkpoints, as downloaded.

        Arguments
        ---------
        folder : str or Path, optional
            With ``speech_tokenizer`` and ``spiritlm_model`` in it; the
            environment variable ``SPIRITLM_CHECKPOINTS_DIR`` by default.
        variant : str
            ``"base"`` or ``"expressive"``.
        dtype : str
            Of the language model; ``"auto"`` is that of the weights.
        engine, engine_options
            As of `from_hparams`.
        **kwargs
            As of `SpeechCodec`: ``run_opts``, ``freeze_params``.

        Raises
        ------
        FileNotFoundError
            Naming the files that are missing.
        CheckpointError
            If a file is damaged or does not fit.

        Example
        -------
        >>> SpiritLM.from_release(checkpoints, "base").expressive
        False
        """
        from spiritlm_plugin.integrations.parts import build
        from spiritlm_plugin.integrations.release import read_release

        check_engine(engine, engine_options)
        split_run_opts(kwargs.get("run_opts"))  # raises before anything is read
        folder = folder or os.environ.get("SPIRITLM_CHECKPOINTS_DIR")
        if folder is None:
            raise ValueError(
                "name the folder of the released checkpoints, or set "
                "SPIRITLM_CHECKPOINTS_DIR"
            )
        parts = read_release(folder, variant)
        if engine == "transformers":
            hparams = build(parts, dtype)
            return cls(hparams["modules"], hparams, **kwargs)
        assert parts.language_model is not None  # a release has one
        hparams = build(replace(parts, language_model=None))
        modules = {**hparams["modules"], "language_model": None}
        loaded = VllmEngine(
            parts.language_model, dtype, **(engine_options or {})
        )
        return cls(modules, hparams, engine=loaded, **kwargs)

    @property
    def engine(self) -> Engine:
        """What runs the language model."""
        return self._engine or TransformersEngine(self.mods.language_model)

    @property
    def vocabulary(self) -> Vocabulary:
        """The language model's `Vocabulary`."""
        return self.engine.vocabulary

    @property
    def context(self) -> int:
        """Tokens that a prompt and its continuation may have together."""
        return self.engine.context

    @property
    def expressive(self) -> bool:
        """Whether the model has pitch and style."""
        return self.vocabulary.expressive

    @overload
    def generate(
        self,
        prompts: Sequence[Segment | tuple[str, Any]],
        output: str = "any",
        max_new_tokens: int = 200,
        temperature: float = 0.8,
        top_p: float = 0.95,
        speaker: int | str | None = None,
        seed: int | Sequence[int] | None = None,
        stop: bool = True,
        max_seconds: float | None = None,
        min_speech_units: int = 25,
        vocode: bool = True,
        batch_size: int = 16,
        num_beams: int = 1,
        style: int | str | None = None,
    ) -> Generation: ...

    @overload
    def generate(
        self,
        prompts: Sequence[list],
        output: str = "any",
        max_new_tokens: int = 200,
        temperature: float = 0.8,
        top_p: float = 0.95,
        speaker: int | str | None = None,
        seed: int | Sequence[int] | None = None,
        stop: bool = True,
        max_seconds: float | None = None,
        min_speech_units: int = 25,
        vocode: bool = True,
        batch_size: int = 16,
        num_beams: int = 1,
        style: int | str | None = None,
    ) -> list[Generation]: ...

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence,
        output: str = "any",
        max_new_tokens: int = 200,
        temperature: float = 0.8,
        top_p: float = 0.95,
        speaker: int | str | None = None,
        seed: int | Sequence[int] | None = None,
        stop: bool = True,
        max_seconds: float | None = None,
        min_speech_units: int = 25,
        vocode: bool = True,
        batch_size: int = 16,
        num_beams: int = 1,
        style: int | str | None = None,
    ) -> Generation | list[Generation]:
        """Continue prompts of text and speech.

        Arguments
        ---------
        prompts : sequence
            One prompt (a list of segments) or a list of prompts, also none;
            anything that has items is a list. A segment is ``Text(...)``,
            ``Speech(...)`` or a tuple ``("text", ...)``, ``("speech", ...)``.
        output : str
            ``"text"``, ``"speech"`` or ``"any"``, which may change between
            the two.
        max_new_tokens : int
            Tokens to add at most, where the context has room for so many.
        temperature : float
            0 takes the most likely token, as does what is almost 0.
        top_p : float
            Share of the probability that tokens are drawn from.
        speaker : int or str, optional
            Voice of the speech; by default the one that the units sound like,
            where the vocoder can tell.
        seed : int or sequence of int, optional
            One for each prompt; a single number n gives prompt i the seed
            n + i. In float32 a prompt's output depends on its seed, not on
            the batch. Of 64 bits.
        stop : bool
            Whether speech may end with the end-of-sequence token. The
            released code lets it run to ``max_new_tokens`` (False).
        max_seconds : float, optional
            Limit on the speech of each output.
        min_speech_units : int
            With ``output="any"``, speech pieces of fewer phonetic units are
            dropped, as the released code does.
        vocode : bool
            Whether to make the waveforms of the speech.
        batch_size : int
            Prompts to run together; prompts of similar length are.
        num_beams : int
            Outputs of each prompt that a search for the likeliest follows at a
            time, 256 at most; for a ``temperature`` of 0.
        style : int or str, optional
            Number or name of the style that new speech is said in, one of
            `styles`: Expressive chooses among the style units that carry it;
            Base has global styles.

        Returns
        -------
        Generation or list of Generation
            For each prompt a list of segments that also says why it ended.
            Speech that continues the prompt's speech is spoken with it, so
            that pitch and style carry over.

        Raises
        ------
        ValueError
            If a prompt is empty or longer than the model's context, or an
            argument is out of range.
        TypeError
            If an argument is of another type; the argument is named.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "expressive")
        >>> output = lm.generate(
        ...     [Speech(recording)], "speech", max_new_tokens=30, seed=1
        ... )
        >>> output[0].wav.shape[0] % 640
        0
        """
        check_output(output)
        sampling = check_sampling(max_new_tokens, temperature, top_p, num_beams)
        max_seconds = _checked_seconds(max_seconds)
        min_speech_units = whole_number("min_speech_units", min_speech_units, 0)
        batch_size = whole_number("batch_size", batch_size)
        stop, vocode = flag("stop", stop), flag("vocode", vocode)
        batch, single = as_prompts(prompts)
        voice = self.speaker_id(speaker)
        speaking = Speaking(self.mods.vocoder, self.vocabulary, style)
        seeds = draw_seeds(seed, len(batch))
        batch = self.with_units(batch)
        ids = [self.vocabulary.encode(prompt, output) for prompt in batch]
        decoded = self.engine.decode(
            ids,
            output,
            seeds=seeds,
            stop=stop,
            max_seconds=max_seconds,
            seconds_of=speaking.seconds_of,
            batch_size=batch_size,
            style_units=speaking.style_units,
            **sampling._asdict(),
        )
        generations = []
        for result in decoded:
            segments = self.vocabulary.decode(result.ids)
            reason = result.end_reason
            if max_seconds is not None:
                segments, cut = speaking.limit(segments, max_seconds)
                reason = "max_seconds" if cut else reason
            if output == "any":
                segments = [
                    s
                    for s in segments
                    if isinstance(s, Text)
                    or s.stream.count(Kind.PHONETIC) >= min_speech_units
                ]
            generations.append(Generation(segments, reason))
        if vocode:
            continued = [self._continues_speech(r.ids) for r in decoded]
            with self.inference_ctx:
                speaking.speak(
                    generations, batch, continued, voice, seeds, max_seconds
                )
        return generations[0] if single else generations

    def generate_stream(
        self,
        prompts: Sequence,
        output: str = "any",
        max_new_tokens: int = 200,
        temperature: float = 0.8,
        top_p: float = 0.95,
        speaker: int | str | None = None,
        seed: int | Sequence[int] | None = None,
        stop: bool = True,
        max_seconds: float | None = None,
        min_speech_units: int = 25,
        vocode: bool = True,
        batch_size: int = 16,
        style: int | str | None = None,
    ) -> Iterator[StreamPiece]:
        """Continue prompts of text and speech, and yield it as it is made.

        Text, units and waveforms are those of `generate`, in pieces: but for
        the voice where no speaker is asked for, which is told from the speech
        that an output goes on from and what it begins with. Closing what is
        returned stops the model and frees its memory.

        Arguments
        ---------
        prompts, output, max_new_tokens, temperature, top_p, speaker, seed, \
stop, max_seconds, min_speech_units, vocode, batch_size, style
            As of `generate`. With ``output="any"`` speech is held back until
            it has ``min_speech_units``.

        Returns
        -------
        iterator of StreamPiece
            Of all prompts, those of each in order; the last one of a prompt
            says why it ended.

        Raises
        ------
        ValueError, TypeError
            As of `generate`, before there is an iterator.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "expressive")
        >>> pieces = lm.generate_stream(
        ...     [Speech(recording)], "speech", max_new_tokens=30, seed=1
        ... )
        >>> [piece.wav.shape for piece in pieces if piece.wav is not None][0]
        torch.Size([2560])
        """
        check_output(output)
        sampling = check_sampling(max_new_tokens, temperature, top_p)
        max_seconds = _checked_seconds(max_seconds)
        least = whole_number("min_speech_units", min_speech_units, 0)
        batch_size = whole_number("batch_size", batch_size)
        stop, vocode = flag("stop", stop), flag("vocode", vocode)
        batch, _ = as_prompts(prompts)
        voice = self.speaker_id(speaker)
        speaking = Speaking(self.mods.vocoder, self.vocabulary, style)
        seeds = draw_seeds(seed, len(batch))
        batch = self.with_units(batch)
        tokens = new_tokens(
            self.engine,
            [self.vocabulary.encode(prompt, output) for prompt in batch],
            output,
            batch_size,
            seeds=seeds,
            stop=stop,
            max_seconds=max_seconds,
            seconds_of=speaking.seconds_of,
            style_units=speaking.style_units,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
        )

        def begin(prompt: int, ids: Sequence[int]) -> Output:
            goes_on = self._continues_speech(ids)
            return Output(
                prompt,
                Turn(speaking, batch[prompt], goes_on),
                voice,
                seeds[prompt],
                least if output == "any" else 0,
                max_seconds,
                vocode,
            )

        return output_pieces(tokens, begin, len(batch), self.inference_ctx)

    @torch.inference_mode()
    def log_likelihood(
        self,
        prompts: Sequence,
        continuations: Sequence,
        batch_size: int = 16,
    ) -> tuple[Tensor, Tensor]:
        """Return how likely continuations are after their prompts.

        A marker between prompt and continuation belongs to the prompt, as in
        `generate`; all tokens of the continuation are scored.

        Arguments
        ---------
        prompts, continuations : sequence
            One of each, or lists of the same length. Both are lists of
            segments.
        batch_size : int
            Items to run together; items of similar length are.

        Returns
        -------
        sums : Tensor
            Natural logarithms, summed over tokens, shape (batch,).
        counts : Tensor
            Tokens of each continuation, shape (batch,).

        Raises
        ------
        ValueError
            If a prompt or continuation is empty, an item is longer than the
            context, or the lists differ in length.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "base")
        >>> sums, counts = lm.log_likelihood([Text("the")], [Text(" cat")])
        >>> sums.shape, bool(sums < 0), counts.tolist()
        (torch.Size([1]), True, [2])
        """
        batch, single = as_prompts(prompts)
        following = [continuations]
        if not single:
            following = as_list("continuations", continuations, "prompts")
        if len(batch) != len(following):
            raise ValueError(
                f"{len(batch)} prompts and {len(following)} "
                "continuations: give one for each"
            )
        pairs = [*batch, *map(as_prompt, following)]
        pairs = self.with_units(pairs)
        contexts: list[list[int]] = []
        targets: list[list[int]] = []
        for prompt, continuation in zip(
            pairs[: len(batch)], pairs[len(batch) :]
        ):
            modality, target = self.vocabulary.encode_continuation(continuation)
            if not target:
                raise ValueError(
                    f"continuation {len(targets)} is empty: its speech has no "
                    "units; leave it out"
                )
            contexts.append(self.vocabulary.encode(prompt, modality))
            targets.append(target)
        counts = torch.tensor([*map(len, targets)], dtype=torch.int64)
        sums = self.engine.log_likelihood(contexts, targets, batch_size)
        return sums, counts

    def with_units(
        self, batch: Sequence[Sequence[Segment]]
    ) -> list[list[Segment]]:
        """Replace the recordings of all prompts by their units, in one batch.

        Arguments
        ---------
        batch : sequence of list of segments
            Prompts; a segment that stands in several is tokenized once.

        Raises
        ------
        ValueError
            If a recording cannot be used; see `read_audio`.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "base")
        >>> lm.with_units([[Text("two"), Speech(recording)]])
        [[Text(text='two'), Speech(59 phonetic units)]]
        """
        batch = [
            as_list("a prompt", prompt, "segments")
            for prompt in as_list("batch", batch, "prompts")
        ]
        recordings = {
            id(segment): segment
            for prompt in batch
            for segment in prompt
            if isinstance(segment, Speech) and not segment.has_units
        }
        wavs = [
            read_audio(s.content, s.sample_rate) for s in recordings.values()
        ]
        encoded = {}
        if wavs:
            units = self.encode_batch(wavs)
            encoded = dict(zip(recordings, units))
        return [
            [
                replace(s, content=encoded[id(s)])
                if isinstance(s, Speech) and id(s) in encoded
                else s
                for s in prompt
            ]
            for prompt in batch
        ]

    def speak(
        self,
        generations: Sequence[Generation],
        prompts: Sequence[Sequence[Segment]],
        continued: Sequence[bool],
        voice: int | None,
        seeds: Sequence[int],
        max_seconds: float | None = None,
        style: int | str | None = None,
    ) -> None:
        """Give generated speech its waveforms, in place and in one batch.

        Arguments
        ---------
        generations, prompts, continued, voice, seeds, max_seconds
            As of `Speaking.speak`.
        style : int or str, optional
            As of `generate`.
        """
        speaking = Speaking(self.mods.vocoder, self.vocabulary, style)
        with torch.inference_mode(), self.inference_ctx:
            speaking.speak(
                generations, prompts, continued, voice, seeds, max_seconds
            )

    def _continues_speech(self, ids: Tensor | Sequence[int]) -> bool:
        """Tell whether an output starts with speech, before any marker."""
        return len(ids) > 0 and int(self.vocabulary.kinds[ids[0]]) >= 0


def _checked_seconds(seconds: float | None) -> float | None:
    """Return a limit on the duration, checked; None is none."""
    if seconds is None:
        return None
    limit = number("max_seconds", seconds)
    if not 0 < limit <= _LONGEST:
        raise ValueError(
            f"max_seconds must be positive, and at most {_LONGEST:.0e}, got "
            f"{seconds}"
        )
    return limit
