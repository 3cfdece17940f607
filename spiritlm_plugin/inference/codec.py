"""Speech to units and back, as users call it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import numpy as np
import torch
from speechbrain.inference.interfaces import Pretrained
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from spiritlm_plugin.dataio.audio.chunks import read_chunks
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
from spiritlm_plugin.inference.run_options import quantize, split_run_opts
from spiritlm_plugin.inference.streaming_speech import inside, spoken
from spiritlm_plugin.lobes.streaming_tokenizer import StreamingTokenizer
from spiritlm_plugin.lobes.streaming_vocoder import StreamingVocoder
from spiritlm_plugin.pretrained.building import build_folder
from spiritlm_plugin.pretrained.folders import check_savedir, local_folder
from spiritlm_plugin.pretrained.trust import check_folder, read_hyperparams
from spiritlm_plugin.utils.arguments import as_list, listed, shown, whole_number
from spiritlm_plugin.utils.seeds import draw_seeds

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
    modules, hparams, run_opts, freeze_params
        As of `speechbrain.inference.interfaces.Pretrained`; ``modules`` holds
        ``tokenizer`` and ``vocoder``, and ``run_opts`` may say what to
        quantize, as ``{"quantize": {"tokenizer": "int8"}}``.

    Example
    -------
    >>> codec = SpeechCodec.from_hparams("tinyspeech")
    >>> units = codec.encode_file(recording)
    >>> wavs, wav_lens = codec.decode_batch([units], speaker="anna")
    >>> wavs.shape
    torch.Size([1, 37760])
    """

    MODULES_NEEDED = ["tokenizer", "vocoder"]

    def __init__(
        self,
        modules: Mapping[str, Any],
        hparams: Mapping[str, Any],
        run_opts: Any = None,
        freeze_params: bool = True,
    ):
        run_opts, forms = split_run_opts(run_opts)
        super().__init__(modules, hparams, run_opts, freeze_params)
        missing = [m for m in self.MODULES_NEEDED if m not in self.mods]
        if missing:
            raise ValueError(
                f"the modules of {type(self).__name__} lack "
                f"{', '.join(missing)}; see the 'modules' entry of "
                "hyperparams.yaml"
            )
        self.mods.tokenizer.prepare_for_inference()
        self.mods.vocoder.prepare_for_inference()
        quantize(self.mods, forms)

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
            As of `Pretrained.from_hparams`: ``savedir``, ``run_opts``, ...;
            ``run_opts`` as of `SpeechCodec`.

        Raises
        ------
        FileNotFoundError
            If a file is missing.
        ValueError
            If the YAML is damaged, ``savedir`` holds another model, or a part
            cannot be quantized as asked.
        UntrustedError
            If the folder names code that is not on the list of `check_folder`.
        CheckpointError
            If weights are damaged or do not fit.

        Example
        -------
        >>> folder = convert_release(checkpoints, "base", tmp / "my_model")
        >>> lm = SpiritLM.from_hparams(folder)
        >>> lm.expressive
        False
        """
        if not isinstance(overrides, (Mapping, type(None))):
            raise TypeError(
                "overrides are a dict of names and values of the YAML, got "
                f"{overrides!r:.60}"
            )
        split_run_opts(kwargs.get("run_opts"))  # raises before anything is read
        folder = local_folder(source, hparams_file)
        yaml = read_hyperparams(folder / hparams_file)
        overrides = {"pretrained_path": str(folder), **(overrides or {})}
        if "language_model" not in cls.MODULES_NEEDED:
            # Nobody waits for gigabytes that are not needed.
            if _LANGUAGE_MODEL.search(yaml):
                overrides.setdefault("language_model", None)
        if not trust:
            check_folder(folder, hparams_file, overrides)
        if kwargs.get("savedir"):
            check_savedir(kwargs["savedir"], folder, hparams_file)
        built = build_folder(folder, hparams_file, overrides, **kwargs)
        # None, as from SpeechBrain, where files were only collected.
        return cast("Self", built and cls(**built))

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
        if isinstance(speaker, bool):
            raise ValueError(
                f"speaker must be a number or a name, got {speaker}"
            )
        return self.mods.vocoder.speaker_id(speaker)

    @property
    def styles(self) -> list[str]:
        """Names of the styles that speech can be asked for in, if any."""
        return self.mods.vocoder.style_names

    def style_units(self, style: int | str | None) -> list[int] | None:
        """Return the style units that carry a style, None where any may come.

        Raises
        ------
        ValueError
            If there is no such style; see `UnitVocoder.style_units`.
        """
        return self.mods.vocoder.style_units(style)

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
        if is_padded(wavs):
            wavs = _unpad(wavs, wav_lens)
        elif wav_lens is not None:
            raise ValueError(
                "wav_lens goes with a padded tensor; a list of recordings "
                "has its own lengths"
            )
        wavs = as_list("wavs", wavs, "recordings; for one file use encode_file")
        recordings = [read_audio(wav, sample_rate) for wav in wavs]
        if not recordings:
            return []
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
        global_style: int | str | None = None,
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
        global_style : int or str, optional
            Number or name of the style, of a Base vocoder.
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
            If a unit is out of range, or the speaker or style unknown.

        Example
        -------
        >>> lm = SpiritLM.from_release(checkpoints, "base")
        >>> wavs, wav_lens = lm.decode_batch([SpeechUnits([5] * 50)])
        >>> wavs.shape, wav_lens
        (torch.Size([1, 32000]), tensor([1.]))
        """
        of = "units; one item alone as decode_batch([units])"
        items = [_as_units(item) for item in as_list("units", units, of)]
        voices = self._voices(speaker, len(items))
        seeds = None if seed is None else draw_seeds(seed, len(items))
        global_style = self._global_style(global_style)
        if not items:
            return pad_waveforms([])
        with self.inference_ctx:
            wavs = self.mods.vocoder.synthesize(
                items, voices, global_style, seeds=seeds
            )
        return pad_waveforms(wavs)

    def decode_stream(
        self,
        units: Iterable[SpeechUnits | SpeechStream | Speech],
        speaker: int | str | None = None,
        global_style: int | str | None = None,
        seed: int | None = None,
    ) -> Iterator[Tensor]:
        """Yield the waveform of units that come bit by bit.

        All chunks together are what `decode_batch` makes of all units.

        Arguments
        ---------
        units : iterable of SpeechUnits, SpeechStream or Speech
            Pieces of one utterance, all of one form. Units at full rate go
            on, stream by stream, where those before them ended.
        speaker : int or str, optional
            Number or name of the voice; by default the one that the units
            before the first chunk sound like, where the vocoder can tell.
        global_style, seed
            As of `decode_batch`.

        Returns
        -------
        iterator of Tensor
            16 kHz, each of shape (time,). A piece of a stream is said when
            there have been pitch and style, which those in front of them take.

        Raises
        ------
        TypeError, ValueError
            As of `decode_batch`, for units when they come.

        Example
        -------
        >>> codec = SpeechCodec.from_hparams("tinyspeech")
        >>> stream = codec.encode_file(recording).merge()
        >>> pieces = (stream[i : i + 1] for i in range(len(stream)))
        >>> chunks = codec.decode_stream(pieces, speaker="anna")
        >>> [len(chunk) / 16000 for chunk in chunks]
        [0.16, 0.32, 0.64, 1.52]
        """
        global_style = self._global_style(global_style)
        [drawn] = [None] if seed is None else draw_seeds(seed, 1)
        voice = StreamingVocoder(
            self.mods.vocoder, self.speaker_id(speaker), global_style, drawn
        )
        return spoken(units, voice, self.inference_ctx)

    def encode_stream(
        self,
        chunks: Iterable[Tensor | np.ndarray],
        sample_rate: int = SAMPLE_RATE,
        latency_seconds: float | None = 1.0,
    ) -> Iterator[SpeechUnits]:
        """Yield the units of a recording that comes bit by bit.

        They do not depend on where the recording is cut into chunks.

        Arguments
        ---------
        chunks : iterable of Tensor or numpy.ndarray
            Samples of one channel, each of shape (time,); integer or float.
        sample_rate : int
            Of all of them, in Hz.
        latency_seconds : float or None
            Units come so many seconds after their audio, up to twice as many,
            and some differ from what the whole recording gives. None gives
            the very same units, when they cannot change any more; see
            `StreamingTokenizer`.

        Returns
        -------
        iterator of SpeechUnits
            Of each stream those that go on where the ones before them ended;
            `join_windows` joins them.

        Raises
        ------
        TypeError, ValueError
            If the latency is out of range or samples cannot be used.

        Example
        -------
        >>> codec = SpeechCodec.from_hparams("tinyspeech")
        >>> chunks = (torch.randn(1600) / 9 for _ in range(30))
        >>> [len(units) for units in codec.encode_stream(chunks)]
        [25, 25, 24]
        """
        stream = StreamingTokenizer(self.mods.tokenizer, latency_seconds)
        return _encoded(
            stream, read_chunks(chunks, sample_rate), self.inference_ctx
        )

    def _global_style(self, style: int | str | None) -> int | None:
        """Return the number of a global style, None where none is asked for."""
        if style is None:
            return None
        if not isinstance(style, str):
            style = whole_number("global_style", style, least=0)
        return self.mods.vocoder.style_id(style)

    def _voices(self, speaker: Any, count: int) -> list[int | None]:
        """Return the voices of so many items, from one or one for each."""
        speakers = listed(speaker)
        if speakers is None:
            return [self.speaker_id(speaker)] * count
        if len(speakers) != count:
            raise ValueError(
                f"{len(speakers)} speakers for {count} items: give one, or one "
                "for each"
            )
        return [self.speaker_id(one) for one in speakers]


def pad_waveforms(wavs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return a padded batch, and the relative length of each item."""
    if not wavs:
        return torch.zeros(0, 0), torch.zeros(0)
    lengths = torch.tensor([len(wav) for wav in wavs])
    longest = lengths.max().clamp(min=1)
    return pad_sequence(list(wavs), batch_first=True), lengths / longest


def is_padded(wavs: Any) -> TypeGuard[Tensor | np.ndarray]:
    """Tell a batch of samples from a list of recordings.

    Example
    -------
    >>> is_padded(np.zeros((2, 1600))), is_padded(np.array(["a.wav"]))
    (True, False)
    """
    if isinstance(wavs, np.ndarray):
        return wavs.dtype.kind not in "OSTUV"
    return isinstance(wavs, Tensor)


def _unpad(
    wavs: Tensor | np.ndarray, wav_lens: Tensor | None
) -> list[Tensor | np.ndarray]:
    if wavs.ndim != 2:
        raise ValueError(
            f"a padded batch has shape (batch, time), got {tuple(wavs.shape)}; "
            "pass recordings with channels as a list"
        )
    if wav_lens is None:
        return list(wavs)
    shares = _as_shares(wav_lens)
    if shares.shape != wavs.shape[:1] or not bool(
        ((shares > 0) & (shares <= 1)).all()
    ):
        raise ValueError(
            "wav_lens holds a relative length in (0, 1] for each item, got "
            f"{shown(wav_lens)}"
        )
    lengths = (shares * wavs.shape[1]).round().long()
    return [wav[:n] for wav, n in zip(wavs, lengths.tolist())]


def _as_shares(wav_lens: Any) -> Tensor:
    try:
        return torch.as_tensor(wav_lens)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            "wav_lens holds a relative length for each item, got "
            f"{shown(wav_lens)}"
        ) from error


def _encoded(
    stream: StreamingTokenizer,
    wavs: Iterator[Tensor],
    context: AbstractContextManager,
) -> Iterator[SpeechUnits]:
    """Yield the units of samples as they come."""
    for wav in wavs:
        yield from inside(context, stream.push(wav))
    yield from inside(context, stream.finish())


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
