"""Classifiers of sentiment, loaded as transformers folders."""

from __future__ import annotations

import json
import logging
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

from spiritlm_plugin.dataio.corpus.stsp import (
    SENTIMENT_OF,
    SENTIMENTS,
    sentiment_of,
)
from spiritlm_plugin.dataio.units.units import MIN_SAMPLES, SAMPLE_RATE

logger = logging.getLogger(__name__)

# Tokens of a text, where its tokenizer has no limit.
_LONGEST = 512
# Common words, of which any tokenizer of English texts knows one.
_PLAIN = "this is a good thing and the day was long"
# Rows of an embedding that may be there to make its size round.
_PADDING = 0.01
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
        found = [sentiment_of(label) for label in labels]
        unknown = [label for label, s in zip(labels, found) if s is None]
        self.known = [i for i, s in enumerate(found) if s is not None]
        self.labels = [s for s in found if s is not None]
        if not self.labels:
            raise ValueError(
                f"the label {labels[0]!r} is neither a sentiment "
                f"({', '.join(SENTIMENTS)}) nor a known emotion "
                f"({', '.join(SENTIMENT_OF)}), and no other label is"
            )
        if unknown:
            logger.warning(
                "the classifier's labels %s mean no sentiment: the best of "
                "the others counts",
                ", ".join(unknown),
            )

    def _classify(self, inputs: BatchEncoding | BatchFeature) -> list[str]:
        logits = self.model(**inputs.to(self.model.device)).logits
        best = logits[..., self.known].argmax(-1)
        return [self.labels[i] for i in best.tolist()]


class TextClassifier(_Classifier):
    """Says which sentiment texts have.

    Arguments
    ---------
    model : transformers.PreTrainedModel
        Of sequence classification.
    tokenizer : transformers tokenizer
        Its.
    labels : sequence of str
        Sentiments or emotions, one for each output of the model. Outputs with
        other labels are ignored.
    judges_empty : bool
        Whether a text without words has a sentiment, too, as any other.

    Raises
    ------
    ValueError
        If there are more or fewer labels, or none of them is known.

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

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        labels: Sequence[str],
        judges_empty: bool = False,
    ):
        super().__init__(model, tokenizer, labels)
        self.judges_empty = judges_empty

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> list[str | None]:
        """Return the sentiment of each text, None of an empty one."""
        found: list[str | None] = [None] * len(texts)
        said = [
            i for i, t in enumerate(texts) if self.judges_empty or t.strip()
        ]
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
    tokenizer: str | Path | None = None,
    judges_empty: bool = False,
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
    tokenizer : str or Path, optional
        Folder or Hub name of a text classifier's tokenizer; by default it is
        the classifier's own.
    judges_empty : bool
        As of `TextClassifier`.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If none of its labels is a sentiment or an emotion that is known, or
        the tokenizer does not fit.
    """
    source = str(source)
    safe = {"trust_remote_code": False}
    is_text = modality == "text"
    kind = (
        AutoModelForSequenceClassification
        if is_text
        else AutoModelForAudioClassification
    )
    model = kind.from_pretrained(source, **safe)
    if labels is None:
        labels = [name for _, name in sorted(model.config.id2label.items())]
    if is_text:
        processor = load_tokenizer(tokenizer or source, model)
    else:
        processor = AutoFeatureExtractor.from_pretrained(source, **safe)
    try:
        if is_text:
            return TextClassifier(
                model.to(device), processor, labels, judges_empty
            )
        return SpeechClassifier(model.to(device), processor, labels)
    except ValueError as error:
        raise ValueError(
            f"{source}: {error}; name the sentiments of its outputs in order "
            f"with --{modality}_labels"
        ) from error


def load_tokenizer(source: str | Path, model: PreTrainedModel) -> Any:
    """Load the tokenizer of a text classifier, and see whether it fits.

    Of a folder without a tokenizer's files transformers makes an empty one,
    with which every text would get the same verdict.

    Arguments
    ---------
    source : str or Path
        A transformers folder, or a name on the Hub.
    model : transformers.PreTrainedModel
        Whose tokens it gives.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If its tokens are not those of the model, or it knows no word of a
        plain sentence.
    """
    remedy = (
        "name the one that the classifier was trained with, a folder or a "
        "name on the Hub: --text_tokenizer TOKENIZER"
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(source), trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise type(error)(
            f"cannot read a tokenizer from {source} ({error}); {remedy}"
        ) from error
    tokens, rows = len(tokenizer), model.config.vocab_size
    if not (1 - _PADDING) * rows <= tokens <= rows:
        raise ValueError(
            f"the tokenizer of {source} has {tokens} tokens, the classifier "
            f"{rows}: they do not belong together; {remedy}"
        )
    if not set(tokenizer(_PLAIN)["input_ids"]) - {*tokenizer.all_special_ids}:
        raise ValueError(
            f"the tokenizer of {source} knows no word of {_PLAIN!r}; {remedy}"
        )
    return tokenizer


def find_classifier(folder: str | Path, modality: str) -> Path:
    """Return the one classifier of a modality among the folders in a folder.

    Arguments
    ---------
    folder : str or Path
        Where ``text_classifier`` or ``speech_classifier`` is, as the benchmark
        calls them; without them all folders are searched.
    modality : str
        ``"text"`` or ``"speech"``.

    Raises
    ------
    FileNotFoundError
        If there is none, or more than one.
    """
    folder = Path(folder)
    named = folder / f"{modality}_classifier"
    if (named / "config.json").is_file():
        return named
    found = [
        path.parent
        for path in sorted(folder.glob("**/config.json"))
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
        return json.loads(path.read_text("utf-8"))["architectures"] or []
    except (ValueError, KeyError, TypeError):
        return []


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
