"""Sentiment preservation counted by hand, and classifiers that fit."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

from spiritlm_plugin.dataio.corpus.stsp import Record
from spiritlm_plugin.metrics.sentiment import (
    PredictionFileError,
    most_common,
    read_predictions,
    sentiment_accuracy,
    sentiment_intervals,
    write_predictions,
)
from spiritlm_plugin.metrics.sentiment_classifiers import (
    SpeechClassifier,
    TextClassifier,
    find_classifier,
    load_classifier,
    load_tokenizer,
    word_tokenizer,
)

SCORE = Path(__file__).parents[2] / "recipes" / "STSP" / "score.py"
RECORDS = [
    Record("1", "emov", "positive", "a"),
    Record("2", "emov", "negative", "b"),
    Record("3", "emov", "neutral", "c"),
    Record("4", "emov", "neutral", "d"),
    Record("5", "expresso", "positive", "e"),
    Record("6", "expresso", "negative", "f"),
]
GOLD = {record.id: record.sentiment for record in RECORDS}


def test_counted_by_hand():
    runs = [
        GOLD | {"1": "negative", "5": "neutral"},  # 3 of 4, 1 of 2
        GOLD | {"6": None},  # 4 of 4, 1 of 2
        GOLD | {"2": None, "3": None, "4": "positive", "5": "negative"},
    ]
    found = sentiment_accuracy(RECORDS, runs)
    # 75, 100, 25: mean 200 / 3, deviations 8.3, 33.3, -41.7.
    assert found["emov"]["mean"] == pytest.approx(200 / 3)
    assert found["emov"]["std"] == pytest.approx(38.188, abs=0.001)
    assert found["expresso"] == {"mean": 50, "std": 0}
    # 62.5, 75, 37.5
    assert found["all"]["mean"] == pytest.approx(175 / 3)
    assert found["all"]["std"] == pytest.approx(19.094, abs=0.001)


def test_oracle_and_constants():
    oracle = sentiment_accuracy(RECORDS, [GOLD])
    assert oracle["all"] == {"mean": 100, "std": 0}
    for sentiment, expected in (("neutral", 25), ("positive", 37.5)):
        constant = dict.fromkeys(GOLD, sentiment)
        found = sentiment_accuracy(RECORDS, [constant])["all"]["mean"]
        assert found == expected
    assert most_common(RECORDS) == 37.5


def test_predictions_that_do_not_fit():
    with pytest.raises(ValueError, match="6 records and 0 runs"):
        sentiment_accuracy(RECORDS, [])
    lacking = {k: v for k, v in GOLD.items() if k != "3"}
    with pytest.raises(PredictionFileError, match="lacks.* 1 ids, such as 3"):
        sentiment_accuracy(RECORDS, [GOLD, lacking])
    with pytest.raises(PredictionFileError, match="not tested, 1 ids.* 9"):
        sentiment_accuracy(RECORDS, [GOLD | {"9": "neutral"}])
    with pytest.raises(PredictionFileError, match="'happy' of 2"):
        sentiment_accuracy(RECORDS, [GOLD | {"2": "happy"}])


def test_prediction_files(tmp_path):
    path = tmp_path / "s2t.jsonl"
    big = "4792320029370491913"
    write_predictions(path, {big: "positive", "-3": None})
    lines = path.read_text().splitlines()
    assert lines[0] == f'{{"id": {big}, "pred": "positive"}}'
    assert lines[1] == '{"id": -3, "pred": null}'
    assert read_predictions(path) == {big: "positive", "-3": None}
    path.write_text(path.read_text() + lines[0])
    with pytest.raises(PredictionFileError, match=f"{big} twice.*line 3"):
        read_predictions(path)
    for line in ('{"id": 1}', "[1]", "{"):
        path.write_text(f"{lines[0]}\n{line}\n")
        with pytest.raises(PredictionFileError, match="line 2 of .*s2t"):
            read_predictions(path)
    with pytest.raises(FileNotFoundError, match="no such file of pred"):
        read_predictions(tmp_path / "none.jsonl")


def test_prediction_files_as_they_come(tmp_path):
    path = tmp_path / "s2t.jsonl"
    path.write_bytes('\ufeff{"id": 1, "pred": "sad"}\r\n\r\n'.encode())
    assert read_predictions(path) == {"1": "negative"}
    path.write_bytes(b'{"id": "caf\xe9", "pred": "sad"}')
    with pytest.raises(PredictionFileError, match=r"s2t.jsonl is not UTF-8"):
        read_predictions(path)


@pytest.mark.parametrize("other", ["x", str(2**63), str(-(2**63) - 1), "007"])
def test_ids_of_a_file_are_of_one_type(tmp_path, other):
    path = tmp_path / "s2t.jsonl"
    write_predictions(path, {"-17": "positive", other: "neutral"})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["-17", other]


def test_a_number_is_the_same_id_as_its_digits(tmp_path):
    path = tmp_path / "s2t.jsonl"
    path.write_text('{"id": -17, "pred": "Happy"}\n{"id": "18", "pred": null}')
    assert read_predictions(path) == {"-17": "positive", "18": None}
    path.write_text(path.read_text() + '\n{"id": "-17", "pred": "sad"}')
    with pytest.raises(PredictionFileError, match="-17 twice.*line 3"):
        read_predictions(path)
    for fault in ('"pred": "furious"', '"id": 4.5e18', '"id": true'):
        path.write_text(f'{{"id": 1, "pred": "sad", {fault}}}')
        with pytest.raises(PredictionFileError, match="cannot read line 1"):
            read_predictions(path)


def test_intervals_are_by_speaker():
    names = ["positive", "negative"]
    records = [
        Record(f"{speaker}{i}", "emov", "positive", "a", speaker)
        for speaker in ("bea", "sam")
        for i in range(50)
    ]
    # One speaker is always understood, the other never.
    run = {r.id: names[r.speaker == "sam"] for r in records}
    assert sentiment_intervals(records, [run])["all"] == (0, 100)
    alone = [replace(record, speaker=None) for record in records]
    low, high = sentiment_intervals(alone, [run])["all"]
    assert 35 < low < 50 < high < 65
    # Datasets weigh the same, whatever their size.
    small = Record("x", "expresso", "neutral", "a", "ex01")
    other = Record("y", "expresso", "neutral", "a", "ex02")
    found = sentiment_intervals(
        [*records, small, other], [run | {"x": "neutral", "y": "neutral"}]
    )
    assert found["expresso"] is None  # two that do not differ
    assert sentiment_intervals([small], [{"x": "neutral"}])["all"] is None


def test_records_without_words_may_be_left_out():
    records = [*RECORDS, Record("7", "expresso", "neutral", "")]
    left_out = sentiment_accuracy(records, [GOLD])
    assert left_out["expresso"]["mean"] == 100
    judged = sentiment_accuracy(records, [GOLD | {"7": "positive"}])
    assert judged["expresso"]["mean"] == pytest.approx(200 / 3)


def test_score_of_another_system(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("score", SCORE)
    score = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(score)
    manifest = tmp_path / "manifest" / "x" / "texts.test.jsonl"
    manifest.parent.mkdir(parents=True)
    rows = [
        {"id": int(r.id), "sentiment": r.sentiment, "asr": r.prompt}
        for r in RECORDS
    ]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    path = tmp_path / "run.jsonl"
    write_predictions(path, GOLD | {"1": "neutral"})
    arguments = [str(tmp_path), "--datasets", "texts", "--modality", "text"]
    arguments += ["--predictions", str(path)]
    score.main(arguments)
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"]["texts"]["mean"] == pytest.approx(500 / 6)
    path.write_text('{"id": 1, "pred": "neutral"}')
    with pytest.raises(SystemExit):
        score.main(arguments)
    assert "lacks predictions of 5 ids" in capsys.readouterr().err


@pytest.fixture(scope="module")
def text_model():
    tokenizer = word_tokenizer(["the cat sat down", "all day long"], 16)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=16,
        num_labels=3,
    )
    return BertForSequenceClassification(config), tokenizer


@pytest.fixture(scope="module")
def speech_model():
    config = Wav2Vec2Config(
        conv_dim=[8] * 7,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=8,
        num_labels=3,
    )
    return Wav2Vec2ForSequenceClassification(config)


def test_folders_are_found_and_loaded(text_model, speech_model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no text classifiers"):
        find_classifier(tmp_path, "text")
    model, tokenizer = text_model
    labels = {0: "angry", 1: "Neutral", 2: "positive"}
    for part in (model, speech_model):
        part.config.id2label = labels
    for saved in (model, tokenizer):
        saved.save_pretrained(tmp_path / "a")
    for saved in (speech_model, Wav2Vec2FeatureExtractor()):
        saved.save_pretrained(tmp_path / "b" / "c")
    assert find_classifier(tmp_path, "text") == tmp_path / "a"
    assert find_classifier(tmp_path, "speech") == tmp_path / "b" / "c"
    names = ["negative", "neutral", "positive"]
    text = load_classifier(tmp_path / "a", "text")
    assert text.labels == names
    texts = ["the cat", "", "the dog sat " * 20, "all day long"]
    found = text(texts)
    assert found[1] is None
    # Alone they get the verdict that they get together.
    assert found == [text([one])[0] for one in texts]
    speech = load_classifier(tmp_path / "b" / "c", "speech")
    wavs = [torch.randn(9000), None, torch.randn(16000), torch.zeros(1000)]
    found = speech(wavs)
    assert found[1] is found[3] is None
    assert {found[0], found[2]} <= set(names)
    with pytest.raises(ValueError, match="3 outputs, got 2.*--text_labels"):
        load_classifier(tmp_path / "a", "text", labels=["sad", "happy"])


def test_the_folders_of_the_benchmark_come_first(text_model, tmp_path):
    for name in ("text_classifier", "old"):
        text_model[0].save_pretrained(tmp_path / name)
    assert find_classifier(tmp_path, "text") == tmp_path / "text_classifier"


def test_the_best_known_label_counts(text_model, caplog):
    model, tokenizer = text_model
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias[:] = torch.tensor([1.0, 3.0, 2.0])
    labels = ["angry", "disgusted", "Amused"]
    classify = TextClassifier(model, tokenizer, labels)
    assert "labels disgusted mean no sentiment" in caplog.text
    assert classify(["the cat", ""]) == ["positive", None]
    classify = TextClassifier(model, tokenizer, labels, judges_empty=True)
    assert classify(["the cat", ""]) == ["positive", "positive"]


def test_tokenizers_that_do_not_fit(text_model, tmp_path):
    model, tokenizer = text_model
    for saved, folder in (
        (tokenizer, "fits"),
        (word_tokenizer(["the cat"], 16), "small"),
        (word_tokenizer(["the cat sat down all day long now"], 16), "large"),
        (word_tokenizer(["het vroor vannacht erg koud buiten"], 16), "dutch"),
    ):
        saved.save_pretrained(tmp_path / folder)
    assert len(load_tokenizer(tmp_path / "fits", model)) == len(tokenizer)
    for folder, message in (
        ("small", "small has 6 tokens, the classifier 11"),
        ("large", "large has 12 tokens, the classifier 11"),
        ("none", "cannot read a tokenizer from .*none"),
    ):
        with pytest.raises((ValueError, OSError), match=message) as caught:
            load_tokenizer(tmp_path / folder, model)
        assert "--text_tokenizer" in str(caught.value)
    dutch = word_tokenizer(["het vroor vannacht erg koud buiten"], 16)
    assert dutch("this day")["input_ids"].count(dutch.unk_token_id) == 2
    config = BertConfig(
        vocab_size=10,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    other = BertForSequenceClassification(config)
    with pytest.raises(ValueError, match="dutch knows no word of 'this is"):
        load_tokenizer(tmp_path / "dutch", other)


def test_labels_and_rates_that_do_not_fit(text_model, speech_model):
    with pytest.raises(ValueError, match="'LABEL_0' is neither"):
        TextClassifier(*text_model, ["LABEL_0", "LABEL_1", "LABEL_2"])
    with pytest.raises(ValueError, match="hears 8000 Hz"):
        SpeechClassifier(
            speech_model,
            Wav2Vec2FeatureExtractor(sampling_rate=8000),
            ["sad", "neutral", "happy"],
        )
