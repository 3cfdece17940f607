"""Plain transformers gives our ids: the tokenizer files of a saved folder."""

import json
import random
import shutil
import warnings

import pytest
import sentencepiece
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from spiritlm_plugin.dataio.units.segments import Speech, Text
from spiritlm_plugin.dataio.units.text_tokenizers import (
    load_text_tokenizer,
    train_text_tokenizer,
)
from spiritlm_plugin.dataio.units.units import SpeechStream, SpeechUnits
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.pretrained.folders import local_folder

WORDS = [
    *("the", " farmer", " sees", "The", " 12", "3", "aaaa", "abab", "été"),
    *(" ", "   ", "\n", "\n\n", "\t", ".", "  -", "----", "]", "(", "'s"),
    *(
        "e\u0301",
        "\u0301",
        "日本",
        "한국",
        "مرحبا",
        "👍🏽",
        "👩‍👩‍👧",
        "\u200d",
        "▁",
    ),
]
HOSTILE = ["[Hu1]", "[Text]", "[St0]", "<s>", "</s>", "<unk>", "<0x41>", "["]
TOKENS = {"split_special_tokens": False}
WITHOUT = {"add_special_tokens": False}

words = st.sampled_from(WORDS) | st.characters(
    exclude_categories=["Cs"], exclude_characters="\0"
)
texts = st.lists(words | st.sampled_from(HOSTILE), max_size=12).map("".join)


def plain(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


def resaved(folder, new):
    """Save a tokenizer again, as transformers does."""
    plain(folder).save_pretrained(new)
    return new


def draw_string(rng, vocabulary):
    """Draw a prompt in the bracket notation, both modalities in it."""
    units = [t for t in vocabulary.speech_tokens() if t[1:3] in "HuPiSt"]
    parts = []
    for _ in range(rng.randint(1, 4)):
        text = "".join(rng.choices(WORDS, k=rng.randint(0, 8)))
        speech = "".join(rng.choices(units, k=rng.randint(1, 6)))
        parts.append(rng.choice([f"[Text]{text}", f"[Speech]{speech}"]))
    return "".join(parts)


def differences(vocabulary, tokenizer, count):
    """Count strings of which a tokenizer gives other ids, or another text."""
    rng = random.Random(0)
    prompts = [draw_string(rng, vocabulary) for _ in range(count)]
    texts = [
        "".join(rng.choices([*WORDS, *HOSTILE], k=rng.randint(1, 12)))
        for _ in range(count)
    ]
    ours = [vocabulary.encode_text(text) for text in texts]
    start = vocabulary.text.prompt_start
    pairs = [
        (
            tokenizer(prompts, **TOKENS).input_ids,
            [vocabulary.encode_string(prompt) for prompt in prompts],
        ),
        (tokenizer(texts).input_ids, [[*start, *ids] for ids in ours]),
        (tokenizer(texts, **WITHOUT).input_ids, ours),
        (
            tokenizer.batch_decode(ours, skip_special_tokens=True),
            [vocabulary.text.decode(ids) for ids in ours],
        ),
    ]
    return sum(a != b for pair in pairs for a, b in zip(*pair, strict=True))


def same(ours, theirs):
    """Tell whether two vocabularies have the same ids."""
    rng = random.Random(1)
    strings = [draw_string(rng, ours) for _ in range(50)]
    return ours.speech_tokens() == theirs.speech_tokens() and all(
        ours.encode_string(s) == theirs.encode_string(s) for s in strings
    )


@pytest.mark.parametrize("name", ["language_model", "language_model_base"])
def test_shipped_models(name, tmp_path):
    folder = local_folder("tinyspeech") / name
    vocabulary = Vocabulary.load(folder)
    assert differences(vocabulary, plain(folder), 1000) == 0
    again = resaved(folder, tmp_path / "again")
    assert differences(vocabulary, plain(again), 200) == 0
    assert same(vocabulary, Vocabulary.load(again))


@pytest.mark.parametrize("variant", ["base", "expressive"])
def test_released_models(variant, checkpoints, tmp_path):
    folder = checkpoints / "spiritlm_model" / f"spirit-lm-{variant}-7b"
    vocabulary = Vocabulary.load(folder)
    vocabulary.save(tmp_path)
    assert same(vocabulary, Vocabulary.load(tmp_path))
    assert differences(vocabulary, plain(tmp_path), 200) == 0


# Of these a saved folder must give back ids and texts.
MODELS = {
    "as trained here": {},
    "without a prefix": {"add_dummy_prefix": False},
    "without bytes": {"byte_fallback": False},
    "words in a piece": {"split_by_whitespace": False, "vocab_size": 500},
    "Gemma's pieces": {
        "user_defined_symbols": ["\n", "\n\n", "▁▁", "▁▁▁▁", "</h1>", "aa"],
        "add_dummy_prefix": False,
    },
}


@pytest.fixture(scope="module")
def sentencepieces(sentencepiece_model, tmp_path_factory):
    """Vocabularies of all kinds of SentencePiece models, and plain readers."""
    made = {}
    for name, options in MODELS.items():
        folder = tmp_path_factory.mktemp("model")
        model = sentencepiece_model(**options)
        (folder / "tokenizer.model").write_bytes(model)
        vocabulary = Vocabulary.extend(load_text_tokenizer(folder), 5, 3, 2)
        vocabulary.save(folder)
        made[name] = vocabulary, plain(folder)
    return made


@given(texts)
def test_texts_of_sentencepiece_models(sentencepieces, text):
    for name, (vocabulary, tokenizer) in sentencepieces.items():
        ids = vocabulary.encode_text(text)
        assert tokenizer(text, **WITHOUT).input_ids == ids, name
        assert not {*vocabulary.speech_tokens().values()} & {*ids}
        if name != "without bytes":
            decoded = tokenizer.decode(ids, skip_special_tokens=True)
            assert decoded == text.replace("▁", " "), name


def test_ids_behind_a_gap(sentencepiece_model, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model())
    first = len(load_text_tokenizer(tmp_path)) + 3
    names = ["[Hu1]", "[Text]", "[Hu0]", "[Speech]", "[St0]"]
    added = {name: first + i for i, name in enumerate(names)}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    vocabulary = Vocabulary.load(tmp_path)
    vocabulary.save(tmp_path)
    assert vocabulary.speech_tokens() == added
    assert differences(vocabulary, plain(tmp_path), 50) == 0
    again = Vocabulary.load(resaved(tmp_path, tmp_path / "again"))
    assert same(vocabulary, again)


@pytest.mark.parametrize("name", MODELS)
def test_saved_again_by_transformers(name, sentencepieces, tmp_path):
    vocabulary, tokenizer = sentencepieces[name]
    tokenizer.save_pretrained(tmp_path)
    assert not (tmp_path / "tokenizer.model").exists()
    again = Vocabulary.load(tmp_path)
    assert same(vocabulary, again)
    assert again.text.prompt_start == vocabulary.text.prompt_start
    assert len(again.text) == len(vocabulary.text)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model_type": "unigram"}, "not of the type BPE"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalizes text"),
    ],
)
def test_models_that_cannot_be_equal(
    sentencepiece_model, options, reason, tmp_path
):
    model = sentencepiece_model(["<turn>"], **options)
    (tmp_path / "tokenizer.model").write_bytes(model)
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"additional_special_tokens": ["<turn>"]}')
    vocabulary = Vocabulary.extend(load_text_tokenizer(tmp_path), 5)
    with pytest.warns(UserWarning, match=f"no tokenizer.json.*{reason}"):
        vocabulary.save(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"tokenizer.model", "added_tokens.json", config.name}
    again = Vocabulary.load(tmp_path)
    assert same(vocabulary, again)
    for text in (vocabulary.text, again.text):
        assert text.special == {"<unk>", "<s>", "</s>", "<turn>"}


def test_classes_that_read_in_their_own_way(tmp_path):
    text = train_text_tokenizer(["the cat sat on the mat"], 280)
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "qwen2"}')
    with pytest.warns(UserWarning, match="other ids: Qwen2Tokenizer"):
        Vocabulary.extend(text, 5).save(tmp_path)
    own = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert differences(Vocabulary.load(tmp_path), own, 50) == 0


@pytest.fixture(scope="module")
def hubs(hub_folder):
    """Folders of tokenizers without a SentencePiece model."""
    return {
        "byte-level": hub_folder(),
        "without a beginning": hub_folder(bos=None),
        "runs of spaces": hub_folder(plain=["    ", "  "]),
    }


HUBS = ["byte-level", "without a beginning", "runs of spaces"]


@pytest.mark.parametrize("name", HUBS)
def test_base_becomes_expressive(name, hubs, tmp_path):
    text = load_text_tokenizer(hubs[name])
    base = Vocabulary.extend(text, 7)
    base.save(tmp_path / "base")
    again = load_text_tokenizer(resaved(tmp_path / "base", tmp_path / "again"))
    for loaded in (load_text_tokenizer(tmp_path / "base"), again):
        assert len(loaded) == len(text)
        assert loaded.token_id("[Speech]") is None
        assert loaded.tail == base.speech_tokens()
    expressive = Vocabulary.extend(again, 7, 3, 2)
    expected = Vocabulary.extend(text, 7, 3, 2)
    assert same(expressive, expected)
    expressive.save(tmp_path / "expressive")
    assert differences(expected, plain(tmp_path / "expressive"), 100) == 0
    assert same(expected, Vocabulary.load(tmp_path / "expressive"))


@pytest.mark.parametrize("name", HUBS)
def test_folders_of_earlier_versions(name, hubs, tmp_path):
    tokenizer = plain(hubs[name])
    tokenizer.save_pretrained(tmp_path)
    expected = Vocabulary.extend(load_text_tokenizer(hubs[name]), 7, 3)
    first = len(tokenizer)
    assert min(expected.speech_tokens().values()) == first
    (tmp_path / "added_tokens.json").write_text(
        json.dumps(expected.speech_tokens())
    )
    assert same(expected, Vocabulary.load(tmp_path))


def metaspace(backend):
    """Put a space in front as transformers 5 does."""
    backend["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "first",
        "split": False,
    }
    backend["normalizer"] = None


def prepend(backend):
    """Put a space in front as transformers 4 does."""
    backend["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            backend["normalizer"],
        ],
    }


@pytest.mark.parametrize("in_front", [metaspace, prepend])
def test_a_llama_without_its_sentencepiece_model(in_front, tmp_path):
    folder = local_folder("tinyspeech") / "language_model"
    vocabulary = Vocabulary.load(folder)
    backend = json.loads((folder / "tokenizer.json").read_text())
    in_front(backend)
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    backend["decoder"]["decoders"].append(strip)
    backend["post_processor"] = None
    for name in ("tokenizer_config.json", "config.json"):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(backend))
    loaded = Vocabulary.load(tmp_path)
    assert loaded.text.prompt_start == vocabulary.text.prompt_start
    assert same(vocabulary, loaded)
    sees = vocabulary.encode_text(" sees")
    assert loaded.encode_text(" sees") == sees
    assert loaded.text.decode(sees) == " sees"
    loaded.save(tmp_path)
    assert differences(vocabulary, plain(tmp_path), 100) == 0


def test_spaces_that_a_model_has_learned_stay(hub_folder, tmp_path):
    # Trained and saved before they were left out.
    space = tokenizers.pre_tokenizers.Metaspace()
    tokenizer = plain(hub_folder(pre_tokenizer=space))
    tokenizer.save_pretrained(tmp_path)
    names = ["[Text]", "[Speech]", "[Hu0]"]
    added = {name: len(tokenizer) + i for i, name in enumerate(names)}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    for _ in range(2):
        vocabulary = Vocabulary.load(tmp_path)
        assert vocabulary.speech_tokens() == added
        assert vocabulary.text.prompt_start == [tokenizer.bos_token_id]
        ids = tokenizer("the cat", **WITHOUT).input_ids
        assert vocabulary.encode_text("the cat") == ids
        vocabulary.save(tmp_path)


def test_learned_spaces_stay_when_transformers_saves_again(
    hub_folder, tmp_path
):
    space = tokenizers.pre_tokenizers.Metaspace()
    early = of_version_01(hub_folder(pre_tokenizer=space), tmp_path / "early")
    vocabulary = Vocabulary.load(early)
    vocabulary.save(tmp_path / "ours")
    again = resaved(tmp_path / "ours", tmp_path / "again")
    assert not (again / "added_tokens.json").exists()
    loaded = Vocabulary.load(again)
    assert loaded.text.prompt_start == vocabulary.text.prompt_start
    assert same(vocabulary, loaded)
    # Of one that is saved again as it was, no file tells it.
    lost = resaved(early, tmp_path / "lost")
    with pytest.raises(ValueError, match="copy added_tokens.json") as error:
        Vocabulary.load(lost)
    assert str(lost) in str(error.value)
    shutil.copy(early / "added_tokens.json", lost)
    assert same(vocabulary, Vocabulary.load(lost))


def of_version_01(text, folder):
    """Write a folder as version 0.1 did, of a folder of text."""
    shutil.copytree(text, folder, dirs_exist_ok=True)
    first = len(load_text_tokenizer(text))
    names = ["[Text]", "[Speech]", "[Hu0]", "[Hu1]"]
    added = {name: first + i for i, name in enumerate(names)}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    return folder


@pytest.mark.parametrize("symbols", [[], ["\n\n", "<h1>"]])
def test_a_sentencepiece_model_of_version_01_saved_again(
    sentencepiece_model, symbols, tmp_path
):
    text = tmp_path / "text"
    text.mkdir()
    (text / "tokenizer.model").write_bytes(sentencepiece_model(symbols))
    early = of_version_01(text, tmp_path / "early")
    (early / "config.json").write_text('{"model_type": "llama"}')
    again = resaved(early, tmp_path / "again")
    assert not (again / "tokenizer.model").exists()
    if symbols:
        with pytest.raises(ValueError, match="and tokenizer.model"):
            Vocabulary.load(again)
    else:
        assert same(Vocabulary.load(early), Vocabulary.load(again))


def test_symbols_of_version_01_stay_out_of_reach(sentencepiece_model, tmp_path):
    symbols = ["\n", "<h1>", "▁▁", "[Hu7]"]
    proto = sentencepiece_model(symbols)
    text = tmp_path / "text"
    text.mkdir()
    (text / "tokenizer.model").write_bytes(proto)
    model = sentencepiece_model_pb2.ModelProto.FromString(proto)
    for piece in model.pieces:
        piece.type = 3 if piece.type == 4 else piece.type  # control
    model.normalizer_spec.add_dummy_prefix = False
    control = sentencepiece.SentencePieceProcessor(
        model_proto=model.SerializeToString()
    )
    vocabulary = Vocabulary.load(of_version_01(text, tmp_path / "early"))
    with pytest.warns(UserWarning, match="special piece is a single character"):
        vocabulary.save(tmp_path / "ours")
    again = Vocabulary.load(tmp_path / "ours")
    strings = ["a\nb", "<h1>the</h1>", "the  cat   sat", "[Hu7]\n\n<h1>"]
    for string in strings:
        ids = control.encode(string)
        assert vocabulary.encode_text(string) == ids
        assert again.encode_text(string) == ids
        assert load_text_tokenizer(text).encode(string) != ids
    assert same(vocabulary, again)
    assert again.text.special >= {"\n", "<h1>", "▁▁"}


def edited(folder, new, edit):
    """Copy a folder with another tokenizer.json."""
    shutil.copytree(folder, new, dirs_exist_ok=True)
    backend = json.loads((new / "tokenizer.json").read_text())
    edit(backend)
    (new / "tokenizer.json").write_text(json.dumps(backend))
    return new


def add_prefix_space(backend):
    """Put a space in front as tokenizers of RoBERTa's kind do."""
    backend["pre_tokenizer"]["add_prefix_space"] = True


def hole(backend):
    """Give the last piece a later id."""
    vocabulary = backend["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] += 7


def whole_words(backend):
    """Look up whole what stands between spaces, before it is merged."""
    split = {
        "type": "Split",
        "pattern": {"Regex": r"\s*\S+|\s+"},
        "behavior": "Isolated",
        "invert": False,
    }
    byte_level = backend["pre_tokenizer"] | {"use_regex": False}
    parts = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    backend["pre_tokenizer"] = parts
    backend["model"]["ignore_merges"] = True


def as_unigram(backend):
    """Take the pieces as those of a unigram model."""
    whole_words(backend)
    pieces = [[p, -9.0 + len(p)] for p in backend["model"]["vocab"]]
    backend["model"] = {"type": "Unigram", "unk_id": 0, "vocab": pieces}


def as_words(backend):
    """Take the pieces as the words of a model that knows no others."""
    whole_words(backend)
    model = {"type": "WordLevel", "unk_token": "<unk>"}
    backend["model"] = model | {"vocab": backend["model"]["vocab"]}


def test_byte_level_spaces_stand_in_front_of_a_prompt(hubs, tmp_path):
    text = edited(hubs["byte-level"], tmp_path / "text", add_prefix_space)
    bare = Vocabulary.extend(load_text_tokenizer(hubs["byte-level"]), 5)
    vocabulary = Vocabulary.extend(load_text_tokenizer(text), 5)
    start = plain(text).encode(" ", **WITHOUT)
    assert vocabulary.text.prompt_start == [*bare.text.prompt_start, *start]
    assert vocabulary.encode_text("the cat") == bare.encode_text("the cat")
    [segment] = vocabulary.decode(vocabulary.encode([Text("the cat")]))
    assert segment == Text("the cat")
    vocabulary.save(tmp_path / "ours")
    assert differences(vocabulary, plain(tmp_path / "ours"), 100) == 0
    again = resaved(tmp_path / "ours", tmp_path / "again")
    for folder in (tmp_path / "ours", again):
        loaded = Vocabulary.load(folder)
        assert loaded.text.prompt_start == vocabulary.text.prompt_start
        assert same(vocabulary, loaded)
    # What has learned to speak with one before each text goes on so.
    early = Vocabulary.load(of_version_01(text, tmp_path / "early"))
    assert early.text.prompt_start == bare.text.prompt_start
    assert early.encode_text("the cat") == plain(text).encode(
        "the cat", **WITHOUT
    )


@pytest.mark.parametrize("edit", [whole_words, as_unigram, as_words])
def test_names_that_a_tokenizer_finds_are_text(hubs, edit, tmp_path):
    text = edited(hubs["byte-level"], tmp_path / "text", edit)
    vocabulary = Vocabulary.extend(load_text_tokenizer(text), 5)
    control = [vocabulary.eos_id, *vocabulary.text.prompt_start]
    own = plain(text)("<eos>", split_special_tokens=True, **WITHOUT).input_ids
    assert own == [vocabulary.eos_id]
    names = ["<eos>", "<bos>", "<unk>", *vocabulary.speech_tokens()]
    rng = random.Random(0)
    for _ in range(100):
        string = "".join(rng.choices([*names, "a", " "], k=6))
        ids = vocabulary.encode_text(string)
        assert not {*control, *vocabulary.speech_tokens().values()} & {*ids}
        if edit is whole_words:
            assert vocabulary.text.decode(ids) == string
    cat = plain(text).encode("the cat", **WITHOUT)
    assert vocabulary.encode_text("the cat") == cat
    with pytest.warns(UserWarning, match="read <bos> in a text as that token"):
        vocabulary.save(tmp_path / "ours")
    assert same(vocabulary, Vocabulary.load(tmp_path / "ours"))


def test_a_character_that_a_tokenizer_makes_a_token(hubs, tmp_path):
    def ligature(backend):
        whole_words(backend)
        pattern = {"pattern": {"String": "\ufb06"}, "content": "<eos>"}
        backend["normalizer"] = {"type": "Replace", **pattern}

    text = load_text_tokenizer(edited(hubs["byte-level"], tmp_path, ligature))
    assert text.eos_id not in text.encode("<eos>")
    with pytest.raises(
        ValueError, match="\ufb06.*would become <eos>.*leave it"
    ):
        text.encode("\ufb06")


@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize("edits", [[], [hole], [hole, as_words], [as_unigram]])
def test_ids_with_holes(hubs, edits, gap, tmp_path):
    def edit(backend):
        for change in edits:
            change(backend)

    text = edited(hubs["byte-level"], tmp_path / "text", edit)
    first = len(load_text_tokenizer(text)) + gap
    names = ["[Text]", "[Hu1]", "[Speech]", "[Hu0]"]
    added = {name: first + i for i, name in enumerate(names)}
    (text / "added_tokens.json").write_text(json.dumps(added))
    vocabulary = Vocabulary.load(text)
    assert vocabulary.speech_tokens() == added
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "AutoTokenizer .* as that token")
        vocabulary.save(tmp_path / "ours")
    again = resaved(tmp_path / "ours", tmp_path / "again")
    for folder in (tmp_path / "ours", again):
        loaded = Vocabulary.load(folder)
        assert same(vocabulary, loaded)
        assert len(loaded.text) == len(vocabulary.text)
        assert loaded.kinds.tolist() == vocabulary.kinds.tolist()
        strings = ["[Text]the cat[Speech][Hu0][Hu1]", "[Speech][Hu1]"]
        theirs = plain(folder)(strings, **TOKENS).input_ids
        assert theirs == [vocabulary.encode_string(s) for s in strings]


def test_two_tokens_of_one_id(hubs, tmp_path):
    # As version 0.1 put them into a hole, up to a piece behind it.
    text = edited(hubs["byte-level"], tmp_path, hole)
    last = len(load_text_tokenizer(text)) - 1
    names = ["[Text]", "[Speech]", *(f"[Hu{i}]" for i in range(5))]
    added = {name: last + 1 - len(names) + i for i, name in enumerate(names)}
    (text / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(ValueError, match=rf"one id, {last}, .*\[Hu4\]"):
        Vocabulary.load(text)


def test_a_piece_with_the_name_of_a_speech_token(hubs, tmp_path):
    def rename(backend):
        backend["model"] |= {"merges": [], "vocab": {
            {290: "[Speech]"}.get(index, piece): index
            for piece, index in backend["model"]["vocab"].items()
        }}  # fmt: skip

    text = load_text_tokenizer(edited(hubs["byte-level"], tmp_path, rename))
    vocabulary = Vocabulary.extend(text, 5)
    with pytest.raises(ValueError, match=r"\[Speech\] cannot.*that name, 290"):
        vocabulary.save(tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.fixture(scope="module")
def shipped():
    folder = local_folder("tinyspeech") / "language_model"
    return Vocabulary.load(folder), plain(folder)


def render(tokenizer, messages, **options):
    return tokenizer.apply_chat_template(
        messages,
        return_dict=False,
        tokens=True,
        tokenizer_kwargs=TOKENS,
        **options,
    )


innocent = st.lists(words, min_size=1, max_size=6).map("".join)
streams = st.lists(st.integers(0, 23), min_size=1, max_size=5).map(
    lambda units: SpeechStream.from_string(
        "".join(f"[St{unit}][Hu{unit}]" for unit in units)
    )
)
parts = st.one_of(
    st.tuples(st.sampled_from(["text", "asr", "break"]), innocent),
    st.tuples(st.sampled_from(["speech", "tts"]), streams),
)
outputs = st.sampled_from(["text", "speech", "asr", "tts", "any"])


def as_part(kind, content):
    if isinstance(content, str):
        return {"type": kind, "text": content}
    return {"type": kind, "speech": content.to_string()}


@given(st.lists(parts, min_size=1, max_size=5), outputs, st.integers(0, 5))
def test_template_writes_our_prompts(shipped, prompt, output, cut):
    vocabulary, tokenizer = shipped
    if prompt[0][0] == "break":
        prompt[0] = ("text", "the cat")
    contents = [as_part(*part) for part in prompt]
    messages = [
        {"role": "user", "content": contents[:cut]},
        {"role": "assistant", "content": contents[cut:]},
    ]
    expected = vocabulary.encode(prompt, output)
    assert render(tokenizer, messages, output=output) == expected


def test_template_takes_plain_texts(shipped):
    vocabulary, tokenizer = shipped
    messages = [{"role": "user", "content": "the [cat]"}]
    assert render(tokenizer, messages) == vocabulary.encode([Text("the [cat]")])
    units = Speech(SpeechUnits([3, 8]))
    speech = {"type": "speech", "speech": "[Hu3][Hu8]"}
    messages = [{"role": "user", "content": [speech]}]
    expected = vocabulary.encode([units], "asr")
    assert render(tokenizer, messages, output="asr") == expected


@pytest.mark.parametrize(
    ("part", "message"),
    [
        *((("text", t), "give ids") for t in ["a[Hu1]", "[[St0]", "[TTS]"]),
        *((("text", t), "give ids") for t in ["<s>", "a</s>"]),
        (("speech", "[Hu3]the"), "string of units"),
        (("speech", "the[Hu3]"), r"no unit of this model: the\[Hu3\]"),
        (("speech", "[Hu999]"), "no unit of this model"),
        (("speech", "[Hu03]"), "no unit of this model"),
        (("speech", ""), "string of units"),
        (("break", "a"), "no marker for break"),
        (("image", "a"), "no marker for image"),
    ],
)
def test_template_refuses(shipped, part, message):
    kind, content = part
    key = "speech" if kind == "speech" else "text"
    contents = [{"type": kind, key: content}]
    with pytest.raises(Exception, match=message):
        render(shipped[1], [{"role": "user", "content": contents}])


@pytest.mark.parametrize(
    "contents",
    [
        [("text", "[Hu"), ("text", "3]")],
        [("text", "</"), ("text", "s>")],
        [("text", "[Te"), ("break", "xt]")],
        [("asr", "[H"), ("asr", "u"), ("asr", "3]")],
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_template_refuses_what_parts_spell_together(shipped, contents, apart):
    parts = [as_part(*part) for part in contents]
    messages = [{"role": "user", "content": parts}]
    if apart:
        messages = [{"role": "user", "content": [part]} for part in parts]
    with pytest.raises(Exception, match="give ids"):
        render(shipped[1], messages)


def test_template_asks_for_tokens(shipped):
    messages = [{"role": "user", "content": "the cat"}]
    with pytest.raises(Exception, match="give ids, or tokens=True"):
        shipped[1].apply_chat_template(messages)
