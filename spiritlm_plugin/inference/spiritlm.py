"""Spirit LM as users call it."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speechbrain.inference.interfaces import Pretrained
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from spiritlm_plugin.dataio.audio import (
    WINDOW_SECONDS,
    audio_seconds,
    read_audio,
    read_windows,
)
from spiritlm_plugin.dataio.batching import sized_batches
from spiritlm_plugin.dataio.segments import (
    Segment,
    Speech,
    Text,
    as_prompt,
    is_single_prompt,
)
from spiritlm_plugin.dataio.units import (
    SAMPLE_RATE,
    Kind,
    SpeechStream,
    SpeechUnits,
)
from spiritlm_plugin.dataio.vocabulary import check_output
from spiritlm_plugin.decoders.constrained import decode
from spiritlm_plugin.inference.generation import Generation, Speaking

# Recordings longer than this show a progress bar.
_PROGRESS_SECONDS = 300


class SpiritLM(Pretrained):
    """A language model that reads and continues text and speech.

    Source: Nguyen et al., "SpiRit-LM: Interleaved Spoken and Written Language
    Model", TACL 2025. Load one with `from_hparams` (a SpeechBrain pretrained
    folder or Hub repository) or `from_release` (Meta's checkpoints).

    Arguments
    ---------
    *args, **kwargs
        As of `speechbrain.inference.interfaces.Pretrained`; ``modules`` holds
        ``tokenizer``, ``vocoder`` and ``language_model``.

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

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        missing = [m for m in self.MODULES_NEEDED if m not in self.mods]
        if missing:
            raise ValueError(
                f"the modules of SpiritLM lack {', '.join(missing)}; see the "
                "'modules' entry of hyperparams.yaml"
            )
        self.mods.tokenizer.prepare_for_inference()
        self.mods.vocoder.prepare_for_inference()

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        hparams_file: str = "hyperparams.yaml",
        overrides: dict[str, Any] | None = None,
        **kwargs,
    ) -> SpiritLM:
        """Load a SpeechBrain pretrained folder.

        Arguments
        ---------
        source : str or Path
            A folder, or the name of a Hub repository, which is downloaded
            whole.
        hparams_file : str
            In that folder.
        overrides : dict, optional
            Of the YAML, as ``{"language_model_dtype": "float32"}``.
        **kwargs
            As of `Pretrained.from_hparams`: ``savedir``, ``run_opts``, ...

        Raises
        ------
        FileNotFoundError
            If a file is missing.
        CheckpointError
            If weights do not fit.

        Example
        -------
        >>> folder = convert_release(checkpoints, "base", tmp / "my_model")
        >>> lm = SpiritLM.from_hparams(folder)
        >>> lm.expressive
        False
        """
        folder = _local_folder(source, hparams_file)
        overrides = {"pretrained_path": str(folder), **(overrides or {})}
        return super().from_hparams(
            str(folder), hparams_file, overrides=overrides, **kwargs
        )

    @classmethod
    def from_release(
        cls,
        folder: str | Path | None = None,
        variant: str = "expressive",
        dtype: str = "auto",
        **kwargs,
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
        **kwargs
            As of `Pretrained`: ``run_opts``, ``freeze_params``.

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

        folder = folder or os.environ.get("SPIRITLM_CHECKPOINTS_DIR")
        if folder is None:
            raise ValueError(
                "name the folder of the released checkpoints, or set "
                "SPIRITLM_CHECKPOINTS_DIR"
            )
        hparams = build(read_release(folder, variant), dtype)
        return cls(hparams["modules"], hparams, **kwargs)

    @property
    def vocabulary(self):
        """The language model's `Vocabulary`."""
        return self.mods.language_model.vocabulary

    @property
    def expressive(self) -> bool:
        """Whether the model has pitch and style."""
        return self.vocabulary.expressive

    @property
    def speakers(self) -> list[str]:
        """Names of the vocoder's voices."""
        return self.mods.vocoder.speakers

    def forward(self, wavs: Tensor, wav_lens: Tensor) -> list[SpeechUnits]:
        """Encode a batch of waveforms; see `encode_batch`."""
        return self.encode_batch(wavs, wav_lens)

    @torch.inference_mode()
    def encode_batch(
        self,
        wavs: Tensor | Sequence[Any],
        wav_lens: Tensor | None = None,
        sample_rate: int = SAMPLE_RATE,
    ) -> list[SpeechUnits]:
        """Return the speech units of a batch.

        Arguments
        ---------
        wavs : Tensor or sequence
            A padded batch, shape (batch, time), or a list of recordings:
            paths, bytes, arrays or tensors.
        wav_lens : Tensor, optional
            Relative lengths of a padded batch, shape (batch,).
        sample_rate : int
            Of tensors and arrays, in Hz.

        Returns
        -------
        list of SpeechUnits
            At full rate; each is what the item gives alone.

        Raises
        ------
        ValueError
            If a recording cannot be used; see `read_audio`.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "expressive")
        >>> wavs, wav_lens = torch.randn(2, 16000) / 9, torch.tensor([1, 0.5])
        >>> [len(units) for units in lm.encode_batch(wavs, wav_lens)]
        [24, 12]
        """
        if isinstance(wavs, (str, bytes, os.PathLike)):
            raise TypeError(
                "encode_batch takes a list of recordings; for one file use "
                "encode_file"
            )
        if isinstance(wavs, np.ndarray):
            wavs = torch.as_tensor(wavs)
        if isinstance(wavs, Tensor):
            wavs = _unpad(wavs, wav_lens)
        elif wav_lens is not None:
            raise ValueError(
                "wav_lens goes with a padded tensor; a list of recordings "
                "has its own lengths"
            )
        recordings = [read_audio(wav, sample_rate) for wav in wavs]
        with self.inference_ctx:
            return self.mods.tokenizer(recordings)

    @torch.inference_mode()
    def encode_file(self, path: Any) -> SpeechUnits:
        """Return the speech units of a file of any length.

        The file is read and tokenized in windows of 100 s, so an hour needs
        no more memory than two minutes.

        Arguments
        ---------
        path : path or bytes
            The file, or its content.

        Raises
        ------
        FileNotFoundError, ValueError
            If it cannot be read; see `read_audio`.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "base")
        >>> lm.encode_file(recording).duration
        2.36
        """
        windows = read_windows(path)
        seconds = 0.0
        if isinstance(path, (str, os.PathLike)):
            seconds = audio_seconds(path)
        windows = tqdm(
            windows,
            desc="tokenizing",
            unit="window",
            total=int(-(-seconds // WINDOW_SECONDS)),
            disable=seconds < _PROGRESS_SECONDS,
        )
        with self.inference_ctx:
            return self.mods.tokenizer.tokenize_windows(windows)

    @torch.inference_mode()
    def decode_batch(
        self,
        units: Sequence[SpeechUnits | SpeechStream | Speech],
        speaker: int | str | Sequence[int | str] | None = None,
        global_style: int | None = None,
        seed: int | Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the waveforms of speech units.

        Units at full rate keep their durations; those of a merged stream get
        them predicted.

        Arguments
        ---------
        units : sequence of SpeechUnits, SpeechStream or Speech
            The batch.
        speaker : int, str or a sequence of them, optional
            Number or name of the voice, for all or for each.
        global_style : int, optional
            Of a Base vocoder.
        seed : int or sequence of int, optional
            Of the style that is drawn where units have pitch but no style;
            a single number n gives item i the seed n + i.

        Returns
        -------
        wavs : Tensor
            16 kHz, shape (batch, time).
        wav_lens : Tensor
            Relative lengths, shape (batch,).

        Raises
        ------
        ValueError
            If a unit is out of range or the speaker unknown.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "base")
        >>> wavs, wav_lens = lm.decode_batch([SpeechUnits([5] * 50)])
        >>> wavs.shape, wav_lens
        (torch.Size([1, 32000]), tensor([1.]))
        """
        if isinstance(units, (SpeechUnits, SpeechStream, Speech)):
            raise TypeError("decode_batch takes a list: decode_batch([units])")
        items = [_as_units(item) for item in units]
        if not items:
            raise ValueError("nothing to decode: the list of units is empty")
        if not isinstance(speaker, (list, tuple)):
            speaker = [speaker] * len(items)
        if len(speaker) != len(items):
            raise ValueError(
                f"{len(speaker)} speakers for {len(items)} items: give one, or "
                "one for each"
            )
        voices = [self.mods.vocoder.speaker_id(s) for s in speaker]
        seeds = None if seed is None else _seeds(seed, len(items))
        with self.inference_ctx:
            wavs = self.mods.vocoder.synthesize(
                items, voices, global_style, seeds=seeds
            )
        lengths = torch.tensor([len(wav) for wav in wavs])
        longest = lengths.max().clamp(min=1)
        return pad_sequence(wavs, batch_first=True), lengths / longest

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
    ) -> Generation | list[Generation]:
        """Continue prompts of text and speech.

        Arguments
        ---------
        prompts : sequence
            One prompt (a list of segments) or a list of prompts. A segment is
            ``Text(...)``, ``Speech(...)`` or a tuple ``("text", ...)``,
            ``("speech", ...)``.
        output : str
            ``"text"``, ``"speech"`` or ``"any"``, which may change between
            the two.
        max_new_tokens : int
            Tokens to add at most.
        temperature : float
            0 takes the most likely token.
        top_p : float
            Share of the probability that tokens are drawn from.
        speaker : int or str, optional
            Voice of the speech.
        seed : int or sequence of int, optional
            One for each prompt; a single number n gives prompt i the seed
            n + i. A prompt's output depends on its seed, not on the batch.
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
        if max_seconds is not None and not max_seconds > 0:
            raise ValueError(f"max_seconds must be positive, got {max_seconds}")
        single = is_single_prompt(prompts)
        batch = [as_prompt(p) for p in ([prompts] if single else prompts)]
        voice = self.mods.vocoder.speaker_id(speaker)
        seeds = _seeds(seed, len(batch))
        batch = self._with_units(batch)
        ids = [self.vocabulary.encode(prompt, output) for prompt in batch]
        speaking = Speaking(self.mods.vocoder, self.vocabulary)
        decoded: list[Any] = [None] * len(ids)
        for chosen in sized_batches([len(item) for item in ids], batch_size):
            results = decode(
                self.mods.language_model,
                [ids[i] for i in chosen],
                output,
                max_new_tokens,
                temperature,
                top_p,
                [seeds[i] for i in chosen],
                stop,
                max_seconds,
                speaking.seconds_of,
            )
            for i, result in zip(chosen, results):
                decoded[i] = result
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
        if is_single_prompt(prompts):
            prompts, continuations = [prompts], [continuations]
        if len(prompts) != len(continuations):
            raise ValueError(
                f"{len(prompts)} prompts and {len(continuations)} "
                "continuations: give one for each"
            )
        pairs = [as_prompt(p) for p in (*prompts, *continuations)]
        pairs = self._with_units(pairs)
        contexts, targets = [], []
        for prompt, continuation in zip(
            pairs[: len(prompts)], pairs[len(prompts) :]
        ):
            modality, target = self.vocabulary.encode_continuation(continuation)
            contexts.append(self.vocabulary.encode(prompt, modality))
            targets.append(target)
        counts = torch.tensor([len(target) for target in targets])
        sums = torch.empty(len(targets))
        lengths = [len(c) + len(t) for c, t in zip(contexts, targets)]
        for chosen in sized_batches(lengths, batch_size):
            sums[chosen] = self.mods.language_model.log_likelihood(
                [contexts[i] for i in chosen], [targets[i] for i in chosen]
            )
        return sums, counts

    def _with_units(self, batch: list[list[Segment]]) -> list[list[Segment]]:
        """Replace the recordings of all prompts by their units."""
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
                replace(s, content=encoded[id(s)]) if id(s) in encoded else s
                for s in prompt
            ]
            for prompt in batch
        ]

    def _continues_speech(self, ids: Tensor) -> bool:
        """Tell whether an output starts with speech, before any marker."""
        return len(ids) > 0 and int(self.vocabulary.kinds[ids[0]]) >= 0


def _local_folder(source: str | Path, hparams_file: str) -> Path:
    """Return a folder as it is, or the download of a Hub repository."""
    folder = Path(source)
    if set("<>") & set(str(source)):
        raise ValueError(
            f"{source}: HyperPyYAML reads <...> in a path as a reference; "
            "rename the folder"
        )
    if folder.is_dir():
        if not (folder / hparams_file).exists():
            raise FileNotFoundError(
                f"no {hparams_file} in {folder}; for Meta's checkpoints use "
                "SpiritLM.from_release"
            )
        return folder.resolve()
    if folder.is_absolute() or str(source).count("/") != 1:
        raise FileNotFoundError(
            f"no such folder: {source}, and no name of a Hub repository"
        )
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(source)))


def _unpad(wavs: Tensor, wav_lens: Tensor | None) -> list[Tensor]:
    if wavs.dim() != 2:
        raise ValueError(
            f"a padded batch has shape (batch, time), got {tuple(wavs.shape)}; "
            "pass recordings with channels as a list"
        )
    if wav_lens is None:
        return list(wavs)
    if wav_lens.shape != wavs.shape[:1] or not bool(
        ((wav_lens > 0) & (wav_lens <= 1)).all()
    ):
        raise ValueError(
            "wav_lens holds a relative length in (0, 1] for each item, got "
            f"{wav_lens.tolist()}"
        )
    lengths = (wav_lens * wavs.shape[1]).round().long()
    return [wav[:n] for wav, n in zip(wavs, lengths.tolist())]


def _as_units(item: SpeechUnits | SpeechStream | Speech) -> SpeechUnits:
    if isinstance(item, Speech):
        item = item.content if item.has_units else item.stream
    if isinstance(item, SpeechStream):
        return item.split()
    if isinstance(item, SpeechUnits):
        return item
    raise TypeError(
        "speech units are SpeechUnits, SpeechStream or Speech, got "
        f"{type(item).__name__}"
    )


def _seeds(seed: int | Sequence[int] | None, count: int) -> list[int]:
    if seed is None:
        seed = random.SystemRandom().randrange(2**31)
    if isinstance(seed, Integral):
        return [int(seed) + i for i in range(count)]
    if len(seed) != count:
        raise ValueError(
            f"{len(seed)} seeds for {count} prompts: give one number, or one "
            "for each prompt"
        )
    return [int(s) for s in seed]
