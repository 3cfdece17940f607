"""Speech units: the three streams of Spirit LM on one clock.

Speech is written as phonetic units (25 a second) and, in Expressive models,
pitch units (12.5 a second) and style units (one a second). `SpeechUnits`
holds the streams side by side; `SpeechStream` holds them merged into the one
sequence of typed tokens that the language model reads and writes.

Recordings are tokenized in windows of 100 s, and a window gives 2,499
phonetic units, one less than its seconds times the rate. `unit_starts` and
`units_before` tell the times of units from their numbers.

Source: Nguyen et al., "SpiRit-LM", TACL 2025, sections 3.1 and 3.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from spiritlm_plugin.utils.arguments import number, shown

SAMPLE_RATE = 16000
PHONETIC_RATE = 25.0
PITCH_RATE = 12.5
STYLE_RATE = 1.0
RATES = {"phonetic": PHONETIC_RATE, "pitch": PITCH_RATE, "style": STYLE_RATE}
# Spirit LM places phonetic frame i at i / 24.99 s when it merges the streams,
# so that a phonetic unit comes after the pitch unit that starts with it. At
# the starts of windows, each 2,499 units, this is their true time.
PHONETIC_CLOCK = 24.99
# What a tokenizer hears at once, and the units of each rate in it: a phonetic
# frame sees 80 samples more than its hop, so that the last one has no room.
WINDOW_SECONDS = 100
WINDOW_UNITS = {PHONETIC_RATE: 2499, PITCH_RATE: 1250, STYLE_RATE: 100}
# Seconds by which a time may miss the start of a unit and still mean it.
_ROUNDING = 1e-6
PHONETIC_HOP = 640
PITCH_HOP = 1280
MIN_SAMPLES = 1280
# What a stream with pitch but without style is spoken in: the most common
# styles of the released tokenizer.
COMMON_STYLES = (71, 68, 98)


# What a stream of units may be given as.
Units = Tensor | np.ndarray | Sequence[int]
T = TypeVar("T")


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


def unit_starts(numbers: int | np.ndarray, rate: float) -> np.ndarray:
    """Return when units of a recording begin.

    With n units in a window of 100 s, unit i begins at
    ``100 * (i // n) + (i % n) / rate`` seconds.

    Arguments
    ---------
    numbers : int or numpy.ndarray
        Of the units, counted from the recording's beginning.
    rate : float
        ``PHONETIC_RATE``, ``PITCH_RATE`` or ``STYLE_RATE``.

    Returns
    -------
    numpy.ndarray
        Seconds, in the shape of the numbers.

    Example
    -------
    >>> unit_starts(np.array([1, 2498, 2499]), PHONETIC_RATE).tolist()
    [0.04, 99.92, 100.0]
    """
    windows, places = np.divmod(numbers, WINDOW_UNITS[rate])
    return windows * WINDOW_SECONDS + places / rate


def units_before(times: float | np.ndarray, rate: float) -> np.ndarray:
    """Return how many units of a recording begin before some times.

    A unit that begins less than a microsecond before a time begins with it.

    Arguments
    ---------
    times : float or numpy.ndarray
        Seconds from the recording's beginning.
    rate : float
        As of `unit_starts`.

    Returns
    -------
    numpy.ndarray
        Integers, in the shape of the times.

    Example
    -------
    >>> units_before(np.array([0.0, 0.05, 99.93, 100.0]), PHONETIC_RATE)
    array([   0,    2, 2499, 2499])
    """
    units = WINDOW_UNITS[rate]
    windows, rest = divmod(times - _ROUNDING, WINDOW_SECONDS)
    begun = np.minimum(-(-rest * rate // 1), units)
    return (windows * units + begun).astype(np.int64)


def _first_unit(start: float, rate: float) -> int:
    """Return the number of a stream's first unit in a cut of a recording.

    A cut begins with the pitch and style in force, and with a whole phonetic
    unit.
    """
    if rate == PHONETIC_RATE:
        return int(units_before(start, rate))
    return int(units_before(start + 2 * _ROUNDING, rate)) - 1


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
    start : float
        Of units cut out of a recording, when it was cut, in seconds: their
        place in the recording decides on the times between them.

    Raises
    ------
    ValueError
        If a stream is not a 1-D sequence of non-negative integers, if units
        without durations have streams of unequal length, or if the start is
        negative or not finite.

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
    start: float = 0.0

    def __init__(
        self,
        phonetic: Units,
        pitch: Units | None = None,
        style: Units | None = None,
        full_rate: bool = True,
        start: float = 0.0,
    ):
        if phonetic is None:
            raise ValueError("speech units need a phonetic stream, got None")
        if number("start", start) < 0:
            raise ValueError(f"start must not be negative, got {start} s")
        object.__setattr__(self, "full_rate", full_rate)
        object.__setattr__(self, "start", start)
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
        """Compare the streams and where they begin."""
        if not isinstance(other, SpeechUnits):
            return NotImplemented
        own = self.full_rate, self.start
        return own == (other.full_rate, other.start) and all(
            _equal(getattr(self, name), getattr(other, name))
            for name in ("phonetic", "pitch", "style")
        )

    @property
    def expressive(self) -> bool:
        """Whether there are pitch or style units."""
        return self.pitch is not None or self.style is not None

    @property
    def duration(self) -> float:
        """Seconds from the first phonetic unit to the end of the last one.

        Units without durations have none.

        Raises
        ------
        ValueError
            If the units are not at full rate.
        """
        self._check_times()
        first = _first_unit(self.start, PHONETIC_RATE)
        end = unit_starts(first + len(self), PHONETIC_RATE)
        return float(end - unit_starts(first, PHONETIC_RATE))

    def starts(self, rate: float) -> np.ndarray:
        """Return when the units of a stream begin.

        Arguments
        ---------
        rate : float
            Of the stream: ``PHONETIC_RATE``, ``PITCH_RATE`` or
            ``STYLE_RATE``.

        Returns
        -------
        numpy.ndarray
            Seconds from the time of the cut, or from the recording's
            beginning; 0 for what was in force there. Shape (units,).

        Raises
        ------
        ValueError
            If the units are not at full rate.

        Example
        -------
        >>> units = SpeechUnits([7, 7, 9, 9], pitch=[3, 4], style=[5])
        >>> units.starts(PITCH_RATE).tolist()
        [0.0, 0.08]
        >>> units.cut(0.1).starts(PHONETIC_RATE).round(2).tolist()
        [0.02]
        """
        self._check_times()
        times = unit_starts(self._numbers(rate), rate)
        return (times - self.start).clip(min=0.0)

    def _check_times(self) -> None:
        if not self.full_rate:
            raise ValueError(
                "units read back from a merged stream have no durations; "
                "the vocoder predicts them"
            )

    def _stream(self, rate: float) -> Tensor | None:
        if rate == PHONETIC_RATE:
            return self.phonetic
        return self.pitch if rate == PITCH_RATE else self.style

    def _numbers(self, rate: float) -> np.ndarray:
        stream, first = self._stream(rate), _first_unit(self.start, rate)
        length = 0 if stream is None else len(stream)
        return np.arange(first, first + length)

    def base(self) -> SpeechUnits:
        """Return the phonetic units alone.

        Example
        -------
        >>> SpeechUnits([1, 2], pitch=[3], style=[4]).base().expressive
        False
        """
        return SpeechUnits(
            self.phonetic, full_rate=self.full_rate, start=self.start
        )

    def cut(self, start: float, end: float | None = None) -> SpeechUnits:
        """Return the units between two times.

        A unit belongs to the cut if it starts in ``[start, end)``; of pitch
        and style the unit in force at ``start`` is kept as well.

        Arguments
        ---------
        start, end : float
            Seconds; ``end=None`` is the end of the utterance. In a cut they
            count from where it begins.

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
        >>> SpeechUnits(range(2600)).cut(99.9, 100.1).phonetic.tolist()
        [2498, 2499, 2500, 2501]
        """
        self._check_times()
        start = number("start", start)
        end = None if end is None else number("end", end)
        until = self.duration if end is None else end
        if not 0 <= start <= until:
            raise ValueError(
                f"cannot cut from {start} s to {until} s: times must satisfy "
                "0 <= start <= end"
            )

        def part(stream: Tensor, rate: float) -> Tensor:
            before = _first_unit(self.start, rate)
            first = _first_unit(self.start + start, rate) - before
            if end is None:
                return stream[first:]
            last = int(units_before(self.start + end, rate)) - before
            return stream[first : max(last, first)]

        pitch, style = self.pitch, self.style
        return _unchecked(
            SpeechUnits,
            phonetic=part(self.phonetic, PHONETIC_RATE),
            pitch=None if pitch is None else part(pitch, PITCH_RATE),
            style=None if style is None else part(style, STYLE_RATE),
            full_rate=True,
            start=self.start + start,
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
        its value changes. The tokens of a cut are in the order that they have
        in the whole recording, those in force where it begins in front.

        Returns
        -------
        SpeechStream
        """
        if self.full_rate:
            return self._merge_by_time()
        return self._merge_by_change()

    def _merge_by_time(self) -> SpeechStream:
        if not self.expressive:
            runs = torch.unique_consecutive(self.phonetic)
            same = torch.full_like(runs, int(Kind.PHONETIC))
            return _unchecked(SpeechStream, kinds=same, values=runs)
        kinds, values, times = [], [], []
        for kind, rate, clock in (
            (Kind.STYLE, STYLE_RATE, STYLE_RATE),
            (Kind.PITCH, PITCH_RATE, PITCH_RATE),
            (Kind.PHONETIC, PHONETIC_RATE, PHONETIC_CLOCK),
        ):
            stream = self._stream(rate)
            if stream is None:
                continue
            units, numbers = stream.numpy(), self._numbers(rate)
            if kind is not Kind.STYLE:
                is_first = _run_starts(units)
                units, numbers = units[is_first], numbers[is_first]
            kinds.append(np.full(len(units), int(kind)))
            values.append(units)
            times.append(np.maximum(numbers / clock, self.start))
        order = np.concatenate(times).argsort(kind="stable")
        return _unchecked(
            SpeechStream,
            kinds=torch.from_numpy(np.concatenate(kinds)[order]),
            values=torch.from_numpy(np.concatenate(values)[order]),
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


def _unchecked(cls: type[T], **fields: Tensor | float | None) -> T:
    """Return an instance with fields that were checked before."""
    made = object.__new__(cls)
    made.__dict__.update(fields)
    return made


def _equal(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return torch.equal(first, second)


def _run_starts(units: np.ndarray) -> np.ndarray:
    """Return a mask of the first unit of each run."""
    starts = np.ones(len(units), dtype=bool)
    np.not_equal(units[1:], units[:-1], out=starts[1:])
    return starts
