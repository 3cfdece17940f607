"""Classifiers of sentiment, loaded as transformers folders."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BatchEncoding,
    BatchFeature,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES as AUDIO,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as TEXT,
)

from spiritlm_plugin.dataio.corpus.stsp import SENTIMENT_OF, SENTIMENTS
from spiritlm_plugin.dataio.units.units import MIN_SAMPLES, SAMPLE_RATE

# Tokens of a text, where its tokenizer has no limit.
_LONGEST = 512
_NAMES = {"text": set(TEXT.values()), "speech": set(AUDIO.values())}


class _Classifier:
    def __init__(
        self, model: PreTrainedModel, processor: Any, labels: Sequence[str]
    ):
        if len(labels) != model.config.num_labels:
            raise ValueError(
                f"the classifier has {model.config.num_labels} outputs, got "
                f"{len(labels)} labels: {', '.join(labels)}"
            )
        self.model = model.eval()
        self.processor = processor
        self.labels = [_as_sentiment(label) for label in labels]

    def _classify(self, inputs: BatchEncoding | BatchFeature) -> list[str]:
        logits = self.model(**inputs.to(self.model.device)).logits
        return [self.labels[i] for i in logits.argmax(-1).tolist()]


class TextClassifier(_Classifier):
    """Says which sentiment texts have.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        Of sequence classification.
    tokenizer : transformers tokenizer
        Its.
    labels : sequence of str
        Sentiments or emotions, one for each output of the model.

    Raises
    ------
    ValueError
        If the labels are others, or more or fewer.

    Example
    -------
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> tokenizer = word_tokenizer(["the cat sleeps"], 16)
    >>> model = BertForSequenceClassification(
    ...     BertConfig(vocab_size=len(tokenizer), hidden_size=8, num_labels=2,
    ...                num_hidden_layers=1, num_attention_heads=1)
    ... )
    >>> classify = TextClassifier(model, tokenizer, ["happy", "sad"])
    >>> classify(["the cat", " "])[1] is None
    True
    """

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> list[str | None]:
        """Return the sentiment of each text, None of an empty one."""
        found: list[str | None] = [None] * len(texts)
        said = [i for i, text in enumerate(texts) if text.strip()]
        if said:
            inputs = tokenize(self.processor, [texts[i] for i in said])
            for i, sentiment in zip(said, self._classify(inputs)):
                found[i] = sentiment
        return found


class SpeechClassifier(_Classifier):
    """Says which sentiment voices have.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        Of audio classification.
    extractor : transformers feature extractor
        Its.
    labels : sequence of str
        As of `TextClassifier`.

    Raises
    ------
    ValueError
        If the extractor is for another sampling rate than 16 kHz; otherwise
        as `TextClassifier`.

    Example
    -------
    >>> from transformers import (
    ...     Wav2Vec2Config, Wav2Vec2FeatureExtractor,
    ...     Wav2Vec2ForSequenceClassification,
    ... )
    >>> config = Wav2Vec2Config(
    ...     hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    ...     num_labels=3,
    ... )
    >>> classify = SpeechClassifier(
    ...     Wav2Vec2ForSequenceClassification(config),
    ...     Wav2Vec2FeatureExtractor(), ["sad", "default", "happy"],
    ... )
    >>> classify([torch.randn(16000), torch.zeros(0)])[1] is None
    True
    """

    def __init__(
        self, model: PreTrainedModel, extractor: Any, labels: Sequence[str]
    ):
        if extractor.sampling_rate != SAMPLE_RATE:
            raise ValueError(
                f"the speech classifier hears {extractor.sampling_rate} Hz; "
                f"name one of {SAMPLE_RATE} Hz"
            )
        super().__init__(model, extractor, labels)

    @torch.inference_mode()
    def __call__(self, wavs: Sequence[Tensor | None]) -> list[str | None]:
        """Return the sentiment of each wav, None of less than 80 ms.

        They are heard one by one: what some models hear depends on padding.
        """
        return [
            None
            if wav is None or len(wav) < MIN_SAMPLES
            else self._classify(extract(self.processor, [wav]))[0]
            for wav in wavs
        ]


def tokenize(tokenizer: Any, texts: Sequence[str]) -> BatchEncoding:
    """Return what a text classifier reads, texts cut where they are long."""
    return tokenizer(
        list(texts),
        padding=True,
        truncation=True,
        max_length=min(tokenizer.model_max_length, _LONGEST),
        return_tensors="pt",
    )


def extract(extractor: Any, wavs: Sequence[Tensor] | Tensor) -> BatchFeature:
    """Return what a speech classifier hears of wavs at 16 kHz."""
    return extractor(
        [wav.float().cpu().numpy() for wav in wavs],
        sampling_rate=SAMPLE_RATE,
        return_tensors="pt",
    )


def load_classifier(
    source: str | Path,
    modality: str,
    device: str | torch.device = "cpu",
    labels: Sequence[str] | None = None,
) -> TextClassifier | SpeechClassifier:
    """Load a classifier of ``"text"`` or ``"speech"``.

    Arguments
    ---------
    source : str or Path
        A transformers folder, or a name on the Hub.
    modality : str
        What it reads.
    device : str or torch.device
        To run on.
    labels : sequence of str, optional
        Sentiments or emotions of its outputs, in order; those that its
        configuration has by default.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If its labels are neither sentiments nor emotions that are known.
    """
    source = str(source)
    if modality == "text":
        model = AutoModelForSequenceClassification.from_pretrained(source)
        processor = AutoTokenizer.from_pretrained(source)
        kind: type[TextClassifier | SpeechClassifier] = TextClassifier
    else:
        model = AutoModelForAudioClassification.from_pretrained(source)
        processor = AutoFeatureExtractor.from_pretrained(source)
        kind = SpeechClassifier
    if labels is None:
        labels = [name for _, name in sorted(model.config.id2label.items())]
    try:
        return kind(model.to(device), processor, labels)
    except ValueError as error:
        raise ValueError(
            f"{source}: {error}; name the sentiments of its outputs in order "
            f"with --{modality}_labels"
        ) from error


def find_classifier(folder: str | Path, modality: str) -> Path:
    """Return the one classifier of a modality among the folders in a folder.

    Raises
    ------
    FileNotFoundError
        If there is none, or more than one.
    """
    found = [
        path.parent
        for path in sorted(Path(folder).glob("**/config.json"))
        if _NAMES[modality] & set(_architectures(path))
    ]
    if len(found) != 1:
        raise FileNotFoundError(
            f"{len(found) or 'no'} {modality} classifiers in {folder}; name "
            f"one with --{modality}_classifier FOLDER"
        )
    return found[0]


def _architectures(path: Path) -> list[str]:
    try:
        return json.loads(path.read_text())["architectures"] or []
    except (ValueError, KeyError, TypeError):
        return []


def _as_sentiment(label: str) -> str:
    name = str(label).lower()
    if name in SENTIMENTS:
        return name
    if name in SENTIMENT_OF:
        return SENTIMENT_OF[name]
    raise ValueError(
        f"the label {label!r} is neither a sentiment "
        f"({', '.join(SENTIMENTS)}) nor a known emotion "
        f"({', '.join(SENTIMENT_OF)})"
    )


def word_tokenizer(
    texts: Sequence[str], longest: int
) -> PreTrainedTokenizerFast:
    """Return a tokenizer whose tokens are the words of some texts.

    Arguments
    ---------
    texts : sequence of str
        Words stand between spaces.
    longest : int
        Tokens of a text.

    Example
    -------
    >>> tokenizer = word_tokenizer(["a cat", "a dog"], 16)
    >>> tokenizer.tokenize("a dog barks")
    ['a', 'dog', '[UNK]']
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    counts = Counter(word for text in texts for word in text.split())
    words = sorted(counts, key=lambda word: (-counts[word], word))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=longest,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
    )
