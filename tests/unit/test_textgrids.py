"""Word times of aligners, and the transcripts that they belong to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.corpus.textgrids import match_words, read_textgrid

WORDS = [
    ("", 0.0, 0.25),
    ("two", 0.25, 0.5),
    ('so-called "boats"', 0.5, 0.75),
    ("<unk>", 0.75, 1.0),
    ("", 1.0, 1.2),
]
PHONES = [("", 0.0, 0.25), ("T UW1", 0.25, 1.2)]


def quoted(text):
    return '"{}"'.format(text.replace('"', '""'))


def long_form(tiers, sizes=()):
    """Write tiers as Praat does, each value with a name."""
    end = next(iter(tiers.values()))[-1][2]
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0 ",
        f"xmax = {end} ",
        "tiers? <exists> ",
        f"size = {len(tiers)} ",
        "item []: ",
    ]
    for index, (name, entries) in enumerate(tiers.items()):
        size = dict(sizes).get(name, len(entries))
        lines += [
            f"    item [{index + 1}]:",
            '        class = "IntervalTier" ',
            f"        name = {quoted(name)} ",
            "        xmin = 0 ",
            f"        xmax = {end} ",
            f"        intervals: size = {size} ",
        ]
        for number, (text, start, stop) in enumerate(entries, 1):
            lines += [
                f"        intervals [{number}]:",
                f"            xmin = {start} ",
                f"            xmax = {stop} ",
                f"            text = {quoted(text)} ",
            ]
    return "\n".join(lines) + "\n"


def short_form(tiers):
    """Write tiers as Praat does, values alone."""
    end = next(iter(tiers.values()))[-1][2]
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["0", f"{end}", "<exists>", f"{len(tiers)}"]
    for name, entries in tiers.items():
        lines += ['"IntervalTier"', quoted(name), "0", f"{end}"]
        lines.append(f"{len(entries)}")
        for text, start, stop in entries:
            lines += [f"{start}", f"{stop}", quoted(text)]
    return "\n".join(lines) + "\n"


FORMS = [long_form, short_form]


def read(folder, content, encoding="utf-8"):
    path = folder / "a.TextGrid"
    path.write_bytes(content.encode(encoding))
    return read_textgrid(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("form", FORMS)
def test_all_forms_say_the_same(tmp_path, form, line_end, encoding):
    content = form({"phones": PHONES, "words": WORDS})
    assert read(tmp_path, content.replace("\n", line_end), encoding) == WORDS


texts = st.text(
    st.sampled_from('ab "é!<>[]\u2028=1.5-') | st.characters(codec="utf-8"),
    max_size=8,
)


@given(st.lists(texts, min_size=1, max_size=6), st.sampled_from(FORMS))
def test_any_text_is_read_as_it_is_written(tmp_path, labels, form):
    entries = [(text, i / 8, (i + 1) / 8) for i, text in enumerate(labels)]
    found = read(tmp_path, form({"words": [("a", 0, 1)], "phones": entries}))
    assert found == [("a", 0.0, 1.0)]
    found = read(tmp_path, form({"words": entries}))
    assert [times for _, *times in found] == [t for _, *t in entries]
    plain = ("\r", "\0", "<", "s", "\u0300")
    for (word, *_), text in zip(found, labels):
        if text.isascii() and not any(c in text.lower() for c in plain):
            assert word == text.strip()


def test_silences_and_unknown_words(tmp_path):
    names = ["sil", "sp", "SIL", " ", "<eps>", "spn", "<unk>", "silk"]
    entries = [(name, i, i + 1) for i, name in enumerate(names)]
    words = [w for w, *_ in read(tmp_path, long_form({"words": entries}))]
    assert words == ["", "", "", "", "", "<unk>", "<unk>", "silk"]


def test_numbers_are_those_of_praat(tmp_path):
    entries = [("", "-0.01", "1e-05"), ("a", "1e-05", "1.25E+00")]
    for form in FORMS:
        found = read(tmp_path, form({"words": entries}))
        assert found == [("", -0.01, 1e-05), ("a", 1e-05, 1.25)]


def test_tiers_of_several_speakers(tmp_path):
    tiers = {
        "anna - words": [("", 0, 1), ("two", 1, 2), ("", 2, 4)],
        "anna - phones": [("T", 0, 4)],
        "ben - words": [("", 0, 2), ("boats", 2, 3), ("", 3, 4)],
    }
    found = read(tmp_path, long_form(tiers))
    assert found == [("two", 1.0, 2.0), ("boats", 2.0, 3.0)]


def test_points_are_passed_over(tmp_path):
    content = short_form({"words": WORDS}).replace(
        '<exists>\n1\n"Int',
        '<exists>\n2\n"TextTier"\n"clicks"\n0\n1.2\n1\n0.5\n"x"\n"Int',
    )
    assert read(tmp_path, content) == WORDS


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "the header is not complete"),
        ("no TextGrid", "the header is not complete"),
        ('"ooTextFile" "Pitch 1"', "it says that it is a Pitch 1"),
        (long_form({"phones": PHONES}), "it has no tier of words"),
        (
            long_form({"words": WORDS}, {"words": 6}.items()),
            "entry 6 of 6 in words is not complete",
        ),
        (
            long_form({"words": WORDS[:2]}).replace("xmin = 0.25", ""),
            "entry 2 of 2 in words is not complete",
        ),
        (
            long_form({"words": WORDS[:2]}).rstrip('" \n'),
            "the text of line 22 does not end",
        ),
    ],
)
def test_damaged_ones_are_named(tmp_path, content, problem):
    with pytest.raises(ValueError, match=rf"a\.TextGrid: {problem}"):
        read(tmp_path, content)


def test_other_encodings_are_named(tmp_path):
    content = long_form({"words": [("café", 0, 1)]})
    with pytest.raises(ValueError, match=r"a\.TextGrid is not UTF-8: line 18"):
        read(tmp_path, content, "latin-1")
    path = tmp_path / "b.TextGrid"
    path.write_bytes(content.encode("utf-16")[:-1])
    with pytest.raises(ValueError, match=r"b\.TextGrid"):
        read_textgrid(path)


def timed(text):
    return [(w, i, i + 1) for i, w in enumerate(text.split("|"))]


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        ("GO|", "go", ["go", ""]),
        ("|<unk>|go", "they go", ["", "they", "go"]),
        ("it's|SO", "It's - so!", ["It's", "so!"]),
        # One accent is a character of its own, the other one is not.
        ("cafe\u0301", "caf\xe9", ["caf\xe9"]),
        ("STRASSE", "stra\xdfe", ["stra\xdfe"]),
        ("", "", [""]),
        ("'|go", "go", ["", "go"]),
    ],
)
def test_words_get_the_spelling_of_the_transcript(words, text, expected):
    found = match_words(timed(words), text)
    assert [word for word, *_ in found] == expected
    assert [times for _, *times in found] == [t for _, *t in timed(words)]


@pytest.mark.parametrize(
    ("words", "text", "problem"),
    [
        ("two|boats", "two", "2, not 1"),
        ("two||", "two boats", "1, not 2"),
        ("two|boots", "two boats", "'boots', not 'boats'"),
        ("boats|<unk>", "two boats", "'boats', not 'two'"),
    ],
)
def test_other_words_are_named(words, text, problem):
    with pytest.raises(ValueError, match=f"than the transcript: {problem}"):
        match_words(timed(words), text)
