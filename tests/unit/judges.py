"""Small models of the forms that judges of generated speech have."""

from __future__ import annotations

import json

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
)

WORDS = (
    "this is a good thing and the day was long old man walked boats lie in "
    "harbour it rained again he said that she there all many small houses"
)
# As SpeechBrain publishes its ECAPA-TDNN, but for sizes.
SPEAKER_ENCODER = """\
pretrained_path: {folder}
n_mels: 40
out_n_neurons: 3
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [16, 16, 16, 16, 48]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 8
    lin_neurons: 12
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 12
    out_neurons: !ref <out_n_neurons>
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
    paths:
        embedding_model: !ref <pretrained_path>/embedding_model.ckpt
"""


def word_tokens(bos=None, **special):
    """Return a tokenizer of words, with a token for the beginning or none."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["<pad>", "<unk>", *([bos] if bos else []), *WORDS.split()]
    words = models.WordLevel({w: i for i, w in enumerate(names)}, "<unk>")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token=bos,
        model_input_names=["input_ids", "attention_mask"],
        **special,
    )


def language_model(tokenizer, context=24):
    """Return a language model with random weights."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        initializer_range=1.0,
    )
    return LlamaForCausalLM(config).eval()


def save_language_model(folder, **options):
    tokenizer = word_tokens("<s>")
    tokenizer.save_pretrained(folder)
    language_model(tokenizer, **options).save_pretrained(folder)
    return folder


def toxicity_model(tokenizer, labels, problem=None):
    """Return a classifier of texts with random weights."""
    torch.manual_seed(4)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        id2label=dict(enumerate(labels)),
        problem_type=problem,
        initializer_range=1.0,
    )
    return BertForSequenceClassification(config).eval()


def save_toxicity_model(folder, labels=("neutral", "toxic")):
    tokenizer = word_tokens(model_max_length=32)
    tokenizer.save_pretrained(folder)
    toxicity_model(tokenizer, labels).save_pretrained(folder)
    return folder


def save_speaker_encoder(folder):
    """Write a folder as SpeechBrain's speaker encoders are published."""
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    folder.mkdir(parents=True, exist_ok=True)
    yaml = SPEAKER_ENCODER.format(folder=folder)
    (folder / "hyperparams.yaml").write_text(yaml)
    torch.manual_seed(5)
    model = ECAPA_TDNN(
        40, channels=[16, 16, 16, 16, 48], attention_channels=8, lin_neurons=12
    )
    torch.save(model.state_dict(), folder / "embedding_model.ckpt")
    return folder


def save_recognizer(folder):
    """Write a recognizer with random weights, as the Hub's are laid out."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ'"
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *letters]
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    Wav2Vec2CTCTokenizer(str(vocabulary)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    torch.manual_seed(6)
    config = Wav2Vec2Config(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        conv_dim=[8] * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    return folder
