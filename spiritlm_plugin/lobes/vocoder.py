"""Unit vocoder: HiFi-GAN on speech units, with a duration predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from spiritlm_plugin.dataio.batching import length_batches
from spiritlm_plugin.dataio.units.frames import fill_blanks, unit_frames
from spiritlm_plugin.dataio.units.units import COMMON_STYLES, SpeechUnits
from spiritlm_plugin.lobes.durations import DurationPredictor, whole_frames
from spiritlm_plugin.lobes.hifigan import HifiGanGenerator
from spiritlm_plugin.lobes.masking import frame_mask
from spiritlm_plugin.lobes.speaker_recognizer import SpeakerRecognizer
from spiritlm_plugin.lobes.voice_names import VoiceNames, check_styles

NO_PITCH = (
    "this vocoder is expressive and these units have no pitch; use units of "
    "an Expressive model, or a Base vocoder"
)

# What the generator may read, in the order of its channels.
INPUTS = ("phonetic", "pitch", "style", "speaker", "global_style")


class UnitVocoder(VoiceNames, nn.Module):
    """Speech units to waveforms.

    Source: Polyak et al., "Speech Resynthesis from Discrete Disentangled
    Self-Supervised Representations", Interspeech 2021, on the HiFi-GAN of
    Kong et al., NeurIPS 2020. Each item of a batch sounds as it does alone.

    Arguments
    ---------
    phonetic_units : int
        Number of phonetic units.
    embedding_dim : int
        Of each of the inputs.
    speakers : list of str
        Names of the voices; empty for a single voice.
    global_styles : int or list of str
        Styles that hold for a whole utterance (Base): their number or names.
    pitch_units, style_units : int
        Numbers of units, 0 for Base.
    generator : dict
        Arguments of `HifiGanGenerator` but ``input_dim``.
    styles : dict of str to list of int
        Style units that carry each style that has a name (Expressive), the
        most common first.
    duration_dim : int
        Hidden width of the duration predictor.
    default_speaker, default_global_style : int
        What is used where none is asked for.
    recognizes_speakers : bool
        Whether units for which no speaker is asked are said in the voice that
        they sound like instead; see `learn_speakers`.
    batch_frames : int
        On a GPU `synthesize` runs items of similar length together up to this
        many frames, padding included.

    Raises
    ------
    ValueError
        If a name stands twice, or a style has units that there are not.

    Example
    -------
    >>> vocoder = UnitVocoder(
    ...     phonetic_units=50, embedding_dim=8, speakers=["ann", "bob"],
    ...     generator={"upsample_rates": [5, 4, 4, 4, 2],
    ...                "upsample_kernels": [11, 8, 8, 8, 4],
    ...                "channels": 32},
    ... )
    >>> wavs, lengths = vocoder(
    ...     {"phonetic": torch.zeros(1, 10, dtype=torch.int64)},
    ...     torch.tensor([10]), torch.tensor([vocoder.speaker_id("bob")]),
    ... )
    >>> wavs.shape
    torch.Size([1, 6400])
    """

    def __init__(
        self,
        phonetic_units: int,
        embedding_dim: int,
        speakers: list[str],
        generator: dict,
        global_styles: int | Sequence[str] = 0,
        pitch_units: int = 0,
        style_units: int = 0,
        styles: Mapping[str, Sequence[int]] | None = None,
        duration_dim: int | None = None,
        default_speaker: int = 0,
        default_global_style: int = 0,
        recognizes_speakers: bool = False,
        batch_frames: int = 5000,
    ):
        super().__init__()
        self.speakers = list(speakers)
        self.global_styles: list[str] = []
        if not isinstance(global_styles, int):
            self.global_styles = list(global_styles)
            global_styles = len(self.global_styles)
        self.global_style_count = global_styles
        self.styles = {n: list(units) for n, units in (styles or {}).items()}
        check_styles(self.global_styles, self.styles, style_units)
        self.default_speaker = default_speaker
        self.default_global_style = default_global_style
        self.batch_frames = batch_frames
        counts = (
            phonetic_units,
            pitch_units,
            style_units,
            len(self.speakers),
            global_styles,
        )
        self.embeddings = nn.ModuleDict(
            {
                name: nn.Embedding(size, embedding_dim)
                for name, size in zip(INPUTS, counts)
                if size
            }
        )
        self.duration_predictor = (
            DurationPredictor(embedding_dim, duration_dim)
            if duration_dim
            else None
        )
        self.speaker_recognizer = (
            SpeakerRecognizer(len(self.speakers), phonetic_units)
            if recognizes_speakers
            else None
        )
        self.generator = HifiGanGenerator(
            input_dim=embedding_dim * len(self.embeddings), **generator
        )

    @property
    def expressive(self) -> bool:
        """Whether pitch and style units are needed."""
        return "pitch" in self.embeddings

    @property
    def hop(self) -> int:
        """Samples for a phonetic unit at full rate."""
        return self.generator.hop

    def prepare_for_inference(self) -> None:
        """Fuse what can be fused."""
        self.generator.prepare_for_inference()

    def speaker_of(self, phonetic: Tensor) -> int:
        """Return the speaker that units sound like, or else the default.

        Arguments
        ---------
        phonetic : Tensor
            Units, shape (units,).
        """
        if self.speaker_recognizer is None:
            return self.default_speaker
        units = fill_blanks(phonetic, self._size("phonetic"))
        return self.speaker_recognizer(units)

    def learn_speakers(
        self, phonetic: Sequence[Tensor], speakers: Sequence[str]
    ) -> None:
        """Learn what units of each speaker sound like.

        Arguments
        ---------
        phonetic : sequence of Tensor
            Units of each utterance, shape (units,).
        speakers : sequence of str
            Who says it.

        Raises
        ------
        ValueError
            If the vocoder does not recognize speakers.
        """
        if self.speaker_recognizer is None:
            raise ValueError(
                "this vocoder has no speaker recognizer; make it with "
                "recognizes_speakers=True"
            )
        blank = self._size("phonetic")
        self.speaker_recognizer.learn(
            [fill_blanks(item, blank) for item in phonetic],
            [self.speakers.index(name) for name in speakers],
        )

    def predict_frames(self, phonetic: Sequence[Tensor]) -> list[Tensor]:
        """Return how many frames each unit lasts, for items on the CPU.

        Arguments
        ---------
        phonetic : sequence of Tensor
            Units without repeats of each item, each of shape (units,); blanks
            last as their left neighbours would.

        Returns
        -------
        list of Tensor
            Frames of each unit, each of shape (units,).
        """
        lengths = torch.tensor([len(item) for item in phonetic])
        if not len(lengths) or not int(lengths.max()):
            return [item.new_zeros(len(item)) for item in phonetic]
        device = self._device
        last = self._size("phonetic") - 1
        padded = pad_sequence(list(phonetic), True).clamp(max=last)
        frames = self.predict_durations(padded.to(device), lengths.to(device))
        return [row[:n] for row, n in zip(frames.cpu(), lengths.tolist())]

    def predict_durations(self, phonetic: Tensor, lengths: Tensor) -> Tensor:
        """Return how many frames each unit of a padded batch lasts.

        Arguments
        ---------
        phonetic : Tensor
            Units without repeats, shape (batch, units).
        lengths : Tensor
            Units of each item, shape (batch,).

        Returns
        -------
        Tensor
            Frames, at least 1 and 0 behind an item, shape (batch, units).

        Raises
        ------
        ValueError
            If the vocoder has no duration predictor.
        """
        durations = whole_frames(self.log_durations(phonetic, lengths))
        mask = frame_mask(lengths, phonetic.shape[1])
        return durations if mask is None else durations * mask

    def log_durations(self, phonetic: Tensor, lengths: Tensor) -> Tensor:
        """Return log(frames + 1) of each unit, as the network says it.

        Its gradient ends at the units' embeddings, which the sound alone
        shapes. Arguments and errors are those of `predict_durations`.

        Returns
        -------
        Tensor
            Shape (batch, units); anything behind an item.
        """
        predictor = self._predictor()
        mask = frame_mask(lengths, phonetic.shape[1])
        embedded = self.embeddings["phonetic"](phonetic)
        return predictor(embedded.detach(), mask)

    @torch.no_grad()
    def calibrate_durations(self, phonetic: Sequence[Tensor]) -> float:
        """Shift predicted durations, so that they add up to the real ones.

        Arguments
        ---------
        phonetic : sequence of Tensor
            Units at full rate of each utterance, each of shape (frames,).

        Returns
        -------
        float
            See `DurationPredictor.calibrate`.
        """
        blank = self._size("phonetic")
        items = [fill_blanks(item, blank) for item in phonetic]
        runs = [
            item.unique_consecutive(return_counts=True)
            for item in items
            if len(item)
        ]
        device = self._device
        lengths = [len(units) for units, _ in runs]
        predicted, frames = [], []
        for batch in length_batches(lengths, self.batch_frames):
            padded = pad_sequence([runs[i][0] for i in batch], True)
            counts = torch.tensor([lengths[i] for i in batch], device=device)
            rows = self.log_durations(padded.to(device), counts)
            predicted += [row[: lengths[i]] for i, row in zip(batch, rows)]
            frames += [runs[i][1] for i in batch]
        return self._predictor().calibrate(
            torch.cat(predicted), torch.cat(frames)
        )

    def synthesize(
        self,
        units: Sequence[SpeechUnits],
        speakers: Sequence[int | None],
        global_style: int | str | None = None,
        skip: Sequence[int] | None = None,
        seeds: Sequence[int | None] | None = None,
    ) -> list[Tensor]:
        """Return the waveform of each item's units.

        Units at full rate keep their durations; others have them predicted.

        Arguments
        ---------
        units : sequence of SpeechUnits
            For an Expressive vocoder with pitch; where style is missing, one
            of the common styles is drawn. Phonetic units behind the last one
            (the tokenizer's blank) take their left neighbour.
        speakers : sequence of int or None
            One for each item; None for that of `speaker_of`.
        global_style : int or str, optional
            For a Base vocoder.
        skip : sequence of int, optional
            For each item, how many phonetic units at the start are context:
            they are heard by the vocoder and left out of the waveform.
        seeds : sequence of int or None, optional
            Of the draw of each item's style.

        Returns
        -------
        list of Tensor
            16 kHz, each of shape (samples,).

        Raises
        ------
        ValueError
            If a unit is out of range, pitch is missing, or the global style
            is unknown.
        """
        global_style = self.style_id(global_style)
        skip = [0] * len(units) if skip is None else skip
        seeds = [None] * len(units) if seeds is None else seeds
        units = [self._complete(u, seed) for u, seed in zip(units, seeds)]
        speakers = [
            self.speaker_of(u.phonetic) if s is None else s
            for u, s in zip(units, speakers)
        ]
        durations = self._durations(units)
        frames = [unit_frames(u, d) for u, d in zip(units, durations)]
        starts = [
            self.hop * (n if d is None else int(d[:n].sum()))
            for n, d in zip(skip, durations)
        ]
        wavs: list[Tensor] = [torch.empty(0)] * len(units)
        lengths = [len(item["phonetic"]) for item in frames]
        device = self._device
        # On a CPU nothing is gained by padding items to a common length.
        limit = 0 if device.type == "cpu" else self.batch_frames
        for batch in length_batches(lengths, limit):
            batch = [i for i in batch if lengths[i]]
            if not batch:
                continue
            inputs = self._inputs(
                {
                    name: pad_sequence([frames[i][name] for i in batch], True)
                    for name in frames[batch[0]]
                },
                torch.tensor([speakers[i] for i in batch], device=device),
                torch.full((len(batch),), global_style, device=device),
            )
            if len(batch) == 1:
                made = self.generator.synthesize(inputs[0])[None]
            else:
                counts = torch.tensor([lengths[i] for i in batch])
                made = self.generator(inputs, counts).squeeze(1)
            for i, wav in zip(batch, made.float().cpu()):
                end = lengths[i] * self.hop
                wavs[i] = wav[starts[i] : end].clone()
        return wavs

    def waveform(
        self, frames: Mapping[str, Tensor], speaker: int, global_style: int
    ) -> Tensor:
        """Return the waveform of one item's frames.

        Arguments
        ---------
        frames : dict of str to Tensor
            Streams as of `unit_frames`, each of shape (frames,).
        speaker, global_style : int
            Numbers of the voice and of the style of a Base vocoder.

        Returns
        -------
        Tensor
            16 kHz, on the CPU, shape (frames * hop,).
        """
        inputs = self._inputs(
            {name: stream[None] for name, stream in frames.items()},
            torch.tensor([speaker], device=self._device),
            torch.tensor([global_style], device=self._device),
        )
        return self.generator.synthesize(inputs[0]).float().cpu()

    @property
    def blank(self) -> int:
        """What stands for no phonetic unit."""
        return self._size("phonetic")

    @property
    def duration_context(self) -> int:
        """Units on either side that a predicted duration depends on."""
        return self._predictor().context

    def draw_style(self, seed: int | None) -> Tensor:
        """Return one of the released model's common styles, shape (1,).

        A model with fewer styles than that has none in common with it: any
        may be drawn.
        """
        count = self._size("style")
        common = [s for s in COMMON_STYLES if s < count] or range(count)
        generator = None
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(len(common), (1,), generator=generator)
        return torch.tensor(common)[drawn]

    def check_streams(self, streams: Mapping[str, Tensor]) -> None:
        """Raise ValueError if a unit is out of range; blanks are not."""
        for name, stream in streams.items():
            most = self._size(name) + (name == "phonetic")
            if len(stream) and int(stream.max()) >= most:
                raise ValueError(
                    f"{name} unit {int(stream.max())} is out of range: this "
                    f"vocoder has {self._size(name)}"
                )

    @property
    def _device(self) -> torch.device:
        return next(self.embeddings.parameters()).device

    def _size(self, name: str) -> int:
        if name not in self.embeddings:
            return 0
        return len(self.embeddings[name].get_parameter("weight"))

    def _predictor(self) -> DurationPredictor:
        if self.duration_predictor is None:
            raise ValueError(
                "this vocoder has no duration predictor; give it units at "
                "full rate"
            )
        return self.duration_predictor

    def _complete(self, units: SpeechUnits, seed: int | None) -> SpeechUnits:
        """Check units, fill blanks and draw a style where there is none."""
        phonetic = fill_blanks(units.phonetic, self._size("phonetic"))
        if not len(phonetic):
            return SpeechUnits([], [], [], full_rate=units.full_rate)
        streams = {"phonetic": phonetic}
        if self.expressive:
            if units.pitch is None or not len(units.pitch):
                raise ValueError(NO_PITCH)
            style = units.style
            if style is None or not len(style):
                length = 1 if units.full_rate else len(phonetic)
                style = self.draw_style(seed).expand(length)
            streams |= {"pitch": units.pitch, "style": style}
        self.check_streams(streams)
        return SpeechUnits(
            **streams, full_rate=units.full_rate, start=units.start
        )

    def _durations(self, units: list[SpeechUnits]) -> list[Tensor | None]:
        """Predict the durations of the items that have none."""
        without = [i for i, u in enumerate(units) if not u.full_rate]
        predicted = self.predict_frames([units[i].phonetic for i in without])
        durations: list[Tensor | None] = [None] * len(units)
        for i, frames in zip(without, predicted):
            durations[i] = frames
        return durations

    def forward(
        self,
        units: dict[str, Tensor],
        lengths: Tensor,
        speakers: Tensor | None = None,
        global_styles: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return waveforms of frames.

        Arguments
        ---------
        units : dict of str to Tensor
            ``phonetic`` and, for Expressive, ``pitch`` and ``style``, all at
            25 Hz, shape (batch, frames).
        lengths : Tensor
            Frames of each item, shape (batch,).
        speakers, global_styles : Tensor, optional
            Shape (batch,).

        Returns
        -------
        wavs : Tensor
            Shape (batch, samples), zero behind an item.
        lengths : Tensor
            Samples of each item, shape (batch,).
        """
        x = self._inputs(units, speakers, global_styles)
        return self.generator(x, lengths).squeeze(1), lengths * self.hop

    def _inputs(
        self,
        units: dict[str, Tensor],
        speakers: Tensor | None,
        global_styles: Tensor | None,
    ) -> Tensor:
        """Return what the generator reads, (batch, channels, frames)."""
        batch, frames = units["phonetic"].shape
        constants = {
            "speaker": (speakers, self.default_speaker),
            "global_style": (global_styles, self.default_global_style),
        }
        inputs = []
        device = self._device
        for name, embedding in self.embeddings.items():
            if name in constants:
                value, default = constants[name]
                if value is None:
                    value = torch.full((batch,), default, device=device)
                embedded = embedding(value)[:, None].expand(-1, frames, -1)
            else:
                embedded = embedding(units[name].to(device))
            inputs.append(embedded)
        return torch.cat(inputs, -1).transpose(1, 2)
