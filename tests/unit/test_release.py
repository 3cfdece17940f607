"""Tests of ``spiritlm_plugin.integrations.release``."""

import json
import shutil

import pytest
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml
from hypothesis import given
from hypothesis import strategies as st

from spiritlm_plugin.dataio.checkpoints import CheckpointError, load_state
from spiritlm_plugin.integrations.parts import hyperparams
from spiritlm_plugin.integrations.release import (
    parse_conv_layers,
    read_release,
    rename,
)

HUBERT = "speech_tokenizer/hubert_25hz/mhubert_base_25hz.pt"
QUANTIZER = "speech_tokenizer/hubert_25hz/L11_quantizer_500.pt"
PITCH = "speech_tokenizer/vqvae_f0_quantizer"
STYLE = "speech_tokenizer/style_encoder_w2v2"
VOCODER = "speech_tokenizer/hifigan_spiritlm_expressive_w2v2"
LM = "spiritlm_model/spirit-lm-expressive-7b"

number = st.integers(0, 2**16 - 1)
layer_lists = st.recursive(
    st.lists(st.tuples(number, number, number), max_size=3).map(
        lambda rows: (str(rows), rows)
    ),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(
            lambda p: (f"{p[0][0]} + {p[1][0]}", p[0][1] + p[1][1])
        ),
        st.tuples(inner, st.integers(0, 4)).map(
            lambda p: (f"({p[0][0]})*{p[1]}", p[0][1] * p[1])
        ),
    ),
    max_leaves=5,
)


@given(layer_lists)
def test_conv_layers_are_read(expression):
    written, layers = expression
    assert parse_conv_layers(f" {written} ") == layers


def test_conv_layers_as_released():
    released = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 3"
    assert parse_conv_layers(released) == [
        (512, 10, 5),
        *[(512, 3, 2)] * 4,
        *[(512, 2, 2)] * 3,
    ]


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "3",
        "(1, 2, 3)",
        "[(1, 2)]",
        "[(1, 2, 3, 4)]",
        "[(1, 2, 3.5)]",
        "[(1, 2, -3)]",
        "[(1, 2, '3')]",
        "[((1, 2, 3), 2, 3)]",
        "[(1, 2, 65536)]",
        "[(1, 2, 3)] * 65",
        "[(1, 2, 3)] * 10**9",
        "64 * [(1, 2, 3)]",
        "[(1, 2, 3)] - []",
        "[(1, 2, 3)] + (4, 5, 6)",
        "[(1, 2, 3)",
        "[(1, 2, 3)]; import os",
        "__import__('os')",
        "[(1, 2, __import__('os'))]",
        "[(1, 2, n) for n in [3]]",
        "[*[(1, 2, 3)]]",
        "[(1, 2, 3)][0:]",
        "(lambda: [(1, 2, 3)])()",
        "(" * 10000,
        "[" * 90 + "]" * 90,
        "+".join(["[(1,2,3)]"] * 20000),
        "9" * 10000,
        "\0",
        pytest.param(
            "not " * 100000 + "1",
        ),
        pytest.param(
            "[(1, 2, 3)] * 64 * 64 * 64",
        ),
    ],
    ids=lambda e: e[:30].replace("\0", "NUL"),
)
def test_anything_else_is_refused(expression):
    with pytest.raises(CheckpointError, match="conv_feature_layers") as error:
        parse_conv_layers(expression)
    assert repr(expression)[:150] in str(error.value)
    assert len(str(error.value)) < 400


def test_nothing_is_run(tmp_path):
    made = tmp_path / "made"
    code = f"__import__('pathlib').Path({str(made)!r}).touch()"
    for expression in (code, f"[(1, 2, {code})]", f"[] + {code}"):
        with pytest.raises(CheckpointError):
            parse_conv_layers(expression)
    assert not made.exists()


def test_rename_takes_the_first_rule():
    rules = [
        (r"a\.(\d+)\.w", r"b.\1.weight"),
        (r"a\.", "c."),
        ("same", "same"),
        (r"end$", "last"),
    ]
    state = {"a.12.w": 1, "a.x.a.": 2, "same": 3, "ends": 4, "end": 5, "z": 6}
    renamed = rename(state, rules)
    assert renamed == {"b.12.weight": 1, "c.x.a.": 2, "same": 3, "last": 5}
    assert rename({"z.a.1": 0}, [(r"a\.", "b.")]) == {}


@pytest.fixture
def copy(checkpoints, tmp_path):
    """A copy of the small Expressive checkpoints, to be spoilt."""
    assert checkpoints.is_dir(), f"{checkpoints} is missing"
    return shutil.copytree(checkpoints, tmp_path / "checkpoints")


def edit(path, change):
    """Change the content of a file in place."""
    if path.suffix in (".pt", ".bin"):
        content = torch.load(path)
        change(content)
        torch.save(content, path)
    else:
        read = json.loads if path.suffix == ".json" else yaml.safe_load
        content = read(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


def load(folder, variant="expressive"):
    """Read a release and load all weights but the language model's."""
    release = read_release(folder, variant)
    text = hyperparams(release, "unused")
    text = text.replace("!apply:spiritlm_plugin.lobes.language_model.load", "#")
    hparams = load_hyperpyyaml(text)
    for name, state in release.states.items():
        load_state(hparams[name], state, f"{folder} ({name})")
    return release, hparams


@pytest.mark.parametrize("variant", ["base", "expressive"])
def test_every_weight_has_its_place(checkpoints, variant):
    release, hparams = load(checkpoints, variant)
    expressive = variant == "expressive"
    names = {"phonetic", "vocoder"} | (
        {"pitch", "style"} if expressive else set()
    )
    assert release.states.keys() == release.arguments.keys() == names
    assert release.language_model.name == f"spirit-lm-{variant}-7b"
    # Layer 12 is there and is not run.
    layers = torch.load(checkpoints / HUBERT)["model_weight"]
    assert "encoder.layers.11.fc1.weight" in layers
    assert len(hparams["phonetic"].encoder.model.encoder.layers) == 11
    for name, tensor in hparams["phonetic"].state_dict().items():
        assert torch.equal(tensor, release.states["phonetic"][name])
    first = hparams["phonetic"].encoder.model.encoder.layers[10]
    for ours, theirs in (
        (first.feed_forward.intermediate_dense.weight, "10.fc1.weight"),
        (first.feed_forward.output_dense.bias, "10.fc2.bias"),
        (first.layer_norm.weight, "10.self_attn_layer_norm.weight"),
        (first.attention.k_proj.weight, "10.self_attn.k_proj.weight"),
        (first.final_layer_norm.bias, "10.final_layer_norm.bias"),
    ):
        assert torch.equal(ours, layers[f"encoder.layers.{theirs}"])
    vocoder = hparams["vocoder"]
    assert vocoder.default_speaker == 2
    assert vocoder.default_global_style == (0 if expressive else 8)
    assert vocoder.hop == 640 and vocoder.expressive == expressive
    speakers = release.arguments["vocoder"]["speakers"]
    assert len(speakers) == vocoder.embeddings["speaker"].num_embeddings


def test_variant_is_checked(checkpoints):
    with pytest.raises(ValueError, match="base, expressive, got 'large'"):
        read_release(checkpoints, "large")


def test_all_missing_files_are_named(copy):
    gone = [HUBERT, f"{PITCH}/config.yaml", f"{LM}/tokenizer.model"]
    for name in gone:
        (copy / name).unlink()
    with pytest.raises(FileNotFoundError) as error:
        read_release(copy, "expressive")
    message = str(error.value)
    assert all(name in message for name in gone)
    assert QUANTIZER not in message and "model.pt" not in message
    with pytest.raises(FileNotFoundError) as error:
        read_release(copy, "base")  # which has no pitch and another model
    assert HUBERT in str(error.value) and PITCH not in str(error.value)


@pytest.mark.parametrize("folder", ["no_such_folder", "spiritlm_model"])
def test_wrong_folder(checkpoints, folder):
    with pytest.raises(FileNotFoundError, match="right folder") as error:
        read_release(checkpoints / folder, "base")
    for name in (HUBERT, QUANTIZER, "tokenizer.model", "generator.pt"):
        assert name in str(error.value)


def change_tensor(path, key, name):
    def change(content):
        content[key][name] = torch.zeros(3, 5, 7)

    return path, change


@pytest.mark.parametrize(
    ("path", "key", "theirs", "ours"),
    [
        (HUBERT, "model_weight", "encoder.layers.3.fc1.bias", "phonetic"),
        (QUANTIZER, "model_weight", None, "phonetic"),
        (f"{PITCH}/model.pt", "model", "vq.level_blocks.0.k", "pitch"),
        (f"{STYLE}/pytorch_model.bin", None, "projector.bias", "style"),
        (f"{VOCODER}/generator.pt", "generator", "dict.weight", "vocoder"),
    ],
)
@pytest.mark.parametrize("kind", ["shape", "missing"])
def test_a_wrong_tensor_is_named(copy, path, key, theirs, ours, kind):
    def change(content):
        weights = content[key] if key else content
        name = theirs or next(iter(weights))
        if kind == "shape":
            weights[name] = torch.zeros(3, 5, 7)
        else:
            del weights[name]

    edit(copy / path, change)
    message = r"\(3, 5, 7\), expected" if kind == "shape" else "missing "
    with pytest.raises(CheckpointError, match=message) as error:
        load(copy)
    assert f"({ours})" in str(error.value)


def test_leftovers_of_pretraining_are_dropped(copy):
    edit(
        copy / HUBERT,
        lambda c: c["model_weight"].update(
            {"final_proj.bias": torch.zeros(9), "unheard_of": torch.zeros(1)}
        ),
    )
    edit(
        copy / PITCH / "model.pt", lambda c: c["model"].update(z=torch.ones(1))
    )
    release, _ = load(copy)
    assert not any("final_proj" in name for name in release.states["phonetic"])


def test_unknown_tensors_of_a_known_layer_are_named(copy):
    name = "encoder.layers.3.lora.weight"
    edit(
        copy / HUBERT, lambda c: c["model_weight"].update({name: torch.ones(1)})
    )
    with pytest.raises(CheckpointError, match="unknown .*layers.3.lora.weight"):
        load(copy)


def test_projection_is_the_identity_where_there_is_none(copy):
    def change(content):
        for name in ("weight", "bias"):
            content["model_weight"].pop(f"post_extract_proj.{name}", None)

    edit(copy / HUBERT, change)
    state = read_release(copy, "base").states["phonetic"]
    name = "encoder.model.feature_projection.projection"
    assert torch.equal(state[f"{name}.weight"], torch.eye(24))
    assert torch.equal(state[f"{name}.bias"], torch.zeros(24))


@pytest.mark.parametrize("as_array", [False, True])
def test_kmeans_quantizer(copy, as_array):
    centres = torch.randn(50, 24).double()
    content = {"cluster_centers": centres, "n_clusters": 50}
    if as_array:
        content["cluster_centers"] = centres.tolist()
    torch.save(content, copy / QUANTIZER)
    _, hparams = load(copy)
    quantizer = hparams["phonetic"].quantizer
    assert type(quantizer).__name__ == "KMeansQuantizer"
    assert torch.equal(quantizer.centres, centres.float())


@pytest.mark.parametrize("upstream_dim", [20, 524, 501, 503])
def test_widths_of_the_linear_quantizer(copy, upstream_dim):
    config = {"vocab_size": 500, "dim": 24, "upstream_dim": upstream_dim}
    edit(copy / QUANTIZER, lambda c: c.update(model_cfg=config))
    m = upstream_dim - 501
    arguments = read_release(copy, "base").arguments["phonetic"]["quantizer"]
    assert arguments["hidden_dims"] == [24 - m // 4, 24 - m // 2]


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        (
            HUBERT,
            lambda c: c["model_cfg"].update(layer_norm_first=True),
            "post",
        ),
        (HUBERT, lambda c: c["model_cfg"].update(extractor_mode="a"), "post"),
        (HUBERT, lambda c: c.pop("task_cfg"), "task_cfg"),
        (QUANTIZER, lambda c: c.pop("model_weight"), "model_weight"),
        (f"{PITCH}/config.yaml", lambda c: c.update(features="f0"), "'f0'"),
        (
            f"{PITCH}/config.yaml",
            lambda c: c.update(speaker_norm=1),
            "one-level",
        ),
        (
            f"{PITCH}/config.yaml",
            lambda c: c["encoder_params"].update(strides_t=[3]),
            r"strides_t \[3\]",
        ),
        (f"{PITCH}/config.yaml", lambda c: c.pop("vq_params"), "vq_params"),
        (f"{STYLE}/pytorch_model.bin", lambda c: c.clear(), "classifier"),
        (f"{VOCODER}/config.json", lambda c: c.update(resblock="2"), "got '2'"),
        (f"{VOCODER}/config.json", lambda c: c.pop("upsample_rates"), "rates"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_forms_are_refused(copy, path, change, message):
    edit(copy / path, change)
    with pytest.raises(CheckpointError, match=message) as error:
        read_release(copy, "expressive")
    assert str((copy / path).parent) in str(error.value)


@pytest.mark.parametrize("path", [HUBERT, f"{VOCODER}/generator.pt"])
def test_damaged_weights(copy, path):
    content = (copy / path).read_bytes()
    (copy / path).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="download it again") as error:
        read_release(copy, "expressive")
    assert str(copy / path) in str(error.value)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (f"{STYLE}/config.json", b"{"),
        (f"{VOCODER}/config.json", b'{"resblock": '),
        (f"{PITCH}/config.yaml", b"a: [b"),
        (f"{VOCODER}/speakers.txt", b"\xff\xfe"),
    ],
)
def test_damaged_configurations(copy, path, content):
    (copy / path).write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read_release(copy, "expressive")
    assert str(copy / path) in str(error.value)
