"""Tests of ``spiritlm_plugin.dataio.units.units``."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.units.units import Kind, SpeechStream, SpeechUnits

units_of = st.integers(0, 3)
tokens = st.lists(st.tuples(st.sampled_from(list(Kind)), units_of), max_size=30)


@st.composite
def full_rate(draw, expressive=None):
    """Units as a tokenizer gives them, of about 0 to 12 s."""
    frames = draw(st.integers(0, 300))
    seed = draw(st.integers(0, 99))
    generator = torch.Generator().manual_seed(seed)

    def stream(length, count):
        return torch.randint(count, (length,), generator=generator)

    counts = draw(st.sampled_from([1, 2, 50]))
    phonetic = stream(frames, counts)
    if not draw(st.booleans()) if expressive is None else not expressive:
        return SpeechUnits(phonetic)
    pitch = stream(frames // 2 + draw(st.integers(0, 1)), counts)
    style = stream(frames // 25 + draw(st.integers(0, 1)), counts)
    return SpeechUnits(phonetic, pitch, style)


@st.composite
def without_durations(draw):
    """Units of which each phonetic one has its pitch and style."""
    rows = draw(st.lists(st.tuples(units_of, units_of, units_of), min_size=1))
    phonetic, pitch, style = (list(column) for column in zip(*rows))
    has_pitch, has_style = draw(st.booleans()), draw(st.booleans())
    return SpeechUnits(
        phonetic,
        pitch if has_pitch else None,
        style if has_style else None,
        full_rate=False,
    )


def stream_of(pairs):
    return SpeechStream([int(k) for k, _ in pairs], [v for _, v in pairs])


def merged_slowly(units):
    """The order of release.md, 'One stream', word by word."""
    pairs = []
    for rank, (name, stream, rate) in enumerate(
        [
            ("St", units.style, 1.0),
            ("Pi", units.pitch, 12.5),
            ("Hu", units.phonetic, 24.99),
        ]
    ):
        previous = None
        for i, unit in enumerate([] if stream is None else stream.tolist()):
            if name == "St" or unit != previous:
                pairs.append((i / rate, rank, i, f"[{name}{unit}]"))
            previous = unit
    return "".join(pair[-1] for pair in sorted(pairs))


def split_slowly(pairs, repeat=False):
    """Read a stream back token by token."""
    first = {}
    for kind, unit in pairs:
        first.setdefault(kind, unit)
    now = dict(first)
    rows, last, starved = [], None, False
    for kind, unit in pairs:
        now[kind] = unit
        if kind is Kind.PHONETIC:
            last, starved = unit, False
        elif kind is Kind.PITCH:
            if repeat and starved and last is not None:
                rows.append((last, unit, now.get(Kind.STYLE)))
            starved = True
            continue
        else:
            continue
        rows.append((unit, now.get(Kind.PITCH), now.get(Kind.STYLE)))
    return rows


def rows_of(units):
    absent = [None] * len(units)
    return list(
        zip(
            units.phonetic.tolist(),
            absent if units.pitch is None else units.pitch.tolist(),
            absent if units.style is None else units.style.tolist(),
        )
    )


@given(full_rate())
def test_merge_follows_the_rule(units):
    assert units.merge().to_string() == merged_slowly(units)


def test_merge_follows_the_rule_for_half_an_hour():
    # 24.99 is 2499 frames in 100 s, so streams meet at full hundreds.
    frames = 2499 * 18
    units = SpeechUnits(
        torch.randint(20, (frames,)),
        torch.randint(9, (1250 * 18,)),
        torch.randint(5, (100 * 18,)),
    )
    assert units.merge().to_string() == merged_slowly(units)


def test_merge_breaks_ties_and_keeps_style():
    units = SpeechUnits([1, 1, 1], pitch=[2, 2], style=[3, 3])
    assert units.merge().to_string() == "[St3][Pi2][Hu1][St3]"
    frames = SpeechUnits(range(27), pitch=range(14), style=[0, 1])
    text = frames.merge().to_string()
    assert "[Hu24][St1][Hu25][Pi13][Hu26]" in text


@given(without_durations())
def test_merge_and_split_are_inverse(units):
    assert units.merge().split() == units


@given(full_rate())
def test_split_keeps_what_merge_shows(units):
    read = units.deduplicate()
    assert not read.full_rate
    runs = torch.unique_consecutive(units.phonetic)
    assert torch.equal(read.phonetic, runs)
    assert units.merge().count(Kind.PHONETIC) == len(runs)
    if len(runs):
        # Once written and read back, nothing changes any more.
        assert read.deduplicate() == read


@given(tokens, st.booleans())
def test_split_reads_token_by_token(pairs, repeat):
    read = stream_of(pairs).split(repeat=repeat)
    assert rows_of(read) == split_slowly(pairs, repeat)
    kinds = {kind for kind, _ in pairs}
    assert (read.pitch is not None) == (Kind.PITCH in kinds)
    assert (read.style is not None) == (Kind.STYLE in kinds)
    assert not read.full_rate


@given(tokens)
def test_string_round_trip(pairs):
    stream = stream_of(pairs)
    string = stream.to_string()
    assert string.count("[") == len(pairs)
    assert SpeechStream.from_string(string) == stream
    noisy = "[Speech] " + string.replace("]", "] x[Hu][Hu-1][hu1]")
    assert SpeechStream.from_string(noisy) == stream


@given(tokens, st.integers(0, 30))
def test_slices_concatenate(pairs, where):
    stream = stream_of(pairs)
    parts = [stream[:where], stream[where:]]
    assert SpeechStream.concatenate(parts) == stream
    assert stream != stream_of([*pairs, (Kind.STYLE, 0)])
    assert sum(stream.count(kind) for kind in Kind) == len(stream)


@given(full_rate(), st.lists(st.floats(0, 13), max_size=5))
def test_cuts_partition_the_phonetic_stream(units, times):
    times = sorted(time for time in times if time <= units.duration)
    parts = [units.cut(a, b) for a, b in zip([0, *times], [*times, None])]
    assert torch.equal(torch.cat([p.phonetic for p in parts]), units.phonetic)
    total = sum(part.duration for part in parts)
    assert total == pytest.approx(units.duration)


@given(full_rate(expressive=True), st.integers(0, 1200), st.integers(0, 300))
def test_cut_keeps_the_units_in_force(units, start, length):
    # Between two starts of units; starts themselves are tested below.
    start = min((start + 0.3) / 100, max(units.duration - 0.037, 0.003))
    end = start + length / 100
    part = units.cut(start, end)
    for name, rate, early in (
        ("phonetic", 25, 0.0),
        ("pitch", 12.5, 1 / 12.5),
        ("style", 1.0, 1.0),
    ):
        stream = getattr(units, name)
        kept = [
            unit
            for i, unit in enumerate(stream.tolist())
            if start - early < i / rate < end
        ]
        assert getattr(part, name).tolist() == kept


def test_cut_forgives_rounding():
    units = SpeechUnits(range(200), pitch=range(100))
    for i in range(199):
        part = units.cut(i * 0.04, (i + 1) * 0.04)
        assert part.phonetic.tolist() == [i]
        assert part.pitch.tolist() == [i // 2]


@pytest.mark.parametrize("times", [(-1, 1), (2, 1), (0.2, None)])
def test_cut_refuses_times(times):
    with pytest.raises(ValueError, match=f"cut from {times[0]}"):
        SpeechUnits([1, 2]).cut(*times)


@pytest.mark.parametrize("end", [float("inf"), float("nan"), "1"])
def test_cut_refuses_what_is_no_time(end):
    with pytest.raises((TypeError, ValueError), match="end must be"):
        SpeechUnits([1, 2]).cut(0, end)


def test_cut_refuses_units_without_durations():
    with pytest.raises(ValueError, match="durations"):
        SpeechUnits([1, 2], full_rate=False).cut(0, 0.04)


def test_base_and_equality():
    units = SpeechUnits([1, 2], pitch=[3], style=[4])
    assert units.base() == SpeechUnits([1, 2])
    assert units != units.base()
    assert units != SpeechUnits([1, 2], pitch=[3], style=[5])
    assert SpeechUnits([1]) != SpeechUnits([1], full_rate=False)
    assert SpeechUnits([1, 2]).cut(0.04) == SpeechUnits([2], start=0.04)
    assert SpeechUnits([1, 2]).cut(0.04) != SpeechUnits([2])
    assert units.expressive and not units.base().expressive
    assert units != "[Hu1]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"phonetic": None}, "None"),
        ({"phonetic": [[1]]}, r"phonetic.*\(1, 1\)"),
        ({"phonetic": [1.5]}, "phonetic.*float32"),
        ({"phonetic": [1j]}, "phonetic.*complex64"),
        ({"phonetic": ["1"]}, r"phonetic.*got \['1'\]"),
        ({"phonetic": [[1], [1, 2]]}, "phonetic.*1-D sequence"),
        ({"phonetic": "12"}, "phonetic.*got '12'"),
        ({"phonetic": [10**20]}, "phonetic.*below 2.*63, got"),
        ({"phonetic": [1], "pitch": [-2]}, "pitch.*-2"),
        ({"phonetic": [1, 2], "style": [0], "full_rate": False}, "style.*2.*1"),
    ],
)
def test_units_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        SpeechUnits(**arguments)


def test_kinds_are_checked():
    with pytest.raises(ValueError, match="kind 3 is out of range: kinds are"):
        SpeechStream(torch.tensor([2, 3]), torch.tensor([5, 5]))


@pytest.mark.parametrize("digits", [19, 5000])
def test_units_in_a_string_have_few_digits(digits):
    with pytest.raises(ValueError, match=rf"unit .Hu9+.* has {digits} digits"):
        SpeechStream.from_string(f"[Hu1][Hu{'9' * digits}]")


def test_streams_are_checked():
    with pytest.raises(ValueError, match="1 and 2"):
        SpeechStream([2], [1, 2])
    with pytest.raises(ValueError, match="durations"):
        _ = SpeechUnits([1], full_rate=False).duration


def test_empty_units():
    empty = SpeechUnits([], pitch=[], style=[])
    assert len(empty.merge()) == 0 and empty.duration == 0
    assert len(SpeechStream([], []).split(repeat=True)) == 0
