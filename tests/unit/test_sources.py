"""Text files as they come, as what a language model is trained on."""

import bz2
import gzip
import json
import shutil

import datasets
import pytest

from spiritlm_plugin.dataio.stream.sources import load_texts

# One form feed, one U+0085 and one U+2028 are characters of their line.
LINES = ["two\x0cboats", "and\u0085one", "caf\xe9 \u2028 noir", "2024-01-01"]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    """Keep what `datasets` makes of the files out of the user's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def records(texts, **others):
    return [json.dumps({"text": text, **others}) for text in texts]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".txt.gz", ".json.bz2"])
def test_lines_are_documents(tmp_path, suffix, line_end, bom):
    lines = LINES if ".txt" in suffix else records(LINES, id=7)
    lines = ["", lines[0], " ", *lines[1:]]
    content = bom + "".join(line + line_end for line in lines).encode()
    packed = {".gz": gzip.compress, ".bz2": bz2.compress}
    path = tmp_path / f"a{suffix}"
    path.write_bytes(packed.get(path.suffix, bytes)(content))
    assert load_texts([path])["text"][:] == LINES


@pytest.mark.parametrize("name", ["a[1].txt", "b?.txt", "c*.txt", "[d]/e.txt"])
def test_names_are_no_patterns(tmp_path, name, monkeypatch):
    (tmp_path / "[d]").mkdir()
    for other in ("a1.txt", "b2.txt", "c3.txt"):
        (tmp_path / other).write_text("other\n")
    (tmp_path / name).write_text("this\n")
    monkeypatch.chdir(tmp_path)
    assert load_texts([name])["text"][:] == ["this"]


@pytest.mark.parametrize(
    "dates", [["2024-01-01", "2024-01-02T03:04:05Z"], ["2024-01-01"]]
)
def test_dates_stay_texts(tmp_path, dates):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(records(dates)))
    assert load_texts([path])["text"][:] == dates


def test_a_list_of_records(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": t} for t in LINES], indent=1))
    assert load_texts([path])["text"][:] == LINES


def test_columns_of_texts(tmp_path):
    rows = datasets.Dataset.from_dict(
        {"text": ["", *LINES, None, " "], "n": range(len(LINES) + 3)}
    )
    rows.to_parquet(tmp_path / "a.parquet")
    assert load_texts([tmp_path / "a.parquet"])["text"][:] == LINES
    rows.rename_columns({"n": "text", "text": "n"}).to_parquet(
        tmp_path / "b.parquet"
    )
    with pytest.raises(ValueError, match=r"b\.parquet holds .*int64.*, not te"):
        load_texts([tmp_path / "b.parquet"])
    rows.remove_columns("text").to_parquet(tmp_path / "c.parquet")
    with pytest.raises(ValueError, match=r"c\.parquet has no column 'text'"):
        load_texts([tmp_path / "c.parquet"])


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "a.txt"
    for content in ("one\n", "another\n"):
        path.write_text(content)
        assert load_texts([path])["text"][:] == [content.strip()]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", b"two\ncaf\xe9\n", "a.txt, line 2: .*0xe9"),
        ("a.txt.gz", b"two\ncaf\xe9\n", "a.txt.gz, line 2: .*0xe9"),
        ("a.jsonl", b'{"text": "a"}\n{"text"', "a.jsonl, line 2: "),
        ("a.jsonl", b'{"a": 1}', "a.jsonl, line 1: .* has no column 'text'"),
        ("a.jsonl", b'"text"', "a.jsonl, line 1: .* has no column 'text'"),
        ("a.jsonl", b'{"text": 1}', "line 1: its text is 1, not a text"),
        ("a.jsonl", b'{"text": "\\ud800"}', "a.jsonl, line 1: .*surrogates"),
        (
            "a.json",
            b'[{"text": "a"}',
            "no text in .*a.json that can be read: .*delimiter",
        ),
        ("a.txt", b"\n\n", "there is no text in .*a.txt"),
        ("a.txt", b"", "there is no text in .*a.txt"),
        ("a.jsonl", b'{"text": null}\n', "there is no text in .*a.jsonl"),
        ("a.csv", b"text\n", "of one kind, .*; got .csv"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, problem):
    path, good = tmp_path / name, tmp_path / f"good{name[1:]}"
    pack = gzip.compress if name.endswith(".gz") else bytes
    path.write_bytes(pack(content))
    files = [path]
    if ", line 2" in problem:
        good.write_bytes(pack(content.split(b"\n")[0]))
        files = [good, path]
    with pytest.raises(ValueError, match=problem):
        load_texts(files)


@pytest.mark.parametrize("suffix", [".txt.gz", ".json.gz"])
def test_damaged_files_are_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    whole = gzip.compress("\n".join(records(LINES)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\..*\.gz is damaged after line 1:"):
        load_texts([path])


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="no text files are named"):
        load_texts([])
    with pytest.raises(FileNotFoundError, match=r"no such text file: .*a\.txt"):
        load_texts([tmp_path / "a.txt"])
    (tmp_path / "b.txt").write_text("b\n")
    shutil.copy(tmp_path / "b.txt", tmp_path / "b.json")
    with pytest.raises(ValueError, match=r"got \.json, \.txt"):
        load_texts([tmp_path / "b.txt", tmp_path / "b.json"])
