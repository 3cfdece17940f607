"""STSP on an archive of the exact layout, its score counted anew."""

import importlib.util
import json
import logging
from itertools import count
from pathlib import Path
from statistics import fmean, stdev

import pytest
import soundfile
import torch
from tokenizers import ByteLevelBPETokenizer, processors
from transformers import (
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

from spiritlm_plugin.inference.generation import Generation
from spiritlm_plugin.inference.spiritlm import SpiritLM
from spiritlm_plugin.metrics.sentiment_classifiers import (
    load_classifier,
    tokenize,
)

RECIPE = Path(__file__).parents[2] / "recipes" / "STSP"
EMOTIONS = {
    "amused": "positive",
    "happy": "positive",
    "angry": "negative",
    "sad": "negative",
    "neutral": "neutral",
    "default": "neutral",
}
EMOV = {"amused": "Amused", "angry": "Angry", "neutral": "Neutral"}
WORDS = "this was a good long day and the thing went well".split()
SILENT = [3004, 3005]


def load_script(name):
    spec = importlib.util.spec_from_file_location(
        f"stsp_{name}", RECIPE / f"{name}.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def archive(recording, tmp_path_factory):
    """Write the archive; its text classifier has no tokenizer."""
    folder = tmp_path_factory.mktemp("stsp")
    samples, rate = soundfile.read(recording)
    pieces = count()

    def write_wav(path):
        (folder / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        piece = samples[500 * next(pieces) :][:9000]
        soundfile.write(folder / "data" / path, piece, rate)
        return path

    def spoken(emotion, path, speaker, number):
        return {
            "emotion": emotion,
            "sentiment": EMOTIONS[emotion],
            "wav_path": write_wav(path),
            "split": "test",
            "speaker": speaker,
            "id": number,
        }

    emov = [
        spoken(
            emotion,
            f"emov/{speaker}/{name}/{emotion}_1-28_{i:04}.wav",
            speaker,
            -4792320029370491913 - i,
        )
        for i, speaker in enumerate(["bea", "jenie", "josh", "sam"])
        for emotion, name in EMOV.items()
        if speaker in ("bea", "sam") or emotion == "amused"
    ]
    for i, row in enumerate(emov):
        row["id"] -= 1000 * i
    read = [
        spoken(
            style,
            f"expresso/{speaker}_{style}_00001.wav",
            speaker,
            4792320029370491913 - 10 * i - j,
        )
        for i, speaker in enumerate(["ex01", "ex02"])
        for j, style in enumerate(["happy", "sad", "default"])
    ]
    texts = [
        {
            "emotion": "laughing",
            "sentiment": sentiment,
            "asr": " ".join(WORDS[i : i + 4]),
            "split": "test",
            "speaker": f"ex0{i}",
            "id": 3000 + i,
        }
        for i, sentiment in enumerate(["positive", "negative", "neutral"])
    ]
    texts[0]["id"] = -17
    texts += [
        {"sentiment": "neutral", "asr": words, "speaker": "ex01", "id": number}
        for number, words in zip(SILENT, (" ", None))
    ]
    for name, rows in {
        "emov/emov.test": emov,
        "expresso/expresso_read.test": read,
        "expresso/expresso_asr.test": texts,
    }.items():
        write(folder, name, rows)
    wavs = [row["wav_path"] for row in read]
    for name in ("s2s", "s2t", "t2t", "t2s"):
        parts = {"s": wavs, "t": [f"{w} day" for w in WORDS]}
        write(
            folder,
            f"few_shot/{name}",
            [
                {
                    "sentiment": sentiment,
                    "prompt": parts[name[0]][i],
                    "generation": parts[name[2]][-1 - i],
                }
                for i, sentiment in enumerate(["positive", "neutral"] * 2)
            ]
            + [
                {
                    "sentiment": "negative",
                    "prompt": parts[name[0]][i],
                    "generation": parts[name[2]][-1 - i],
                }
                for i in (4, 5)
            ],
        )
    write_classifiers(folder)
    return folder


def write(folder, name, rows):
    path = folder / "manifest" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def byte_tokenizer():
    """Return one as RoBERTa's: pieces of bytes."""
    pieces = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces.train_from_iterator(WORDS, 280, 1, False, special)
    pieces._tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces._tokenizer,
        model_max_length=30,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def write_classifiers(folder):
    torch.manual_seed(1)
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    text = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=40,
        initializer_range=1.0,
        id2label=dict(enumerate(["negative", "neutral", "positive"])),
    )
    text = RobertaForSequenceClassification(text)
    embeddings = text.roberta.embeddings
    with torch.no_grad():
        # What is judged is what stands behind the first token.
        embeddings.word_embeddings.weight[tokenizer.cls_token_id] = 0
        embeddings.position_embeddings.weight.zero_()
        embeddings.token_type_embeddings.weight.zero_()
    speech = Wav2Vec2Config(
        conv_dim=[8] * 7,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=8,
        id2label=dict(
            enumerate(["happy", "angry", "sleepy", "sad", "default"])
        ),
    )
    speech = Wav2Vec2ForSequenceClassification(speech)
    for name, parts in {
        "text_classifier": [text],
        "speech_classifier": [speech, Wav2Vec2FeatureExtractor()],
        "older/text": [text],
        "older/speech": [speech],
    }.items():
        for part in parts:
            part.save_pretrained(folder / "model" / name)


def records_of(archive, *names):
    """Read manifests without the package: sentiments by id, by dataset."""
    found = {}
    for name in names:
        lines = (archive / "manifest" / name).read_text().splitlines()
        dataset = Path(name).name.partition(".")[0]
        for row in map(json.loads, lines):
            found[row["id"]] = dataset, row["sentiment"], row
    return found


def predictions_of(path):
    rows = map(json.loads, path.read_text().splitlines())
    return {row["id"]: row["pred"] for row in rows}


PROMPTS = {
    "s": ("emov/emov.test.jsonl", "expresso/expresso_read.test.jsonl"),
    "t": ("expresso/expresso_asr.test.jsonl",),
}


@pytest.fixture(scope="module")
def evaluated(archive, checkpoints, tmp_path_factory):
    """Let a small random model be judged, as the benchmark's script does."""
    folder = tmp_path_factory.mktemp("out")
    load_script("evaluate").main(
        [
            str(RECIPE / "hparams" / "evaluate.yaml"),
            f"--data_folder={archive}",
            f"--output_folder={folder}",
            f"--release={checkpoints}",
            f"--text_tokenizer={archive / 'tokenizer'}",
            "--released_settings=True",
            "--shots=[0, 3]",
            "--runs=2",
            "--context=2048",
            "--dtype=float32",
        ]
    )
    return folder


def test_the_score_is_that_of_the_predictions(archive, evaluated, capsys):
    summary = json.loads((evaluated / "summary.json").read_text())
    assert len(list((evaluated / "predictions").iterdir())) == 4 * 2 * 2
    for direction, by_shots in summary["directions"].items():
        gold = records_of(archive, *PROMPTS[direction[0]])
        for shots, figures in by_shots.items():
            stem = evaluated / "predictions" / f"{direction}_{shots}shot_run"
            runs = []
            for run in range(2):
                path = Path(f"{stem}{run}.jsonl")
                predicted = predictions_of(path)
                assert predicted.keys() == gold.keys()
                hits = {}
                for number, (dataset, sentiment, _) in gold.items():
                    hit = predicted[number] == sentiment
                    hits.setdefault(dataset, []).append(100 * hit)
                runs.append({name: fmean(h) for name, h in hits.items()})
            expected = {n: [run[n] for run in runs] for n in runs[0]}
            expected["all"] = [fmean(run.values()) for run in runs]
            for name, column in expected.items():
                found = figures["accuracy"][name]
                assert found["mean"] == pytest.approx(fmean(column), abs=1e-9)
                assert found["std"] == pytest.approx(stdev(column), abs=1e-9)
                if figures["interval"][name]:
                    low, high = figures["interval"][name]
                    assert low <= found["mean"] <= high
            figures.pop("accuracy")
    # The other script counts the same.
    command = [str(archive), "--datasets", "emov", "expresso_read"]
    paths = [evaluated / f"predictions/s2s_3shot_run{i}.jsonl" for i in (0, 1)]
    load_script("score").main([*command, "--predictions", *map(str, paths)])
    scored = json.loads(capsys.readouterr().out)
    report = (evaluated / "report.md").read_text()
    mean = f"{scored['accuracy']['all']['mean']:.1f}"
    low, high = scored["interval"]["all"]
    assert f"{mean} ± " in report and f"({low:.1f} to {high:.1f})" in report
    for setting in ("| tries | 3 |", "| speaker | 2 |", "| top_p | 0.95 |"):
        assert setting in report


def test_texts_are_judged_with_the_tokenizer(archive, evaluated):
    rows = (evaluated / "predictions.jsonl").read_text().splitlines()
    answers = {row["id"]: row for row in map(json.loads, rows)}
    assert len(answers) == 2 * 2 * 2 * (8 + 6) + 2 * 2 * 2 * 5
    written = [r for r in answers.values() if r["id"].split("2")[1][0] == "t"]
    assert len({row["predicted"] for row in written}) > 1
    classifier = archive / "model" / "text_classifier"
    model = RobertaForSequenceClassification.from_pretrained(classifier)
    tokenizer = byte_tokenizer()
    for row in written:
        inputs = tokenize(tokenizer, [row["continuation"]])
        with torch.inference_mode():
            best = int(model(**inputs).logits.argmax())
        assert row["predicted"] == model.config.id2label[best]


def test_texts_without_words_are_counted_and_judged(evaluated):
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["prompts"]["text"]["without_words"] == len(SILENT)
    rows = (evaluated / "predictions.jsonl").read_text().splitlines()
    for row in map(json.loads, rows):
        direction, _, number = row["id"].partition("_")
        if number.rpartition("/")[2] in map(str, SILENT):
            assert row["end_reason"] == "no_words"
            # An empty text has a verdict, a voice that says nothing has none.
            assert (row["predicted"] is None) == (direction == "t2s")
    assert "are not continued: 2." in (evaluated / "report.md").read_text()


def test_a_warning_counts_texts_without_words(archive, caplog):
    stsp = load_script("score").STSPArchive(archive)
    with caplog.at_level(logging.WARNING):
        records = stsp.records(["expresso_asr"], "test", "text")
    assert len(records) == 5
    assert "2 of 5 records without words, such as 3004" in caplog.text


def test_emotions_and_records_left_out_are_scored(archive, tmp_path, capsys):
    """Predictions as of the released script: emotions, no empty texts."""
    gold = records_of(archive, *PROMPTS["t"])
    names = ["happy", "default", "sad"] * 2
    lines = [
        {"id": number if i % 2 else str(number), "pred": name}
        for i, (number, name) in enumerate(zip(gold, names))
        if number != SILENT[1]
    ]
    path = tmp_path / "t2t.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    command = [str(archive), "--datasets", "expresso_asr", "--modality"]
    command += ["text", "--predictions", str(path)]
    load_script("score").main(command)
    found = json.loads(capsys.readouterr().out)
    hits = [EMOTIONS[r["pred"]] == gold[int(r["id"])][1] for r in lines]
    assert found["accuracy"]["all"]["mean"] == 100 * fmean(hits)
    assert found["without_words"] == 2
    path.write_text(path.read_text().replace("happy", "delighted"))
    with pytest.raises(SystemExit):
        load_script("score").main(command)
    assert "line 1 of" in (error := capsys.readouterr().err)
    assert "'delighted' is no sentiment" in error


def test_an_empty_tokenizer_is_refused(archive):
    folder = archive / "model" / "text_classifier"
    message = r"text_classifier has 5 tokens.*--text_tokenizer"
    with pytest.raises(ValueError, match=message):
        load_classifier(folder, "text")
    judge = load_classifier(folder, "text", tokenizer=archive / "tokenizer")
    texts = [" ".join(WORDS[i:]) for i in range(8)]
    assert len(set(judge(texts))) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top_p=0.9"], "--top_p is 0.9, of the released settings 0.95"),
        (["--speaker", "1"], "--speaker is 1, of the released settings 2"),
        (["--tries=0"], "--tries is 0"),
    ],
)
def test_other_settings_than_the_released_ones(archive, options, message):
    arguments = [
        str(RECIPE / "hparams" / "evaluate.yaml"),
        f"--data_folder={archive}",
        "--output_folder=" + str(archive / "refused"),
        "--released_settings=True",
        *options,
    ]
    with pytest.raises(ValueError, match=message):
        load_script("evaluate").main(arguments)


def test_a_silent_model_is_asked_three_times(
    archive, checkpoints, tmp_path, monkeypatch
):
    asked = []

    def generate(self, prompts, output, seed, **options):
        assert options["max_new_tokens"] == 300
        asked.extend(seed)
        return [Generation([], "end_of_sequence") for _ in prompts]

    monkeypatch.setattr(SpiritLM, "generate", generate)
    load_script("evaluate").main(
        [
            str(RECIPE / "hparams" / "evaluate.yaml"),
            f"--data_folder={archive}",
            f"--output_folder={tmp_path}",
            f"--release={checkpoints}",
            "--released_settings=True",
            "--directions=[s2s]",
            "--shots=[0]",
            "--runs=1",
        ]
    )
    assert len(asked) == len(set(asked)) == 3 * 14
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["directions"]["s2s"]["0"]["empty"] == 100
