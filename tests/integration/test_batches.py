"""Each item of a batch gets what it gets alone."""

from __future__ import annotations

import pytest
import torch

from spiritlm_plugin import Speech, Text
from tests.integration.helpers import assert_same_wavs, shown


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
