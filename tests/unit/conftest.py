"""Small tokenizers and models that the unit tests build."""

import io
import resource

import hypothesis
import pytest
import sentencepiece
import tokenizers
import torch
import transformers

# Function-scoped fixtures here are read-only or undone for each example.
hypothesis.settings.register_profile(
    "unit",
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
hypothesis.settings.load_profile("unit")

SENTENCES = [
    "the cat sat on a mat and the dog did not",
    "he said that she was not there all day long",
    "many small houses stand near the old river",
    "it rained, it rained again; we stayed in bed!",
] * 20


@pytest.fixture(autouse=True)
def _seed():
    """Make a test's random numbers its own, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def small_disk():
    """Let no file be longer than 20 kB, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def sentencepiece_model():
    """Make a SentencePiece model as Llama's, with user-defined symbols."""

    def train(symbols=(), **options):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES),
            model_writer=model,
            **{
                "model_type": "bpe",
                "vocab_size": 330,
                "hard_vocab_limit": False,
                "byte_fallback": True,
                "normalization_rule_name": "identity",
                "remove_extra_whitespaces": False,
                "user_defined_symbols": list(symbols),
                "num_threads": 1,
                "minloglevel": 2,
                **options,
            },
        )
        return model.getvalue()

    return train


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory):
    """Make a folder of a fast tokenizer (byte-level BPE, as GPT-2's)."""

    def build(special=(), plain=(), bos="<bos>", pre_tokenizer=None):
        tokenizer = tokenizers.Tokenizer(
            tokenizers.models.BPE(unk_token="<unk>")
        )
        byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = pre_tokenizer or byte_level
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        if pre_tokenizer is not None:
            tokenizer.decoder = tokenizers.decoders.Metaspace()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=300,
            initial_alphabet=byte_level.alphabet(),
            special_tokens=["<unk>", "<bos>", "<eos>"],
            show_progress=False,
        )
        tokenizer.train_from_iterator(SENTENCES, trainer)
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token=bos, eos_token="<eos>"
        )
        for tokens, kind in ((special, True), (plain, False)):
            fast.add_tokens(
                [
                    tokenizers.AddedToken(t, special=kind, normalized=False)
                    for t in tokens
                ],
                special_tokens=kind,
            )
        folder = tmp_path_factory.mktemp("hub")
        fast.save_pretrained(folder)
        return folder

    return build
