"""Models on the Hub, which a server on this machine stands for."""

import getpass
import json
import re
import shutil
import threading
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.dataio.corpus.preparation import prepare
from spiritlm_plugin.inference import SpiritLM
from spiritlm_plugin.integrations import hub
from spiritlm_plugin.integrations.convert import convert_release
from spiritlm_plugin.integrations.export_model import export_model
from spiritlm_plugin.integrations.hub import HubError, main, push_to_hub
from spiritlm_plugin.integrations.model_card import model_card
from spiritlm_plugin.integrations.model_folder import read_model_folder
from spiritlm_plugin.integrations.reports import Figure, Report, read_report
from spiritlm_plugin.integrations.training_record import (
    training_record,
    without_folders,
    write_record,
)
from spiritlm_plugin.pretrained.trust import UntrustedError
from tests.unit.hub_stand_in import TOKEN, StandIn

LM = "language_model"
LEFTOVERS = {"optimizer.pt", f"{LM}/trainer_state.json", ".token"}
SUMMARY = {
    "split": "test",
    "WER": 2.61,
    "WER_interval": [1.88, 3.75],
    "WER_std": None,
    "draws": [{"WER": 9.0, "WER_interval": [8.0, 10.0]}],
    "systems": {"base": {"f0_error": 0.95, "f0_error_interval": None}},
    "accuracy": {"emov": {"mean": 60.0, "std": 2.5}},
    "settings": {
        "num_beams": 4,
        "model": "/home/somebody/model",
        "top_p": None,
    },
}


@pytest.fixture(scope="module")
def model(checkpoints, tmp_path_factory):
    """Folder of a model; not to be changed."""
    folder = tmp_path_factory.mktemp("hub") / "model"
    convert_release(checkpoints, "base", folder)
    # What a training leaves and nobody else needs.
    for name in LEFTOVERS:
        (folder / name).write_text(TOKEN)
    return folder


@pytest.fixture(scope="module")
def read(model):
    return read_model_folder(model)


@pytest.fixture
def copy(model, tmp_path):
    """Folder of a model, to be changed."""
    return Path(shutil.copytree(model, tmp_path / "model"))


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The Hub's stand-in, to which huggingface_hub goes."""
    with StandIn() as stand_in:
        threading.Thread(target=stand_in.serve_forever, daemon=True).start()
        template = (
            f"{stand_in.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        for name, value in {
            "ENDPOINT": stand_in.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield stand_in
        stand_in.shutdown()


@pytest.fixture
def report(tmp_path):
    folder = tmp_path / "asr"
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "report.md").write_text("# Transcripts of test\n\n![a](b.png)\n")
    return folder


def test_what_is_pushed_is_what_others_load(server, model, report, tmp_path):
    main([str(model), "me/lm", "--licence", "mit", "--report", f"LS={report}"])
    there = server.repos["me/lm"]
    files = [path for path in model.rglob("*") if path.is_file()]
    names = {path.relative_to(model).as_posix() for path in files}
    assert {*there} == names - LEFTOVERS | {".gitattributes", "README.md"}
    lm = SpiritLM.from_hparams("me/lm", savedir=tmp_path / "saved")
    own = SpiritLM.from_hparams(model)
    ids = torch.tensor([own.vocabulary.encode([("text", "the cat")])])
    logits = [m.mods.language_model(ids) for m in (lm, own)]
    assert torch.equal(*logits)
    card = ModelCard(there["README.md"].decode())
    assert card.data.license == "mit"
    [result] = card.data.eval_results
    assert (result.dataset_name, result.metric_value) == ("LS", 2.61)
    assert "| WER | 2.61 | 1.88 to 3.75 |" in card.text


def test_only_one_commit_makes_a_model(server, read):
    push_to_hub(read, "me/lm", private=True)
    assert [path for _, path in server.asked if "/commit/" in path] == [
        "/api/models/me/lm/commit/main"
    ]
    assert server.hidden == {"me/lm"}


def test_what_a_language_model_had_more_of_goes(server, read):
    shard = f"{LM}/model-00001-of-00002.safetensors"
    old = {shard, "hyperparams_old.yaml", "vocoder_old.safetensors"}
    old |= {"training.json", f"{LM}_base/model.safetensors"}
    own = {"images/voice.png", f"{LM}/notes.txt", "notes.txt"}
    server.repos["me/lm"] = {"hyperparams.yaml": b""}
    server.repos["me/lm"] |= dict.fromkeys(old | own, b"before")
    push_to_hub(read, "me/lm")
    assert not old & {*server.repos["me/lm"]}
    assert own < {*server.repos["me/lm"]}


def test_a_dry_run_sends_nothing(server, model, capsys):
    main([str(model), "me/lm", "--licence", "mit", "--dry_run"])
    shown = capsys.readouterr().out
    assert f"MB  {LM}/model.safetensors" in shown
    assert "optimizer.pt" in shown.partition("left out:")[2]
    assert "license: mit" in shown
    assert not server.asked


def test_a_card_of_ones_own_goes_up_as_it_is(server, copy, capsys):
    (copy / "README.md").write_text("---\nlicense: mit\n---\n\nMine.\n")
    main([str(copy), "me/lm"])
    assert server.repos["me/lm"]["README.md"].endswith(b"Mine.\n")
    with pytest.raises(SystemExit):
        main([str(copy), "me/lm", "--licence", "mit"])
    assert "README.md is there" in capsys.readouterr().err


CARD = ModelCard("---\nlicense: mit\n---\n\nMade.\n")
ANOTHER = ModelCard("---\nlicense: mit\n---\n\nMade anew.\n")


def test_a_card_that_was_made_is_replaced_by_that_of_the_new_model(
    server, read
):
    for card in (CARD, CARD, ANOTHER):
        push_to_hub(read, "me/lm", card)
        assert card.text in server.repos["me/lm"]["README.md"].decode()


def test_a_card_that_people_have_changed_is_not_written_over(
    server, read, copy
):
    push_to_hub(read, "me/lm", CARD)
    there = server.repos["me/lm"]
    there["README.md"] = there["README.md"].replace(b"mit", b"apache-2.0")
    before = dict(there)
    assert "README.md of me/lm is not as" in refused(read, card=ANOTHER)
    (copy / "README.md").write_text("Another of mine.\n")
    assert "--overwrite_card" in refused(copy)
    assert there == before
    # What is theirs goes up again, from the folder; without a card it stays.
    (copy / "README.md").write_bytes(there["README.md"])
    push_to_hub(copy, "me/lm")
    push_to_hub(read, "me/lm")
    assert there == before
    push_to_hub(read, "me/lm", ANOTHER, overwrite_card=True)
    assert b"Made anew." in there["README.md"]


def test_what_others_write_meanwhile_is_not_written_over(
    server, read, monkeypatch
):
    push_to_hub(read, "me/lm", CARD)
    check = hub._check_card

    def meanwhile(*arguments):
        check(*arguments)
        server.repos["me/lm"]["README.md"] = b"of somebody else"

    monkeypatch.setattr(hub, "_check_card", meanwhile)
    assert "somebody has changed it meanwhile" in refused(read, card=ANOTHER)
    assert server.repos["me/lm"]["README.md"] == b"of somebody else"


def test_a_licence_is_needed(server, model, capsys):
    with pytest.raises(SystemExit):
        main([str(model), "me/lm"])
    assert "--licence apache-2.0" in capsys.readouterr().err
    assert not server.asked


def not_a_number(folder):
    path = folder / LM / "model.safetensors"
    state = load_file(path)
    state["model.norm.weight"][0] = float("nan")
    save_file(state, path, {"format": "pt"})


def cut(folder):
    path = folder / "vocoder.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lead_out(folder):
    path = folder / "phonetic.safetensors"
    path.rename(folder.parent / "secret")
    path.symlink_to(folder.parent / "secret")


def write(old, new):
    def change(folder):
        path = folder / "hyperparams.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (
            lambda f: (f / "hyperparams.yaml").unlink(),
            FileNotFoundError,
            "no hy",
        ),
        (
            lambda f: (f / "vocoder.safetensors").unlink(),
            FileNotFoundError,
            "voc",
        ),
        (lambda f: shutil.rmtree(f / LM), FileNotFoundError, LM),
        (
            lambda f: (f / LM / "model.safetensors").unlink(),
            FileNotFoundError,
            "no .*safetensors",
        ),
        (
            lambda f: [p.unlink() for p in (f / LM).glob("tokenizer*")],
            FileNotFoundError,
            "model/language_model",
        ),
        (cut, CheckpointError, "model/vocoder.safetensors"),
        (not_a_number, CheckpointError, "model.norm.weight is NaN"),
        (lead_out, ValueError, "phonetic.safetensors is a link out"),
        *(
            (
                write("sample_rate: 16000", f"sample_rate: 16000\n{line}"),
                ValueError,
                "line .* names a place on this machine",
            )
            for line in (
                "mine: /home/somebody/vocoder",
                "mine: [/home/somebody/vocoder]",
                "mine:\n    - ~/vocoder",
                "# of /home/somebody",
            )
        ),
        (write("lobes.vocoder.UnitVocoder", "x.Y"), UntrustedError, "list"),
        (
            write("    language_model: !ref <language_model>\n", ""),
            ValueError,
            "no language_model among its modules",
        ),
    ],
)
def test_what_is_no_whole_model_is_not_sent(server, copy, damage, error, said):
    damage(copy)
    with pytest.raises(error, match=said):
        push_to_hub(copy, "me/lm")
    assert not server.asked


def refused(model, name="me/lm", **options):
    with pytest.raises(HubError) as error:
        push_to_hub(model, name, **options)
    assert TOKEN not in str(error.value)
    return str(error.value)


def test_who_may_not_write_is_told_what_to_do(server, read, monkeypatch):
    assert "name a namespace of your own" in refused(read, "you/lm")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert "hf auth login" in refused(read)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(read)
    assert not server.repos


def test_no_network(read, server, monkeypatch):
    server.shutdown()
    server.server_close()
    assert "check the network" in refused(read)


def test_another_model_is_not_written_over(server, read):
    server.repos["me/lm"] = {"README.md": b"", "flux.safetensors": b""}
    assert "holds something else, such as flux" in refused(read)


def test_what_is_private_is_not_put_where_all_can_see_it(server, read):
    server.repos["me/lm"] = {"hyperparams.yaml": b""}
    assert "everybody can see it" in refused(read, private=True)
    assert len(server.repos["me/lm"]) == 1


@pytest.mark.parametrize("name", ["lm", "a/b/c", "me/..", "", "me/"])
def test_names(read, name):
    with pytest.raises(ValueError, match="write namespace/name"):
        push_to_hub(read, name)


def test_no_figures_but_those_of_the_model(report):
    found = read_report(str(report))
    assert (found.name, found.title) == ("asr", "Transcripts of test")
    assert found.figures == [
        Figure("WER", 2.61, "1.88 to 3.75"),
        Figure("systems, base, f0_error", 0.95),
        Figure("accuracy, emov", 60.0, "± 2.50"),
    ]
    assert found.settings == {"num_beams": 4}


def test_a_folder_may_have_an_equals_sign(report):
    folder = report.rename(report.with_name("beams=4"))
    assert read_report(str(folder)).name == "beams=4"
    assert read_report(f"LibriSpeech={folder}").name == "LibriSpeech"


@pytest.mark.parametrize("content", ["{", "[]", '{"WER": 2}'])
def test_what_is_no_report(tmp_path, content):
    with pytest.raises(FileNotFoundError, match="no summary.json"):
        read_report(f"LibriSpeech={tmp_path}")
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(ValueError, match="summary.json"):
        read_report(f"LibriSpeech={tmp_path}")


def test_a_record_tells_the_training_and_not_the_place(
    tmp_path, recording, monkeypatch
):
    place = tmp_path / "home of somebody"
    corpus = place / "units"
    prepare({"train": [("a", {"wav": recording, "text": "boats"})]}, corpus)
    before = place / "text" / "model"
    before.mkdir(parents=True)
    write_record(before, {"steps": 7, "started_from": "org/base"})
    hparams = {
        "pretrained": str(before / LM),
        "corpus_folders": [str(corpus)],
        "text_files": [str(place / "stories.txt")],
        "seed": 1986,
        "step_rows": 2,
        "row_tokens": 512,
        "codec": str(place / "codec"),
    }
    (before / LM).mkdir()
    script = place / "recipes" / "TinySpeech" / "pretraining" / "train.py"
    command = [str(script), "hparams/a.yaml", f"--text_files=[{place}/b.txt]"]
    record = training_record(hparams, arguments=command)
    assert record["command"] == (
        "recipes/TinySpeech/pretraining/train.py hparams/a.yaml "
        "'--text_files=[b.txt]'"
    )
    [told] = record["corpora"]
    assert told == {"name": "units", "utterances": 1, "hours": 0.0}
    text_only = {"mode": "a", "shares": {"a": {"text": 1, "speech": None}}}
    assert "corpora" not in training_record(hparams | text_only)
    assert record["before"]["steps"] == 7 and record["step_tokens"] == 1024
    for secret in (
        "somebody",
        str(tmp_path),
        "/home",
        f"/{getpass.getuser()}/",
    ):
        assert secret not in json.dumps(record)
    card = model_card("me/lm", {}, "mit", record=record)
    assert card.data.base_model == ["org/base"]
    assert "Training 2 of 2" in card.text


def test_an_export_without_a_record_keeps_none_of_another(
    load, checkpoints, tmp_path
):
    lm = load(checkpoints, "base").mods.language_model
    for training in ({"steps": 3}, None):
        export_model(lm, tmp_path, "tinyspeech", training=training)
        assert (tmp_path / "training.json").is_file() == (training is not None)


# Of control characters YAML has none.
TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)


@settings(max_examples=50)
@given(TEXTS, TEXTS, st.floats(0, 1e6), TEXTS)
def test_any_names_make_a_card_that_can_be_read(name, title, value, setting):
    figures = [Figure(name, value)]
    report = Report(name, f"Transcripts {title}", "", figures, {"a": setting})
    report_of_wer = Report(name, report.title, "", [Figure("WER", value)], {})
    record = {"corpora": [{"name": name}], "texts": [title], "command": setting}
    card = model_card(
        "me/lm",
        {"a.yaml": {"kind": name}},
        "mit",
        (),
        (),
        [report, report_of_wer],
        record,
    )
    again = ModelCard(str(card))
    assert again.data.to_dict() == card.data.to_dict()
    assert again.data.license == "mit"
    rows = [line for line in card.text.splitlines() if line.startswith("| ")]
    for row in rows:
        assert row.replace("\\\\", "").replace("\\|", "").count("|") in (3, 4)


NAMES = st.text(st.characters(categories=["L", "N"]), min_size=3, max_size=9)


@given(st.lists(NAMES, min_size=1, max_size=4), st.sampled_from("/~"))
def test_of_paths_the_last_name_alone_is_told(names, root):
    secret = [f"_{name} _" for name in names]
    path = root + "/".join([*secret, "units"])
    for argument in (path, f"--a={path}", f"--a=[x, {path}]", f"a: '{path}'"):
        told = without_folders(argument)
        assert not any(name in told for name in secret)
        assert "units" in told


@pytest.mark.parametrize("name", ["o'brien", "smith,john", "a b", "a=b"])
def test_no_part_of_a_path_is_told(name):
    for argument in ("--a={}", "--a=[x, {}]", "--a=[{},/home/{}/more]"):
        told = without_folders(argument.replace("{}", f"/home/{name}/units"))
        assert "home" not in told and "units" in told
        assert not {*re.split(r"\W", name)} & {*re.split(r"\W", told)} - {
            "",
            "a",
        }


def test_no_secret_is_told():
    command = ["train.py", "--hub_token=hf_abc", "--wandb_key", "abc", "--lr=1"]
    record = training_record({"row_tokens": 4}, arguments=command)
    told = "train.py --hub_token=... --wandb_key ... --lr=1"
    assert record["command"] == told


def test_on_the_hub_names_and_below_here_paths_stay():
    for told in (
        "--pretrained=org/lm-2.0",
        "hparams/a.yaml",
        "{text: 1}",
        "0.5",
    ):
        assert without_folders(told) == told
