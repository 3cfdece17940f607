"""Tests of ``spiritlm_plugin.dataio.units.vocabulary``."""

import json
import random
from types import SimpleNamespace

import pytest
import sentencepiece
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig

from spiritlm_plugin.dataio.units.segments import (
    Break,
    Speech,
    Text,
    Transcript,
)
from spiritlm_plugin.dataio.units.text_tokenizers import (
    HubText,
    SentencePieceText,
)
from spiritlm_plugin.dataio.units.units import Kind, SpeechStream, SpeechUnits
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes.language_model_config import set_token_ids

COUNTS = {Kind.PHONETIC: 6, Kind.PITCH: 3, Kind.STYLE: 2}
PREFIXES = {Kind.PHONETIC: "Hu", Kind.PITCH: "Pi", Kind.STYLE: "St"}
FORMS = [
    "sentencepiece",
    "sentencepiece added",
    "sentencepiece extended",
    "hub special",
    "hub plain",
    "hub extended",
    "hub base without bos",
]

characters = st.characters(exclude_categories=["Cs"], exclude_characters="▁\0")
hostile = ["[Hu1]", "[Hu", "0]", "[Text]", "[St1]", "</s>", "<bos>", "<eos>"]
words = st.one_of(st.sampled_from([*hostile, " ", "the cat"]), characters)
texts = st.lists(words, min_size=1, max_size=8).map("".join).map(Text)
plain_texts = st.text(
    characters.filter(lambda c: c not in "[]"), min_size=1, max_size=10
).map(Text)
units = st.sampled_from(list(COUNTS)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.integers(0, COUNTS[kind] - 1))
)


def streams(of):
    rows = st.lists(of, min_size=1, max_size=6)
    return rows.map(lambda r: Speech(SpeechStream(*zip(*r))))


def as_string(prompt):
    """Write a prompt as release.md has it, 'Language model'."""
    string, modality = "", None
    for segment in prompt:
        if type(segment) is not modality:
            modality = type(segment)
            string += f"[{modality.__name__}]"
        string += (
            segment.text if modality is Text else segment.stream.to_string()
        )
    return string


def shots_as_string(prompt):
    """Write a prompt with breaks, a marker before all other segments."""
    return "".join(
        as_string([s]) if not isinstance(s, Break) else s.text for s in prompt
    )


def merged(prompt):
    """Join neighbours of one modality."""
    parts = []
    for s in prompt:
        if parts and type(s) is type(parts[-1]):
            last = parts.pop()
            s = (
                Text(last.text + s.text)
                if isinstance(s, Text)
                else Speech(SpeechStream.concatenate([last.stream, s.stream]))
            )
        parts.append(s)
    return parts


def same(ours, theirs):
    return [type(s) for s in ours] == [type(s) for s in theirs] and all(
        a == b if isinstance(a, Text) else a.stream == b.stream
        for a, b in zip(ours, theirs)
    )


@pytest.fixture(scope="module")
def tokens():
    """Speech tokens in an order that is not that of the units."""
    names = [
        f"[{PREFIXES[kind]}{i}]" for kind in COUNTS for i in range(COUNTS[kind])
    ]
    names += ["[Text]", "[Speech]"]
    random.Random(0).shuffle(names)
    return names


@pytest.fixture(scope="module")
def make(tokens, sentencepiece_model, hub_folder, tmp_path_factory):
    """Make the folder of a vocabulary of each form."""

    def make(form):
        kind, _, rest = form.partition(" ")
        if kind == "sentencepiece":
            folder = tmp_path_factory.mktemp("sentencepiece")
            symbols = [] if rest else tokens
            model = sentencepiece_model(symbols)
            (folder / "tokenizer.model").write_bytes(model)
        else:
            special = tokens if rest == "special" else []
            plain = tokens if rest == "plain" else []
            bos = None if "bos" in rest else "<bos>"
            folder = hub_folder(special, plain, bos)
        if rest == "added":
            # Behind a gap, and not in the order of the units.
            text = SentencePieceText(folder / "tokenizer.model")
            decoder = {
                str(len(text) + 3 + i): {"content": token, "special": True}
                for i, token in enumerate(tokens)
            }
            config = {"added_tokens_decoder": decoder}
            path = folder / "tokenizer_config.json"
            path.write_text(json.dumps(config))
        return folder

    return make


@pytest.fixture(scope="module")
def get(make):
    """Get the vocabulary of a form, each made once."""
    made = {}

    def get(form):
        if form not in made:
            made[form] = vocabulary_of(form, make(form))
        return made[form]

    return get


def vocabulary_of(form, folder):
    if "base" in form or "extended" in form:
        text = (
            HubText(folder)
            if form.startswith("hub")
            else SentencePieceText(folder / "tokenizer.model")
        )
        more = {} if "base" in form else {"pitch": 3, "style": 2}
        return Vocabulary.extend(text, phonetic=6, **more)
    return Vocabulary.load(folder)


@pytest.fixture(scope="module", params=FORMS)
def vocabulary(request, get):
    return get(request.param)


@pytest.fixture(scope="module")
def released(get):
    """A vocabulary whose tokens are all pieces, as the released ones are."""
    return get("sentencepiece")


@given(st.lists(st.one_of(plain_texts, streams(units)), min_size=1, max_size=5))
def test_ids_are_those_of_the_whole_string(released, prompt):
    model = released.text._proto
    original = sentencepiece.SentencePieceProcessor(model_proto=model)
    string = as_string(prompt)
    ids = [original.bos_id(), *original.encode(string)]
    assert released.encode(prompt) == ids
    tuples = [
        ("text", s.text) if isinstance(s, Text) else ("speech", s.content)
        for s in prompt
    ]
    assert released.encode(tuples) == ids
    if prompt == merged(prompt):
        assert released.encode_string(string) == ids


@given(
    st.lists(st.one_of(plain_texts, streams(units)), min_size=1, max_size=5),
    st.text(characters.filter(lambda c: c not in "[]"), max_size=4)
    | st.just("\n"),
)
def test_ids_behind_breaks_are_those_of_the_whole_string(released, prompt, end):
    model = released.text._proto
    original = sentencepiece.SentencePieceProcessor(model_proto=model)
    parts = [part for s in prompt for part in (s, Break(end))]
    for shown in (parts, parts[:-1]):
        string = shots_as_string(shown)
        ids = [original.bos_id(), *original.encode(string)]
        assert released.encode(shown) == ids
    # What follows has its marker again.
    markers = released.markers
    for output in ("text", "speech"):
        expected = [*released.encode(parts), markers[output]]
        assert released.encode(parts, output) == expected
    [*start, last] = parts[:-1]
    output, ids = released.encode_continuation([last])
    if start:
        assert released.encode(start, output) + ids == released.encode(
            [*start, last]
        )


@given(st.lists(st.one_of(texts, streams(units)), min_size=1, max_size=5))
def test_decode_gives_the_segments_back(get, prompt):
    for form in FORMS:
        vocabulary = get(form)
        if not vocabulary.expressive:
            prompt = [s for s in prompt if isinstance(s, Text)]
        if prompt:
            ids = vocabulary.encode(prompt)
            assert same(vocabulary.decode(ids), merged(prompt)), form
            # Without the start, and with an end, as a model's output.
            start = len(vocabulary.text.prompt_start)
            ids = torch.tensor([*ids[start:], vocabulary.eos_id])
            assert same(vocabulary.decode(ids), merged(prompt)), form


@given(texts)
def test_text_never_becomes_speech_or_control(get, text):
    for form in FORMS:
        vocabulary = get(form)
        ids = vocabulary.encode_text(text.text)
        speech = set(vocabulary.speech_tokens().values())
        ends = {vocabulary.eos_id, *vocabulary.text.prompt_start[:1]}
        assert not {*ids} & (speech | ends), form
        assert bool((vocabulary.kinds[ids] == -1).all()), form


def test_ids_are_the_tokenizers_own(get, make, tokens):
    pieces = get("sentencepiece")
    for name, index in pieces.speech_tokens().items():
        assert pieces.text._pieces.id_to_piece(index) == name
    added = get("sentencepiece added")
    first = len(added.text) + 3
    expected = {t: first + i for i, t in enumerate(tokens)}
    assert added.speech_tokens() == expected
    assert len(added) == first + len(tokens)
    for form in ("hub special", "hub plain"):
        own = AutoTokenizer.from_pretrained(make(form))
        for name, index in get(form).speech_tokens().items():
            assert own.convert_tokens_to_ids(name) == index
        assert get(form).speech_tokens().keys() == {*tokens}


def test_extend_puts_the_tokens_behind_the_text(get):
    vocabulary = get("sentencepiece extended")
    first = len(vocabulary.text)
    names = ["[Text]", "[Speech]", *(f"[Hu{i}]" for i in range(6))]
    names += ["[Pi0]", "[Pi1]", "[Pi2]", "[St0]", "[St1]", "[ASR]", "[TTS]"]
    ids = vocabulary.speech_tokens()
    assert ids == {name: first + i for i, name in enumerate(names)}
    assert len(vocabulary) == first + 15
    assert vocabulary.expressive and vocabulary.unit_count(Kind.PITCH) == 3


@pytest.mark.parametrize("form", FORMS)
def test_save_and_load(form, get, tmp_path):
    vocabulary = get(form)
    folder = tmp_path / "model" / "new"
    for _ in range(2):  # what was loaded can be saved as well
        vocabulary.save(folder)
        loaded = Vocabulary.load(folder)
        assert loaded.speech_tokens() == vocabulary.speech_tokens()
        assert len(loaded) == len(vocabulary)
        assert loaded.eos_id == vocabulary.eos_id
        speech = {*vocabulary.speech_tokens().values()}
        prompt = [Text("the [Hu1] cat"), Speech(SpeechUnits([2, 0]))]
        assert loaded.encode(prompt) == vocabulary.encode(prompt)
        assert not {*loaded.encode_text("[Hu1][Text]")} & speech
        rows = len(loaded) + 5
        for output in ("text", "speech", "any"):
            assert torch.equal(
                loaded.allowed(output, rows), vocabulary.allowed(output, rows)
            )
        vocabulary, folder = loaded, tmp_path / "again"


def test_allowed_tokens(vocabulary):
    rows = len(vocabulary) + 7
    names = vocabulary.speech_tokens()
    markers = {"[Text]", "[Speech]", "[ASR]", "[TTS]"} & names.keys()
    markers = {names.pop(marker) for marker in markers}
    speech, eos = set(names.values()), vocabulary.eos_id
    text = set(range(len(vocabulary.text))) - speech - markers

    def allowed(*arguments):
        mask = vocabulary.allowed(*arguments)
        assert mask.shape == (rows,) and mask.dtype == torch.bool
        return set(mask.nonzero().squeeze(1).tolist())

    assert allowed("text", rows) == allowed("text", rows, False) == text
    assert eos in text
    assert allowed("speech", rows) == speech | {eos}
    assert allowed("speech", rows, False) == speech
    assert allowed("any", rows) >= text | speech | markers
    assert max(allowed("any", rows)) < len(vocabulary)
    assert allowed("asr", rows) == text
    assert allowed("tts", rows) == speech | {eos}


def test_ids_without_a_token_are_never_allowed(get):
    vocabulary = get("sentencepiece added")
    gap = range(len(vocabulary.text), len(vocabulary.text) + 3)
    allowed = vocabulary.allowed("any", len(vocabulary))
    assert not bool(allowed[list(gap)].any())


def test_prompt_ends_in_the_modality_of_the_output(vocabulary):
    names = vocabulary.speech_tokens()
    markers = {"text": names["[Text]"], "speech": names["[Speech]"]}
    for last, prompt in (
        ("text", [Text("the cat")]),
        ("speech", [Text("a"), Speech(SpeechUnits([1]))]),
    ):
        ids = vocabulary.encode(prompt)
        assert vocabulary.encode(prompt, "any") == ids
        for output, marker in markers.items():
            end = [] if output == last else [marker]
            assert vocabulary.encode(prompt, output) == ids + end


@given(st.lists(st.one_of(texts, streams(units)), min_size=1, max_size=4))
def test_continuation_goes_behind_its_prompt(released, continuation):
    modality, ids = released.encode_continuation(continuation)
    other = [Text("a")] if modality == "speech" else [Speech(SpeechUnits([1]))]
    whole = released.encode([*other, *continuation])
    assert released.encode(other, modality) + ids == whole


def test_decode_drops_control_tokens(released):
    names = released.speech_tokens()
    hu0, hu1, pi2 = names["[Hu0]"], names["[Hu1]"], names["[Pi2]"]
    text, speech = names["[Text]"], names["[Speech]"]
    cat = released.encode_text("cat")
    ids = [hu0, speech, pi2, hu1, text, speech, 1, *cat, 2, text, *cat]
    first, second = released.decode(torch.tensor(ids, dtype=torch.int32))
    assert first.stream.to_string() == "[Hu0][Pi2][Hu1]"
    assert second == Text("catcat")
    assert released.decode([]) == released.decode([1, text, 2]) == []


@pytest.mark.parametrize(
    ("string", "message"),
    [
        ("[Hu6]", r"\[Hu6\].* 6 phonetic"),
        ("[Hu9]", r"\[Hu9\].* 6 phonetic"),
        ("[St2]", r"\[St2\].* 2 style"),
    ],
)
def test_units_out_of_range(vocabulary, string, message):
    if not vocabulary.expressive and "St" in string:
        message = r"\[St2\].* 0 style units; use SpeechUnits.base"
    stream = SpeechStream.from_string("[Hu0]" + string)
    with pytest.raises(ValueError, match=message):
        vocabulary.encode([("speech", stream)])


def test_tasks_have_markers_of_their_own(get):
    vocabulary = get("sentencepiece extended")
    names = vocabulary.speech_tokens()
    said = Speech(SpeechUnits([2, 2, 4]))
    shot = [said, Transcript("a cat"), said]
    ids = vocabulary.encode(shot, "asr")
    text = vocabulary.encode_text("a cat")
    speech = [names["[Speech]"], names["[Hu2]"], names["[Hu4]"]]
    start = vocabulary.text.prompt_start
    asr = names["[ASR]"]
    assert ids == [*start, *speech, asr, *text, *speech, asr]
    assert vocabulary.encode_string("[Speech][Hu2][Hu4][ASR]a cat") == (
        vocabulary.encode(shot[:2])
    )
    marker, rest = vocabulary.encode_continuation([Transcript("a cat")])
    assert (marker, rest) == ("asr", text)
    prompt = [("text", "a cat"), ("tts", said.content)]
    assert vocabulary.encode(prompt) == [
        *start, names["[Text]"], *text, names["[TTS]"], *speech[1:]
    ]  # fmt: skip


def test_a_model_without_tasks_says_so(released):
    with pytest.raises(ValueError, match=r"no \[ASR\]; its model was not"):
        released.encode([Text("a")], "asr")


def test_errors_name_value_and_remedy(vocabulary, tmp_path):
    with pytest.raises(ValueError, match="asr, tts, any, got 'audio'"):
        vocabulary.encode([Text("a")], "audio")
    with pytest.raises(ValueError, match="got 'audio'"):
        vocabulary.allowed("audio", 9999)
    few = len(vocabulary) - 1
    with pytest.raises(ValueError, match=f"{few} rows.*resize"):
        vocabulary.allowed("any", few)
    with pytest.raises(ValueError, match="prompt is empty"):
        vocabulary.encode([])
    with pytest.raises(ValueError, match="encode it with"):
        vocabulary.encode([Speech("a.wav")])
    with pytest.raises(FileNotFoundError, match="tokenizer.model or") as error:
        Vocabulary.load(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("form", ["sentencepiece extended", "hub extended"])
def test_folder_without_speech_tokens(make, form):
    with pytest.raises(ValueError, match="Vocabulary.extend"):
        Vocabulary.load(make(form))


def test_ids_are_checked():
    text = SimpleNamespace(prompt_start=[], bos_id=None, eos_id=0)
    markers = {"text": 10, "speech": 11}
    with pytest.raises(ValueError, match="no phonetic units"):
        Vocabulary(text, markers, {Kind.PITCH: [12]})
    with pytest.raises(ValueError, match="share an id"):
        Vocabulary(text, markers, {Kind.PHONETIC: [12, 11]})


def test_ids_of_text_are_refused(get):
    text = get("sentencepiece extended").text
    taken = text.encode("the")
    with pytest.raises(ValueError):
        Vocabulary(
            text,
            {"text": len(text), "speech": len(text) + 1},
            {Kind.PHONETIC: taken},
        )


def test_spaces_of_a_model_without_beginning(sentencepiece_model, tmp_path):
    """Its prompts begin with the sign of a space, which is text elsewhere."""
    path = tmp_path / "tokenizer.model"
    path.write_bytes(sentencepiece_model(bos_id=-1))
    vocabulary = Vocabulary.extend(SentencePieceText(path), phonetic=3)
    assert len(vocabulary.text.prompt_start) == 1
    [text] = vocabulary.decode(vocabulary.encode([Text("the  cat   sat")]))
    assert text == Text("the  cat   sat")
    config = LlamaConfig()
    set_token_ids(config, vocabulary)
    assert config.bos_token_id is None
