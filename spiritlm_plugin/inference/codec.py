"""Speech to units and back, as users call it."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from speechbrain.inference.interfaces import Pretrained
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.reading import (
    WINDOW_SECONDS,
    audio_seconds,
    read_audio,
    read_windows,
)
from spiritlm_plugin.dataio.units.segments import Speech
from spiritlm_plugin.dataio.units.units import (
    SAMPLE_RATE,
    SpeechStream,
    SpeechUnits,
)
from spiritlm_plugin.pretrained.folders import check_savedir, local_folder
from spiritlm_plugin.pretrained.trust import check_folder

if TYPE_CHECKING:
    from typing_extensions import Self

# The entry of a YAML file that loads a language model.
_LANGUAGE_MODEL = re.compile(r"^language_model:", re.MULTILINE)
# Recordings longer than this show a progress bar.
_PROGRESS_SECONDS = 300


class SpeechCodec(Pretrained):
    """A speech tokenizer and the vocoder that speaks its units.

    Load one with `from_hparams`: ``"tinyspeech"``, which ships with the
    package, a SpeechBrain pretrained folder, as ``spiritlm-assemble`` writes
    it of trained parts, or a Hub repository.

    Arguments
    ---------
    *args, **kwargs
        As of `speechbrain.inference.interfaces.Pretrained`; ``modules`` holds
        ``tokenizer`` and ``vocoder``.

    Example
    -------
    >>> codec = SpeechCodec.from_hparams("tinyspeech")
    >>> units = codec.encode_file(recording)
    >>> wavs, wav_lens = codec.decode_batch([units], speaker="anna")
    >>> wavs.shape
    torch.Size([1, 37760])
    """

    MODULES_NEEDED = ["tokenizer", "vocoder"]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        missing = [m for m in self.MODULES_NEEDED if m not in self.mods]
        if missing:
            raise ValueError(
                f"the modules of {type(self).__name__} lack "
                f"{', '.join(missing)}; see the 'modules' entry of "
                "hyperparams.yaml"
            )
        self.mods.tokenizer.prepare_for_inference()
        self.mods.vocoder.prepare_for_inference()

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        hparams_file: str = "hyperparams.yaml",
        overrides: dict[str, Any] | None = None,
        trust: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Load a SpeechBrain pretrained folder.

        Its YAML is read as data first: unless it is trusted, it may build
        nothing but torch modules of this package, SpeechBrain and torch.

        A `SpeechCodec` leaves out the language model that the folder may have.

        Arguments
        ---------
        source : str or Path
            A folder; the name of one that ships with the package; or the
            name of a Hub repository, which is downloaded whole.
        hparams_file : str
            In that folder.
        overrides : dict, optional
            Of the YAML, as ``{"language_model_dtype": "float32"}``.
        trust : bool
            Whether the folder may build and run whatever it names, as with
            other models of SpeechBrain; for folders of one's own.
        **kwargs
            As of `Pretrained.from_hparams`: ``savedir``, ``run_opts``, ...

        Raises
        ------
        FileNotFoundError
            If a file is missing.
        ValueError
            If ``savedir`` holds another model.
        UntrustedError
            If the folder names code that is not on the list of `check_folder`.
        CheckpointError
            If weights do not fit.

        Example
        -------
        >>> folder = convert_release(checkpoints, "base", tmp / "my_model")
        >>> lm = SpiritLM.from_hparams(folder)
        >>> lm.expressive
        False
        """
        folder = local_folder(source, hparams_file)
        overrides = {"pretrained_path": str(folder), **(overrides or {})}
        if "language_model" not in cls.MODULES_NEEDED:
            # Nobody waits for gigabytes that are not needed.
            yaml = (folder / hparams_file).read_text(encoding="utf-8")
            if _LANGUAGE_MODEL.search(yaml):
                overrides.setdefault("language_model", None)
        if not trust:
            check_folder(folder, hparams_file, overrides)
        if kwargs.get("savedir"):
            check_savedir(kwargs["savedir"], folder, hparams_file)
        return super().from_hparams(
            str(folder), hparams_file, overrides=overrides, **kwargs
        )

    @property
    def speakers(self) -> list[str]:
        """Names of the vocoder's voices."""
        return self.mods.vocoder.speakers

    def speaker_id(self, speaker: int | str | None) -> int | None:
        """Return the number of a voice; None where none is asked for.

        Raises
        ------
        ValueError
            If there is no such voice.
        """
        return self.mods.vocoder.speaker_id(speaker)

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
        seconds = 0.0
        if isinstance(path, (str, os.PathLike)):
            seconds = audio_seconds(path)
        windows = tqdm(
            read_windows(path),
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
            Number or name of the voice, for all or for each; by default the
            one that the units sound like, where the vocoder can tell.
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
        speakers: list[Any] = [speaker] * len(items)
        if isinstance(speaker, (list, tuple)):
            speakers = list(speaker)
        if len(speakers) != len(items):
            raise ValueError(
                f"{len(speakers)} speakers for {len(items)} items: give one, "
                "or one for each"
            )
        voices = [self.speaker_id(s) for s in speakers]
        seeds = None if seed is None else draw_seeds(seed, len(items))
        with self.inference_ctx:
            wavs = self.mods.vocoder.synthesize(
                items, voices, global_style, seeds=seeds
            )
        return pad_waveforms(wavs)


def pad_waveforms(wavs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return a padded batch, and the relative length of each item."""
    lengths = torch.tensor([len(wav) for wav in wavs])
    longest = lengths.max().clamp(min=1)
    return pad_sequence(list(wavs), batch_first=True), lengths / longest


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


def draw_seeds(seed: int | Sequence[int] | None, count: int) -> list[int]:
    """Return a seed for each of so many items."""
    if seed is None:
        seed = random.SystemRandom().randrange(2**31)
    if isinstance(seed, (int, Integral)):
        return [int(seed) + i for i in range(count)]
    if len(seed) != count:
        raise ValueError(
            f"{len(seed)} seeds for {count} prompts: give one number, or one "
            "for each prompt"
        )
    return [int(s) for s in seed]
