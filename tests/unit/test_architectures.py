"""Language models of many architectures, from a start to an export."""

from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3Config

from spiritlm_plugin.dataio.units.units import SpeechUnits
from spiritlm_plugin.decoders.constrained import decode
from spiritlm_plugin.lobes.adapters import add_adapters, merge_adapters
from spiritlm_plugin.lobes.language_model import load_language_model
from spiritlm_plugin.lobes.language_model_config import set_token_ids
from spiritlm_plugin.lobes.language_model_start import start_language_model
from spiritlm_plugin.lobes.packed_rows import keep_documents_apart
from spiritlm_plugin.metrics.modalities import ModalityFigures
from spiritlm_plugin.training.pretraining import make_language_model
from tests.unit.architectures import (
    APART,
    CONTEXT,
    KINDS,
    PACKED,
    make_folder,
    table,
)

UNITS = {"phonetic": 20}
TEXT = "the cat sat on a mat"
DOCS = Path(__file__).parents[2] / "docs" / "architectures.md"
TRAINED = [kind for kind in KINDS if kind.result in (PACKED, APART)]
REFUSED = [kind for kind in KINDS if kind not in TRAINED]


def by_name(kinds):
    return pytest.mark.parametrize(
        "kind", kinds, ids=lambda k: k.name, indirect=True
    )


@pytest.fixture(scope="module")
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def text_lm(kind, tmp_path_factory):
    """A model of text, and its folder."""
    folder = tmp_path_factory.mktemp("text_lm")
    return make_folder(kind, folder), folder


@pytest.fixture
def lm(text_lm):
    torch.manual_seed(1)
    return start_language_model(text_lm[1], UNITS).eval()


@by_name(TRAINED)
def test_what_it_knows_of_text_stays(kind, text_lm, lm):
    model, _ = text_lm
    ids = torch.tensor([lm.vocabulary.encode([("text", TEXT)])])
    speech = torch.isin(ids, torch.tensor([*lm.vocabulary.markers.values()]))
    ids = ids[~speech][None]
    text = len(lm.vocabulary.text)
    expected = model(ids).logits[..., :text]
    torch.testing.assert_close(lm(ids)[..., :text], expected)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(expected[:, 1:], expected[:, :-1])


@by_name(TRAINED)
def test_documents_of_a_row_are_kept_apart(kind, lm):
    keep_documents_apart(lm)
    assert kind.result == (APART if lm.apart else PACKED)
    # Else the row of the token that stands for padding learns nothing.
    assert lm.model.get_input_embeddings().padding_idx is None
    figures = ModalityFigures(lm.vocabulary)
    lengths = [11, 1, 24, 5, 19]  # of which some are longer than a window
    documents = torch.randint(len(lm.vocabulary), (1, sum(lengths))).split(
        lengths, 1
    )
    ids = torch.cat(documents, 1)
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    labels = [d.roll(-1, 1).clone() for d in documents]
    for row in labels:
        row[:, -1] = -100
    score = partial(figures, labels=torch.cat(labels, 1))
    loss, _ = lm(ids, positions=positions, score=score)
    loss.backward()
    found = {n: p.grad for n, p in lm.named_parameters() if p.grad is not None}
    lm.zero_grad()
    expected = sum(
        figures(lm.model(d, use_cache=False).logits, None, None, of_d)[0]
        for d, of_d in zip(documents, labels)
    )
    torch.testing.assert_close(loss, expected)
    expected.backward()
    for name, weight in lm.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(
                found[name], weight.grad, msg=name, rtol=1e-3, atol=1e-4
            )


@by_name(TRAINED)
def test_a_saved_folder_is_a_plain_one(kind, lm, tmp_path):
    lm.save(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.randint(len(lm.vocabulary), (2, 9))
    logits = lm(ids)
    assert torch.equal(plain(ids, use_cache=False).logits, logits)
    assert torch.equal(load_language_model(tmp_path)(ids), logits)
    eos_id, start = lm.vocabulary.eos_id, lm.vocabulary.text.prompt_start
    for settings in (plain.config, plain.generation_config):
        assert settings.eos_token_id == eos_id
        assert settings.bos_token_id == start[0]
        assert settings.pad_token_id in (None, eos_id)
    assert plain.generation_config.repetition_penalty in (None, 1.0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    brackets = f"[Text]{TEXT} [Speech][Hu3][Hu17]"
    found = tokenizer(brackets, split_special_tokens=False).input_ids
    assert found == lm.vocabulary.encode_string(brackets)


@by_name(TRAINED)
def test_plain_generation_ends_where_ours_does(kind, lm):
    prompt = lm.vocabulary.encode([("text", TEXT)], output="speech")
    options = {"max_new_tokens": 12, "temperature": 0}
    [before] = decode(lm, [prompt], "any", **options)
    said = before.ids.tolist()
    last = next(i for i in said if i not in prompt)
    _exchange(lm, last, lm.vocabulary.eos_id)
    [ours] = decode(lm, [prompt], "any", **options)
    assert ours.end_reason == "end_of_sequence"
    assert ours.ids.tolist() == said[: said.index(last)]
    ids = torch.tensor([prompt])
    plain = lm.model.generate(ids, max_new_tokens=12, do_sample=False)
    new = plain[0, len(prompt) :].tolist()
    assert new == [*ours.ids.tolist(), lm.vocabulary.eos_id]


@torch.no_grad()
def _exchange(lm, one, other):
    """Let two tokens take each other's place."""
    layers = [lm.model.get_input_embeddings(), lm.model.get_output_embeddings()]
    for weight in {w for layer in layers for w in layer.parameters()}:
        weight[[one, other]] = weight[[other, one]]


@by_name(TRAINED)
def test_a_batch_of_prompts_is_answered_as_each_alone(kind, lm):
    prompts = [
        lm.vocabulary.encode([("text", text)], output="speech")
        for text in (TEXT, "the", "12 birds and a dog")
    ]
    options = {"max_new_tokens": 5, "temperature": 0}
    batch = decode(lm, prompts, "any", **options)
    for prompt, answer in zip(prompts, batch):
        [alone] = decode(lm, [prompt], "any", **options)
        assert torch.equal(alone.ids, answer.ids)
    ends = [[1, 2, 3], [4], [5, 6]]
    scores = lm.log_likelihood(prompts, ends)
    alone = [lm.log_likelihood([p], [e]) for p, e in zip(prompts, ends)]
    torch.testing.assert_close(scores, torch.cat(alone))


@by_name([kind for kind in TRAINED if kind.name in ("GPT-2", "OPT", "BioGPT")])
def test_rows_that_fill_the_context_wait_for_the_others(kind, lm):
    short, long = [5] * 7, [6] * (lm.context - 9)
    settings = {"max_new_tokens": 2000, "temperature": 0, "stop": False}
    together = decode(lm, [short, long], "speech", **settings)
    for prompt, found in zip([short, long], together):
        [alone] = decode(lm, [prompt], "speech", **settings)
        assert found.ids.tolist() == alone.ids.tolist()
        assert len(found.ids) == lm.context - len(prompt)
        assert found.end_reason == "context_full"


@by_name(TRAINED)
def test_a_base_model_becomes_an_expressive_one(kind, lm, tmp_path):
    bias = getattr(lm.model.get_output_embeddings(), "bias", None)
    if bias is not None:
        bias.data.normal_()
    segments = [("speech", SpeechUnits([3, 3, 19])), ("text", TEXT)]
    ids = lm.vocabulary.encode(segments)
    before = lm(torch.tensor([ids]))[..., ids]
    lm.save(tmp_path)
    more = start_language_model(tmp_path, UNITS | {"pitch": 9, "style": 3})
    assert more.vocabulary.expressive and more.new_tokens
    ids = more.vocabulary.encode(segments)
    after = more.eval()(torch.tensor([ids]))[..., ids]
    torch.testing.assert_close(after, before)


@by_name(TRAINED)
def test_adapters_learn_and_merge(kind, lm, tmp_path):
    add_adapters(lm, {"r": 2, "target_modules": kind.adapts})
    ids = torch.randint(len(lm.vocabulary), (2, 9))
    before = lm(ids)
    layers = [lm.model.get_input_embeddings(), lm.model.get_output_embeddings()]
    for layer in layers:
        assert all(w.requires_grad for w in layer.parameters())
    learned = [w for w in lm.parameters() if w.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.1)
    for _ in range(2):
        lm(ids).logsumexp(-1).sum().backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    after = lm(ids)
    assert not torch.allclose(after, before)
    merge_adapters(lm)
    torch.testing.assert_close(lm(ids), after, rtol=1e-4, atol=1e-4)
    after = lm(ids)
    lm.save(tmp_path)
    torch.testing.assert_close(load_language_model(tmp_path)(ids), after)


@by_name(TRAINED)
@pytest.mark.parametrize("change", ["context", "base"])
def test_what_cannot_be_changed_is_refused(kind, text_lm, change):
    argument = {"context": {"context": 96}, "base": {"rope_theta": 3e4}}[change]
    verdict = getattr(kind, change)
    model, folder = text_lm
    if verdict != "can":
        with pytest.raises(ValueError, match=verdict):
            start_language_model(folder, UNITS, **argument)
        return
    lm = start_language_model(folder, UNITS, **argument).eval()
    ids = torch.arange(100, 120)[None]
    text = len(lm.vocabulary.text)
    same = torch.allclose(
        lm(ids)[..., :text], model(ids).logits[..., :text], atol=1e-5
    )
    assert same == (change == "context")
    if change == "context":
        assert lm.context == 96


@by_name(REFUSED)
def test_the_others_are_refused(kind, lm):
    with pytest.raises(ValueError, match=kind.result):
        keep_documents_apart(lm)


@by_name(KINDS)
def test_it_says_how_many_tokens_it_sees(kind, lm):
    expected = {"phi3": 64}
    unlimited = dict.fromkeys(
        ("bloom", "mamba", "mamba2", "recurrent_gemma"), 2048
    )
    assert lm.context == (expected | unlimited).get(kind.model_type, CONTEXT)


def test_the_table_in_the_docs_is_this_one():
    lines = DOCS.read_text("utf-8").splitlines()
    expected = table()
    start = lines.index(expected[0])
    assert lines[start : start + len(expected) + 1] == [*expected, ""]


def of_kinds(*names):
    return by_name([kind for kind in KINDS if kind.name in names])


@of_kinds("OPT", "BLOOM")
def test_a_model_that_speaks_may_get_another_context(kind, lm, tmp_path):
    lm.save(tmp_path)
    change = partial(start_language_model, tmp_path, UNITS, context=96)
    if kind.context != "can":
        with pytest.raises(ValueError, match=kind.context):
            change()
        return
    more = change()
    assert more.context == 96 and not more.new_tokens
    more.save(tmp_path)
    assert load_language_model(tmp_path).context == 96


@of_kinds("Qwen2")
def test_no_token_is_taken_for_an_image(kind, lm):
    marker = lm.vocabulary.markers["text"]
    config = Gemma3Config(image_token_index=marker, boi_token_index=5)
    set_token_ids(config, lm.vocabulary)
    assert (config.image_token_index, config.boi_token_index) == (-1, 5)
    assert config.text_config.eos_token_id == lm.vocabulary.eos_id


@of_kinds("Llama", "GPT-2")
def test_adapters_alone_learn_where_no_token_is_new(kind, lm, tmp_path):
    lm.save(tmp_path)
    head = type(lm.model.get_output_embeddings())
    for asked, whole in ((None, False), (["lm_head"], True)):
        lm = load_language_model(tmp_path)
        lora = {"r": 2, "target_modules": kind.adapts, "modules_to_save": asked}
        add_adapters(lm, lora)
        learned = lm.model.get_output_embeddings().weight.requires_grad
        assert isinstance(lm.model.get_output_embeddings(), head)
        assert learned == whole


@of_kinds("GPT-2")
@pytest.mark.parametrize("argument", ["target_modules", "modules_to_save"])
def test_what_adapters_do_not_find_is_named(kind, lm, argument):
    lora = {"r": 2, "target_modules": ["c_attn"]}
    with pytest.raises(ValueError, match="'q_proj'.* it has c_attn, c_fc, c_"):
        add_adapters(lm, lora | {argument: ["c_attn", "q_proj"]})


@of_kinds("Mamba")
def test_documents_that_run_apart_may_be_compiled_and_recomputed(kind, lm):
    keep_documents_apart(lm)
    ids = torch.randint(len(lm.vocabulary), (2, 20))
    positions = torch.cat([torch.arange(n) for n in (20, 7, 12, 1)])
    positions = positions.view(2, 20)
    expected = lm(ids, positions=positions)
    compiled = torch.compile(lm, backend="eager")
    torch.testing.assert_close(compiled(ids, positions=positions), expected)
    expected.logsumexp(-1).sum().backward()
    gradients = [w.grad.clone() for w in lm.parameters()]
    lm.zero_grad()
    lm.train().model.gradient_checkpointing_enable()
    lm(ids, positions=positions).logsumexp(-1).sum().backward()
    torch.testing.assert_close([w.grad for w in lm.parameters()], gradients)


@of_kinds("Llama", "Mamba")
@pytest.mark.parametrize("fsdp", [False, True])
@pytest.mark.parametrize("across", [False, True])
def test_a_training_starts_if_documents_can_be_kept_apart(
    kind, text_lm, fsdp, across, caplog
):
    settings = {
        "pretrained": str(text_lm[1]),
        "rope_theta": None,
        "context": None,
        "random_weights": False,
        "row_tokens": 64,
        "activation_checkpointing": False,
        "lora": {"r": 0},
        "attend_across": across,
        "fsdp": fsdp,
    }
    apart = kind.result == APART and not across
    if apart and fsdp:
        with pytest.raises(ValueError, match="fsdp false, or attend_across"):
            make_language_model(settings, UNITS)
        return
    lm = make_language_model(settings, UNITS)
    assert lm.apart == apart == ("sees other documents" in caplog.text)
