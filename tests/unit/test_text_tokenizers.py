"""Tests of ``spiritlm_plugin.dataio.units.text_tokenizers``."""

import json
import shutil

import pytest
import sentencepiece
import tokenizers
import transformers
from hypothesis import example, given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.units.text_tokenizers import (
    HubText,
    SentencePieceText,
    load_text_tokenizer,
    train_text_tokenizer,
)
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary

SYMBOLS = ["[Hu1]", "[Speech]", "[Hu0]", "[Text]"]
HOSTILE = [*SYMBOLS, "<s>", "</s>", "<unk>", "<0x41>", "<bos>", "<eos>", "[Hu"]
# U+2581 is SentencePiece's own sign for a space.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="▁\0")
texts = st.lists(
    st.one_of(st.sampled_from([*HOSTILE, " ", "the cat"]), characters),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def model(sentencepiece_model):
    return sentencepiece_model(SYMBOLS)


@pytest.fixture(scope="module")
def pieces(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tokenizer.model"
    path.write_bytes(model)
    return SentencePieceText(path)


@pytest.fixture(scope="module", params=["special", "plain"])
def own(request, hub_folder):
    """A tokenizer of transformers with speech tokens behind the others."""
    folder = hub_folder(**{request.param: SYMBOLS})
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def hub(own):
    return HubText(own.name_or_path)


@given(texts)
@example("[Hu1]")
def test_sentencepiece_text_is_text(pieces, text):
    ids = pieces.encode(text)
    assert pieces.decode(ids) == text
    assert not {pieces.token_id(symbol) for symbol in SYMBOLS} & {*ids}
    assert not {0, pieces.prompt_start[0], pieces.eos_id} & {*ids}


@given(texts)
def test_sentencepiece_without_symbols_is_the_original(model, pieces, text):
    original = sentencepiece.SentencePieceProcessor(model_proto=model)
    for symbol in SYMBOLS:
        text = text.replace(symbol, "")
    # The dummy prefix stands in front of a prompt, not of each text.
    prefix = [original.bos_id(), original.piece_to_id("▁")]
    assert pieces.prompt_start == prefix
    encoded = original.encode("[Text]" + text)[2:]
    if "[" not in text:
        assert pieces.encode(text) == encoded


def test_sentencepiece_knows_its_symbols(model, pieces, tmp_path):
    original = sentencepiece.SentencePieceProcessor(model_proto=model)
    for symbol in SYMBOLS:
        assert pieces.token_id(symbol) == original.piece_to_id(symbol)
    assert pieces.token_id("the") is None
    assert pieces.token_id("</s>") is None
    assert len(pieces) == len(original)
    assert pieces.eos_id == original.eos_id()
    pieces.save(tmp_path, {})
    assert (tmp_path / "tokenizer.model").read_bytes() == model


def test_sentencepiece_without_dummy_prefix(sentencepiece_model, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(sentencepiece_model(add_dummy_prefix=False))
    assert SentencePieceText(path).prompt_start == [1]


# As Gemma's, whose texts have them.
PIECES = ["\n", "\n\n", "▁▁", "▁▁▁▁", "<h1>", "</h1>"]
gemma_texts = st.lists(
    st.sampled_from(["\n", " ", "<h1>", "</h1>", "the cat", "<h", "2"]),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module")
def gemma(sentencepiece_model, tmp_path_factory):
    """A folder of a model whose symbols are text, speech or control."""
    folder = tmp_path_factory.mktemp("gemma")
    symbols = [*PIECES, "<start_of_turn>", *SYMBOLS]
    model = sentencepiece_model(symbols, add_dummy_prefix=False)
    (folder / "tokenizer.model").write_bytes(model)
    flags = {5: ("<h1>", False), 9: ("<start_of_turn>", True)}
    decoder = {i: {"content": t, "special": s} for i, (t, s) in flags.items()}
    config = {"bos_token": "<s>", "added_tokens_decoder": decoder}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def gemma_text(gemma):
    return load_text_tokenizer(gemma)


@given(gemma_texts)
@example("a    b\n\n<h1> c")
def test_symbols_that_are_text_stay_whole(gemma, gemma_text, text):
    original = sentencepiece.SentencePieceProcessor(
        model_file=str(gemma / "tokenizer.model")
    )
    ids = gemma_text.encode(text)
    assert ids == original.encode(text)
    assert gemma_text.decode(ids) == text


@given(texts | st.just("<start_of_turn>"))
def test_symbols_flagged_special_are_never_found(gemma_text, text):
    special = gemma_text._pieces.piece_to_id("<start_of_turn>")
    ids = gemma_text.encode(f"{text}<start_of_turn>")
    assert special not in ids
    assert gemma_text.decode(ids) == f"{text}<start_of_turn>"
    assert gemma_text.special == {"<s>", "</s>", "<unk>", "<start_of_turn>"}


def test_damaged_configuration(gemma, tmp_path):
    shutil.copy(gemma / "tokenizer.model", tmp_path)
    config = tmp_path / "tokenizer_config.json"
    for content in ("{", '{"added_tokens_decoder": {"7": {"special": true}}}'):
        config.write_text(content)
        with pytest.raises(ValueError, match="download or save it again") as e:
            load_text_tokenizer(tmp_path)
        assert str(config) in str(e.value)


def test_damaged_model(model, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(model[:-3])
    with pytest.raises(ValueError, match="not a SentencePiece model") as error:
        SentencePieceText(path)
    assert str(path) in str(error.value)


@pytest.fixture(scope="module")
def trained():
    return train_text_tokenizer(["the cat sat on the mat 1234 times"], 290)


@given(texts)
@example("  the  cat \n12345")
def test_trained_tokenizer(trained, text):
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    assert not {0, 1, 2} & {*ids}
    assert trained.token_id("[Hu1]") is None


def test_training(trained, tmp_path):
    sentences = ["the cat sat on the mat 1234 times"]
    folder = tmp_path / "new" / "folder"
    again = train_text_tokenizer(iter(sentences), 290, folder)
    again.save(tmp_path, {})
    content = (tmp_path / "tokenizer.model").read_bytes()
    assert (folder / "tokenizer.model").read_bytes() == content
    trained.save(tmp_path, {})
    assert (tmp_path / "tokenizer.model").read_bytes() == content
    assert len(trained) == 290 and trained.prompt_start[0] == 1
    digits = trained.encode("1234")
    assert len(digits) == 4  # one digit a piece
    path = tmp_path / "texts.txt"
    path.write_bytes(f"\ufeff{sentences[0]}\r\n".encode())
    train_text_tokenizer(path, 290, folder)
    assert (folder / "tokenizer.model").read_bytes() == content
    with pytest.raises(ValueError, match="no texts"):
        train_text_tokenizer(["", ""], 290)
    for size in (100, 10000):
        with pytest.raises(ValueError, match=f"of {size} pieces on 1 texts"):
            train_text_tokenizer(sentences, size)


@given(texts)
@example("[[Hu1]<eos>]")
def test_hub_text_is_text(hub, text):
    ids = hub.encode(text)
    assert hub.decode(ids) == text
    assert not {*hub.tail.values()} & {*ids}
    assert not {hub.eos_id, *hub.prompt_start} & {*ids}


@given(st.text(characters, max_size=20).filter(lambda t: "[" not in t))
def test_hub_ids_are_the_tokenizers_own(own, hub, text):
    ids = own(text, add_special_tokens=False, split_special_tokens=True)
    assert hub.encode(text) == ids["input_ids"]


def test_hub_knows_its_tokens(own, hub):
    assert hub.tail == {s: own.convert_tokens_to_ids(s) for s in SYMBOLS}
    assert hub.token_id("[Hu1]") is None  # it is none of the text's
    assert hub.special == {"<unk>", "<bos>", "<eos>"}
    assert hub.prompt_start == [own.bos_token_id]
    assert hub.eos_id == own.eos_token_id
    assert len(hub) == 300


def test_hub_without_beginning_of_sequence(hub_folder):
    assert HubText(hub_folder(bos=None)).prompt_start == []


def test_hub_needs_an_end_of_sequence(hub_folder, tmp_path):
    own = transformers.AutoTokenizer.from_pretrained(hub_folder())
    own.eos_token = None
    own.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        HubText(tmp_path)


def test_hub_leaves_other_added_tokens_whole(hub_folder):
    # As GPT-NeoX's tokenizer has them for runs of spaces.
    folder = hub_folder(plain=["    ", "  "])
    own = transformers.AutoTokenizer.from_pretrained(folder)
    ids = own("a      b", add_special_tokens=False)["input_ids"]
    assert own.convert_tokens_to_ids("    ") in ids
    assert HubText(folder).encode("a      b") == ids


def test_hub_tokens_flagged_special_are_never_found(hub_folder, tmp_path):
    shutil.copytree(hub_folder(plain=["<go>"]), tmp_path, dirs_exist_ok=True)
    own = transformers.AutoTokenizer.from_pretrained(tmp_path)
    index = own.convert_tokens_to_ids("<go>")
    assert index in HubText(tmp_path).encode("a<go>")
    flags = tmp_path / "special_tokens_map.json"
    flags.write_text('{"additional_special_tokens": ["<go>"]}')
    hub = HubText(tmp_path)
    assert index not in hub.encode("a<go>")
    assert hub.decode(hub.encode("a<go>")) == "a<go>"
    assert "<go>" in hub.special


@pytest.mark.parametrize("kind", ["special", "plain"])
def test_hub_tokens_behind_speech_tokens_keep_their_ids(hub_folder, kind):
    folder = hub_folder(
        special=SYMBOLS if kind == "special" else [],
        plain=["    "] if kind == "special" else [*SYMBOLS, "    "],
    )
    own = transformers.AutoTokenizer.from_pretrained(folder)
    ids = own("a    b", add_special_tokens=False)["input_ids"]
    assert own.convert_tokens_to_ids("    ") in ids
    hub = HubText(folder)
    assert hub.encode("a    b") == ids
    for symbol in SYMBOLS:
        index = own.convert_tokens_to_ids(symbol)
        assert hub.token_id(symbol) == index
        assert index not in hub.encode(symbol)
    assert not hub.tail and len(hub) == 300 + len(SYMBOLS) + 1


@pytest.mark.parametrize("text", ["the cat[Hu1]sat", "[Hu1] and [Hu0]"])
def test_hub_with_prefix_spaces(hub_folder, text):
    metaspace = tokenizers.pre_tokenizers.Metaspace()
    hub = HubText(hub_folder(plain=SYMBOLS, pre_tokenizer=metaspace))
    assert hub.decode(hub.encode(text)) == text


def test_a_model_of_another_kind_beside_a_json(hub_folder, tmp_path):
    hub = shutil.copytree(hub_folder(), tmp_path / "hub")
    (hub / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")
    text = load_text_tokenizer(hub)
    assert text.decode(text.encode("the cat")) == "the cat"
    Vocabulary.extend(text, phonetic=3).save(tmp_path / "ours")
    (tmp_path / "ours" / "tokenizer.model").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="is not a SentencePiece model"):
        load_text_tokenizer(tmp_path / "ours")
