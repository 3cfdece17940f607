"""Styles by their names: what they may be, and what is said in them."""

from __future__ import annotations

import copy

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from hypothesis import given, settings
from hypothesis import strategies as st

from spiritlm_plugin.dataio.units.segments import Speech, Text
from spiritlm_plugin.dataio.units.units import Kind, SpeechStream, SpeechUnits
from spiritlm_plugin.decoders import engines
from spiritlm_plugin.inference import streaming
from spiritlm_plugin.inference.generation import Generation
from spiritlm_plugin.integrations.parts import Parts, hyperparams
from spiritlm_plugin.lobes.vocoder import UnitVocoder
from spiritlm_plugin.metrics.usage import units_of_labels

SMALL = {
    "phonetic_units": 9,
    "embedding_dim": 4,
    "speakers": ["ann"],
    "duration_dim": 4,
    "generator": {
        "upsample_rates": [640],
        "upsample_kernels": [1280],
        "channels": 4,
    },
}
STYLES = {"glad": [71, *range(40)], "low, slow": [9, *range(50, 70)]}
PROMPTS = [[Text("the cat")], [Text("a")], [Text("it is raining")]]
OPTIONS = {
    "max_new_tokens": 120,
    "temperature": 1.0,
    "top_p": 1.0,
    "seed": 3,
    "speaker": 0,
    "stop": False,
    "batch_size": 2,
}


def named(lm, **names):
    """Return a model whose vocoder names its styles."""
    vocoder = copy.copy(lm.mods.vocoder)
    vars(vocoder).update(names)
    lm = copy.copy(lm)
    # Copies of modules have the same dictionary of modules.
    lm._modules = dict(lm._modules)
    lm.mods = torch.nn.ModuleDict({**lm.mods, "vocoder": vocoder})
    return lm


@pytest.fixture(scope="module")
def unnamed(load, checkpoints):
    return load(checkpoints, "expressive", "float32")


@pytest.fixture(scope="module")
def expressive(unnamed):
    return named(unnamed, styles=STYLES)


@pytest.fixture(scope="module")
def base(load, checkpoints):
    lm = load(checkpoints, "base", "float32")
    return named(lm, global_styles=[f"style{i}" for i in range(26)])


def spoken(generation):
    """Return the speech of an output as one stream."""
    streams = [s.stream for s in generation if isinstance(s, Speech)]
    return SpeechStream.concatenate([SpeechStream([], []), *streams])


def style_tokens(generation):
    stream = spoken(generation)
    return stream.values[stream.kinds == int(Kind.STYLE)].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"global_styles": ["sad", "sad"]}, "repeat a name"),
        ({"global_styles": ["sad", ""]}, "a style has a name, not ''"),
        ({"global_styles": [1]}, "a style has a name, not 1"),
        ({"styles": {"sad": [0]}}, r"'sad' has the units \[0\].*below 0"),
        ({"style_units": 3, "styles": {"sad": []}}, "takes one or more"),
        ({"style_units": 3, "styles": {"sad": [1, 3]}}, "each below 3"),
        ({"style_units": 3, "styles": {"sad": [-1]}}, "each below 3"),
        ({"style_units": 3, "styles": {"sad": ["1"]}}, "each below 3"),
        ({"style_units": 3, "styles": {False: [1]}}, "a name, not False"),
    ],
)
def test_names_that_a_vocoder_cannot_have(arguments, message):
    with pytest.raises(ValueError, match=message):
        UnitVocoder(**SMALL, **arguments)


def test_a_global_style_is_a_name_or_a_number():
    counted = UnitVocoder(**SMALL, global_styles=3, default_global_style=1)
    vocoder = UnitVocoder(
        **SMALL, global_styles=["glad", "so", "sad"], default_global_style=1
    )
    assert vocoder.state_dict().keys() == counted.state_dict().keys()
    assert vocoder.style_names == ["glad", "so", "sad"]
    for one in (counted, vocoder):
        assert [one.style_id(s) for s in (None, 0, 2)] == [1, 0, 2]
        assert one.style_units(2) is None
    assert vocoder.style_id("sad") == 2
    with pytest.raises(ValueError, match="'mad'; known: 0 .glad., 1 .so., 2"):
        vocoder.style_units("mad")
    with pytest.raises(ValueError, match="has 3, by number: name them in"):
        counted.style_id("sad")
    for wrong in (3, -1, True, 1.0):
        with pytest.raises(ValueError, match=f"global style {wrong}"):
            vocoder.style_id(wrong)


def test_without_names_it_says_how_to_get_them(unnamed):
    assert unnamed.styles == []
    with pytest.raises(ValueError, match="'glad'; .*hyperparams.yaml"):
        unnamed.generate([Text("a")], style="glad")


def test_names_are_kept_by_a_folder():
    words = ["no", "a: b", "1", "é"]
    arguments = {
        **SMALL,
        "style_units": 4,
        "styles": {word: [i] for i, word in enumerate(words)},
    }
    yaml = hyperparams(Parts("here", {"vocoder": arguments}, {}))
    assert load_hyperpyyaml(yaml)["vocoder"].style_names == words
    assert (
        load_hyperpyyaml(
            hyperparams(Parts("", {"vocoder": {**SMALL, "styles": {}}}, {}))
        )["vocoder"].style_names
        == []
    )


@given(
    streams=st.lists(
        st.tuples(
            st.lists(st.integers(0, 5), max_size=30),
            st.sampled_from(["glad", "sad", None]),
        ),
        max_size=9,
    )
)
def test_a_unit_tells_one_style_at_most(streams):
    told = units_of_labels(
        [torch.tensor(units, dtype=torch.int64) for units, _ in streams],
        [label for _, label in streams],
    )
    units = [unit for those in told.values() for unit in those]
    assert len(units) == len(set(units))
    met = {
        name: [u for units, label in streams if label == name for u in units]
        for name in told
    }
    labelled = [u for units, label in streams if label for u in units]
    for name, those in told.items():
        counts = [met[name].count(unit) for unit in those]
        assert those and counts == sorted(counts, reverse=True)
        for unit, count in zip(those, counts):
            assert count >= 0.7 * labelled.count(unit)


@settings(max_examples=20)
@given(data=st.data())
def test_other_tokens_are_as_free_as_without(expressive, data):
    vocabulary = expressive.vocabulary
    output = data.draw(st.sampled_from(["text", "speech", "any"]))
    stop = data.draw(st.booleans())
    units = data.draw(st.sets(st.integers(0, 99)))
    rows = len(vocabulary) + 3
    free = vocabulary.allowed(output, rows, stop)
    held = vocabulary.allowed(output, rows, stop, sorted(units))
    changed = (free != held).nonzero().flatten().tolist()
    styles = SpeechStream([0] * 100, list(range(100)))
    ids = vocabulary.encode_speech(styles)
    banned = [i for unit, i in enumerate(ids) if unit not in units]
    assert changed == ([] if output == "text" else sorted(banned))


@pytest.mark.parametrize("steps_of_our_own", [True, False])
@pytest.mark.parametrize("style", ["glad", "low, slow", 1])
def test_expressive_says_it_in_a_style(
    expressive, monkeypatch, steps_of_our_own, style
):
    """By steps of our own, and by transformers' generate."""
    if not steps_of_our_own:
        for module in (engines, streaming):
            monkeypatch.setattr(module, "is_llama", lambda lm: False)
    units = STYLES["low, slow" if style == 1 else style]
    made = expressive.generate(PROMPTS, "speech", style=style, **OPTIONS)
    tokens = [token for one in made for token in style_tokens(one)]
    assert tokens and set(tokens) <= set(units)
    pieces = list(
        expressive.generate_stream(PROMPTS, "speech", style=style, **OPTIONS)
    )
    for i, one in enumerate(made):
        own = [p for p in pieces if p.prompt == i]
        streams = [p.units for p in own if p.units is not None]
        assert SpeechStream.concatenate(streams) == spoken(one)
        wav = torch.cat([p.wav for p in own if p.wav is not None])
        torch.testing.assert_close(wav, one.wav, atol=1e-4, rtol=0)
        [alone] = expressive.generate(
            [PROMPTS[i]], "speech", style=style, **{**OPTIONS, "seed": 3 + i}
        )
        assert spoken(alone) == spoken(one)


def test_beams_keep_to_a_style(expressive):
    [one] = expressive.generate(
        PROMPTS[:1],
        "speech",
        60,
        temperature=0,
        num_beams=2,
        style="glad",
        stop=False,
        vocode=False,
    )
    assert set(style_tokens(one)) <= set(STYLES["glad"])


def test_names_alone_change_nothing(expressive, unnamed):
    made = expressive.generate(PROMPTS, "any", **OPTIONS)
    before = unnamed.generate(PROMPTS, "any", **OPTIONS)
    for one, other in zip(made, before):
        assert spoken(one) == spoken(other) and one.text == other.text
        if one.wav is not None:
            assert torch.equal(one.wav, other.wav)


def test_speech_without_a_style_takes_the_one_asked_for(expressive):
    """Instead of the prompt's, or of one that is drawn."""
    stream = SpeechStream.from_string("[Pi3][Hu1][Hu2][Hu3]")
    prompt = [Speech(SpeechStream.from_string("[St9][Pi3][Hu1]")), Text("a")]
    wavs = []
    for first in (71, 9):
        lm = named(expressive, styles={"it": [first, 5]})
        said = Generation([Speech(stream)], "")
        lm.speak([said], [prompt], [False], 0, [0], style="it")
        wavs.append(said.wav)
        whole = SpeechStream.concatenate([SpeechStream([0], [first]), stream])
        true, _ = lm.decode_batch([whole], speaker=0)
        torch.testing.assert_close(said.wav, true[0], atol=1e-5, rtol=0)
    assert not torch.allclose(*wavs)


def test_base_speaks_in_a_global_style(base):
    options = {**OPTIONS, "max_new_tokens": 20}
    made = base.generate(PROMPTS[0], "speech", style="style3", **options)
    [stream] = [s.stream for s in made]
    true, _ = base.decode_batch([stream], speaker=0, global_style=3)
    torch.testing.assert_close(made.wav, true[0], atol=1e-5, rtol=0)
    plain = base.generate(PROMPTS[0], "speech", **options)
    assert spoken(plain) == spoken(made)
    assert not torch.allclose(plain.wav, made.wav)
    pieces = base.generate_stream(PROMPTS[0], "speech", style=3, **options)
    wav = torch.cat([p.wav for p in pieces if p.wav is not None])
    torch.testing.assert_close(wav, made.wav, atol=1e-4, rtol=0)


def test_named_global_styles_are_decoded(base):
    units = [SpeechUnits([1, 2, 3])]
    by_name, _ = base.decode_batch(units, 0, "style4")
    by_number, _ = base.decode_batch(units, 0, 4)
    assert torch.equal(by_name, by_number)
    chunks = base.decode_stream(units, 0, "style4")
    torch.testing.assert_close(
        torch.cat([*chunks]), by_name[0], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("method", ["generate", "generate_stream"])
def test_unknown_styles_are_refused_before_anything_is_read(
    expressive, base, method
):
    for lm, known in ((expressive, "0 .glad."), (base, "0 .style0.")):
        with pytest.raises(ValueError, match=f"'mad'; known: {known}"):
            getattr(lm, method)([Speech("no such file")], style="mad")
        with pytest.raises(ValueError, match="'mad'; known"):
            lm.synthesize([], [], style="mad")
