"""SpiritLM as users call it, on the small checkpoints."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from spiritlm_plugin import Speech, SpeechUnits, SpiritLM, Text
from spiritlm_plugin.dataio import audio
from spiritlm_plugin.dataio.audio import read_audio
from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.dataio.units import SpeechStream
from spiritlm_plugin.dataio.vocabulary import TEXT_KIND
from spiritlm_plugin.decoders.constrained import decode
from spiritlm_plugin.integrations.convert import convert_release
from spiritlm_plugin.lobes import speech_tokenizer
from spiritlm_plugin.lobes.speech_tokenizer import join_windows

RATE = 16000
VARIANTS = ("base", "expressive")
# Recordings of these many samples; 1280 are the fewest.
LENGTHS = (20000, 1280, 31000, 1281, 16000)


@pytest.fixture(scope="session")
def models(load, checkpoints):
    """Both models, in float32, in which batches are exact."""
    return {v: load(checkpoints, v, "float32") for v in VARIANTS}


@pytest.fixture(scope="session")
def base(models):
    return models["base"]


@pytest.fixture(scope="session")
def expressive(models):
    return models["expressive"]


@pytest.fixture(params=VARIANTS)
def lm(request, models):
    return models[request.param]


@pytest.fixture(scope="session")
def samples(recording):
    return soundfile.read(recording, dtype="float32")[0]


@pytest.fixture(scope="session")
def wavs(samples):
    """Recordings of unequal length and loudness, some of them noise."""
    noise = np.random.default_rng(0).normal(size=max(LENGTHS)) / 10
    kinds = [samples, noise.astype(np.float32), samples[::-1].copy()]
    return [
        torch.from_numpy(kinds[i % 3][:n] / (i + 1))
        for i, n in enumerate(LENGTHS)
    ]


@pytest.fixture(scope="session")
def prompts_of(models, samples):
    """Return a model's prompts, of unequal length and in both modalities."""
    ends = ((0, None), (0, 9000), (9000, 20000), (5000, 9000), (0, 4000))
    wavs = [samples[start:end] for start, end in ends]

    @cache
    def prompts(lm: SpiritLM):
        speech = [Speech(units) for units in lm.encode_batch(wavs)]
        return [
            [Text("the old man walked")],
            [speech[0]],
            [Text("a")],
            [Text("he said"), speech[1]],
            [speech[2], Text(" and then they were gone")],
            [speech[3], speech[4]],
        ]

    return prompts


def shown(generation) -> tuple:
    """Return what a generation holds, comparable."""
    segments = [
        s.text if isinstance(s, Text) else s.stream.to_string()
        for s in generation
    ]
    return segments, generation.end_reason


def assert_same_wavs(actual, expected) -> None:
    assert actual.shape == expected.shape
    assert float((actual - expected).abs().max()) <= 1e-4 * float(
        expected.abs().max()
    )


# A result does not depend on what else is in the batch


def test_encoding_is_the_same_in_any_batch(lm, wavs):
    alone = [lm.encode_batch([wav])[0] for wav in wavs]
    assert [len(units) for units in alone] == [
        max((len(wav) - 80) // 640, 1) for wav in wavs
    ]
    assert len({tuple(units.phonetic.tolist()) for units in alone}) == len(wavs)
    assert lm.encode_batch(wavs) == alone
    assert lm.encode_batch(wavs[::-1]) == alone[::-1]


def test_padded_batch_is_the_same_as_a_list(lm, wavs):
    lengths = torch.tensor([len(wav) for wav in wavs])
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    # What is behind an item has no meaning.
    for row, length in zip(padded, lengths):
        row[length:] = 0.3
    assert lm(padded, lengths / lengths.max()) == lm.encode_batch(wavs)


@torch.inference_mode()
def test_padding_is_not_heard_by_the_tokenizers(lm, wavs):
    # However much of it there is; encode_batch keeps it low.
    lengths = torch.tensor([len(wav) for wav in wavs])
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    tokenizer = lm.mods.tokenizer
    for name in ("phonetic", "pitch", "style"):
        tokenize = getattr(tokenizer, name)
        if tokenize is None:
            continue
        batch, counts = tokenize(padded, lengths)
        for row, count, wav in zip(batch, counts, wavs):
            [alone], _ = tokenize(wav[None], torch.tensor([len(wav)]))
            assert row[:count].tolist() == alone.tolist(), name


def test_batches_of_any_size_are_the_same(lm, wavs, monkeypatch):
    expected = lm.encode_batch(wavs[:4])
    for seconds in (0.1, 2.2):
        monkeypatch.setattr(lm.mods.tokenizer, "batch_seconds", seconds)
        assert lm.encode_batch(wavs[:4]) == expected


@pytest.mark.parametrize("output", ["text", "speech", "any"])
@pytest.mark.parametrize("temperature", [0, 0.9])
def test_generation_is_the_same_in_any_batch(
    lm, prompts_of, output, temperature
):
    prompts = prompts_of(lm)
    options = {
        "output": output,
        "temperature": temperature,
        "max_new_tokens": 12,
        "min_speech_units": 0,
        "vocode": False,
    }
    seeds = list(range(10, 10 + len(prompts)))
    alone = [
        shown(lm.generate(prompt, seed=seed, **options))
        for prompt, seed in zip(prompts, seeds)
    ]
    assert len({str(segments) for segments, _ in alone}) == len(alone)
    for batch_size in (16, 4):
        batch = lm.generate(prompts, seed=10, batch_size=batch_size, **options)
        assert [shown(out) for out in batch] == alone
    order = [3, 0, 5, 1, 4, 2]
    batch = lm.generate(
        [prompts[i] for i in order], seed=[seeds[i] for i in order], **options
    )
    assert [shown(out) for out in batch] == [alone[i] for i in order]


def test_generated_speech_sounds_the_same_in_any_batch(base, prompts_of):
    prompts = prompts_of(base)
    options = {"output": "speech", "max_new_tokens": 8, "speaker": "ex02"}
    batch = base.generate(prompts, seed=3, **options)
    for i, prompt in enumerate(prompts):
        alone = base.generate(prompt, seed=3 + i, **options)
        assert_same_wavs(batch[i].wav, alone.wav)


def test_sampling_is_the_seed_s_alone(base):
    def sample(seed):
        prompt = [Text("the old man")]
        return shown(
            base.generate(prompt, "text", seed=seed, max_new_tokens=20)
        )

    torch.manual_seed(0)
    first = sample(1)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    assert sample(1) == first
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)
    assert sample(2) != first


def test_drawn_style_is_the_seed_s_alone(scripted):
    # Pitch but no style, so a style is drawn for the vocoder.
    prompt = [Text("a")]
    lm = scripted("expressive", prompt, "speech", "[Pi3][Hu1][Hu2][Hu3]</s>")
    seeds = [5, 6, 7, 8, 9, 10]
    alone = [lm.generate(prompt, "speech", seed=seed).wav for seed in seeds]
    assert any(not torch.equal(wav, alone[0]) for wav in alone)
    for seed in (5, seeds):
        batch = lm.generate([prompt] * len(seeds), "speech", seed=seed)
        for out, wav in zip(batch, alone, strict=True):
            assert_same_wavs(out.wav, wav)


def likelihood_cases(lm, samples):
    vocabulary = lm.vocabulary
    speech = [lm.encode_batch([samples[:n]])[0] for n in (16000, 5000)]
    texts = [vocabulary.encode_text(text) for text in (" sat", "no")]
    spoken = [vocabulary.encode_speech(units.merge()) for units in speech]
    marker = vocabulary.markers
    return [
        ([Text("the cat")], [Text(" sat")], "text", texts[0]),
        ([Text("the cat")], [Speech(speech[0])], "speech", spoken[0]),
        (
            [Speech(speech[1])],
            [Text("no"), Speech(speech[0])],
            "text",
            [*texts[1], marker["speech"], *spoken[0]],
        ),
        ([Speech(speech[0])], [Speech(speech[1])], "speech", spoken[1]),
    ]


@torch.inference_mode()
def test_log_likelihood_is_the_sum_over_the_continuation(lm, samples):
    cases = likelihood_cases(lm, samples)
    sums, counts = lm.log_likelihood(*zip(*(case[:2] for case in cases)))
    assert counts.tolist() == [len(target) for *_, target in cases]
    for total, (prompt, _, modality, target) in zip(sums, cases):
        ids = lm.vocabulary.encode(prompt, modality)
        expected = 0.0
        for token in target:
            logits = lm.mods.language_model(torch.tensor([ids]))[0, -1]
            expected += float(logits.double().log_softmax(-1)[token])
            ids.append(token)
        assert float(total) == pytest.approx(expected, abs=1e-3, rel=1e-5)


def test_log_likelihood_is_the_same_in_any_batch(lm, samples):
    cases = likelihood_cases(lm, samples)
    prompts, continuations = zip(*(case[:2] for case in cases))
    sums, _ = lm.log_likelihood(prompts, continuations)
    few, _ = lm.log_likelihood(prompts, continuations, batch_size=2)
    alone = torch.cat(
        [lm.log_likelihood(p, c)[0] for p, c in zip(prompts, continuations)]
    )
    torch.testing.assert_close(sums, alone, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(few, alone, rtol=1e-6, atol=1e-4)


def test_vocoding_is_the_same_in_any_batch(lm, wavs):
    units = lm.encode_batch(wavs)
    # At full rate and as streams, whose durations are predicted.
    items = [u.merge() if i % 2 else u for i, u in enumerate(units)]
    speakers = [i % len(lm.speakers) for i in range(len(items))]
    batch, wav_lens = lm.decode_batch(items, speakers)
    lengths = (wav_lens * batch.shape[1]).round().long().tolist()
    for row, length, item, speaker in zip(batch, lengths, items, speakers):
        [alone], _ = lm.decode_batch([item], speaker)
        assert_same_wavs(row[:length], alone)
        assert not row[length:].any()


@torch.inference_mode()
def test_padding_is_not_heard(lm, wavs):
    # As items are run on a GPU, where it pays to pad them to one length.
    vocoder = lm.mods.vocoder
    items = [units.deduplicate() for units in lm.encode_batch(wavs)]
    streams = {
        name: [getattr(units, name) for units in items]
        for name in ("phonetic", "pitch", "style")
        if getattr(items[0], name) is not None
    }
    lengths = torch.tensor([len(units) for units in items])
    speakers = torch.arange(len(items)) % len(lm.speakers)
    padded = {
        name: torch.nn.utils.rnn.pad_sequence(stream, batch_first=True)
        for name, stream in streams.items()
    }
    batch, samples = vocoder(padded, lengths, speakers)
    assert samples.tolist() == [640 * len(units) for units in items]
    for i, wav in enumerate(batch):
        units = {name: stream[i][None] for name, stream in streams.items()}
        [alone], _ = vocoder(units, lengths[i : i + 1], speakers[i : i + 1])
        assert_same_wavs(wav[: samples[i]], alone)
        assert not wav[samples[i] :].any()


def test_durations_are_the_same_in_any_batch(lm, wavs):
    streams = [units.merge() for units in lm.encode_batch(wavs)]
    phonetic = [stream.split().phonetic for stream in streams]
    predict = lm.mods.vocoder.predict_frames
    batch = predict(phonetic)
    assert len({len(frames) for frames in batch}) > 2
    for frames, units in zip(batch, phonetic):
        assert torch.equal(frames, predict([units])[0])
        assert int(frames.min()) >= 1
    for frames, stream in zip(batch[1:4:2], streams[1:4:2]):
        wav, _ = lm.decode_batch([stream])
        assert wav.shape == (1, 640 * int(frames.sum()))


# Loading


@pytest.fixture(scope="session")
def folders(checkpoints, tmp_path_factory):
    """Both models as SpeechBrain pretrained folders."""
    root = tmp_path_factory.mktemp("pretrained")
    return {v: convert_release(checkpoints, v, root / v) for v in VARIANTS}


@pytest.mark.parametrize("variant", VARIANTS)
def test_pretrained_folder_is_the_release(
    variant, folders, models, prompts_of, samples, tmp_path, monkeypatch
):
    folder = shutil.copytree(folders[variant], tmp_path / "moved" / "model")
    monkeypatch.chdir(tmp_path)
    lm = SpiritLM.from_hparams(
        "moved/model", overrides={"language_model_dtype": "float32"}
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["moved"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        p.name for p in folders[variant].iterdir()
    )
    release = models[variant]
    prompts = prompts_of(release)
    assert lm.speakers == release.speakers
    for output in ("text", "any"):
        options = {"seed": 0, "max_new_tokens": 20, "vocode": False}
        expected = release.generate(prompts, output, **options)
        actual = lm.generate(prompts, output, **options)
        assert list(map(shown, actual)) == list(map(shown, expected))
    units = release.encode_batch([samples])
    assert lm.encode_batch([samples]) == units
    assert torch.equal(
        lm.decode_batch(units)[0], release.decode_batch(units)[0]
    )


def test_language_model_inside_is_stock(folders, expressive):
    from transformers import AutoModelForCausalLM

    folder = folders["expressive"]
    assert not [p for p in folder.rglob("*") if p.suffix in (".bin", ".pt")]
    stock = AutoModelForCausalLM.from_pretrained(
        folder / "language_model", dtype=torch.float32
    )
    ids = torch.tensor([expressive.vocabulary.encode([Text("the cat")])])
    with torch.inference_mode():
        expected = expressive.mods.language_model(ids)
        assert torch.equal(stock(ids).logits, expected)


def test_release_is_found_by_the_environment(checkpoints, monkeypatch):
    monkeypatch.setenv("SPIRITLM_CHECKPOINTS_DIR", str(checkpoints))
    lm = SpiritLM.from_release(variant="base", run_opts={"device": "cpu"})
    assert not lm.expressive
    assert lm.mods.language_model.model.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in lm.parameters())
    assert not any(module.training for module in lm.mods.modules())
    monkeypatch.delenv("SPIRITLM_CHECKPOINTS_DIR")
    with pytest.raises(ValueError, match="SPIRITLM_CHECKPOINTS_DIR"):
        SpiritLM.from_release()


def test_conversion_does_not_overwrite(checkpoints, tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        convert_release(checkpoints, "base", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_nothing_is_printed(checkpoints, samples, tmp_path, capfd):
    # torchfcpe reports where it is used, and what is beyond 1, as the samples
    # of a float file may well be.
    file = tmp_path / "loud.wav"
    soundfile.write(file, samples / abs(samples).max() * 1.2, RATE, "FLOAT")
    SpiritLM.from_release(checkpoints).encode_file(file)
    assert capfd.readouterr().out == ""


# Text is text

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


# Generation


@pytest.fixture
def scripted(checkpoints):
    """Return a function that makes a model that has learned one sentence.

    Each token is followed by the next of the script, whatever is before it:
    what layers add is zero, and each embedding points at one output. Tokens
    must not repeat.
    """

    def make(variant: str, prompt, output: str, script: str) -> SpiritLM:
        lm = SpiritLM.from_release(checkpoints, variant, "float32")
        chain = [lm.vocabulary.encode(prompt, output)[-1]]
        chain += script_ids(lm.vocabulary, script)
        assert len(set(chain)) == len(chain)
        llama = lm.mods.language_model.model
        with torch.no_grad():
            for layer in llama.model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            llama.model.norm.weight.fill_(1)
            embedding = llama.get_input_embeddings().weight.zero_()
            head = llama.get_output_embeddings().weight.zero_()
            for i, (token, following) in enumerate(zip(chain, chain[1:])):
                embedding[token, i] = 1
                head[following, i] = 10
        return lm

    return make


def script_ids(vocabulary, script: str) -> list[int]:
    """Return ids of a string in which brackets and ``</s>`` are tokens."""
    tokens = {**vocabulary.speech_tokens(), "</s>": vocabulary.eos_id}
    ids = []
    for part in (
        script.replace("[", "\0[").replace("</s>", "\0</s>").split("\0")
    ):
        end = part.find("]") + 1 or (4 if part.startswith("</s>") else 0)
        if part[:end]:
            ids.append(tokens[part[:end]])
        ids += vocabulary.encode_text(part[end:])
    return ids


def units_string(first: int, count: int) -> str:
    return "".join(f"[Hu{i}]" for i in range(first, first + count))


def greedily(lm, prompt, output, **options):
    options = {"temperature": 0, "min_speech_units": 0, **options}
    return lm.generate(prompt, output, **options)


def test_prompts_in_all_forms(expressive, recording, samples):
    units = expressive.encode_file(recording)
    forms = [
        [Text("he said"), Speech(str(recording))],
        (Text("he said"), Speech(recording)),
        [("text", "he said"), ("speech", recording)],
        [Text("he"), ("text", " said"), Speech(recording.read_bytes())],
        [Text("he said"), Speech(samples)],
        [Text("he said"), Speech(torch.from_numpy(samples))],
        [Text("he said"), ("speech", units)],
        [Text("he said"), Speech(units.merge())],
    ]
    options = {"output": "text", "max_new_tokens": 10}
    expected = shown(greedily(expressive, forms[-1], **options))
    batch = greedily(expressive, forms, **options)
    assert [shown(output) for output in batch] == [expected] * len(forms)
    assert shown(greedily(expressive, forms[2], **options)) == expected
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


# Errors: what is wrong, and with what


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        ([], ValueError, r"list of segments.*got \[\]"),
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "music"}, "text, speech, any.*'music'"),
        ({"speaker": 4}, "unknown speaker 4; known: 0.*3"),
        ({"speaker": -1}, "unknown speaker -1"),
        ({"speaker": "nobody"}, "'nobody'; known: .*ex01"),
        ({"temperature": -0.1}, "temperature.*-0.1"),
        ({"top_p": 0}, "top_p.*0"),
        ({"top_p": 1.1}, "top_p.*1.1"),
        ({"max_new_tokens": 0}, "max_new_tokens.*0"),
        ({"max_seconds": 0}, "max_seconds.*0"),
        ({"batch_size": 0}, "batch_size.*0"),
        ({"seed": [1, 2]}, "2 seeds for 1"),
    ],
)
def test_options_that_cannot_be_used(base, options, message):
    with pytest.raises(ValueError, match=message):
        base.generate([Text("a")], **{"output": "text", **options})


@pytest.mark.parametrize(
    ("units", "options", "message"),
    [
        ([SpeechUnits([501], [1], [1])], {}, "phonetic unit 501.*500"),
        ([SpeechUnits([1], [64], [1])], {}, "pitch unit 64.*64"),
        ([SpeechUnits([1], [1], [100])], {}, "style unit 100.*100"),
        ([SpeechUnits([1])], {}, "no pitch"),
        ([SpeechUnits([1], [1], [1])], {"speaker": "x"}, "unknown speaker 'x'"),
        ([SpeechUnits([1], [1], [1])], {"speaker": [1, 2]}, "2 speakers for 1"),
        ([SpeechUnits([1], [1], [1])], {"global_style": 1}, "global style 1"),
        ([], {}, "empty"),
    ],
)
def test_units_that_cannot_be_spoken(expressive, units, options, message):
    with pytest.raises(ValueError, match=message):
        expressive.decode_batch(units, **options)


def test_scored_lists_must_match(base):
    with pytest.raises(ValueError, match="1 prompts and 2 continuations"):
        base.log_likelihood([[Text("a")]], [[Text("b")], [Text("c")]])
    with pytest.raises(ValueError, match="empty"):
        base.log_likelihood([Text("a")], [Text("")])
    with pytest.raises(ValueError, match="context of 2048"):
        base.log_likelihood([Text("a")], [Text("b" * 3000)])


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (torch.zeros(1279), "1279 samples.*1280"),
        (torch.zeros(0), "empty"),
        (torch.tensor([0.0] * 1999 + [torch.nan]), r"nan at 0.125 s"),
        (torch.tensor([torch.inf] + [0.0] * 2000), r"inf at 0.000 s"),
        (torch.full((2000,), 3000.0), "3000.*int16"),
        (torch.zeros(2000, dtype=torch.int64), "int64.*int16"),
        (torch.zeros(2, 2, 2000), r"\(2, 2, 2000\)"),
    ],
)
def test_samples_that_cannot_be_used(base, wav, message):
    with pytest.raises(ValueError, match=message):
        base.encode_batch([torch.zeros(2000), wav])


@pytest.mark.parametrize(
    ("wav_lens", "message"),
    [([0.0, 1.0], r"\(0, 1\].*0.0"), ([1.0], "each item"), ([1.5, 1], "1.5")],
)
def test_relative_lengths_that_cannot_be_used(base, wav_lens, message):
    with pytest.raises(ValueError, match=message):
        base.encode_batch(torch.zeros(2, 2000), torch.tensor(wav_lens))


def test_lists_have_no_relative_lengths(base):
    with pytest.raises(ValueError, match="padded tensor"):
        base.encode_batch([torch.zeros(2000)], torch.ones(1))


def test_files_that_cannot_be_read(base, recording, tmp_path):
    missing, empty, text, nothing, short, broken = (
        tmp_path / f"{name}.wav"
        for name in ("missing", "empty", "text", "nothing", "short", "broken")
    )
    with pytest.raises(FileNotFoundError, match=str(missing)):
        base.encode_file(missing)
    empty.touch()
    text.write_text("not a recording" * 100)
    soundfile.write(nothing, np.zeros(0), RATE)
    soundfile.write(short, np.zeros(600), 8000)
    for file, message in (
        (empty, "empty"),
        (text, "convert"),
        (nothing, "no samples"),
        (short, "1200 samples.*1280"),
    ):
        with pytest.raises(ValueError, match=f"{file}.*{message}"):
            base.encode_file(file)
        with pytest.raises(ValueError, match=f"{file}.*{message}"):
            base.generate([Text("a"), Speech(file)], "text")
        with pytest.raises(ValueError, match=message):
            base.encode_file(file.read_bytes())
    flac = io.BytesIO()
    samples, _ = soundfile.read(recording)
    soundfile.write(flac, samples, RATE, format="flac")
    broken.write_bytes(flac.getvalue()[:9000] + bytes(9000))
    with pytest.raises(ValueError, match=f"{broken}.*damaged"):
        base.encode_file(broken)


HUBERT = "speech_tokenizer/hubert_25hz/mhubert_base_25hz.pt"
QUANTIZER = "speech_tokenizer/hubert_25hz/L11_quantizer_500.pt"
VOCODER = "speech_tokenizer/hifigan_spiritlm_base"
LM = "spiritlm_model/spirit-lm-base-7b"
PICKLES = (HUBERT, f"{VOCODER}/generator.pt", f"{LM}/pytorch_model.bin")


@pytest.fixture
def copied(checkpoints, tmp_path):
    """A copy of the checkpoints, to be damaged."""
    return Path(shutil.copytree(checkpoints, tmp_path / "checkpoints"))


@pytest.fixture
def copied_folder(folders, tmp_path):
    """A copy of the pretrained Base folder, to be damaged."""
    return Path(shutil.copytree(folders["base"], tmp_path / "model"))


def test_missing_files_are_all_named(copied):
    missing = (QUANTIZER, f"{VOCODER}/speakers.txt", f"{LM}/tokenizer.model")
    for name in missing:
        (copied / name).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        SpiritLM.from_release(copied, "base")
    for name in (*missing, str(copied)):
        assert name in str(caught.value)
    assert HUBERT not in str(caught.value)


def test_missing_weights_of_the_language_model(copied):
    (copied / LM / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=LM):
        SpiritLM.from_release(copied, "base")


def test_files_of_the_other_variant_may_be_missing(copied):
    for name in ("vqvae_f0_quantizer", "style_encoder_w2v2"):
        shutil.rmtree(copied / "speech_tokenizer" / name)
    assert not SpiritLM.from_release(copied, "base").expressive
    with pytest.raises(FileNotFoundError, match="vqvae_f0_quantizer/model.pt"):
        SpiritLM.from_release(copied, "expressive")


def test_wrong_names_of_folder_and_variant(checkpoints, tmp_path):
    with pytest.raises(ValueError, match="base, expressive, got 'large'"):
        SpiritLM.from_release(checkpoints, "large")
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "no")):
        SpiritLM.from_release(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "no")):
        SpiritLM.from_hparams(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match="from_release"):
        SpiritLM.from_hparams(checkpoints)


class Code:
    """What a pickle can hold: a call that is made when it is read."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder,)


@pytest.mark.parametrize("name", PICKLES)
def test_code_in_a_checkpoint_is_not_run(copied, tmp_path, name):
    file, ran = copied / name, tmp_path / "ran"
    content = torch.load(file, weights_only=True)
    torch.save({**content, "extra": Code(ran)}, file)
    with pytest.raises(CheckpointError, match=str(Path(name).parent)):
        SpiritLM.from_release(copied, "base")
    file.write_bytes(pickle.dumps(Code(ran), protocol=2))
    with pytest.raises(CheckpointError, match=str(Path(name).parent)):
        SpiritLM.from_release(copied, "base")
    assert not ran.exists()
    # It would be run by a reader that trusts the file.
    pickle.loads(file.read_bytes())
    assert ran.exists()


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("kept", [0, 1000, 20000, -100])
def test_damaged_checkpoint(copied, name, kept):
    file = copied / name
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=str(Path(name).parent)):
        SpiritLM.from_release(copied, "base")


@pytest.mark.parametrize(
    "name",
    [f"{LM}/config.json", f"{LM}/tokenizer.model", f"{VOCODER}/config.json"],
)
def test_damaged_configuration(copied, name):
    (copied / name).write_bytes((copied / name).read_bytes()[:99])
    # CheckpointError is a ValueError, and so are those of tokenizers.
    with pytest.raises(ValueError, match=str(Path(name).parent)):
        SpiritLM.from_release(copied, "base")


def test_tensors_that_do_not_fit(copied):
    file = copied / VOCODER / "generator.pt"
    content = torch.load(file, weights_only=True)
    weights = content["generator"]
    weights.pop("conv_pre.bias")
    weights["conv_post.bias"] = torch.zeros(7)
    weights["ups.9.bias"] = torch.zeros(1)
    torch.save(content, file)
    with pytest.raises(CheckpointError) as caught:
        SpiritLM.from_release(copied, "base")
    message = str(caught.value)
    assert str(copied) in message
    assert "missing generator.input.bias" in message
    assert "generator.output.bias has shape (7,), expected (1,)" in message
    assert re.search(r"unknown generator\S*\.9\.\S*bias", message)


@pytest.mark.parametrize(
    "change",
    [{"vocab_size": 1000}, {"hidden_size": 32}, {"num_hidden_layers": 3}],
)
def test_language_model_that_does_not_fit(copied, change):
    file = copied / LM / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=f"{LM}.*config.json"):
        SpiritLM.from_release(copied, "base")


def test_layers_that_the_configuration_lacks(copied):
    file = copied / LM / "config.json"
    config = json.loads(file.read_text())
    config["num_hidden_layers"] -= 1
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=LM):
        SpiritLM.from_release(copied, "base")


def test_expression_in_a_checkpoint_is_not_evaluated(copied, tmp_path):
    file, ran = copied / HUBERT, tmp_path / "ran"
    content = torch.load(file, weights_only=True)
    expression = f"__import__('os').mkdir({str(ran)!r}) or [(8, 10, 5)]"
    content["model_cfg"]["conv_feature_layers"] = expression
    torch.save(content, file)
    with pytest.raises(CheckpointError, match="conv_feature_layers"):
        SpiritLM.from_release(copied, "base")
    assert not ran.exists()


@pytest.mark.parametrize(
    "name", ["vocoder.safetensors", "language_model/model.safetensors"]
)
def test_damaged_safetensors(copied_folder, name):
    file = copied_folder / name
    content = file.read_bytes()
    for damaged in (content[:-100], content[:50], b"", pickle.dumps({"a": 1})):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=str(file.parent)):
            SpiritLM.from_hparams(copied_folder)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=file.name):
        SpiritLM.from_hparams(copied_folder)


def test_safetensors_that_do_not_fit(copied_folder):
    file = copied_folder / "phonetic.safetensors"
    tensors = load_file(file)
    name, tensor = next(iter(tensors.items()))
    save_file({**tensors, name: tensor[None]}, file)
    with pytest.raises(CheckpointError, match=f"{file}.*{re.escape(name)} has"):
        SpiritLM.from_hparams(copied_folder)


def test_failed_conversion_leaves_no_folder(copied, tmp_path):
    (copied / LM / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError):
        convert_release(copied, "base", tmp_path / "model")
    assert not (tmp_path / "model").exists()


# Audio as people have it


AUDIO_FORMS = {
    "str": lambda path, wav: str(path),
    "Path": lambda path, wav: path,
    "bytes": lambda path, wav: path.read_bytes(),
    "int16": lambda path, wav: (wav * 2**15).astype(np.int16),
    "int32": lambda path, wav: (wav * 2.0**31).astype(np.int32),
    "float32": lambda path, wav: wav,
    "float64": lambda path, wav: wav.astype(np.float64),
    "tensor": lambda path, wav: torch.from_numpy(wav),
    "int16 tensor": lambda path, wav: torch.from_numpy(wav * 2**15).short(),
    "one row": lambda path, wav: wav[None],
    "one column": lambda path, wav: wav[:, None],
    "stereo": lambda path, wav: np.stack([1.5 * wav, 0.5 * wav], 1),
    "stereo rows": lambda path, wav: np.stack([0.5 * wav, 1.5 * wav]),
}


@pytest.mark.parametrize("form", AUDIO_FORMS)
def test_audio_in_all_forms(base, recording, samples, form):
    content = AUDIO_FORMS[form](recording, samples)
    assert torch.equal(read_audio(content), torch.from_numpy(samples))
    expected = base.encode_file(recording)
    assert base.encode_batch([content, samples[:5000]])[0] == expected


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pcm.wav", {"subtype": "PCM_16"}),
        ("float.wav", {"subtype": "FLOAT"}),
        ("24.wav", {"subtype": "PCM_24"}),
        ("a.flac", {}),
        ("a.au", {}),
    ],
)
def test_lossless_files_are_the_samples(
    base, recording, samples, tmp_path, name, options
):
    file = tmp_path / name
    soundfile.write(file, np.stack([samples, samples], 1), RATE, **options)
    assert torch.equal(read_audio(file), torch.from_numpy(samples))
    assert base.encode_file(file) == base.encode_file(recording)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_sample_rates(base, samples, tmp_path, rate):
    wav = torchaudio.functional.resample(torch.from_numpy(samples), RATE, rate)
    expected = torchaudio.functional.resample(wav, rate, RATE)
    file = tmp_path / "a.wav"
    soundfile.write(file, wav.numpy(), rate, "FLOAT")
    for content in (file, wav, wav.numpy()):
        actual = read_audio(content, rate)
        assert abs(len(actual) - len(samples)) <= RATE / rate + 1
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)
    units = base.encode_file(file)
    assert units == base.encode_batch([expected])[0]
    assert base.encode_batch([wav], sample_rate=rate) == [units]
    prompts = [[Speech(wav, sample_rate=rate)], [Speech(file)], [Speech(units)]]
    outputs = greedily(base, prompts, "text", max_new_tokens=5)
    assert shown(outputs[0]) == shown(outputs[1]) == shown(outputs[2])


# Long recordings


@pytest.fixture(scope="session")
def long_wav(samples):
    """A recording of 102 s whose parts differ."""
    time = np.arange(102 * RATE) / RATE
    wav = np.resize(samples, len(time)) * (1 + np.sin(time / 9)) / 2
    noise = np.random.default_rng(0).normal(size=len(time)) / 300
    return torch.from_numpy((wav + noise).astype(np.float32))


def windowed(lm, wav, seconds=100) -> SpeechUnits:
    """Tokenize the windows of a recording alone."""
    windows = wav.split(seconds * RATE)
    return join_windows([lm.encode_batch([window])[0] for window in windows])


def test_long_recording_is_its_windows(base, long_wav, tmp_path):
    file, short = tmp_path / "long.wav", long_wav[:20000]
    soundfile.write(file, long_wav.numpy(), RATE, "FLOAT")
    units = base.encode_file(file)
    assert units == windowed(base, long_wav)
    assert units.duration == pytest.approx(102, abs=0.1)
    batch = base.encode_batch([long_wav, short])
    assert batch == [units, *base.encode_batch([short])]


def test_each_window_has_its_own_pitch_and_style(
    expressive, long_wav, tmp_path, monkeypatch
):
    # Shorter windows, as pitch takes its time.
    monkeypatch.setattr(audio, "WINDOW_SECONDS", 3)
    monkeypatch.setattr(speech_tokenizer, "WINDOW_SAMPLES", 3 * RATE)
    wav, file = long_wav[: 8 * RATE], tmp_path / "long.wav"
    soundfile.write(file, wav.numpy(), RATE, "FLOAT")
    units = expressive.encode_file(file)
    assert units == windowed(expressive, wav, seconds=3)
    assert expressive.encode_batch([wav]) == [units]
    monkeypatch.undo()
    assert expressive.encode_file(file) != units


def test_long_file_of_another_rate_is_its_windows(base, long_wav, tmp_path):
    rate, file = 22050, tmp_path / "long.wav"
    wav = torchaudio.functional.resample(long_wav, RATE, rate)
    soundfile.write(file, wav.numpy(), rate, "FLOAT")
    resampled = torchaudio.functional.resample(wav, rate, RATE)
    actual = read_audio(file)
    torch.testing.assert_close(actual, resampled, rtol=0, atol=1e-6)
    assert base.encode_file(file) == windowed(base, actual)


def test_rest_of_less_than_80_ms_is_dropped(base, long_wav):
    wav = long_wav[: 100 * RATE + 1279]
    units = base.encode_batch([wav])[0]
    assert units == base.encode_batch([wav[: 100 * RATE]])[0]
    assert len(units) == 100 * 25 - 1
