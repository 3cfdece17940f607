"""Speech units: the three streams of Spirit LM on one clock.

Speech is written as phonetic units (25 a second) and, in Expressive models,
pitch units (12.5 a second) and style units (one a second). `SpeechUnits`
holds the streams side by side; `SpeechStream` holds them merged into the one
sequence of typed tokens that the language model reads and writes.

Source: Nguyen et al., "SpiRit-LM", TACL 2025, sections 3.1 and 3.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from spiritlm_plugin.utils.arguments import number, shown

SAMPLE_RATE = 16000
PHONETIC_RATE = 25.0
PITCH_RATE = 12.5
STYLE_RATE = 1.0
# Spirit LM places phonetic frame i at i / 24.99 s when it merges the streams,
# so that a phonetic unit comes after the pitch unit that starts with it.
PHONETIC_CLOCK = 24.99
PHONETIC_HOP = 640
PITCH_HOP = 1280
MIN_SAMPLES = 1280
# What a stream with pitch but without style is spoken in: the most common
# styles of the released tokenizer.
COMMON_STYLES = (71, 68, 98)


# What a stream of units may be given as.
Units = Tensor | np.ndarray | Sequence[int]


class Kind(IntEnum):
    """Kind of a speech token; the order breaks ties in time."""

    STYLE = 0
    PITCH = 1
    PHONETIC = 2


_PREFIXES = {"St": Kind.STYLE, "Pi": Kind.PITCH, "Hu": Kind.PHONETIC}
_NAMES = {kind: prefix for prefix, kind in _PREFIXES.items()}
_TOKEN = re.compile(r"\[(Hu|Pi|St)([0-9]+)\]")
# Any number of so many fits into 64 bits.
_MOST_DIGITS = 18


def _as_stream(values: Units, name: str) -> Tensor:
    """Return ``values`` as a 1-D int64 tensor on the CPU, checked."""
    try:
        stream = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} units must be a 1-D sequence of integers below 2**63, "
            f"got {shown(values)}"
        ) from error
    if stream.numel() == 0:
        stream = stream.to(torch.int64)
    is_whole = not (stream.is_floating_point() or stream.is_complex())
    if stream.dim() != 1 or not is_whole:
        raise ValueError(
            f"{name} units must be a 1-D sequence of integers, got shape "
            f"{tuple(stream.shape)} of {stream.dtype}"
        )
    stream = stream.to("cpu", torch.int64)
    if stream.numel() and int(stream.min()) < 0:
        raise ValueError(
            f"{name} units must not be negative, got {int(stream.min())}"
        )
    return stream


@dataclass(frozen=True, eq=False)
class SpeechUnits:
    """Phonetic, pitch and style units of one utterance.

    Arguments
    ---------
    phonetic : Tensor or sequence of int
        Phonetic units, shape (frames,).
    pitch : Tensor or sequence of int, optional
        Pitch units. At full rate one for two phonetic units; otherwise one
        for each phonetic unit.
    style : Tensor or sequence of int, optional
        Style units. At full rate one a second; otherwise one for each
        phonetic unit.
    full_rate : bool
        True for units as tokenized, each stream at its own rate (25, 12.5
        and 1 Hz). False for units read back from a merged stream, which have
        lost their durations: pitch and style are then given for each
        phonetic unit, and a vocoder predicts the durations.

    Raises
    ------
    ValueError
        If a stream is not a 1-D sequence of non-negative integers, or if
        units without durations have streams of unequal length.

    Example
    -------
    >>> units = SpeechUnits([7, 7, 9, 9], pitch=[3, 4], style=[5])
    >>> units.merge().to_string()
    '[St5][Pi3][Hu7][Pi4][Hu9]'
    >>> units.duration
    0.16
    """

    phonetic: Tensor
    pitch: Tensor | None = None
    style: Tensor | None = None
    full_rate: bool = True

    def __init__(
        self,
        phonetic: Units,
        pitch: Units | None = None,
        style: Units | None = None,
        full_rate: bool = True,
    ):
        if phonetic is None:
            raise ValueError("speech units need a phonetic stream, got None")
        object.__setattr__(self, "full_rate", full_rate)
        for name, values in (
            ("phonetic", phonetic),
            ("pitch", pitch),
            ("style", style),
        ):
            stream = None if values is None else _as_stream(values, name)
            object.__setattr__(self, name, stream)
            if full_rate or stream is None:
                continue
            if len(stream) != len(self.phonetic):
                raise ValueError(
                    f"units without durations need one {name} unit for each "
                    f"of the {len(self.phonetic)} phonetic units, got "
                    f"{len(stream)}; use full_rate=True for units at their "
                    "own rates"
                )

    def __len__(self) -> int:
        """Return the number of phonetic units."""
        return len(self.phonetic)

    def __eq__(self, other: object) -> bool:
        """Compare the streams."""
        if not isinstance(other, SpeechUnits):
            return NotImplemented
        return self.full_rate == other.full_rate and all(
            _equal(getattr(self, name), getattr(other, name))
            for name in ("phonetic", "pitch", "style")
        )

    @property
    def expressive(self) -> bool:
        """Whether there are pitch or style units."""
        return self.pitch is not None or self.style is not None

    @property
    def duration(self) -> float:
        """Duration in seconds; units without durations have none.

        Raises
        ------
        ValueError
            If the units are not at full rate.
        """
        if not self.full_rate:
            raise ValueError(
                "units read back from a merged stream have no durations; "
                "the vocoder predicts them"
            )
        return len(self.phonetic) / PHONETIC_RATE

    def base(self) -> SpeechUnits:
        """Return the phonetic units alone.

        Example
        -------
        >>> SpeechUnits([1, 2], pitch=[3], style=[4]).base().expressive
        False
        """
        return SpeechUnits(self.phonetic, full_rate=self.full_rate)

    def cut(self, start: float, end: float | None = None) -> SpeechUnits:
        """Return the units between two times.

        A unit belongs to the cut if it starts in ``[start, end)``; of pitch
        and style the unit in force at ``start`` is kept as well.

        Arguments
        ---------
        start, end : float
            Seconds; ``end=None`` is the end of the utterance.

        Raises
        ------
        ValueError
            If the units are not at full rate or the times do not satisfy
            ``0 <= start <= end``.

        Example
        -------
        >>> units = SpeechUnits(range(50), pitch=range(25), style=[0, 1])
        >>> part = units.cut(0.96, 1.04)
        >>> part.phonetic.tolist(), part.pitch.tolist(), part.style.tolist()
        ([24, 25], [12], [0, 1])
        """
        duration = self.duration
        start = number("start", start)
        end = None if end is None else number("end", end)
        until = duration if end is None else end
        if not 0 <= start <= until:
            raise ValueError(
                f"cannot cut from {start} s to {until} s: times must satisfy "
                "0 <= start <= end"
            )

        def part(stream: Tensor, rate: float, covering: bool) -> Tensor:
            place = start * rate
            first = int(place + 1e-6) if covering else _ceil(place)
            if end is None:
                return stream[first:]
            return stream[first : max(_ceil(end * rate), first)]

        return SpeechUnits(
            part(self.phonetic, PHONETIC_RATE, False),
            None if self.pitch is None else part(self.pitch, PITCH_RATE, True),
            None if self.style is None else part(self.style, STYLE_RATE, True),
        )

    def deduplicate(self) -> SpeechUnits:
        """Return one unit for each run, without durations.

        Example
        -------
        >>> units = SpeechUnits([7, 7, 9, 9], pitch=[3, 4], style=[5])
        >>> units.deduplicate().pitch.tolist()
        [3, 4]
        """
        return self.merge().split()

    def merge(self) -> SpeechStream:
        """Merge the streams into one sequence of tokens.

        Phonetic and pitch runs keep their first time, style is kept whole,
        and tokens are ordered by time with style before pitch before
        phonetic. Units without durations get a pitch or style token where
        its value changes.

        Returns
        -------
        SpeechStream
        """
        if self.full_rate:
            return self._merge_by_time()
        return self._merge_by_change()

    def _merge_by_time(self) -> SpeechStream:
        kinds, values, times = [], [], []
        for kind, stream, rate in (
            (Kind.STYLE, self.style, STYLE_RATE),
            (Kind.PITCH, self.pitch, PITCH_RATE),
            (Kind.PHONETIC, self.phonetic, PHONETIC_CLOCK),
        ):
            if stream is None:
                continue
            units = stream.numpy()
            frames = np.arange(len(units))
            if kind is not Kind.STYLE:
                frames = frames[_run_starts(units)]
            kinds.append(np.full(len(frames), int(kind)))
            values.append(units[frames])
            times.append(frames / rate)
        order = np.concatenate(times).argsort(kind="stable")
        return SpeechStream(
            np.concatenate(kinds)[order], np.concatenate(values)[order]
        )

    def _merge_by_change(self) -> SpeechStream:
        columns, shown = [], []
        for kind, stream in (
            (Kind.STYLE, self.style),
            (Kind.PITCH, self.pitch),
        ):
            if stream is None:
                continue
            units = stream.numpy()
            columns.append((kind, units))
            shown.append(_run_starts(units))
        columns.append((Kind.PHONETIC, self.phonetic.numpy()))
        shown.append(np.ones(len(self.phonetic), dtype=bool))
        keep = np.stack(shown, axis=1)
        kinds = np.array([int(kind) for kind, _ in columns])
        return SpeechStream(
            np.broadcast_to(kinds, keep.shape)[keep],
            np.stack([units for _, units in columns], axis=1)[keep],
        )


@dataclass(frozen=True, eq=False)
class SpeechStream:
    """Speech units merged into one sequence of typed tokens.

    Arguments
    ---------
    kinds : Tensor or sequence of int
        `Kind` of each token, shape (tokens,).
    values : Tensor or sequence of int
        Unit of each token, shape (tokens,).

    Example
    -------
    >>> stream = SpeechStream.from_string("[St5][Pi3][Hu7][Hu9]")
    >>> stream.split().pitch.tolist()
    [3, 3]
    """

    kinds: Tensor
    values: Tensor

    def __init__(self, kinds: Units, values: Units):
        object.__setattr__(self, "kinds", _as_stream(kinds, "kinds"))
        object.__setattr__(self, "values", _as_stream(values, "values"))
        if len(self.kinds) != len(self.values):
            raise ValueError(
                f"a stream needs as many kinds as values, got "
                f"{len(self.kinds)} and {len(self.values)}"
            )
        if bool((self.kinds >= len(Kind)).any()):
            known = ", ".join(f"{int(k)} ({k.name.lower()})" for k in Kind)
            raise ValueError(
                f"kind {int(self.kinds.max())} is out of range: kinds are "
                f"{known}"
            )

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.values)

    def __eq__(self, other: object) -> bool:
        """Compare kinds and values."""
        if not isinstance(other, SpeechStream):
            return NotImplemented
        return _equal(self.kinds, other.kinds) and _equal(
            self.values, other.values
        )

    def __getitem__(self, index: slice) -> SpeechStream:
        """Return a slice of the stream."""
        return SpeechStream(self.kinds[index], self.values[index])

    @classmethod
    def concatenate(cls, streams: Sequence[SpeechStream]) -> SpeechStream:
        """Join streams end to end.

        Example
        -------
        >>> stream = SpeechStream.from_string("[Hu1]")
        >>> SpeechStream.concatenate([stream, stream]).to_string()
        '[Hu1][Hu1]'
        """
        return cls(
            torch.cat([stream.kinds for stream in streams]),
            torch.cat([stream.values for stream in streams]),
        )

    @classmethod
    def from_string(cls, string: str) -> SpeechStream:
        """Read the bracket form; anything but speech tokens is skipped.

        Raises
        ------
        ValueError
            If the number of a unit has more digits than 64 bits.

        Example
        -------
        >>> SpeechStream.from_string("[Speech][Hu3] [Hu4]").values.tolist()
        [3, 4]
        """
        found = _TOKEN.findall(string)
        for prefix, unit in found:
            if len(unit) > _MOST_DIGITS:
                raise ValueError(
                    f"unit [{prefix}{unit:.20}...] is out of range: it has "
                    f"{len(unit)} digits"
                )
        return cls(
            torch.tensor(
                [int(_PREFIXES[prefix]) for prefix, _ in found],
                dtype=torch.int64,
            ),
            torch.tensor([int(unit) for _, unit in found], dtype=torch.int64),
        )

    def to_string(self) -> str:
        """Write the bracket form, as in ``[St5][Pi3][Hu7]``."""
        return "".join(
            f"[{_NAMES[kind]}{value}]"
            for kind, value in zip(self.kinds.tolist(), self.values.tolist())
        )

    def count(self, kind: Kind) -> int:
        """Return the number of tokens of one kind."""
        return int((self.kinds == int(kind)).sum())

    def split(self, repeat: bool = False) -> SpeechUnits:
        """Read the stream back into one pitch and style per phonetic unit.

        Each phonetic unit takes the pitch and style last seen before it;
        units before the first pitch or style take the first one.

        Arguments
        ---------
        repeat : bool
            Where a pitch token follows another with no phonetic unit between
            them, repeat the last phonetic unit at the new pitch.

        Returns
        -------
        SpeechUnits
            With ``full_rate=False``.

        Example
        -------
        >>> stream = SpeechStream.from_string("[Pi1][Hu5][Pi2][Pi3][Hu6]")
        >>> stream.split().pitch.tolist()
        [1, 3]
        >>> stream.split(repeat=True).phonetic.tolist()
        [5, 5, 6]
        >>> stream.split(repeat=True).pitch.tolist()
        [1, 3, 3]
        """
        stream = self._with_repeats() if repeat else self
        phonetic = stream.kinds == int(Kind.PHONETIC)
        return SpeechUnits(
            stream.values[phonetic],
            stream._in_force(Kind.PITCH)[phonetic]
            if stream.count(Kind.PITCH)
            else None,
            stream._in_force(Kind.STYLE)[phonetic]
            if stream.count(Kind.STYLE)
            else None,
            full_rate=False,
        )

    def _in_force(self, kind: Kind) -> Tensor:
        """Return for each token the last unit of ``kind`` up to it."""
        is_kind = self.kinds == int(kind)
        last = is_kind.cumsum(0).sub(1).clamp(min=0)
        return self.values[is_kind][last]

    def _with_repeats(self) -> SpeechStream:
        """Repeat the last phonetic unit after a pitch that follows another."""
        matters = (self.kinds != int(Kind.STYLE)).nonzero().squeeze(1)
        kinds = self.kinds[matters]
        starved = (kinds[:-1] == int(Kind.PITCH)) & (
            kinds[1:] == int(Kind.PITCH)
        )
        starved &= (kinds[:-1] == int(Kind.PHONETIC)).cumsum(0) > 0
        after = matters[1:][starved]
        if not len(after):
            return self
        repeats = torch.ones_like(self.kinds)
        repeats[after] = 2
        source = torch.arange(len(self)).repeat_interleave(repeats)
        added = torch.zeros_like(source, dtype=torch.bool)
        added[1:] = source[1:] == source[:-1]
        kinds, values = self.kinds[source], self.values[source]
        kinds[added] = int(Kind.PHONETIC)
        values[added] = self._in_force(Kind.PHONETIC)[source[added]]
        return SpeechStream(kinds, values)


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return torch.equal(first, second)


def _run_starts(units: np.ndarray) -> np.ndarray:
    """Return a mask of the first unit of each run."""
    starts = np.ones(len(units), dtype=bool)
    np.not_equal(units[1:], units[:-1], out=starts[1:])
    return starts


def _ceil(value: float) -> int:
    """Round up, forgiving the rounding error of a time times a rate."""
    return -int(-(value - 1e-6) // 1)
