"""What the released inference code computes, computed by this package.

Each folder with an ``expected.json`` is a set of vectors: see README.md.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pytest
import torch

from spiritlm_plugin import Speech, SpeechUnits, SpiritLM, Text
from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.units.segments import parse_prompt
from spiritlm_plugin.dataio.units.units import SpeechStream
from spiritlm_plugin.decoders.constrained import decode
from spiritlm_plugin.integrations.convert import convert_release
from spiritlm_plugin.lobes.language_model import load_language_model

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[2] / "shared" / "conformance" / "real"

TOLERANCE = 1e-4
# Two units of the last place: other processors round sums elsewhere.
BFLOAT16_TOLERANCE = 2**-7

OUTPUTS = {"TEXT": "text", "SPEECH": "speech", "ARBITRARY": "any"}
STREAMS = {"hubert": "phonetic", "pitch": "pitch", "style": "style"}
HUBERT_SAMPLES = 4 * 16000
SPEAKER = 2
STYLE_SPEAKER = 1

# The names of the arrays.
FEATURES = re.compile(r"(?P<file>.+)/(?P<feature>hubert_layer11|f0|vuv)")
WAVEFORM = re.compile(
    r"(?P<file>.+)/(?P<variant>base|expressive)/"
    r"(resynth_(?P<what>units|string)(_speaker(?P<speaker>\d+))?"
    r"|style(?P<style>\d+))"
)
LOGITS = re.compile(
    r"lm/(?P<model>[^/]+)/(?P<prompt>[^/]+)/last_logits(?P<float32>_fp32)?"
)


class VectorSet:
    """Checkpoints, and what the released code computes with them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.expected = json.loads((folder / "expected.json").read_text())
        with np.load(folder / "expected.npz") as arrays:
            self.array_names = list(arrays.files)

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / "expected.npz") as arrays:
            return dict(arrays)

    @property
    def models(self) -> list[str]:
        cases = self.expected["generation"]
        return list(dict.fromkeys(case["model"] for case in cases))

    def prompts(self, model: str) -> list[dict]:
        cases = self.expected["generation"]
        return [case for case in cases if case["model"] == model]

    def files(self, variant: str) -> list[str]:
        audio = self.expected["audio"]
        return [file for file in audio if variant in audio[file]]

    def recording(self, file: str) -> Path:
        named = os.environ.get("SPIRITLM_CONFORMANCE_AUDIO")
        folders = [Path(named)] if named else []
        for parent in (self.folder, *self.folder.parents[:2]):
            folders.append(parent / "audio")
        for folder in folders:
            if (folder / file).exists():
                return folder / file
        raise FileNotFoundError(
            f"{file} is in none of {', '.join(map(str, folders))}; name its "
            "folder in SPIRITLM_CONFORMANCE_AUDIO"
        )


def find_sets() -> dict[str, VectorSet]:
    """Find the sets beside this file and in the folder that is named."""
    named = os.environ.get("SPIRITLM_CONFORMANCE_DIR")
    elsewhere = sets_in(Path(named).resolve() if named else SHARED)
    if named and not elsewhere:
        raise FileNotFoundError(
            f"SPIRITLM_CONFORMANCE_DIR is {named}, and neither it nor a "
            "folder in it holds an expected.json"
        )
    sets = {}
    for folder in dict.fromkeys([*sets_in(HERE), *elsewhere]):
        name = folder.name
        while name in sets:
            name = f"{folder.parent.name}_{name}"
        sets[name] = VectorSet(folder)
    return sets


def sets_in(root: Path) -> list[Path]:
    files = [root / "expected.json", *sorted(root.glob("*/expected.json"))]
    return [file.parent for file in files if file.exists()]


SETS = find_sets()


def parametrize(name: str, values_of) -> pytest.MarkDecorator:
    """Run a test for each value of each set, such as each of its models."""
    return pytest.mark.parametrize(
        ("vectors", name),
        [
            pytest.param(vectors, value, id=f"{set_name}-{value}")
            for set_name, vectors in SETS.items()
            for value in values_of(vectors)
        ],
    )


def each_array(pattern: re.Pattern) -> pytest.MarkDecorator:
    return parametrize(
        "key", lambda v: [k for k in v.array_names if pattern.fullmatch(k)]
    )


each_set = pytest.mark.parametrize("vectors", SETS.values(), ids=SETS)
each_model = parametrize("model", lambda v: v.models)
each_variant = parametrize(
    "variant", lambda v: [x for x in ("base", "expressive") if v.files(x)]
)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Return a function that converts checkpoints, each once."""

    @cache
    def convert(vectors: VectorSet, variant: str) -> Path:
        folder = tmp_path_factory.mktemp("converted") / "model"
        return convert_release(vectors.checkpoints, variant, folder)

    return convert


@pytest.fixture(scope="module", params=["release", "converted"])
def load(request, converted):
    """Return a function that loads a model in one of both ways, each once."""

    @cache
    def load(
        vectors: VectorSet,
        variant: str,
        dtype: str = "auto",
        rotary_dtype: str | None = None,
    ) -> SpiritLM:
        if request.param == "converted":
            overrides = {"language_model_dtype": dtype}
            if rotary_dtype is not None:
                overrides["language_model"] = {"rotary_dtype": rotary_dtype}
            return SpiritLM.from_hparams(
                converted(vectors, variant), overrides=overrides
            )
        lm = SpiritLM.from_release(vectors.checkpoints, variant, dtype)
        if rotary_dtype is not None:
            lm.mods.language_model = load_language_model(
                language_model_folder(vectors, variant), dtype, rotary_dtype
            )
        return lm

    return load


def language_model_folder(vectors: VectorSet, variant: str) -> Path:
    folder = vectors.checkpoints / "spiritlm_model"
    return folder / f"spirit-lm-{variant}-7b"


def variant_of(model: str) -> str:
    return re.fullmatch(r"spirit-lm-(\w+)-7b", model)[1]


def rotary_dtype_of(vectors: VectorSet, model: str, prompt: str) -> str | None:
    """Tell how the frequencies were rounded when a prompt was run.

    The generator of the vectors took one model to bfloat16 and back to
    float32 for each prompt in turn. The first time this rounded the rotary
    embedding's buffer of frequencies, ``inv_freq``, which is float32 in the
    released system and stays so when a model is loaded in bfloat16. So a
    model's first prompt was run with exact frequencies, as we run all, and the
    others with rounded ones. Both must be reproduced.
    """
    first = vectors.prompts(model)[0]["prompt_name"]
    return None if prompt == first else "bfloat16"


def read(numbers: str) -> list[int]:
    return [int(number) for number in numbers.split()]


def streams(units: SpeechUnits) -> dict[str, list[int]]:
    """Return the streams under the names that they have in the vectors."""
    named = {k: getattr(units, name) for k, name in STREAMS.items()}
    return {
        k: stream.tolist() for k, stream in named.items() if stream is not None
    }


def read_streams(units: dict[str, str]) -> dict[str, list[int]]:
    return {name: read(numbers) for name, numbers in units.items()}


def read_units(units: dict[str, str]) -> SpeechUnits:
    return SpeechUnits(*map(read, units.values()))


def assert_close(
    actual: torch.Tensor, expected: np.ndarray, tolerance: float = TOLERANCE
) -> None:
    actual = actual.float().numpy()
    assert actual.shape == expected.shape
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= tolerance


@each_set
def test_nothing_in_a_set_is_left_out(vectors):
    patterns = (FEATURES, WAVEFORM, LOGITS)
    unknown = [
        name
        for name in vectors.array_names
        if not any(pattern.fullmatch(name) for pattern in patterns)
    ]
    assert unknown == []
    assert set(vectors.expected) == {
        "first_speech_token_id",
        "audio",
        "strings",
        "odd_strings",
        "generation",
    }
    for case in vectors.expected["generation"]:
        assert set(case["greedy_fp32"]) == set(OUTPUTS)


# Speech tokenizer


@each_variant
def test_units_and_string_of_a_file(load, vectors, variant):
    lm = load(vectors, variant)
    for file in vectors.files(variant):
        expected = vectors.expected["audio"][file][variant]
        units = lm.encode_file(vectors.recording(file))
        assert streams(units) == read_streams(expected["units"]), file
        assert units.merge().to_string() == expected["string"], file


@each_variant
def test_units_of_all_files_in_one_batch(load, vectors, variant):
    files = vectors.files(variant)
    wavs = [read_audio(vectors.recording(file)) for file in files]
    lengths = torch.tensor([len(wav) for wav in wavs])
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    lm = load(vectors, variant)
    batch = lm.encode_batch(padded, lengths / lengths.max())
    for file, units in zip(files, batch, strict=True):
        expected = vectors.expected["audio"][file][variant]["units"]
        assert streams(units) == read_streams(expected), file


@each_array(FEATURES)
def test_features(load, vectors, key):
    file, feature = FEATURES.fullmatch(key).group("file", "feature")
    wav = read_audio(vectors.recording(file))
    tokenizer = load(vectors, "expressive").mods.tokenizer
    with torch.inference_mode():
        if feature == "hubert_layer11":
            wav = wav[:HUBERT_SAMPLES]
            encoder = tokenizer.phonetic.encoder
            features, _ = encoder(wav[None], torch.tensor([len(wav)]))
        else:
            f0, voiced, _ = tokenizer.pitch.f0(
                wav[None], torch.tensor([len(wav)])
            )
            features = f0 if feature == "f0" else voiced
    assert_close(features[0], vectors.arrays[key])


# Units and strings


@each_set
def test_strings_are_merged(vectors):
    for index, case in enumerate(vectors.expected["strings"]):
        units = read_units(case["units"])
        string = units.merge().to_string()
        base_string = units.base().merge().to_string()
        assert string == case["expressive_string"], index
        assert base_string == case["base_string"], index


@each_set
@pytest.mark.parametrize(
    ("string", "repeat", "back"),
    [
        ("expressive_string", False, "back"),
        ("expressive_string", True, "back_duplicated"),
        ("base_string", False, "back_base"),
    ],
)
def test_strings_are_read_back(vectors, string, repeat, back):
    for index, case in enumerate(vectors.expected["strings"]):
        stream = SpeechStream.from_string(case[string])
        units = stream.split(repeat=repeat)
        assert streams(units) == read_streams(case[back]), index


@each_set
def test_odd_strings(vectors):
    for case in vectors.expected["odd_strings"]:
        units = SpeechStream.from_string(case["string"]).split()
        assert streams(units) == read_streams(case["units"]), case["string"]


# Vocoder


def units_of_waveform(vectors: VectorSet, key: str):
    """Return what a waveform is made of, its speaker and global style."""
    file, variant, what, speaker, style = WAVEFORM.fullmatch(key).group(
        "file", "variant", "what", "speaker", "style"
    )
    expected = vectors.expected["audio"][file][variant]
    units = read_units(expected["units"])
    if style is not None:
        return units.deduplicate(), STYLE_SPEAKER, int(style)
    if what == "string":
        units = SpeechStream.from_string(expected["string"])
    return units, SPEAKER if speaker is None else int(speaker), None


@each_array(WAVEFORM)
def test_waveform(load, vectors, key):
    units, speaker, style = units_of_waveform(vectors, key)
    lm = load(vectors, WAVEFORM.fullmatch(key)["variant"])
    [wav], [wav_len] = lm.decode_batch([units], speaker, style)
    assert wav_len == 1
    assert_close(wav, vectors.arrays[key])


@each_variant
def test_waveforms_in_one_batch(load, vectors, variant):
    keys = [
        key
        for key in vectors.array_names
        if (match := WAVEFORM.fullmatch(key))
        and match["variant"] == variant
        and match["style"] is None
    ]
    units, speakers, _ = zip(*(units_of_waveform(vectors, k) for k in keys))
    lm = load(vectors, variant)
    wavs, wav_lens = lm.decode_batch(units, speakers)
    lengths = (wav_lens * wavs.shape[1]).round().long()
    for key, wav, length in zip(keys, wavs, lengths, strict=True):
        assert_close(wav[:length], vectors.arrays[key])


# Language model


@each_model
def test_prompt_ids(load, vectors, model):
    vocabulary = load(vectors, variant_of(model)).vocabulary
    first = vectors.expected["first_speech_token_id"]
    assert vocabulary.markers["text"] == first
    for case in vectors.prompts(model):
        prompt = parse_prompt(case["prompt"])
        assert vocabulary.encode(prompt) == case["input_ids"]
        assert vocabulary.encode_string(case["prompt"]) == case["input_ids"]


@each_model
def test_ids_are_read_back(load, vectors, model):
    vocabulary = load(vectors, variant_of(model)).vocabulary
    for case in vectors.prompts(model):
        segments = vocabulary.decode(case["input_ids"])
        assert bracket_notation(segments) == case["prompt"]
        for output in case["greedy_fp32"].values():
            segments = vocabulary.decode(output["new_ids"])
            assert_same_text(segments, output["text"])


def bracket_notation(segments: list[Text | Speech]) -> str:
    return "".join(
        f"[Text]{s.text}" if isinstance(s, Text) else f"[Speech]{plain([s])}"
        for s in segments
    )


def plain(segments: list[Text | Speech]) -> str:
    return "".join(
        s.text if isinstance(s, Text) else s.stream.to_string()
        for s in segments
    )


def assert_same_text(segments: list[Text | Speech], expected: str) -> None:
    """Compare with a decoded output, in which markers are written out.

    It lacks the space that an output begins with where its first piece does:
    the released code decodes outputs as if they were the start of a text. We
    keep it, so that prompt and output can be joined.
    """
    text = plain(segments)
    expected = re.sub(r"\[(Text|Speech)\]", "", expected)
    assert text in (expected, f" {expected}")


@each_array(LOGITS)
@torch.inference_mode()
def test_last_logits(load, vectors, key):
    match = LOGITS.fullmatch(key)
    model, prompt = match.group("model", "prompt")
    [case] = [
        case for case in vectors.prompts(model) if case["prompt_name"] == prompt
    ]
    lm = load(
        vectors,
        variant_of(model),
        "float32" if match["float32"] else "auto",
        rotary_dtype_of(vectors, model, prompt),
    ).mods.language_model
    logits = lm(torch.tensor([case["input_ids"]]))[0, -1]
    expected = torch.float32 if match["float32"] else torch.bfloat16
    assert logits.dtype == expected
    tolerance = TOLERANCE if match["float32"] else BFLOAT16_TOLERANCE
    assert_close(logits, vectors.arrays[key], tolerance)


def steps(vectors: VectorSet, model: str, name: str) -> int:
    cases = vectors.prompts(model)
    return max(len(case["greedy_fp32"][name]["new_ids"]) for case in cases)


def with_rotary_dtype(vectors, model, rotary_dtype) -> list[int]:
    """Return which of a model's prompts were run with these frequencies."""
    return [
        index
        for index, case in enumerate(vectors.prompts(model))
        if rotary_dtype_of(vectors, model, case["prompt_name"]) == rotary_dtype
    ]


@each_model
@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("rotary_dtype", [None, "bfloat16"])
def test_greedy_ids(load, vectors, model, name, rotary_dtype):
    lm = load(vectors, variant_of(model), "float32", rotary_dtype)
    cases = vectors.prompts(model)

    def continue_all(cases):
        outputs = decode(
            lm.mods.language_model,
            [case["input_ids"] for case in cases],
            OUTPUTS[name],
            steps(vectors, model, name),
            temperature=0,
            stop=False,
        )
        eos = lm.vocabulary.eos_id
        ended = {"end_of_sequence": [eos], "max_new_tokens": []}
        return [out.ids.tolist() + ended[out.end_reason] for out in outputs]

    batch = continue_all(cases)
    assert batch == [continue_all([case])[0] for case in cases]
    for index in with_rotary_dtype(vectors, model, rotary_dtype):
        expected = cases[index]["greedy_fp32"][name]["new_ids"]
        assert batch[index] == expected, cases[index]["prompt_name"]


@each_model
@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("rotary_dtype", [None, "bfloat16"])
def test_greedy_segments(load, vectors, model, name, rotary_dtype):
    lm = load(vectors, variant_of(model), "float32", rotary_dtype)
    cases = vectors.prompts(model)
    prompts = [parse_prompt(case["prompt"]) for case in cases]
    outputs = lm.generate(
        prompts,
        OUTPUTS[name],
        max_new_tokens=steps(vectors, model, name),
        temperature=0,
        stop=False,
        min_speech_units=0,
        vocode=False,
    )
    for index in with_rotary_dtype(vectors, model, rotary_dtype):
        case = cases[index]
        # The vectors continue each prompt as it is. We end one in the
        # modality that is asked for, as the released code's interface does.
        as_it_is = lm.vocabulary.encode(prompts[index])
        if lm.vocabulary.encode(prompts[index], OUTPUTS[name]) == as_it_is:
            expected = case["greedy_fp32"][name]["text"]
            assert_same_text(outputs[index], expected)


@each_variant
@torch.inference_mode()
def test_conversion_changes_no_number(converted, vectors, variant):
    released = SpiritLM.from_release(vectors.checkpoints, variant)
    loaded = SpiritLM.from_hparams(converted(vectors, variant))
    expected, actual = released.mods.state_dict(), loaded.mods.state_dict()
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name
    paths = [vectors.recording(file) for file in vectors.files(variant)]
    units = [model.encode_file(paths[0]) for model in (released, loaded)]
    assert units[0] == units[1]
    wavs = [model.decode_batch(units) for model in (released, loaded)]
    assert torch.equal(wavs[0][0], wavs[1][0])
    ids = released.vocabulary.encode([Text("the old man"), Speech(units[0])])
    assert loaded.vocabulary.speech_tokens() == (
        released.vocabulary.speech_tokens()
    )
    logits = [
        model.mods.language_model(torch.tensor([ids]))
        for model in (released, loaded)
    ]
    assert torch.equal(logits[0], logits[1])
