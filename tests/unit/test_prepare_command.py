"""The command that writes manifests of corpora."""

import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from spiritlm_plugin.dataio.corpus import command
from spiritlm_plugin.dataio.corpus.corpora import CORPORA
from spiritlm_plugin.dataio.corpus.manifests import load_manifest, read_manifest


def sound(*paths):
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).normal(size=8000) * 0.1
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise, 16000)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def add_librispeech(root):
    for split in ("train-clean-100", "dev-clean"):
        chapter = root / split / "19" / "198"
        sound(chapter / "19-198-0000.flac")
        text(chapter / "19-198.trans.txt", "19-198-0000 TWO BOATS\n")


def add_libritts(root):
    for split in ("train-clean-100", "dev-clean", "dev-other"):
        name = f"84_1_{split}"
        sound(root / split / "84" / "1" / f"{name}.wav")
        text(root / split / "84" / "1" / f"{name}.normalized.txt", "Two boats.")


def add_mls(root):
    for split in ("train", "dev"):
        sound(root / split / "audio" / "6" / "1" / "6_1_000000.flac")
        text(root / split / "transcripts.txt", "6_1_000000\ttwo boats\n")


def add_voxpopuli(root):
    folder = root / "transcribed_data" / "en"
    for split in ("train", "dev"):
        sound(folder / "2013" / f"2013-{split}.ogg")
        row = f"id\traw_text\tnormalized_text\n2013-{split}\tTwo.\ttwo\n"
        text(folder / f"asr_{split}.tsv", row)


def add_emov_db(root):
    sound(root / "bea_Amused" / "amused_1-15_0001.wav")


def add_folder(root):
    sound(root / "ann" / "1.wav", root / "bob" / "1.wav")
    text(root / "ann" / "1.txt", "Two boats.")


def add_libri_light(root):
    sound(root / "small" / "100" / "sea" / "01.flac")


def add_expresso(root):
    sound(root / "audio_48khz/read/ex01/happy/base/ex01_happy_001.wav")
    text(root / "VAD_segments.txt", "")
    text(root / "read_transcriptions.txt", "ex01_happy_001\tTwo boats.\n")
    for split in ("train", "dev", "test"):
        names = "ex01_happy_001\n" if split == "train" else ""
        text(root / "splits" / f"{split}.txt", names)


def add_hub(root):
    import pyarrow as pa
    import pyarrow.parquet as pq

    sound(root / "a.flac")
    audio = [{"bytes": (root / "a.flac").read_bytes(), "path": "a.flac"}]
    (root / "a.flac").unlink()
    table = pa.table({"audio": audio, "text": ["TWO BOATS"]})
    for split in ("train.clean.100", "validation.clean"):
        pq.write_table(table, root / f"{split}-00000-of-00001.parquet")


ADD = {
    "hub": add_hub,
    "folder": add_folder,
    "librispeech": add_librispeech,
    "libri_light": add_libri_light,
    "libritts": add_libritts,
    "mls": add_mls,
    "voxpopuli": add_voxpopuli,
    "expresso": add_expresso,
    "emov_db": add_emov_db,
}
# What can be prepared of these trees: the others have no speech, or no
# utterance in one of their splits.
WHOLE = [name for name in ADD if name not in ("libri_light", "expresso")]


@pytest.mark.parametrize("corpus", ADD)
def test_a_dry_run_says_what_is_there(corpus, tmp_path, capsys):
    assert ADD.keys() == CORPORA.keys()
    root = tmp_path / "corpus"
    ADD[corpus](root)
    command.main([corpus, str(root), str(tmp_path / "out"), "--dry_run"])
    shown = capsys.readouterr().out
    assert "recordings, " in shown and '{"wav": "' in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("corpus", WHOLE)
def test_manifests(corpus, tmp_path):
    root, out = tmp_path / "corpus", tmp_path / "out"
    ADD[corpus](root)
    command.main([corpus, str(root), str(out)])
    items = load_manifest(out / "train")
    assert items and all(item["duration"] == 0.5 for item in items.values())
    if corpus not in ("emov_db", "folder"):
        assert len(load_manifest(out / "valid", needs=["text"])) > 0
    stamps = {p: p.stat().st_mtime_ns for p in out.rglob("*.flac")}
    command.main([corpus, str(root), str(out)])  # goes on where it was
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


def test_splits_and_lower_case(tmp_path):
    root, out = tmp_path / "corpus", tmp_path / "out"
    add_libritts(root)
    some = ["--splits", "dev-other", "dev-clean", "--lowercase"]
    command.main(["libritts", str(root), str(out), *some])
    assert {path.name for path in out.iterdir()} == {
        "dev-other",
        "dev-clean",
        "valid",
    }
    valid = load_manifest(out / "valid")
    assert list(valid) == ["84_1_dev-other", "84_1_dev-clean"]
    assert {item["text"] for item in valid.values()} == {"two boats."}


def test_shares_of_a_folder(tmp_path, capsys):
    root, out = tmp_path / "corpus", tmp_path / "out"
    sound(*(root / f"{i:02d}.wav" for i in range(40)))
    shares = ["--valid_share", "0.2", "--test_share", "0.3"]
    command.main(["folder", str(root), str(out), *shares])
    parts = [
        set(read_manifest(out / part)) for part in ("train", "valid", "test")
    ]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 40
    assert 3 <= len(parts[1]) <= 14 and 5 <= len(parts[2]) <= 19
    # More recordings change nothing for those that are there.
    sound(*(root / f"new{i}.wav" for i in range(5)))
    command.main(["folder", str(root), str(out), *shares])
    for part, before in zip(("train", "valid", "test"), parts):
        assert before <= set(read_manifest(out / part))


def test_groups_stay_together(tmp_path, capsys):
    root, out = tmp_path / "corpus", tmp_path / "out"
    names = [f"{i:02d}" for i in range(40)]
    sound(*(root / f"{name}.wav" for name in names))
    lines = ["file_name,group,position"]
    lines += [f"{n}.wav,book{i // 5},{i % 5}" for i, n in enumerate(names)]
    (root / "metadata.csv").write_text("\n".join(lines))
    command.main(["folder", str(root), str(out), "--valid_share", "0.4"])
    groups = [
        {item["group"] for item in read_manifest(out / part).values()}
        for part in ("train", "valid")
    ]
    assert len(groups[0] | groups[1]) == 8 and not groups[0] & groups[1]
    with pytest.raises(SystemExit):
        command.main(
            ["folder", str(root), str(tmp_path / "x"), "--valid_share", "1e-9"]
        )
    assert (
        "the shares leave valid empty, of 40 recordings"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "x" / "train" / "corpus.json").exists()


@pytest.mark.slow
def test_processes_share_the_recordings(tmp_path):
    root, out = tmp_path / "corpus", tmp_path / "out"
    sound(*(root / f"{i}.wav" for i in range(12)))
    sound(*(root / "b" / f"{i}.wav" for i in range(4)))
    arguments = ["folder", str(root), "OUT", "--valid_share", "0.4"]
    shared = [str(out / "shared") if a == "OUT" else a for a in arguments]
    launch = "-m torch.distributed.run --standalone --nproc-per-node 2 -m"
    module = "spiritlm_plugin.dataio.corpus.command"
    done = subprocess.run(
        [sys.executable, *launch.split(), module, *shared],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    alone = [str(out / "alone") if a == "OUT" else a for a in arguments]
    command.main(alone)
    for split in ("train", "valid"):
        for name in ("corpus.json", "shard-00000.arrow"):
            one, other = (out / n / split / name for n in ("alone", "shared"))
            assert one.read_bytes() == other.read_bytes()


def test_merging(tmp_path, capsys):
    root, out = tmp_path / "corpus", tmp_path / "out"
    add_libritts(root)
    command.main(["libritts", str(root), str(out)])
    command.main(["merge", str(out / "dev-clean"), str(out / "dev-other")])
    for split in ("dev-clean", "dev-other"):
        [path] = (out / split).glob("*.arrow")
        assert path.name == "merged-00000.arrow"
    assert len(load_manifest(out / "valid")) == 2
    with pytest.raises(SystemExit, match="1"):
        command.main(["merge", str(out / "valid")])
    assert "is the union of dev-clean, dev-other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mls", "none"], "name the folder of a language"),
        (["libritts", "none"], "name the folder that holds the splits"),
        (["folder", "none"], "no folder "),
        (["folder", ".", "--valid_share", "1"], "leave nothing to train with"),
        (["mls", "mls", "--splits", "eval"], "no split eval in .* train, dev"),
        (["voxpopuli", "vox"], r"several languages.*--language de\|en"),
        (["librispeech", "none"], "no folder such as train-clean-100"),
        (["hub", "./none"], "no folder ./none"),
    ],
)
def test_errors_are_said_in_a_line(
    arguments, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    add_mls(tmp_path / "mls")
    for language in ("en", "de"):
        (tmp_path / "vox" / "unlabelled_data" / language).mkdir(parents=True)
    corpus, folder, *options = arguments
    with pytest.raises(SystemExit, match="1"):
        command.main([corpus, folder, "out", *options])
    shown = capsys.readouterr().err
    assert shown.startswith("spiritlm-prepare: ")
    assert re.search(message, shown)
    assert not Path("out").exists()


@pytest.mark.parametrize("corpus", CORPORA)
def test_help(corpus, capsys):
    with pytest.raises(SystemExit, match="0"):
        command.main([corpus, "--help"])
    assert "--dry_run" in capsys.readouterr().out


def test_a_dataset_without_a_validation_split_is_divided(tmp_path):
    audio = [{"bytes": b"x", "path": f"{number}.wav"} for number in range(200)]
    pq.write_table(pa.table({"audio": audio}), tmp_path / "train.parquet")
    options = Namespace(
        data_folder=str(tmp_path),
        config=None,
        keep=(),
        splits=None,
        audio_column=None,
        text_column=None,
        id_column=None,
        speaker_column=None,
        valid_share=0.2,
        test_share=0.1,
    )
    splits = CORPORA["hub"].open(options)
    found = {
        part: [name for name, _ in read(None)] for part, read in splits.items()
    }
    assert sorted(sum(found.values(), [])) == sorted(map(str, range(200)))
    assert 20 < len(found["valid"]) < 60 and 5 < len(found["test"]) < 40
    options.valid_share = 1.0
    with pytest.raises(ValueError, match="leave nothing to train with"):
        CORPORA["hub"].open(options)
