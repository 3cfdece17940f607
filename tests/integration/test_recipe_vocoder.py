"""The recipe of the vocoders, on a few seconds of speech."""

import importlib.util
import json
import shutil
from itertools import cycle
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.dataio.corpus.manifests import ManifestError
from spiritlm_plugin.dataio.corpus.stores import CorpusError, load_corpus
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.evaluation import resynthesis
from spiritlm_plugin.evaluation.predictions import PredictionsError
from spiritlm_plugin.integrations.assemble import assemble
from spiritlm_plugin.integrations.parts import build, load_part, save_part
from spiritlm_plugin.integrations.release import read_release
from spiritlm_plugin.utils.recipes import load_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "TinySpeech" / "vocoder"
STYLES = ("happy", "neutral", "sad")
SMALL = [
    "--vocoder={embedding_dim: 4, duration_dim: 4, generator: {channels: 32, "
    "resblock_kernels: [3], resblock_dilations: [[1]]}}",
    "--discriminator={periods: [2], resolutions: [256], channels: 2, "
    "max_channels: 4}",
    "--adversarial_step=3",
    "--crop_frames=5",
    "--sample_count=1",
    "--train_loader={batch_size: 2}",
]


def load_script(name, recipe=RECIPE):
    spec = importlib.util.spec_from_file_location(
        f"vocoder_{name}", recipe / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def script(name):
    return load_script(name).main


@pytest.fixture(scope="module")
def tokenizer(checkpoints, tmp_path_factory):
    """Parts of the small release, as arguments."""
    root = tmp_path_factory.mktemp("parts")
    release = read_release(checkpoints, "expressive")
    modules = build(release)
    arguments = []
    for kind in ("phonetic", "pitch", "style"):
        folder = save_part(root / kind, release.arguments[kind], modules[kind])
        arguments.append(f"--{kind}={folder}")
    return arguments


@pytest.fixture(scope="module")
def manifests(recording, tmp_path_factory):
    """Pieces of a recording, by two speakers in three styles."""
    folder = tmp_path_factory.mktemp("manifests")
    samples, rate = soundfile.read(recording)
    for split, count in {"train": 8, "valid": 2, "test": 4}.items():
        items = {}
        for i in range(count):
            path = folder / f"{split}{i}.wav"
            piece = samples[1600 * i : 1600 * i + 12000]
            soundfile.write(path, piece, rate)
            items[path.stem] = {
                "wav": f"{{data_root}}/{path.name}",
                "duration": len(piece) / rate,
                "speaker": ["ann", "bob"][i % 2],
                "style": STYLES[i % 3],
                "text": "boats",
            }
        (folder / f"{split}.json").write_text(json.dumps(items))
    return folder


@pytest.fixture(scope="module")
def corpus(manifests, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    hparams = RECIPE / "hparams" / "tokenize.yaml"
    script("tokenize_corpus")(
        [
            str(hparams),
            f"--manifest_folder={manifests}",
            f"--output_folder={folder}",
            *tokenizer,
        ]
    )
    return folder


def train_arguments(kind, corpus, tokenizer, output, *more, epochs=2):
    parts = tokenizer[:1] if kind == "base" else tokenizer
    return [
        str(RECIPE / "hparams" / f"{kind}.yaml"),
        f"--corpus_folder={corpus}",
        f"--output_folder={output}",
        f"--number_of_epochs={epochs}",
        *parts,
        *SMALL,
        *more,
    ]


@pytest.fixture(scope="module")
def trained(corpus, tokenizer, tmp_path_factory):
    folders = {}
    for kind in ("base", "expressive"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        arguments = train_arguments(kind, corpus, tokenizer, folders[kind])
        script("train")(arguments)
    return folders


def weights(folder):
    return load_file(folder / "vocoder" / "model.safetensors")


def test_corpus(corpus):
    rows = load_corpus(corpus / "train")
    assert len(rows) == 8
    assert rows[1]["speaker"] == "bob"
    assert len(rows[0]["phonetic_units"]) == 18
    assert len(rows[0]["pitch_units"]) == 9


def test_parts(trained):
    base = load_part("vocoder", trained["base"] / "vocoder")
    assert not base.expressive
    assert base.speakers == ["ann", "bob"]
    assert base.default_global_style == STYLES.index("neutral")
    assert base.embeddings["global_style"].num_embeddings == 3
    assert base.style_names == [*STYLES]
    expressive = load_part("vocoder", trained["expressive"] / "vocoder")
    assert expressive.expressive
    assert "global_style" not in expressive.embeddings
    assert set(expressive.style_names) <= set(STYLES)
    for vocoder in (base, expressive):
        learned = vocoder.speaker_recognizer.log_probabilities
        assert learned.shape[0] == 2 and learned.std() > 0
        units = SpeechUnits([1, 2, 3], pitch=[4], style=[5])
        with torch.inference_mode():
            [wav] = vocoder.synthesize([units], [1])
        assert len(wav) == 3 * 640


def test_samples_and_log(trained):
    samples = sorted((trained["base"] / "samples").iterdir())
    names = [path.name for path in samples]
    assert names == [
        f"valid0_{label}.wav" for label in ("epoch1", "epoch2", "original")
    ]
    log = (trained["base"] / "train_log.txt").read_text()
    assert "train discriminator" in log and "valid same_phonetic" in log


def test_resumed_run_is_the_uninterrupted_one(
    corpus, tokenizer, trained, tmp_path
):
    """Also where the discriminators begin in the first half."""
    for epochs in (1, 2):
        script("train")(
            train_arguments(
                "expressive", corpus, tokenizer, tmp_path, epochs=epochs
            )
        )
    expected = weights(trained["expressive"])
    for name, tensor in weights(tmp_path).items():
        assert torch.equal(tensor, expected[name]), name


def without_frames(argument):
    """Leave out the block of the frames, where the generator is named."""
    return argument.replace("channels: 32", "channels: 32, frame_dilations: []")


@pytest.mark.parametrize("had_frames", [True, False])
def test_goes_on_from_a_trained_vocoder(
    corpus, tokenizer, trained, tmp_path, had_frames
):
    """With a rate of zero nothing is learned, and nothing lost."""
    first = trained["expressive"]
    if not had_frames:
        first = tmp_path / "first"
        arguments = train_arguments(
            "expressive", corpus, tokenizer, first, epochs=1
        )
        script("train")([*map(without_frames, arguments)])
    options = [f"--pretrained={first / 'vocoder'}", "--lr=0.0"]
    arguments = train_arguments(
        "expressive", corpus, tokenizer, tmp_path, *options, epochs=1
    )
    script("train")(arguments)
    expected, found = weights(first), weights(tmp_path)
    new = {name for name in found if name.startswith("generator.frames.")}
    assert new and set(found) - set(expected) == (set() if had_frames else new)
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_a_vocoder_of_another_shape_is_refused(
    corpus, tokenizer, trained, tmp_path
):
    folder = trained["base"] / "vocoder"
    arguments = train_arguments(
        "expressive", corpus, tokenizer, tmp_path, f"--pretrained={folder}"
    )
    wider = [
        a.replace("embedding_dim: 4", "embedding_dim: 6") for a in arguments
    ]
    with pytest.raises(CheckpointError, match=r"embeddings\.phonetic"):
        script("train")(wider)


@pytest.mark.parametrize(
    "change",
    [
        "--formants=[0.8, 1.2]",
        "--pitch_ratios=[[5, 4], [4, 5]]",
        "--equalizer=12",
    ],
)
def test_voices_are_changed_the_same_way_again(
    manifests, tokenizer, tmp_path, change
):
    def tokenize(name, *options):
        script("tokenize_corpus")(
            [
                str(RECIPE / "hparams" / "tokenize.yaml"),
                f"--manifest_folder={manifests}",
                f"--output_folder={tmp_path / name}",
                "--splits=[valid]",
                *options,
                *tokenizer,
            ]
        )
        corpus = load_corpus(tmp_path / name / "valid")
        return torch.cat(list(corpus["phonetic_units"]))

    plain, changed = tokenize("plain"), tokenize("changed", change)
    assert torch.equal(changed, tokenize("again", change))
    assert len(plain) == len(changed)
    assert not torch.equal(plain, changed)
    with pytest.raises(CorpusError, match="other changes"):
        tokenize("plain", change)


def test_a_tokenizer_must_be_named(manifests, tmp_path):
    arguments = [
        str(RECIPE / "hparams" / "tokenize.yaml"),
        f"--manifest_folder={manifests}",
        f"--output_folder={tmp_path}",
    ]
    with pytest.raises(ValueError, match="name the tokenizer"):
        script("tokenize_corpus")(arguments)


def test_units_of_another_tokenizer(corpus, tokenizer, tmp_path):
    source = Path(tokenizer[0].partition("=")[2])
    other = shutil.copytree(source, tmp_path / "phonetic")
    state = load_file(other / "model.safetensors")
    state["quantizer.layers.0.weight"] += 1
    save_file(state, other / "model.safetensors")
    parts = [f"--phonetic={other}", *tokenizer[1:]]
    arguments = train_arguments("expressive", corpus, parts, tmp_path / "out")
    with pytest.raises(CorpusError, match="another phonetic tokenizer"):
        script("train")(arguments)


@pytest.fixture(scope="module")
def parts(tokenizer, trained):
    vocoders = [f"--{kind}={f / 'vocoder'}" for kind, f in trained.items()]
    return [*tokenizer, *vocoders]


def report_arguments(manifests, output, *more):
    return [
        str(RECIPE / "hparams" / "evaluate.yaml"),
        f"--manifest_folder={manifests}",
        f"--output_folder={output}",
        "--batch_size=2",
        *more,
    ]


def listening(patch):
    """Replace the recognizer by one that mishears the second of 5 systems."""
    heard = cycle(["boats", "boots", "boats", "boats", "boats"])

    def load(source, device):
        return lambda wavs: [next(heard)] * len(wavs)

    patch.setattr(resynthesis, "load_recognizer", load)


@pytest.fixture(scope="module")
def reported(manifests, parts, tmp_path_factory):
    """Folder of a report on both vocoders."""
    folder = tmp_path_factory.mktemp("report")
    module = load_script("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        listening(patch)
        command = report_arguments(
            manifests, folder, *parts, "--recognizer=whisper"
        )
        module.main(command)
    return folder


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text())


def read_rows(folder):
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def systems_of(folder):
    return read_summary(folder)["systems"]


def assert_same_figures(systems, expected):
    assert list(systems) == list(expected)
    for system, figures in systems.items():
        assert list(figures) == list(expected[system])
        for name, value in figures.items():
            other = expected[system][name]
            if value is None or other is None:
                assert value is other, (system, name)
                continue
            close = pytest.approx(other, abs=1e-4, nan_ok=True)
            assert value == close, (system, name)


def test_report(reported):
    summary = systems_of(reported)
    base, expressive = summary["base"], summary["expressive"]
    assert list(summary) == [
        "original",
        "base",
        "base, durations predicted",
        "expressive",
        "expressive, durations predicted",
    ]
    assert expressive["bits_per_second"] > base["bits_per_second"] > 0
    assert 0 <= base["f0_frame_error"] <= 1
    assert base["mel_distance"] > 0 and base["unit_edit_distance"] > 0
    words = {"WER", "WER_interval", "WER_whisper", "WER_whisper_interval"}
    for name in ("references", "insertions"):
        words |= {f"empty_{name}", f"empty_{name}_whisper"}
    styles = {"style_accuracy", "style_accuracy_interval"}
    assert set(summary["original"]) == words | styles
    assert [f["WER"] for f in summary.values()] == [0, 100, 0, 0, 0]
    predicted = summary["base, durations predicted"]
    assert set(predicted) == {"bits_per_second"} | words
    assert base["WER_interval"] is None  # few, and alike
    for name in ("style_accuracy", "f0_frame_error", "unit_edit_distance"):
        low, high = base[f"{name}_interval"] or [base[name]] * 2
        assert low <= base[name] <= high
    text = (reported / "report.md").read_text()
    assert "| recognizer | whisper |" in text and "| utterances | 4 |" in text
    assert "| 100.0 |" in text and "| empty_" not in text
    assert "F0 frame error" in text and "WER" in text
    assert "| test1 | boats | boats | boots | boats | boats |" in text
    rows = read_rows(reported)
    assert [row["id"] for row in rows] == [f"test{i}" for i in range(4)]
    assert rows[1]["speaker"] == "bob"
    assert read_summary(reported)["settings"]["seed"] == 1986
    assert list(rows[0]["systems"]) == list(summary)
    assert rows[0]["systems"]["base"]["style"] in STYLES
    assert (reported / "f0.png").stat().st_size > 10_000
    assert len(list((reported / "wavs").iterdir())) == 4 * 5
    settings = json.loads((reported / "settings.json").read_text())
    digests = settings["weights"]
    assert digests["base"]["tokenizer"] == digests["expressive"]["tokenizer"]
    assert digests["base"]["vocoder"] != digests["expressive"]["vocoder"]


def test_a_stopped_report_goes_on(manifests, parts, reported, tmp_path):
    folder = Path(shutil.copytree(reported, tmp_path / "report"))
    for name in ("summary.json", "report.md", "f0.png"):
        (folder / name).unlink()
    path = folder / "predictions.jsonl"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    path.unlink()
    started = path.with_name("predictions.1.jsonl")
    started.write_text("".join(lines[:2]) + lines[2][:50])
    module = load_script("evaluate")
    asked = []
    read_audio = resynthesis.read_audio

    def counting(path):
        asked.append(Path(path).stem)
        return read_audio(path)

    command = report_arguments(
        manifests, folder, *parts, "--recognizer=whisper"
    )
    with pytest.MonkeyPatch.context() as patch:
        listening(patch)
        patch.setattr(resynthesis, "read_audio", counting)
        module.main(command)
    assert {name for name in asked if "_" not in name and "test" in name} == {
        "test2",
        "test3",
    }
    assert path.read_text() == whole
    assert_same_figures(systems_of(folder), systems_of(reported))
    with pytest.raises(PredictionsError, match=r"another speaker .* now bob"):
        module.main([*command, "--speaker=bob"])


def test_report_of_a_whole_model(
    manifests, tokenizer, trained, reported, tmp_path
):
    """The same as of its parts, but for who listens."""
    options = dict(option[2:].split("=", 1) for option in tokenizer)
    vocoder = trained["expressive"] / "vocoder"
    model = assemble(tmp_path / "model", vocoder=vocoder, **options)
    arguments = [f"--model={model}", "--sample_count=1"]
    script("evaluate")(
        report_arguments(manifests, tmp_path / "out", *arguments)
    )
    expected = {
        system: {
            k: v
            for k, v in figures.items()
            if not k.startswith(("WER", "empty_"))
        }
        for system, figures in systems_of(reported).items()
        if "base" not in system
    }
    assert_same_figures(systems_of(tmp_path / "out"), expected)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "No recognizer" in text and "WER" not in text


def test_report_of_meta_checkpoints(manifests, checkpoints, folders, tmp_path):
    """The same as of the folder that they are converted to."""
    sources = {
        "model": [f"--model={folders['base']}"],
        "release": [f"--release={checkpoints}", "--variant=base"],
    }
    for name, source in sources.items():
        command = report_arguments(
            manifests, tmp_path / name, *source, "--speaker=1"
        )
        script("evaluate")([*command, "--utterances=2"])
    systems = systems_of(tmp_path / "release")
    assert "base" in systems
    assert_same_figures(systems, systems_of(tmp_path / "model"))


def test_report_of_a_model_that_is_loaded_already(
    manifests, checkpoints, load, tmp_path, monkeypatch
):
    source = f"--release={checkpoints}", "--variant=base"
    options = *source, "--speaker=1", "--utterances=2"
    script("evaluate")(report_arguments(manifests, tmp_path / "own", *options))
    command = report_arguments(manifests, tmp_path / "given", *options)
    hparams, run_opts = load_recipe(command, resynthesis.ResynthesisSettings)
    monkeypatch.setattr(
        resynthesis, "load_codecs", lambda *_: pytest.fail("loaded")
    )
    lm = load(checkpoints, "base", "float32")
    resynthesis.evaluate(hparams, run_opts, lm)
    assert_same_figures(
        systems_of(tmp_path / "given"), systems_of(tmp_path / "own")
    )


BASE_PARTS = ["--phonetic={phonetic}", "--base={base}"]


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "name what is measured"),
        (["--phonetic={phonetic}"], "name what is measured"),
        (["--base={base}"], "name what is measured"),
        ([*BASE_PARTS, "--model=tinyspeech"], "name what is measured"),
        (["--model=no_such"], "no such folder: no_such"),
        (["--release=no_such"], "missing in no_such"),
        (["--phonetic=no_such", "--base={base}"], "missing in no_such"),
        (["--model=tinyspeech"], "unknown speaker 'ann'"),
        ([*BASE_PARTS, "--speaker=eve"], "unknown speaker 'eve'"),
        ([*BASE_PARTS, "--expressive={base}"], "are both base"),
        (
            ["--phonetic={phonetic}", "--expressive={expressive}"],
            "made for 64 pitch units and the tokenizer has 0",
        ),
        ([*BASE_PARTS, "--split=dev"], "no such manifest.*dev;"),
    ],
)
def test_bad_settings(
    manifests, tokenizer, trained, tmp_path, monkeypatch, options, message
):
    module = load_script("evaluate")
    monkeypatch.setattr(
        resynthesis, "predict", lambda *a: pytest.fail("computed")
    )
    named = {kind: folder / "vocoder" for kind, folder in trained.items()}
    named["phonetic"] = tokenizer[0].partition("=")[2]
    options = [option.format(**named) for option in options]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        module.main(report_arguments(manifests, tmp_path, *options))
    assert not (tmp_path / "settings.json").exists()


def test_a_recognizer_needs_texts(manifests, parts, tmp_path):
    items = json.loads((manifests / "test.json").read_text())
    for item in items.values():
        del item["text"]
        item["wav"] = item["wav"].format(data_root=manifests)
    (tmp_path / "test.json").write_text(json.dumps(items))
    command = report_arguments(tmp_path, tmp_path / "out", *parts)
    with pytest.raises(ManifestError, match="text"):
        script("evaluate")([*command, "--recognizer=whisper"])


def test_expresso_has_the_same_options(manifests, parts, reported, tmp_path):
    other = RECIPE.parents[1] / "Expresso" / "vocoder"
    options = [
        [
            line.partition(":")[0]
            for line in (folder / "hparams" / "evaluate.yaml")
            .read_text()
            .splitlines()
            if line[:1].isalpha()
        ]
        for folder in (RECIPE, other)
    ]
    assert options[0] == options[1]
    command = report_arguments(manifests, tmp_path, *parts, "--utterances=2")
    command[0] = str(other / "hparams" / "evaluate.yaml")
    load_script("evaluate", other).main(command)
    assert list(systems_of(tmp_path)) == list(systems_of(reported))


def test_texts_that_are_not_known_and_ids_that_are_paths(tmp_path):
    heard = {"transcript": "oh no"}
    rows = {
        "a/b": {"speaker": None, "text": None, "style": None},
        "c": {"speaker": None, "text": "oh", "style": None},
        "d": {"speaker": None, "text": "?", "style": None},
    }
    for row in rows.values():
        row["systems"] = {"original": heard}
    [(_, figures)] = resynthesis.sum_up(rows).items()
    assert figures["WER"] == 100
    assert figures["empty_references"] == 1
    assert figures["empty_insertions"] == 2
    [table] = resynthesis.apart_table({"original": figures})
    assert "| original | 1 | 2 |" in table
    for name in ("/etc/a", "../b", "a b"):
        path = resynthesis.recording_path(tmp_path, name, "base, again")
        assert path.parent == tmp_path and path.name.endswith(
            "_base,_again.wav"
        )


@pytest.mark.slow
def test_report_of_two_processes(manifests, parts, tmp_path, two_processes):
    script("evaluate")(report_arguments(manifests, tmp_path / "one", *parts))
    command = report_arguments(manifests, tmp_path / "two", *parts)
    two_processes(RECIPE / "evaluate.py", *command)
    one, two = tmp_path / "one", tmp_path / "two"
    assert_same_figures(systems_of(two), systems_of(one))
    assert [row["id"] for row in read_rows(two)] == [
        row["id"] for row in read_rows(one)
    ]
    for name in ("settings.json", "report.md"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
    wavs = [sorted(path.name for path in f.glob("wavs/*")) for f in (one, two)]
    assert wavs[0] == wavs[1]
    assert not list(two.glob("predictions.*.jsonl"))


@pytest.mark.slow
def test_two_processes(corpus, tokenizer, tmp_path, two_processes):
    arguments = train_arguments("base", corpus, tokenizer, tmp_path / "out")
    two_processes(RECIPE / "train.py", *arguments)
    assert load_part("vocoder", tmp_path / "out" / "vocoder").speakers
