"""Preferences: pairs, their batches, the loss, and a training on them.

As a script, this file trains a small model in two processes:
``torchrun test_preference.py FOLDER KIND``.
"""

import logging
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from hypothesis import given, settings
from hypothesis import strategies as st
from speechbrain.utils.distributed import ddp_init_group, if_main_process
from torch.utils.data import DataLoader

from spiritlm_plugin import Speech, Text
from spiritlm_plugin.dataio.checkpoints import CheckpointError
from spiritlm_plugin.dataio.stream.pair_loader import (
    EvenBatches,
    PairBatch,
    PairLoader,
)
from spiritlm_plugin.dataio.stream.preferences import (
    Candidate,
    Pair,
    PreferenceError,
    Tokens,
    best_and_worst,
    read_pairs,
    tokens_of,
    write_pairs,
)
from spiritlm_plugin.dataio.units.segments import Reading, Transcript
from spiritlm_plugin.dataio.units.text_tokenizers import train_text_tokenizer
from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.dataio.units.vocabulary import Vocabulary
from spiritlm_plugin.lobes.adapters import add_adapters
from spiritlm_plugin.lobes.language_model import new_language_model
from spiritlm_plugin.lobes.preference_loss import (
    answer_log_likelihoods,
    preference_loss,
)
from spiritlm_plugin.training import preference
from spiritlm_plugin.training.preference import (
    PreferenceBrain,
    fitting_pairs,
    load_start,
    prepare_reference,
)
from spiritlm_plugin.training.sharding import full_state, hold
from spiritlm_plugin.utils.recipes import run

ROOT = Path(__file__).resolve().parents[2]
HPARAMS = ROOT / "recipes/TinySpeech/preference/hparams/train.yaml"
TEXT = train_text_tokenizer(["a cat sat on a mat", "a bat is at it"] * 9, 280)
VOCABULARY = Vocabulary.extend(TEXT, phonetic=20, pitch=5, style=5)


def some_tokens(count, seed=0):
    """Pairs of random ids, of random lengths."""
    draw = np.random.default_rng(seed)

    def ids():
        return draw.integers(3, len(VOCABULARY), draw.integers(1, 9)).astype(
            np.int32
        )

    return [Tokens(ids(), ids(), ids()) for _ in range(count)]


# An answer that ends at once.
NOTHING = Candidate([], True)
TEXTS = st.text("ab [Hu3]", min_size=1, max_size=6).map(Text)
SPEECH = st.lists(st.integers(0, 19), min_size=1, max_size=5).map(
    lambda units: Speech(SpeechUnits(units))
)
SEGMENTS = st.lists(TEXTS | SPEECH, min_size=1, max_size=3)
ANSWERS = st.builds(
    Candidate,
    st.just([]) | SEGMENTS,
    st.just(True),
    st.none() | st.floats(-9, 9),
)


@settings(max_examples=30)
@given(st.lists(SEGMENTS, min_size=1, max_size=3), ANSWERS, ANSWERS)
def test_a_file_gives_the_pairs_that_were_written(
    tmp_path, prompts, chosen, rejected
):
    pairs = [
        Pair(str(i), prompt, "any", chosen, rejected)
        for i, prompt in enumerate(prompts)
    ]
    write_pairs(tmp_path / "train.jsonl", pairs)
    for old, new in zip(pairs, read_pairs(tmp_path / "train.jsonl")):
        assert new.to_json() == old.to_json()
        for a, b in zip(tokens_of(old, VOCABULARY), tokens_of(new, VOCABULARY)):
            assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("output", "prompt", "answer", "string"),
    [
        ("speech", [Text("a")], [Speech(SpeechUnits([3]))], "[Hu3]"),
        ("tts", [Text("a")], [Speech(SpeechUnits([3]))], "[Hu3]"),
        ("tts", [Text("a")], [Reading(SpeechUnits([3]))], "[Hu3]"),
        ("asr", [Speech(SpeechUnits([3]))], [Transcript("a b")], "a b"),
        ("text", [Text("a")], [Text("b")], "b"),
    ],
)
def test_an_answer_stands_behind_the_marker_that_the_model_is_asked_with(
    output, prompt, answer, string
):
    pair = Pair("1", prompt, output, Candidate(answer, True), NOTHING)
    context, chosen, rejected = map(list, tokens_of(pair, VOCABULARY))
    assert context == VOCABULARY.encode(prompt, output)
    name = "speech" if string.startswith("[") else "text"
    alone = VOCABULARY.encode_string(f"[{name.title()}]{string}")
    alone = alone[len(VOCABULARY.text.prompt_start) + 1 :]
    assert chosen == [*alone, VOCABULARY.eos_id]
    assert rejected == [VOCABULARY.eos_id]


def test_in_an_output_of_any_the_marker_is_a_token_of_the_answer():
    units = Speech(SpeechUnits([3]))
    both = Candidate([units, Text("b")], False), Candidate([Text("b")], False)
    pair = Pair("1", [Text("a")], "any", *both)
    context, chosen, rejected = map(list, tokens_of(pair, VOCABULARY))
    assert context == VOCABULARY.encode([Text("a")])
    whole = VOCABULARY.encode([Text("a"), units, Text("b")])
    assert context + chosen == whole
    assert rejected == VOCABULARY.encode_text("b")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2"),
        ("[]", "its prompt is None"),
        ('{"prompt": [["text"]]}', "no segment"),
        ('{"prompt": [["song", "a"]]}', "no such segment: 'song'"),
        ('{"prompt": [["speech", "a.wav"]]}', "written in units"),
        ('{"prompt": []}', "prompt is empty"),
        ('{"prompt": [["text", "a"]], "output": "song"}', "output must be"),
        (
            '{"prompt": [["text", "a"]], "output": "text", "chosen": '
            '{"segments": [], "ended": true, "score": NaN}}',
            "score is nan",
        ),
        (
            '{"prompt": [["text", "a"]], "output": "text", "chosen": '
            '{"segments": [], "ended": 1}}',
            "ended is 1",
        ),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path, line, message):
    path = tmp_path / "train.jsonl"
    path.write_text(f"\n{line}\n")
    with pytest.raises(PreferenceError, match=message):
        read_pairs(path)


def test_pairs_that_cannot_be_learned_from(tmp_path):
    text, speech = Text("a"), Speech(SpeechUnits([3]))
    end = Candidate([], True)
    wrong = Pair("7", [text], "speech", Candidate([text], True), end)
    with pytest.raises(ValueError, match="'7' is text, its output speech"):
        tokens_of(wrong, VOCABULARY)
    nothing = Pair("7", [text], "speech", Candidate([], False), end)
    with pytest.raises(ValueError, match="'7' has no token"):
        tokens_of(nothing, VOCABULARY)
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(PreferenceError, match="has no pairs"):
        read_pairs(tmp_path / "a.jsonl")
    long = Pair("7", [text], "speech", Candidate([speech] * 40, True), end)
    write_pairs(tmp_path / "a.jsonl", [long])
    with pytest.raises(ValueError, match="more than 9 tokens"):
        fitting_pairs(tmp_path / "a.jsonl", VOCABULARY, 9)


def test_pairs_that_teach_nothing_are_left_out(tmp_path, log):
    path = tmp_path / "a.jsonl"
    one, other = Candidate([Text("b")], True, 0.9), Candidate([], True, 0.1)
    same = Pair("same", [Text("a")], "text", one, replace(one, score=0.1))
    pairs = [
        Pair("some", [Text("a")], "text", one, other),
        Pair("long", [Text("a b a b a b a b a b a b")], "text", one, other),
        same,
    ]
    write_pairs(path, pairs)
    assert len(fitting_pairs(path, VOCABULARY, 9)) == 1
    assert "1 of 3 pairs of" in log.text and "9 tokens" in log.text
    assert "have the same answer twice and are left out" in log.text
    write_pairs(path, [same])
    with pytest.raises(ValueError, match="all pairs of .* same answer twice"):
        fitting_pairs(path, VOCABULARY, 9)


def test_a_pair_that_the_model_cannot_read_is_named(tmp_path):
    answer = Candidate([Speech(SpeechUnits([3], pitch=[1]))], True)
    write_pairs(
        tmp_path / "train.jsonl",
        [Pair("7", [Text("a")], "speech", answer, NOTHING)],
    )
    base = Vocabulary.extend(TEXT, phonetic=20)
    with pytest.raises(PreferenceError, match="train.jsonl, pair '7': .*Pi1"):
        fitting_pairs(tmp_path / "train.jsonl", base, 99)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0}, "beta should be above 0, got 0"),
        ({"beta": float("nan")}, "beta must be finite"),
        ({"likelihood_weight": -1}, "likelihood_weight should be 0 or more"),
        ({"max_tokens": 0}, "max_tokens must be >= 1"),
        ({"lora": {"r": 4}, "fsdp": True}, "lora and fsdp"),
    ],
)
def test_settings_out_of_range(change, message):
    hparams = {"beta": 0.1, "likelihood_weight": 0.2, "max_tokens": None}
    with pytest.raises(ValueError, match=message):
        load_start(hparams | change)


def test_what_says_nothing_is_the_worst():
    def best(*scores):
        found = best_and_worst([Candidate([], True, s) for s in scores], 0.5)
        return found and [candidate.score for candidate in found]

    assert best(0.2, None, 0.3) == [0.3, None]
    assert best(0.2, 0.3) is None
    assert best(None, None) is None
    assert best(0.2, 0.2) is None
    assert best() is None


@settings(max_examples=30)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 9)
)
def test_a_step_has_the_same_pairs_in_any_number_of_processes(
    processes, accumulation, multiple, seed
):
    step_pairs = processes * accumulation * multiple
    pairs = some_tokens(2 * step_pairs + 1, seed)
    steps = 5

    def numbers(world_size, accumulation):
        loaders = [
            PairLoader(
                *(pairs, step_pairs, steps, 0, seed),
                *(accumulation, rank, world_size),
            )
            for rank in range(world_size)
        ]
        parts = [[batch.numbers.tolist() for batch in x] for x in loaders]
        return [
            sorted(
                sum(
                    (
                        part[step * accumulation + turn]
                        for part in parts
                        for turn in range(accumulation)
                    ),
                    [],
                )
            )
            for step in range(steps)
        ]

    alone = numbers(1, 1)
    assert numbers(processes, accumulation) == alone
    # Of a round no pair comes twice.
    assert len({*alone[0], *alone[1]}) == 2 * step_pairs


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 4))
def test_all_pairs_are_validated_once(count, size, processes):
    pairs = some_tokens(count)
    if count < processes:
        with pytest.raises(ValueError, match="too few for"):
            EvenBatches(pairs, size, 0, 0, processes)
        return
    shares = [
        list(DataLoader(EvenBatches(pairs, size, 0, r, processes), None))
        for r in range(processes)
    ]
    assert len({*map(len, shares)}) == 1
    batches = [batch.numbers.tolist() for share in shares for batch in share]
    assert sorted(sum(batches, [])) == list(range(count))
    assert max(map(len, batches)) <= max(size, 2)


def test_a_step_that_cannot_be_made():
    with pytest.raises(ValueError, match="choose a multiple of 2"):
        PairLoader(some_tokens(9), 3, 1, 0, 1, world_size=2)
    with pytest.raises(ValueError, match="2 pairs do not fill a step of 3"):
        PairLoader(some_tokens(2), 3, 1, 0, 1)


def small_model():
    """Return a model with the same random weights each time."""
    torch.manual_seed(0)
    config = {"model_type": "llama", "hidden_size": 16}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 2}
    config |= {"intermediate_size": 32, "max_position_embeddings": 64}
    return new_language_model(config, VOCABULARY)


def make_brain(lm, pairs, folder, **changes):
    overrides = {
        "output_folder": str(folder),
        "pairs_folder": "",
        "model": "",
        "number_of_epochs": 2,
        "epoch_steps": 3,
        "step_pairs": 4,
        "batch_pairs": 3,
        "warmup_steps": 2,
        "lr": 0.01,
        "tensorboard_logger": None,
        "fsdp": False,
    }
    options = {"device": "cpu", "noprogressbar": True}
    options |= {k: changes.pop(k) for k in list(changes) if k not in overrides}
    with open(HPARAMS, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides | changes)
    brain = PreferenceBrain(
        modules={"model": lm},
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=options,
        checkpointer=hparams["checkpointer"],
    )
    loaders = prepare_reference(brain, pairs, VOCABULARY.eos_id)
    return brain, (hparams["epoch_counter"], *loaders)


def some_pairs():
    return {"train": some_tokens(9, 1), "valid": some_tokens(4, 2)}


@pytest.fixture
def pairs():
    return some_pairs()


@pytest.fixture
def log(caplog, monkeypatch):
    """What is logged, also where SpeechBrain has set up loggers."""
    monkeypatch.setattr(logging.getLogger("spiritlm_plugin"), "propagate", True)
    return caplog


def test_loss_and_gradients_are_those_of_trl(pairs, tmp_path):
    """Of trl's trainer the loss alone, on the same model and pairs."""
    trl = pytest.importorskip("trl.trainer.dpo_trainer")
    lm, weight = small_model(), 0.3
    brain, _ = make_brain(lm, pairs, tmp_path)
    brain.hparams.beta = 0.4
    # Of one pair, as trl takes the mean likelihood over all tokens of a batch.
    batch = PairBatch.of(pairs["train"], [3], VOCABULARY.eos_id, 1)
    brain.reference.sums["train"][:, 3] = torch.tensor([-31.0, -27.0])
    for likelihood in (0.0, weight):
        brain.hparams.likelihood_weight = likelihood
        lm.zero_grad()
        sums = brain.compute_forward(batch, preference.Stage.TRAIN)
        loss = brain.compute_objectives(sums, batch, preference.Stage.TRAIN)
        loss.backward()
        own = [p.grad.clone() for p in lm.parameters()]
        lm.zero_grad()
        theirs = loss_of_trl(trl, lm, batch, 0.4, likelihood)
        theirs.backward()
        torch.testing.assert_close(loss, theirs, atol=1e-5, rtol=0)
        for mine, parameter in zip(own, lm.parameters()):
            torch.testing.assert_close(
                mine, parameter.grad, atol=1e-5, rtol=1e-5
            )


def loss_of_trl(trl, lm, batch, beta, likelihood):
    def model(input_ids, labels, **_):
        logits = lm(input_ids)[:, :-1].log_softmax(-1)
        seen = labels[:, 1:].clamp(min=0)[..., None]
        found = logits.gather(-1, seen)[..., 0] * (labels[:, 1:] >= 0)
        logged = dict.fromkeys(("entropy", "mean_logits"), found.detach())
        return SimpleNamespace(
            log_probs=found, is_top1=labels[:, 1:] >= 0, **logged
        )

    def same(tensor):
        return tensor

    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(
            device="cpu", gather=same, gather_for_metrics=same
        ),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=["sigmoid", "sft"] if likelihood else ["sigmoid"],
        loss_weights=[1.0, likelihood] if likelihood else [1.0],
        beta=beta,
        label_smoothing=0.0,
        use_weighting=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": batch.ids,
        "attention_mask": torch.ones_like(batch.ids),
        "completion_mask": torch.nn.functional.pad(
            (batch.labels >= 0).long(), (1, 0)
        )[:, :-1],
        "ref_chosen_logps": torch.tensor([-31.0]),
        "ref_rejected_logps": torch.tensor([-27.0]),
    }
    return trl.DPOTrainer._compute_loss(trainer, model, inputs, False)


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(0, 9))
def test_likelihoods_are_those_of_all_logits(size, seed):
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(3, 5, 4, generator=draw, requires_grad=True)
    weight = torch.randn(7, 4, generator=draw, requires_grad=True)
    bias = torch.randn(7, generator=draw)
    labels = torch.randint(-3, 7, (3, 5), generator=draw)
    labels[labels < 0] = -100
    logits = (hidden @ weight.T + bias).log_softmax(-1)
    found = logits.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    expected = (found * (labels >= 0)).sum(1)
    wanted = torch.autograd.grad(expected.square().sum(), (hidden, weight))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spiritlm_plugin.lobes.preference_loss._LOGITS", 7 * size)
        sums = answer_log_likelihoods(hidden, weight, bias, labels)
        own = torch.autograd.grad(sums.square().sum(), (hidden, weight))
    torch.testing.assert_close(sums, expected)
    torch.testing.assert_close(own, wanted)


def test_beside_others_a_pair_has_the_same_likelihood(pairs):
    """Padding and what stands in the batch do not count."""
    lm = small_model()
    batch = PairBatch.of(pairs["train"], range(9), VOCABULARY.eos_id, 9)

    def score(*args):
        return answer_log_likelihoods(*args, labels=batch.labels)

    sums = lm(batch.ids, score=score).view(2, -1)
    for i, pair in enumerate(pairs["train"]):
        context = [pair.context.tolist()] * 2
        answers = [pair.chosen.tolist(), pair.rejected.tolist()]
        alone = lm.log_likelihood(context, answers)
        torch.testing.assert_close(sums[:, i], alone, atol=1e-4, rtol=1e-5)


def test_the_loss_falls_as_the_chosen_answer_gets_likelier():
    ratios = torch.tensor([[0.0, 1.0, 9.0], [0.0, -1.0, -9.0]])
    losses = preference_loss(ratios, 0.1)
    assert float(losses[0]) == pytest.approx(np.log(2))
    assert losses.diff().max() < 0
    assert float(preference_loss(ratios.flip(0), 0.1)[2]) > 1.9


def stop_at(brain, step, *arguments):
    if brain.optimizer_step == step:
        raise KeyboardInterrupt
    PreferenceBrain.on_fit_batch_start(brain, *arguments)


def test_a_training_that_was_stopped_is_the_one_that_was_not(pairs, tmp_path):
    whole = small_model()
    brain, arguments = make_brain(whole, pairs, tmp_path / "whole")
    before = whole.model.state_dict()["lm_head.weight"].clone()
    brain.fit(*arguments)
    assert not torch.equal(whole.model.state_dict()["lm_head.weight"], before)
    stopped, arguments = make_brain(
        small_model(), pairs, tmp_path / "parts", ckpt_interval_steps=1
    )
    stopped.on_fit_batch_start = partial(stop_at, stopped, 4)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(*arguments)
    stopped.checkpointer.wait()
    lm = small_model()
    going_on, arguments = make_brain(lm, pairs, tmp_path / "parts")
    going_on.fit(*arguments)
    for split, sums in brain.reference.sums.items():
        assert torch.equal(going_on.reference.sums[split], sums)
    state = lm.model.state_dict()
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(state[name], weight), name
    logs = [tmp_path / name / "train_log.txt" for name in ("whole", "parts")]
    ends = [log.read_text().splitlines()[-1] for log in logs]
    assert ends[0] == ends[1]


def test_a_checkpoint_of_other_pairs_or_another_model_is_refused(
    pairs, tmp_path
):
    brain, arguments = make_brain(
        small_model(), pairs, tmp_path, number_of_epochs=1
    )
    brain.fit(*arguments)
    another = small_model()
    with torch.no_grad():
        another.model.get_input_embeddings().weight[0, 0] += 1
    brain, arguments = make_brain(another, pairs, tmp_path)
    with pytest.raises(CheckpointError, match="a training of another model"):
        brain.fit(*arguments)
    pairs["train"][0] = pairs["train"][1]
    brain, arguments = make_brain(small_model(), pairs, tmp_path)
    with pytest.raises(CheckpointError, match="training on other pairs"):
        brain.fit(*arguments)


def numbers_of(batches):
    return [batch.numbers.tolist() for batch in batches]


def test_pairs_go_on_at_another_accumulation(tmp_path, log):
    """Between epochs they are the same; within one it is refused."""

    def loader(accumulation, step_pairs=4):
        return PairLoader(pairs, step_pairs, 3, 0, 1, accumulation)

    pairs = some_tokens(25)
    whole = loader(1)
    steps = [numbers_of(whole) for _ in range(2)]
    first = loader(1)
    assert numbers_of(first) == steps[0]
    first.save(tmp_path / "loader")
    for accumulation in (1, 2, 4):
        going_on = loader(accumulation)
        going_on.load(tmp_path / "loader")
        found = numbers_of(going_on)
        assert [
            sorted(sum(found[i : i + accumulation], []))
            for i in range(0, len(found), accumulation)
        ] == [*map(sorted, steps[1])]
    assert not log.text
    next(first)
    first.save(tmp_path / "loader")
    going_on = loader(1)
    going_on.load(tmp_path / "loader")
    assert numbers_of(going_on) == steps[1][1:]
    with pytest.raises(CheckpointError, match="--grad_accumulation_factor 1"):
        loader(2).load(tmp_path / "loader")
    loader(1, step_pairs=5).load(tmp_path / "loader")
    assert "another step_pairs: 5, and was 4" in log.text


def test_without_dropout_the_start_is_the_start(pairs, tmp_path):
    lm = small_model()
    lm.new_tokens = False
    lm.model.config.attention_dropout = 0.5
    for layer in lm.model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    lora = {"r": 2, "target_modules": ["q_proj"], "lora_dropout": 0.5}
    add_adapters(lm, lora)
    brain, _ = make_brain(lm, pairs, tmp_path)
    batch = PairBatch.of(pairs["train"], range(9), VOCABULARY.eos_id, 9)
    sums = []
    for is_training in (False, True):
        brain.modules.train(is_training)
        sums.append(brain.compute_forward(batch, preference.Stage.TRAIN))
    assert torch.equal(*sums)
    assert lm.model.config.attention_dropout == 0.5  # what is exported stays


def test_a_start_that_gives_no_numbers_is_told(pairs, tmp_path):
    lm = small_model()
    lm.model.model.norm.weight.data[0] = float("inf")
    brain, arguments = make_brain(lm, pairs, tmp_path)
    with pytest.raises(FloatingPointError, match="some answers of train.jsonl"):
        brain.fit(*arguments)


def test_adapters_learn_behind_frozen_weights(pairs, tmp_path):
    lm = small_model()
    before = lm.model.state_dict()["lm_head.weight"].clone()
    lm.model.gradient_checkpointing_enable()
    lm.new_tokens = False  # as of a model that was trained
    add_adapters(lm, {"r": 2, "target_modules": ["q_proj", "v_proj"]})
    brain, arguments = make_brain(lm, pairs, tmp_path, number_of_epochs=1)
    brain.fit(*arguments)
    state = lm.model.state_dict()
    moved = [w for name, w in state.items() if "lora_B" in name]
    assert len(moved) == 4
    assert all(weight.abs().max() > 0 for weight in moved)
    assert torch.equal(state["base_model.model.lm_head.weight"], before)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(pairs, tmp_path, two_processes):
    lm = small_model()
    options = {"grad_accumulation_factor": 2}
    brain, arguments = make_brain(lm, pairs, tmp_path / "alone", **options)
    brain.fit(*arguments)
    start = small_model().model.state_dict()
    for kind in ("ddp", "fsdp"):
        two_processes(__file__, tmp_path, kind)
        found = torch.load(tmp_path / f"{kind}.pt")
        for split, sums in brain.reference.sums.items():
            torch.testing.assert_close(found["reference"][split], sums)
        for name, weight in lm.model.state_dict().items():
            torch.testing.assert_close(
                found["model"][name], weight, atol=1e-4, rtol=1e-3
            )
            moved = (weight - start[name]).abs().max()
            assert moved > 1e-3, name


def main(arguments):
    """Train in this process, one of two."""
    folder, kind = Path(arguments[0]), arguments[1]
    sharded = kind == "fsdp"
    options = {"distributed_backend": "gloo"}
    ddp_init_group(options)
    lm = hold(small_model) if sharded else small_model()
    brain, loaders = make_brain(
        lm, some_pairs(), folder / kind, fsdp=sharded, **options
    )
    brain.fit(*loaders)
    state = full_state(lm) if sharded else lm.model.state_dict()
    if if_main_process():
        sums = brain.reference.sums
        torch.save({"model": state, "reference": sums}, folder / f"{kind}.pt")


if __name__ == "__main__":
    run(main)
