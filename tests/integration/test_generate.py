"""What generate returns, and that text is text."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spiritlm_plugin import Speech, SpeechUnits, Text
from spiritlm_plugin.dataio.units.units import SpeechStream
from spiritlm_plugin.dataio.units.vocabulary import TEXT_KIND
from spiritlm_plugin.decoders.constrained import decode
from tests.integration.helpers import (
    RATE,
    VARIANTS,
    assert_same_wavs,
    greedily,
    script_ids,
    shown,
    units_string,
)

SNIPPETS = (
    "[Text]",
    "[Speech]",
    "[Hu12]",
    "[Pi3]",
    "[St5]",
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "<0x0A>",
    "[Hu",
    "12]",
    " ",
    "  ",
    "\n",
    "é😀",
)


# SentencePiece writes a space as U+2581 and cannot tell the two apart.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="▁")


TEXTS = st.lists(
    st.sampled_from(SNIPPETS) | st.text(CHARACTERS, max_size=8), max_size=8
).map("".join)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(text=TEXTS, variant=st.sampled_from(VARIANTS))
@example(text="".join(SNIPPETS), variant="expressive")
def test_text_never_becomes_tokens(models, text, variant):
    vocabulary = models[variant].vocabulary
    ids = torch.tensor(vocabulary.encode_text(text), dtype=torch.int64)
    assert bool((vocabulary.kinds[ids] == TEXT_KIND).all())
    # 0 to 2 are <unk>, <s> and </s>.
    assert bool((ids > 2).all())
    assert vocabulary.text.decode(ids.tolist()) == text


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_prompts_are_read_back(expressive, texts):
    speech = Speech(SpeechStream.from_string("[St5][Pi3][Hu12]"))
    prompt = [speech]
    for text in texts:
        prompt += [Text(text), speech]
    prompt = [part for part in prompt if part is speech or part.text]
    back = expressive.vocabulary.decode(expressive.vocabulary.encode(prompt))
    assert merged(back) == merged(prompt)


def merged(segments) -> list:
    """Join neighbours of one modality."""
    out = []
    for segment in segments:
        is_text = isinstance(segment, Text)
        content = segment.text if is_text else segment.stream.to_string()
        if out and out[-1][0] == is_text:
            out[-1] = (is_text, out[-1][1] + content)
        else:
            out.append((is_text, content))
    return out


def test_prompts_in_all_forms(expressive, recording, samples):
    units = expressive.encode_file(recording)
    forms = [
        [Text("he said"), Speech(str(recording))],
        (Text("he said"), Speech(recording)),
        [("text", "he said"), ("speech", recording)],
        [Text("he"), ("text", " said"), Speech(recording.read_bytes())],
        [Text("he said"), Speech(samples)],
        [Text("he said"), Speech(torch.from_numpy(samples))],
        [Text("he said"), Speech({"array": samples, "sampling_rate": RATE})],
        iter([("text", "he said"), ("speech", {"path": str(recording)})]),
        [Text("he said"), ("speech", units)],
        [Text("he said"), Speech(units.merge())],
    ]
    options = {"output": "text", "max_new_tokens": 10}
    expected = shown(greedily(expressive, forms[-1], **options))
    batch = greedily(expressive, iter(forms), **options)
    assert [shown(output) for output in batch] == [expected] * len(forms)
    assert shown(greedily(expressive, iter(forms[2]), **options)) == expected
    [output] = greedily(expressive, forms[:1], **options)
    assert shown(output) == expected
    reverse = forms[-1][::-1]
    assert shown(greedily(expressive, reverse, **options)) != expected


def test_a_segment_alone_is_a_prompt(base):
    expected = greedily(base, [Text("a")], "text", max_new_tokens=5)
    output = greedily(base, Text("a"), "text", max_new_tokens=5)
    assert shown(output) == shown(expected)


def test_text_output_is_text(scripted):
    prompt = [Text("the cat")]
    lm = scripted("expressive", prompt, "text", " old man</s>")
    output = greedily(lm, prompt, "text")
    assert output == [Text(" old man")]
    assert (output.text, output.wav) == (" old man", None)
    assert output.end_reason == "end_of_sequence"


def test_text_output_has_no_speech(scripted):
    prompt = [Text("the cat")]
    lm = scripted("expressive", prompt, "text", " old")
    head = lm.mods.language_model.model.get_output_embeddings().weight
    with torch.no_grad():
        # Of all speech tokens each is more likely than the text.
        head[list(lm.vocabulary.speech_tokens().values()), 0] = 20
    [out] = decode(
        lm.mods.language_model,
        [lm.vocabulary.encode(prompt, "text")],
        "text",
        max_new_tokens=3,
        temperature=1,
        seeds=[0],
    )
    assert int(out.ids[0]) == script_ids(lm.vocabulary, " old")[0]
    assert bool((lm.vocabulary.kinds[out.ids] == TEXT_KIND).all())


def test_speech_output_is_speech(scripted):
    prompt = [Text("the cat")]
    script = "[St4][Pi7][Hu3][Hu4][Pi8][Hu5]"
    lm = scripted("expressive", prompt, "speech", f"{script}</s>")
    output = greedily(lm, prompt, "speech", speaker=1)
    [speech] = output
    assert speech.stream.to_string() == script
    assert output.end_reason == "end_of_sequence"
    assert output.text == ""
    [wav], _ = lm.decode_batch([SpeechStream.from_string(script)], speaker=1)
    assert_same_wavs(speech.wav, wav)
    assert torch.equal(output.wav, speech.wav)
    [silent] = greedily(lm, prompt, "speech", vocode=False)
    assert silent.wav is None


@pytest.mark.parametrize("banned", ["[Text]", "[Speech]", "cat"])
def test_speech_output_has_no_text(scripted, banned):
    prompt = [Speech(SpeechUnits([1, 2, 9]))]
    lm = scripted("base", prompt, "speech", f"[Hu3]{banned}[Hu4]</s>")
    [speech] = greedily(lm, prompt, "speech", stop=False, max_new_tokens=6)
    assert len(speech.stream) == 6


def test_speech_runs_to_the_limit_without_stop(scripted):
    prompt = [Text("the cat")]
    lm = scripted("base", prompt, "speech", "[Hu3][Hu4]</s>")
    for seed in (None, 0):
        output = greedily(
            lm,
            prompt,
            "speech",
            stop=False,
            max_new_tokens=9,
            temperature=0 if seed is None else 1,
            seed=seed,
        )
        assert output.end_reason == "max_new_tokens"
        assert len(output[0].stream) == 9
        assert output[0].stream.to_string().startswith("[Hu3][Hu4]")


def test_any_output_keeps_the_order(scripted):
    prompt = [Text("the cat")]
    script = " old[Speech][St4][Pi7][Hu3][Hu4][Text] man[Hu8][Hu9]</s>"
    lm = scripted("expressive", prompt, "any", script)
    output = greedily(lm, prompt, "any")
    assert shown(output) == (
        [" old", "[St4][Pi7][Hu3][Hu4]", " man", "[Hu8][Hu9]"],
        "end_of_sequence",
    )
    assert output.text == " old man"
    spoken = [s.wav for s in output if isinstance(s, Speech)]
    assert torch.equal(output.wav, torch.cat(spoken))


def test_any_output_drops_short_speech(scripted):
    prompt = [Text("the cat")]
    short, long = units_string(0, 24), units_string(100, 25)
    script = f"[Speech]{short}[Text] old{long}</s>"
    lm = scripted("base", prompt, "any", script)
    segments, _ = shown(lm.generate(prompt, "any", temperature=0))
    assert segments == [" old", long]
    segments, _ = shown(
        lm.generate(prompt, "any", temperature=0, min_speech_units=24)
    )
    assert segments == [short, " old", long]


def test_spare_rows_are_never_drawn(scripted):
    prompt = [Text("the cat")]
    lm = scripted("base", prompt, "any", "[Hu3]")
    model = lm.mods.language_model
    assert model.rows > len(lm.vocabulary)
    with torch.no_grad():
        model.model.get_output_embeddings().weight[len(lm.vocabulary) :] = 1
    for output in ("text", "speech", "any"):
        [out] = decode(
            model,
            [lm.vocabulary.encode(prompt, output)],
            output,
            max_new_tokens=20,
            seeds=[0],
            temperature=1,
            stop=False,
        )
        assert int(out.ids.max()) < len(lm.vocabulary)


@pytest.mark.parametrize(
    "script",
    ["[Hu1][Hu2]", "[St3][Hu1]", "[Pi3]", "[St3]", "[Pi3][Hu500]"],
)
def test_odd_speech_is_returned(scripted, script):
    prompt = [Text("the cat")]
    lm = scripted("expressive", prompt, "speech", f"{script}</s>")
    output = greedily(lm, prompt, "speech", seed=0)
    assert shown(output) == ([script], "end_of_sequence")
    units = {"[Hu1]", "[Hu2]"} & set(re.findall(r"\[\w+\]", script))
    assert len(output.wav) >= 640 * len(units)


def test_an_output_may_be_empty(scripted):
    prompt = [Text("the cat")]
    for output in ("text", "speech", "any"):
        lm = scripted("expressive", prompt, output, "</s>")
        out = greedily(lm, prompt, output)
        assert (shown(out), out.text, out.wav) == (
            ([], "end_of_sequence"),
            "",
            None,
        )


def test_max_new_tokens(lm, prompts_of):
    options = {"stop": False, "max_new_tokens": 7, "vocode": False}
    batch = greedily(lm, prompts_of(lm), "speech", **options)
    assert {len(output[0].stream) for output in batch} == {7}
    assert {output.end_reason for output in batch} == {"max_new_tokens"}
    output = greedily(lm, [Text("a")], "text", max_new_tokens=1)
    assert output.end_reason == "max_new_tokens"


@pytest.mark.parametrize("output", ["speech", "any"])
@pytest.mark.parametrize("limit", [0.5, 1.03])
def test_max_seconds(base, prompts_of, output, limit):
    prompts = prompts_of(base)[1:4]
    options = {"min_speech_units": 0, "max_new_tokens": 40}
    full = base.generate(prompts, output, seed=1, vocode=False, **options)
    options["max_seconds"] = limit
    batch = base.generate(prompts, output, seed=1, **options)
    for i, (whole, out) in enumerate(zip(full, batch)):
        assert len(out.wav) <= limit * RATE
        assert out.end_reason == "max_seconds"
        # It is the beginning of what there is without a limit.
        cut = "".join(shown(out)[0])
        assert "".join(shown(whole)[0]).startswith(cut)
        alone = base.generate(prompts[i], output, seed=1 + i, **options)
        assert shown(alone) == shown(out)


def test_max_seconds_holds_for_all_pieces_together(base, samples):
    # The last unit that is left lasts longer than it did before others; with
    # these seeds it made the whole too long.
    prompt = [Speech(base.encode_batch([samples])[0]), Text("a")]
    outputs = base.generate(
        [prompt] * 7,
        "any",
        seed=10,
        max_seconds=0.5,
        min_speech_units=0,
        max_new_tokens=24,
    )
    pieces = [sum(isinstance(s, Speech) for s in out) for out in outputs]
    assert max(pieces) > 1
    for out in outputs:
        assert out.wav is None or len(out.wav) <= 0.5 * RATE


def test_max_seconds_beyond_the_end_changes_nothing(base):
    prompt = [Text("the old man")]
    options = {"seed": 1, "max_new_tokens": 10}
    expected = base.generate(prompt, "speech", **options)
    output = base.generate(prompt, "speech", max_seconds=60, **options)
    assert shown(output) == shown(expected)
    assert torch.equal(output.wav, expected.wav)


def test_context_full(base, prompts_of, monkeypatch):
    lm, prompts = base, prompts_of(base)
    options = {"output": "speech", "stop": False, "vocode": False, "seed": 1}
    free = lm.generate(prompts, max_new_tokens=60, **options)
    lengths = [len(lm.vocabulary.encode(p, "speech")) for p in prompts]
    context = max(lengths) + 5
    config = lm.mods.language_model.model.config
    monkeypatch.setattr(config, "max_position_embeddings", context)
    batch = lm.generate(prompts, max_new_tokens=60, **options)
    assert len(set(lengths)) == len(lengths)
    for out, full, length in zip(batch, free, lengths, strict=True):
        room = min(context - length, 60)
        assert len(out[0].stream) == room
        assert out[0].stream == full[0].stream[:room]
        reason = "context_full" if room < 60 else "max_new_tokens"
        assert out.end_reason == reason
    assert {out.end_reason for out in batch} == {
        "context_full",
        "max_new_tokens",
    }


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("times", [1, 6])
@pytest.mark.parametrize("output", ["speech", "any"])
def test_speech_goes_on_where_the_prompt_ends(
    scripted, models, samples, variant, times, output
):
    # The vocoder hears 64 units of what is before; 6 times it is more.
    units = models[variant].encode_batch([samples[:9000]])[0]
    prompt = [Text("he said"), *[Speech(units)] * times]
    script = "[Hu3][Hu4]"
    if variant == "expressive":
        script += "[Pi9][Hu5][St7][Hu6]"
    lm = scripted(variant, prompt, output, f"{script}</s>")
    [speech] = greedily(lm, prompt, output, speaker=1)
    stream = SpeechStream.from_string(script)
    assert speech.stream == stream
    joint = SpeechStream.concatenate([units.merge()] * times + [stream])
    [whole], _ = lm.decode_batch([joint], speaker=1)
    frames = lm.mods.vocoder.predict_frames([joint.split().phonetic])[0]
    length = 640 * int(frames[-len(stream.split()) :].sum())
    assert len(speech.wav) == length
    assert_same_wavs(speech.wav, whole[-length:])
    if variant == "base":
        [apart], _ = lm.decode_batch([stream], speaker=1)
        # Context is heard.
        assert len(apart) != length or not torch.allclose(apart, speech.wav)


@pytest.mark.parametrize("case", ["text before", "marker before"])
def test_speech_that_starts_anew_has_no_context(scripted, case):
    speech = Speech(SpeechUnits([7, 8, 9] * 10))
    script = units_string(20, 5)
    if case == "text before":
        prompt, output, marker = [speech, Text("he said")], "speech", ""
    else:
        prompt, output, marker = [speech, Text("said")], "any", "[Speech]"
    lm = scripted("base", prompt, output, f"{marker}{script}</s>")
    [out] = greedily(lm, prompt, output)
    [wav], _ = lm.decode_batch([SpeechStream.from_string(script)])
    assert_same_wavs(out.wav, wav)


def test_an_output_continues_as_a_prompt(base, samples):
    first = base.generate([Speech(samples)], "speech", seed=0, max_new_tokens=9)
    prompt = [Speech(samples), *first, Text(" she said")]
    output = base.generate(prompt, "text", seed=0, max_new_tokens=9)
    units = base.encode_batch([samples])[0].merge()
    joint = SpeechStream.concatenate([units, first[0].stream])
    prompt = [Speech(joint), Text(" she said")]
    expected = base.generate(prompt, "text", seed=0, max_new_tokens=9)
    assert shown(output) == shown(expected)


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        (None, ValueError, "list of segments.*got None"),
        ([[]], ValueError, "prompt is empty"),
        ([[Text("")]], ValueError, "prompt is empty"),
        ([[Text("a")], [Text("")]], ValueError, "prompt is empty"),
        ("the cat", ValueError, "list of segments.*'the cat'"),
        (["the cat"], TypeError, r"\[Text\("),
        (("text", "the cat"), TypeError, "put the segment in a list"),
        ([("words", "the cat")], TypeError, r"words.*Text\("),
        ([Text("a" * 3000)], ValueError, "context of 2048"),
        ([Speech(SpeechUnits([3] + [1, 2] * 1030))], ValueError, "context of"),
        ([Speech(SpeechUnits([501]))], ValueError, r"\[Hu501\].*501 phonetic"),
        (
            [Speech(SpeechUnits([1], pitch=[2]))],
            ValueError,
            r"\[Pi2\].*SpeechUnits.base",
        ),
        ([Speech(np.zeros(1279))], ValueError, "1279 samples.*1280"),
    ],
)
def test_prompts_that_cannot_be_used(base, prompts, error, message):
    with pytest.raises(error, match=message):
        base.generate(prompts, "text")
