"""Tests of ``spiritlm_plugin.decoders.constrained``."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, TopPLogitsWarper

from spiritlm_plugin.dataio.units.text_tokenizers import SentencePieceText
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.decoders.constrained import (
    AllowedTokens,
    ContextLimit,
    RowLimit,
    SecondsLimit,
    SeededSampling,
    _without_defaults,
    decode,
)
from spiritlm_plugin.lobes.language_model import LanguageModel

CONTEXT = 48


def draw(logits, seeds, steps=1, temperature=1.0, top_p=1.0):
    """Draw tokens from logits of shape (rows, tokens), (rows, steps)."""
    sampling = SeededSampling(seeds, steps, temperature, top_p)
    ids = torch.zeros(len(seeds), 7, dtype=torch.int64)  # a prompt
    for _ in range(steps):
        scores = sampling(ids, logits.expand(len(seeds), -1).clone())
        assert (scores > -torch.inf).sum(1).eq(1).all()
        ids = torch.cat([ids, scores.argmax(1, keepdim=True)], 1)
    return ids[:, 7:]


def test_allowed_tokens():
    scores = torch.randn(3, 4)
    allowed = torch.tensor([True, False, True, False])
    out = AllowedTokens(allowed)(None, scores)
    assert torch.equal(out[:, allowed], scores[:, allowed])
    assert (out[:, ~allowed] == -torch.inf).all()


@pytest.mark.parametrize(
    ("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.7)]
)
def test_draws_follow_the_distribution(temperature, top_p):
    logits = torch.tensor([[1.0, -torch.inf, 0.0, 2.0, -1.0, 0.5, 1.5]])
    count = 4000
    warped = TopPLogitsWarper(top_p)(None, logits / temperature)
    expected = warped.softmax(-1)[0] * count
    # Over rows, each with its seed, and over the steps of a row.
    rows = draw(logits, range(count), 1, temperature, top_p)
    steps = draw(logits, [5], count, temperature, top_p)
    for drawn in (rows, steps):
        counts = drawn.flatten().bincount(minlength=7)
        kept = expected > 0
        assert counts[~kept].sum() == 0
        difference = (counts - expected)[kept].square() / expected[kept]
        # Chi-square of 5 degrees of freedom is beyond 25 once in 7000.
        assert difference.sum() < 25


@given(
    st.lists(st.integers(-30, 30), min_size=2, max_size=8),
    st.floats(0.05, 1.0),
    st.floats(0.3, 3.0),
)
def test_only_what_top_p_keeps_is_drawn(logits, top_p, temperature):
    logits = torch.tensor([logits]) / 10.0
    kept = TopPLogitsWarper(top_p)(None, logits / temperature)[0]
    kept = {i for i, score in enumerate(kept.tolist()) if score > -torch.inf}
    drawn = {*draw(logits, [3], 150, temperature, top_p).flatten().tolist()}
    assert drawn <= kept
    likely = (logits / temperature).softmax(-1)[0]
    assert drawn >= {i for i in kept if likely[i] > 0.1}


def test_banned_tokens_are_never_drawn():
    logits = torch.full((1, 500), -torch.inf)
    logits[0, [3, 250, 400]] = torch.tensor([0.0, -8.0, 0.0])
    drawn = draw(logits, range(2000))
    assert {*drawn.flatten().tolist()} <= {3, 250, 400}
    # Random numbers at the ends of their range.
    sampling = SeededSampling([0, 1], 1, 1.0, 1.0)
    sampling.uniform = torch.tensor([[0.0], [1 - 2**-24]])
    scores = sampling(torch.zeros(2, 1), logits.repeat(2, 1))
    assert scores.argmax(1).tolist() == [3, 400]
    # Probabilities whose sum is rounded below one.
    logits = torch.randn(64, 500)
    logits[:, 400:] = -torch.inf
    sampling = SeededSampling(range(64), 1, 1.0, 1.0)
    sampling.uniform.fill_(1 - 2**-24)
    assert sampling(torch.zeros(64, 1), logits).argmax(1).max() < 400


def test_draws_do_not_depend_on_the_batch():
    logits = torch.randn(6, 40)
    seeds = [4, 0, 9, 4, 2**40, 7]
    drawn = draw(logits, seeds, steps=20)
    for row in range(6):
        alone = draw(logits[row : row + 1], seeds[row : row + 1], steps=20)
        assert torch.equal(alone[0], drawn[row])
    fewer = draw(logits[2:4], seeds[2:4], steps=5)
    assert torch.equal(fewer, drawn[2:4, :5])
    assert not torch.equal(drawn[0], drawn[1])


class TokenLimit(RowLimit):
    """Stop a row at its first 9."""

    def reached(self, new):
        return (new == 9).any(1)


def test_row_limits_remember_when_they_stopped():
    new = torch.tensor([[1, 9, 1, 1], [1, 1, 1, 1], [1, 1, 1, 9], [9, 1, 9, 1]])
    ids = torch.cat([torch.full((4, 3), 9), new], 1)  # behind a prompt
    limit = TokenLimit("reason", 3)
    for length in range(1, 5):
        stopped = limit(ids[:, : 3 + length], None)
        now = [(row[:length] == 9).any() for row in new]
        assert stopped.tolist() == [bool(x) for x in now]
    assert limit.stopped_at.tolist() == [2, 2**31 - 1, 4, 1]


def test_context_limit():
    limit = ContextLimit(torch.tensor([2, 9, 1]), prompt_length=5)
    ids = torch.zeros(3, 8, dtype=torch.int64)
    for length in (6, 7, 8):
        limit(ids[:, :length], None)
    assert limit.stopped_at.tolist() == [2, 2**31 - 1, 1]


def test_seconds_limit_looks_now_and_then():
    seen = []

    def seconds_of(new):
        seen.append(new.shape[1])
        return new.sum(1) * 0.5

    limit = SecondsLimit(seconds_of, 4.0, prompt_length=2)
    ids = torch.ones(2, 40, dtype=torch.int64)
    ids[1] = 0
    stopped = [limit(ids[:, :n], None) for n in range(3, 40)]
    assert seen == [8, 16, 24, 32]
    assert limit.stopped_at.tolist() == [8, 2**31 - 1]
    assert stopped[-1].tolist() == [True, False]


@pytest.fixture(scope="module")
def lm(sentencepiece_model, tmp_path_factory):
    """A language model of random weights, nearly uniform over tokens."""
    path = tmp_path_factory.mktemp("lm") / "tokenizer.model"
    path.write_bytes(sentencepiece_model())
    text = SentencePieceText(path)
    vocabulary = Vocabulary.extend(text, phonetic=9, pitch=3, style=2)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary) + 5,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
    )
    return LanguageModel(LlamaForCausalLM(config).eval(), vocabulary)


def slowly(lm, prompt, output, limit, temperature, top_p, seed, stop=True):
    """Continue one prompt token by token; give ids and end reason."""
    allowed = lm.vocabulary.allowed(output, lm.rows, stop)
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(limit, generator=generator)
    ids = list(prompt)
    for u in uniform:
        with torch.inference_mode():
            scores = lm.model(torch.tensor([ids])).logits[:, -1]
        scores = scores.masked_fill(~allowed, -torch.inf)
        if temperature:
            scores = TopPLogitsWarper(top_p)(None, scores / temperature)
            share = scores[0].softmax(-1).cumsum(-1)
            token = int((share > u * share[-1]).nonzero()[0])
        else:
            token = int(scores.argmax())
        if token == lm.vocabulary.eos_id:
            return ids[len(prompt) :], "end_of_sequence"
        ids.append(token)
        if len(ids) == CONTEXT:
            return ids[len(prompt) :], "context_full"
    return ids[len(prompt) :], "max_new_tokens"


def check(results, expected):
    assert [(r.ids.tolist(), r.end_reason) for r in results] == expected


PROMPTS = [[1, 40, 41], [1, *range(30, 70)], [1, 5] * 8, [1], [1, *range(46)]]


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("output", ["text", "speech", "any"])
@pytest.mark.parametrize("temperature", [0, 0.7])
def test_batches_give_what_each_prompt_gives_alone(
    lm, output, temperature, stop
):
    settings = (output, 24, temperature, 0.95)
    seeds = [11, 12, 13, 14, 11]
    results = decode(lm, PROMPTS, *settings, seeds, stop)
    expected = [
        slowly(lm, prompt, *settings, seed, stop)
        for prompt, seed in zip(PROMPTS, seeds)
    ]
    check(results, expected)
    check(
        decode(lm, PROMPTS[2:0:-1], *settings, [13, 12], stop), expected[2:0:-1]
    )
    allowed = lm.vocabulary.allowed(output, lm.rows, stop)
    assert all(bool(allowed[r.ids].all()) for r in results)
    assert results[4].end_reason != "max_new_tokens"  # one token fits


def test_every_end_of_speech(lm):
    prompts, seeds = PROMPTS * 8, range(40)
    # An end of sequence is one of 15 tokens here.
    settings = ("speech", 24, 2.0, 1.0)
    results = decode(lm, prompts, *settings, seeds)
    check(
        results, [slowly(lm, p, *settings, s) for p, s in zip(prompts, seeds)]
    )
    reasons = {r.end_reason for r in results}
    assert reasons == {"end_of_sequence", "max_new_tokens", "context_full"}
    eos_id = lm.vocabulary.eos_id
    assert not any(eos_id in r.ids for r in results)
    results = decode(lm, prompts, *settings, seeds, stop=False)
    for prompt, result in zip(prompts, results):
        room = CONTEXT - len(prompt)
        assert len(result.ids) == min(24, room)
        reason = "context_full" if room <= 24 else "max_new_tokens"
        assert result.end_reason == reason


def test_end_of_sequence_as_the_last_token(lm):
    for seed in range(200):
        arguments = (lm, [[1, 40]], "speech", 24, 2.0, 1.0, [seed])
        [result] = decode(*arguments)
        if result.end_reason == "end_of_sequence" and len(result.ids) > 1:
            break
    length = len(result.ids)
    arguments = (lm, [[1, 40]], "speech", length + 1, 2.0, 1.0, [seed])
    check(decode(*arguments), [(result.ids.tolist(), "end_of_sequence")])
    arguments = (lm, [[1, 40]], "speech", length, 2.0, 1.0, [seed])
    check(decode(*arguments), [(result.ids.tolist(), "max_new_tokens")])


def test_seconds(lm):
    def seconds_of(new):
        is_unit = lm.vocabulary.kinds[new] >= 0
        slow = (new[:, :1] % 2 + 1) * 0.1  # some rows speak slower
        return (is_unit * slow).sum(1)

    arguments = (lm, PROMPTS * 6, "speech", 30, 2.0, 1.0, range(30))
    free = decode(*arguments)
    limited = decode(*arguments, max_seconds=1.6, seconds_of=seconds_of)
    reasons = set()
    for before, after in zip(free, limited):
        ids, reason = before.ids, before.end_reason
        for length in (8, 16, 24):
            new = ids[None, :length]
            if length <= len(ids) and float(seconds_of(new)) >= 1.6 - 1e-6:
                # A full context comes first.
                if length < len(ids) or reason != "context_full":
                    ids, reason = ids[:length], "max_seconds"
                break
        assert after.end_reason == reason
        assert torch.equal(after.ids, ids)
        reasons.add(reason)
    assert reasons >= {"max_seconds", "end_of_sequence", "context_full"}


def test_the_models_own_settings_are_not_used(lm):
    arguments = (lm, PROMPTS[:3], "text", 12, 0)
    expected = [(r.ids.tolist(), r.end_reason) for r in decode(*arguments)]
    own = lm.model.generation_config
    changed = {
        "do_sample": True,
        "temperature": 5.0,
        "top_k": 1,
        "max_length": 5,
        "eos_token_id": expected[0][0][3],
        "bos_token_id": 7,
        "pad_token_id": 7,
    }
    before = {name: getattr(own, name) for name in changed}
    try:
        own.update(**changed)
        check(decode(*arguments), expected)
    finally:
        own.update(**before)


@pytest.mark.parametrize(
    "setting",
    [{"repetition_penalty": 50.0}, {"min_new_tokens": 9}, {"num_beams": 3}],
    ids=lambda s: next(iter(s)),
)
def test_the_models_penalties_are_not_used(lm, setting):
    arguments = (lm, PROMPTS * 4, "speech", 16, 1.0, 1.0, range(20))
    expected = [(r.ids.tolist(), r.end_reason) for r in decode(*arguments)]
    own = lm.model.generation_config
    before = {name: getattr(own, name) for name in setting}
    try:
        own.update(**setting)
        check(decode(*arguments), expected)
    finally:
        own.update(**before)


def test_threads_leave_the_models_settings_as_they_were(lm):
    """Whichever of them is the first to begin, and the last to end."""
    own = lm.model.generation_config
    begun, ended = threading.Event(), threading.Event()

    def first():
        with _without_defaults(lm.model):
            begun.set()
            assert ended.wait(20)
            assert lm.model.generation_config is not own

    with ThreadPoolExecutor() as pool:
        running = pool.submit(first)
        assert begun.wait(20)
        decode(lm, PROMPTS[:1], "text", 2, temperature=0, num_beams=2)
        assert lm.model.generation_config is not own
        ended.set()
        running.result()
    assert lm.model.generation_config is own


def test_errors_name_value_and_remedy(lm):
    for arguments, message in (
        ({"temperature": -0.1}, "temperature .* got -0.1"),
        ({"top_p": 0}, r"top_p must be in \(0, 1\], got 0"),
        ({"top_p": 1.1}, "got 1.1"),
        ({"max_new_tokens": 0}, "max_new_tokens must be >= 1, got 0"),
        ({"output": "audio"}, "got 'audio'"),
        ({"prompts": [[1] * CONTEXT]}, f"{CONTEXT} tokens .*; shorten it"),
    ):
        arguments = {"prompts": [[1]], "output": "text", **arguments}
        with pytest.raises(ValueError, match=message):
            decode(lm, seeds=[0], **arguments)


@pytest.mark.parametrize("output", ["text", "speech"])
def test_beams_do_not_depend_on_the_batch(lm, output):
    settings = {"temperature": 0, "num_beams": 3}
    together = decode(lm, PROMPTS, output, 24, **settings)
    for prompt, result in zip(PROMPTS, together):
        [alone] = decode(lm, [prompt], output, 24, **settings)
        check([alone], [(result.ids.tolist(), result.end_reason)])
        assert len(prompt) + len(result.ids) <= CONTEXT
    allowed = lm.vocabulary.allowed(output, lm.rows)
    assert all(bool(allowed[r.ids].all()) for r in together)
    assert together[4].end_reason != "max_new_tokens"  # one token fits


def test_beams_find_the_likeliest_by_token(lm):
    allowed = lm.vocabulary.allowed("speech", lm.rows)
    tokens = allowed.nonzero().flatten().tolist()
    eos_id = lm.vocabulary.eos_id
    for prompt in PROMPTS[:4]:
        outputs = [[eos_id]]
        outputs += [[t, u] for t in tokens if t != eos_id for u in tokens]
        sums = lm.log_likelihood([prompt] * len(outputs), outputs)
        scores = sums / torch.tensor([len(ids) for ids in outputs])
        best = [t for t in outputs[int(scores.argmax())] if t != eos_id]
        [result] = decode(
            lm, [prompt], "speech", 2, temperature=0, num_beams=len(tokens)
        )
        assert result.ids.tolist() == best


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_beams": 0, "temperature": 0}, "must be >= 1"),
        ({"num_beams": 2, "seeds": [0]}, "temperature=0"),
        ({"num_beams": 2, "temperature": 0, "max_seconds": 1}, "max_seconds"),
    ],
)
def test_beams_that_cannot_be_searched_with(lm, settings, words):
    with pytest.raises(ValueError, match=words):
        decode(lm, [[1, 40]], "speech", **settings)
