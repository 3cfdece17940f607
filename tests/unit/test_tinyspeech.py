"""TinySpeech: the recipe's corpus, at its smallest size."""

import json
import re
import shutil
import sys
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import HubertModel

from spiritlm_plugin.inference import SpeechCodec
from spiritlm_plugin.integrations.parts import load_part, read_parts

pytest.importorskip("espeakng_loader")

RECIPE = Path(__file__).parents[2] / "recipes" / "TinySpeech"
SPLITS = ["train", "valid", "test", "test_unseen_voice"]
TASKS = [
    f"{split}_{task}"
    for split in ("valid", "test")
    for task in ("storycloze", "lexical", "syntactic")
]
KEYS = "wav duration speaker style sentiment intent kind text words phones"


@pytest.fixture(scope="module")
def prepare():
    sys.path.insert(0, str(RECIPE))
    import tinyspeech_prepare

    yield tinyspeech_prepare.prepare_tinyspeech
    sys.path.remove(str(RECIPE))


@pytest.fixture(scope="module")
def corpus(prepare, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tinyspeech")
    prepare(folder, "debug", jobs=1)
    return folder


@pytest.fixture(scope="module")
def spanish_corpus(prepare, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spanish")
    prepare(folder, "debug", language="es", jobs=1)
    return folder


@pytest.fixture(scope="module")
def spanish(prepare):
    from tinyspeech.language import load_language

    return load_language("es")


@pytest.fixture(scope="module")
def full_plan(prepare):
    from tinyspeech.corpus import plan

    return plan("full", 0)


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text("utf-8"))


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(params=["corpus", "spanish_corpus"])
def any_corpus(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("name", SPLITS + TASKS)
def test_entries_follow_the_schema(any_corpus, name):
    corpus = any_corpus
    entries = read(corpus, name)
    assert entries
    for entry in entries.values():
        assert set(KEYS.split()) <= set(entry)
        path = entry["wav"].replace("{data_root}", str(corpus))
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert info.subtype == "PCM_16"
        assert info.frames / 16000 == pytest.approx(entry["duration"])
        assert entry["kind"] == "command" or entry["intent"] is None


@pytest.mark.parametrize("name", SPLITS + TASKS)
def test_times_are_in_order(any_corpus, name):
    for entry in read(any_corpus, name).values():
        assert [w for w, _, _ in entry["words"]] == entry["text"].split()
        for spans in (entry["words"], entry["phones"]):
            times = [t for _, start, end in spans for t in (start, end)]
            assert times == sorted(times)
            assert all(start < end for _, start, end in spans)
            assert 0 <= times[0] and times[-1] <= entry["duration"] + 1e-3


def test_words_are_where_the_sound_is(any_corpus):
    corpus = any_corpus
    for entry in read(corpus, "test").values():
        path = entry["wav"].replace("{data_root}", str(corpus))
        samples, rate = soundfile.read(path)
        spoken = np.zeros(len(samples), dtype=bool)
        for _, start, end in entry["words"]:
            spoken[int(start * rate) : int(end * rate)] = True
        energy = samples**2
        assert energy[spoken].sum() > 0.99 * energy.sum()


def test_every_voice_and_style_is_heard(corpus):
    from tinyspeech.language import load_language
    from tinyspeech.synthesis import STYLES

    english = load_language("en")
    train = read(corpus, "train").values()
    assert {e["speaker"] for e in train} == set(english.speakers)
    assert {e["style"] for e in train} == set(STYLES)
    unseen = read(corpus, "test_unseen_voice").values()
    assert {e["speaker"] for e in unseen} == set(english.unseen_speaker)


def test_who_speaks_can_be_chosen(corpus, prepare):
    from tinyspeech.corpus import plan

    chosen = plan("debug", 0, speakers=["gus", "anna"])
    texts = {n: [u.text for u in found] for n, found in chosen.items()}
    assert texts == {
        name: [entry["text"] for entry in read(corpus, name).values()]
        for name in chosen
    }
    for found in chosen.values():
        assert {u.speaker for u in found} <= {"gus", "anna"}
    assert {u.speaker for u in chosen["train"]} == {"gus", "anna"}
    with pytest.raises(ValueError, match="holds TinySpeech of version"):
        prepare(corpus, "debug", speakers="gus, anna")


def test_a_voice_that_is_not_there_is_refused(prepare, tmp_path):
    with pytest.raises(ValueError, match="no voice 'alba'; there are anna"):
        prepare(tmp_path / "corpus", "debug", speakers="gus,alba")
    assert not (tmp_path / "corpus").exists()
    with pytest.raises(ValueError, match="no language 'tlh'"):
        prepare(tmp_path / "corpus", "debug", language="tlh")


def test_processes_and_folder_do_not_matter(corpus, prepare, tmp_path):
    prepare(tmp_path, "debug", jobs=2)
    assert contents(tmp_path) == contents(corpus)


def test_another_seed_is_another_corpus(corpus, prepare, tmp_path):
    prepare(tmp_path, "debug", seed=1, jobs=2)
    one, other = (read(f, "train").values() for f in (corpus, tmp_path))
    assert {e["text"] for e in one}.isdisjoint(e["text"] for e in other)


def test_goes_on_after_a_kill(corpus, prepare, tmp_path):
    folder = tmp_path / "corpus"
    shutil.copytree(corpus, folder)
    for path in folder.glob("*.json"):
        if path.name != "corpus.json":
            path.unlink()
    (folder / "shards" / "train_000.json").unlink()
    wavs = sorted((folder / "wav" / "train" / "000").iterdir())
    wavs[-1].unlink()
    wavs[0].with_suffix(".wav.tmp").write_bytes(b"half a file")
    kept = folder / "wav" / "test" / "000"
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    prepare(folder, "debug", jobs=1)
    assert contents(folder) == contents(corpus)
    assert before == {p: p.stat().st_mtime_ns for p in kept.iterdir()}


def test_refuses_a_folder_of_another_corpus(corpus, prepare):
    with pytest.raises(ValueError, match="choose another folder"):
        prepare(corpus, "debug", seed=7)


def test_stories_share_their_context(corpus):
    stories = defaultdict(dict)
    for entry in read(corpus, "test_storycloze").values():
        stories[entry["story"]][entry["ending"]] = entry
    for endings in stories.values():
        assert set(endings) == {"correct", "incorrect", "topic"}
        assert len({e["context_text"] for e in endings.values()}) == 1
        assert len({e["ending_text"] for e in endings.values()}) == 3
        assert len({e["ending_start"] for e in endings.values()}) == 1
        heard = []
        for entry in endings.values():
            both = f"{entry['context_text']} {entry['ending_text']}"
            assert entry["text"] == both
            first = len(entry["context_text"].split())
            start = entry["ending_start"]
            assert start <= entry["words"][first][1]
            assert start - entry["words"][first - 1][2] > 0.2
            path = entry["wav"].replace("{data_root}", str(corpus))
            heard.append(soundfile.read(path)[0][: int(start * 16000)])
        assert all(np.array_equal(h, heard[0]) for h in heard)


def test_pairs_have_a_right_and_a_wrong_item(full_plan):
    from tinyspeech.corpus import world_words

    for name in TASKS:
        if "storycloze" in name:
            continue
        pairs = defaultdict(dict)
        for utterance in full_plan[name]:
            pair = pairs[utterance.extra["pair"]]
            pair[utterance.extra["correct"]] = utterance
        for pair in pairs.values():
            assert set(pair) == {True, False}
            assert pair[True].text != pair[False].text
            assert pair[True].speaker == pair[False].speaker
            if "lexical" in name:
                assert pair[True].text in world_words()
                assert pair[False].text not in world_words()


def test_splits_are_disjoint(full_plan, corpus):
    plain = {
        name: {u.text for u in full_plan[name] if u.kind != "story"}
        for name in SPLITS
    }
    for i, one in enumerate(SPLITS):
        for other in SPLITS[i + 1 :]:
            assert plain[one].isdisjoint(plain[other])
    contexts = {
        name: {u.sentences[:4] for u in full_plan[name] if u.kind == "story"}
        for name in [*SPLITS, "valid_storycloze", "test_storycloze"]
    }
    train = contexts.pop("train")
    assert all(train.isdisjoint(other) for other in contexts.values())
    lines = (corpus / "text" / "train.txt").read_text().splitlines()
    assert len(lines) == 300
    assert set(lines).isdisjoint(plain["valid"] | plain["test"])


def test_sentences_are_short_and_varied(full_plan):
    texts = [u.text for u in full_plan["train"] if u.kind == "sentence"]
    lengths = Counter(len(text.split()) for text in texts)
    assert set(lengths) == set(range(3, 21))
    assert len(set(texts)) == len(texts)


def test_vocabulary_has_the_right_size(full_plan):
    from tinyspeech.corpus import world_words

    spoken = {
        word
        for name in SPLITS
        for utterance in full_plan[name]
        for word in utterance.text.split()
    }
    assert 1000 <= len(spoken) <= 1500
    assert 1000 <= len(world_words()) <= 1500


def test_style_carries_sentiment_only_where_words_do(full_plan):
    styles = defaultdict(Counter)
    for utterance in full_plan["train"]:
        styles[utterance.sentiment][utterance.style] += 1
    neutral = styles["neutral"].values()
    assert max(neutral) - min(neutral) <= 9
    for sentiment, style in (("positive", "happy"), ("negative", "sad")):
        share = styles[sentiment][style] / styles[sentiment].total()
        assert share == pytest.approx(0.85, abs=0.04)


def test_speakers_are_balanced_in_each_kind(full_plan):
    counts = Counter((u.kind, u.speaker) for u in full_plan["train"])
    for kind in {kind for kind, _ in counts}:
        of_kind = [n for (k, _), n in counts.items() if k == kind]
        assert len(of_kind) == 6 and max(of_kind) - min(of_kind) <= 1


def test_nonwords_look_like_words(prepare):
    from tinyspeech.pairs import nonwords

    consonants = "bdflmnprtv"
    words = ["garden", "harder", "ladder", "marble", "barber", "table"]
    for word, new in nonwords(words, consonants).items():
        for other in new:
            assert other not in words and len(other) == len(word)
            assert sum(a != b for a, b in zip(word, other)) == 1


@pytest.mark.parametrize(
    "slip",
    ["agreement", "determiner", "participle", "order", "case", "infinitive"],
)
def test_a_slip_makes_a_minimal_pair(prepare, slip):
    from tinyspeech.language import load_language
    from tinyspeech.pairs import sentence_pair

    grammar = load_language("en").grammar
    right, wrong = sentence_pair(grammar, slip, Random(0))
    one, other = Counter(right.lower().split()), Counter(wrong.lower().split())
    assert sum((one - other).values()) <= 3


def test_help_is_clear(prepare, capsys):
    from tinyspeech_prepare import main

    with pytest.raises(SystemExit):
        main(["--help"])
    assert "espeakng-loader" in capsys.readouterr().out


def test_some_splits_alone_are_the_same(prepare, corpus, tmp_path):
    stats = prepare(tmp_path, "debug", jobs=1, splits="valid, test_lexical")
    assert set(stats) == {"total", "valid", "test_lexical"}
    assert not (tmp_path / "train.json").exists()
    for path in [*tmp_path.glob("[vt]*.json"), *tmp_path.rglob("*.wav")]:
        whole = corpus / path.relative_to(tmp_path)
        assert path.read_bytes() == whole.read_bytes()
    with pytest.raises(ValueError, match=r"of version .*; choose another"):
        prepare(tmp_path, "debug", jobs=1)
    with pytest.raises(ValueError, match="no split 'dev'; there are train"):
        prepare(tmp_path / "a", "debug", splits="dev")


def test_a_corpus_remembers_its_language(spanish_corpus, spanish):
    settings = json.loads((spanish_corpus / "corpus.json").read_text())
    assert settings["language"] == "es"
    train = read(spanish_corpus, "train").values()
    assert {e["speaker"] for e in train} == set(spanish.speakers)
    letters = set("".join(e["text"] for e in train))
    assert letters & set("áéíóúñ") and letters <= set(
        "abcdefghijklmnopqrstuvwxyzáéíóúñ "
    )


@pytest.mark.parametrize(
    ("verb", "tense", "forms"),
    [
        ("cantar", "present", "canto cantas canta cantamos cantan"),
        ("pedir", "past", "pedí pediste pidió pedimos pidieron"),
        ("dormir", "subjunctive", "duerma duermas duerma durmamos duerman"),
        ("jugar", "past", "jugué jugaste jugó jugamos jugaron"),
        ("leer", "past", "leí leíste leyó leímos leyeron"),
        ("construir", "present", "construyo construyes construye construimos "
         "construyen"),
        ("recoger", "subjunctive", "recoja recojas recoja recojamos recojan"),
        ("seguir", "present", "sigo sigues sigue seguimos siguen"),
        ("sentarse", "present", "siento sientas sienta sentamos sientan"),
        ("conocer", "subjunctive", "conozca conozcas conozca conozcamos "
         "conozcan"),
        ("tener", "future", "tendré tendrás tendrá tendremos tendrán"),
        ("ver", "imperfect", "veía veías veía veíamos veían"),
        ("traer", "past", "traje trajiste trajo trajimos trajeron"),
    ],
)  # fmt: skip
def test_spanish_verbs_are_conjugated(prepare, verb, tense, forms):
    from tinyspeech.spanish.verbs import conjugate

    assert " ".join(conjugate(verb, tense)) == forms


@settings(max_examples=25)
@given(st.integers(0, 2**32))
def test_spanish_sentences_are_written_as_spanish_is(spanish, seed):
    """Contractions, "e" and "u", marks at both ends, composed letters."""
    rng = Random(seed)
    mood = rng.choice(["positive", "negative"])
    told = spanish.story(rng)
    for text in (
        spanish.grammar(rng).sentence(),
        spanish.opinion(mood, rng),
        spanish.command(rng.choice(spanish.intents), rng),
        *told.context,
        told.ending,
    ):
        assert text == unicodedata.normalize("NFC", text)
        assert not re.search(r"\b(a|de) el\b|\by h?i[^e]|\bo h?o", text, re.I)
        assert not re.search(r"[{}\[\]|<>]|  | [,.?!]", text)
        assert ("¿" in text) == ("?" in text)
        assert ("¡" in text) == ("!" in text)
        first = re.sub("[^¿¡]*[¿¡]|^", "", text, count=1)
        assert first[0].isupper() or "¿" in text[1:]


@settings(max_examples=50)
@given(st.integers(0, 2**32))
def test_spanish_phrases_agree(spanish, seed):
    """Article, noun and adjective have one gender and one number."""
    from tinyspeech.spanish import lexicon
    from tinyspeech.spanish.inflection import agree, plural

    phrase = spanish.grammar(Random(seed)).np("thing+animal+fruit", 2)
    determiner, *rest = phrase.text.split()
    if determiner in ("todos", "todas"):
        determiner, *rest = rest
    nouns = {
        (plural(w) if phrase.plural else w): feminine
        for name in lexicon.NOUNS
        for feminine, words in enumerate(lexicon.NOUNS[name])
        for w in words
    }
    assert nouns[rest[0]] == phrase.feminine
    feminine = phrase.feminine and rest[0] not in lexicon.STRESSED_A
    if determiner in ("el", "la", "los", "las", "un", "una"):
        assert determiner[-1] in ("as" if feminine else "olns")
        assert (determiner[-1] == "s") == phrase.plural
    adjectives = {w for words in lexicon.ADJECTIVES.values() for w in words}
    forms = {agree(w, phrase.feminine, phrase.plural) for w in adjectives}
    described = re.sub(r" (de|que) .*", "", " ".join(rest[1:]))
    assert set(described.split()) <= forms | {"y", "muy"}


def test_a_spanish_slip_makes_a_minimal_pair(spanish):
    from tinyspeech.pairs import sentence_pair

    for slip in spanish.slips:
        for seed in range(5):
            pair = sentence_pair(spanish.grammar, slip, Random(seed))
            right, wrong = (Counter(t.lower().split()) for t in pair)
            assert sum((right - wrong).values()) <= 2
            assert right.total() == wrong.total()


def test_what_another_language_starts_from(tmp_path, monkeypatch):
    """The parts are those of the model, as they were trained."""
    monkeypatch.syspath_prepend(RECIPE / "spanish")
    from start import write_start

    write_start(tmp_path)
    shipped = SpeechCodec.from_hparams("tinyspeech")
    part = load_part("phonetic", tmp_path / "phonetic")
    hubert = HubertModel.from_pretrained(tmp_path / "hubert").eval()
    wavs = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([16000])
    with torch.inference_mode():
        units, _ = part.eval()(wavs, lengths)
        expected, _ = shipped.mods.tokenizer.phonetic(wavs, lengths)
        encoder = part.get_submodule("encoder.model")
        one, other = (m(wavs).last_hidden_state for m in (hubert, encoder))
    assert torch.equal(units, expected)
    assert torch.equal(one, other)
    weights = read_parts(vocoder=tmp_path / "vocoder").states["vocoder"]
    assert weights["embeddings.phonetic.weight"].shape == (200, 64)
