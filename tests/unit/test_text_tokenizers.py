"""Tests of ``spiritlm_plugin.dataio.units.text_tokenizers``."""

import pytest
import sentencepiece
import tokenizers
import transformers
from hypothesis import example, given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.units.text_tokenizers import (
    HubText,
    SentencePieceText,
    train_text_tokenizer,
)

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
def hub(request, hub_folder):
    return HubText(hub_folder(**{request.param: SYMBOLS}))


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
    pieces.save(tmp_path)
    assert (tmp_path / "tokenizer.model").read_bytes() == model


def test_sentencepiece_without_dummy_prefix(sentencepiece_model, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(sentencepiece_model(add_dummy_prefix=False))
    assert SentencePieceText(path).prompt_start == [1]


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
    again.save(tmp_path)
    content = (tmp_path / "tokenizer.model").read_bytes()
    assert (folder / "tokenizer.model").read_bytes() == content
    trained.save(tmp_path)
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
    assert not {hub.token_id(symbol) for symbol in SYMBOLS} & {*ids}
    assert not {hub.eos_id, *hub.prompt_start} & {*ids}


@given(st.text(characters, max_size=20).filter(lambda t: "[" not in t))
def test_hub_ids_are_the_tokenizers_own(hub, text):
    own = hub._tokenizer(
        text, add_special_tokens=False, split_special_tokens=True
    )
    assert hub.encode(text) == own["input_ids"]


def test_hub_knows_its_tokens(hub):
    own = hub._tokenizer
    for symbol in SYMBOLS:
        assert hub.token_id(symbol) == own.convert_tokens_to_ids(symbol)
    assert hub.token_id("[Hu2]") is None
    assert hub.prompt_start == [own.bos_token_id]
    assert hub.eos_id == own.eos_token_id
    assert len(hub) == 300 + len(SYMBOLS)


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


@pytest.mark.parametrize("kind", ["special", "plain"])
def test_hub_tokens_behind_speech_tokens_keep_their_ids(hub_folder, kind):
    folder = hub_folder(
        special=SYMBOLS if kind == "special" else [],
        plain=["    "] if kind == "special" else [*SYMBOLS, "    "],
    )
    own = transformers.AutoTokenizer.from_pretrained(folder)
    ids = own("a    b", add_special_tokens=False)["input_ids"]
    assert own.convert_tokens_to_ids("    ") in ids
    assert HubText(folder).encode("a    b") == ids


@pytest.mark.parametrize("text", ["the cat[Hu1]sat", "[Hu1] and [Hu0]"])
def test_hub_with_prefix_spaces(hub_folder, text):
    metaspace = tokenizers.pre_tokenizers.Metaspace()
    hub = HubText(hub_folder(plain=SYMBOLS, pre_tokenizer=metaspace))
    assert hub.decode(hub.encode(text)) == text
