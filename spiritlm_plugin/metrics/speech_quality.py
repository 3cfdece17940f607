"""How speech sounds: an opinion score as it is predicted, and whose voice it is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any

import ruamel.yaml
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from spiritlm_plugin.dataio.checkpoints import load_state, read_pickle
from spiritlm_plugin.dataio.units.units import MIN_SAMPLES, SAMPLE_RATE
from spiritlm_plugin.metrics.intervals import ratio_interval
from spiritlm_plugin.pretrained.folders import local_folder
from spiritlm_plugin.utils.files import read_text

# What `SpeechQuality` says of a recording.
QUALITIES = ("mos", "speaker_similarity")
# What is built of a speaker encoder's folder, each with plain values.
_PARTS = {
    "compute_features": "speechbrain.lobes.features.Fbank",
    "mean_var_norm": "speechbrain.processing.features.InputNormalization",
    "embedding_model": "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
}
_PLAIN = (str, int, float, type(None))
_WEIGHTS = "embedding_model.ckpt"


class SpeechQuality:
    """Says how natural recordings sound, and how like another voice.

    Recordings are heard one by one: what both models hear depends on padding.

    Arguments
    ---------
    mos : str, optional
        ``"dnsmos"``: the overall score, 1 to 5, that listeners would give, by
        DNSMOS P.835 (Reddy et al., 2022), of the package speechmos. It was
        trained on noisy and denoised speech, and runs on the CPU.
    speaker_encoder : str or Path, optional
        As of `load_speaker_encoder`. Similarity is the cosine of the two
        embeddings, as speech synthesis reports it since VALL-E (Wang et al.,
        2023).
    device : str or torch.device
        Of the speaker encoder.

    Raises
    ------
    ImportError
        If speechmos is needed and missing.
    ValueError
        If there is no such predictor; otherwise as of `load_speaker_encoder`.

    Example
    -------
    >>> SpeechQuality()([torch.zeros(16000)])
    [{'mos': None, 'speaker_similarity': None}]
    """

    def __init__(
        self,
        mos: str | None = None,
        speaker_encoder: str | Path | None = None,
        device: str | torch.device = "cpu",
    ):
        self.opinion = None if mos is None else load_opinion(mos)
        self.encoder = None
        if speaker_encoder is not None:
            self.encoder = load_speaker_encoder(speaker_encoder, device)

    @torch.inference_mode()
    def __call__(
        self,
        made: Sequence[Tensor | None],
        real: Sequence[Tensor | None] | None = None,
    ) -> list[dict[str, float | None]]:
        """Return the two figures of each recording.

        Arguments
        ---------
        made : sequence of Tensor
            Waveforms at 16 kHz, shape (samples,); None where there is none.
        real : sequence of Tensor, optional
            Whose voice it should be, one for each.

        Returns
        -------
        list of dict
            ``mos`` and ``speaker_similarity``; None without a model, or
            without 80 ms of speech.

        Raises
        ------
        ValueError
            If the sequences differ in length.
        """
        voices = [None] * len(made) if real is None else real
        if len(voices) != len(made):
            raise ValueError(
                f"{len(made)} recordings and {len(voices)} voices to compare "
                "them with: give one for each"
            )
        return [
            {"mos": self._mos(one), "speaker_similarity": self._alike(one, two)}
            for one, two in zip(made, voices)
        ]

    def _mos(self, wav: Tensor | None) -> float | None:
        if self.opinion is None or wav is None or len(wav) < MIN_SAMPLES:
            return None
        return self.opinion(wav)

    def _alike(self, one: Tensor | None, other: Tensor | None) -> float | None:
        if self.encoder is None or one is None or other is None:
            return None
        if min(len(one), len(other)) < MIN_SAMPLES:
            return None
        embeddings = self.encoder(one), self.encoder(other)
        return float(cosine_similarity(*embeddings, dim=0))


def load_opinion(name: str) -> Callable[[Tensor], float]:
    """Return what predicts the score that listeners would give a recording.

    Arguments
    ---------
    name : str
        ``"dnsmos"``; see `SpeechQuality`.

    Returns
    -------
    callable
        A waveform at 16 kHz, shape (samples,), to a score.

    Raises
    ------
    ImportError
        If the package speechmos is missing.
    ValueError
        If there is no such predictor.

    Example
    -------
    >>> load_opinion("ears")
    Traceback (most recent call last):
        ...
    ValueError: no opinion score is called 'ears'; there is dnsmos
    """
    if name != "dnsmos":
        raise ValueError(
            f"no opinion score is called {name!r}; there is dnsmos"
        )
    try:
        from speechmos import dnsmos
    except ModuleNotFoundError as error:
        raise ImportError(
            f"opinion scores need {error.name}: pip install speechmos librosa "
            "onnxruntime"
        ) from error

    def judge(wav: Tensor) -> float:
        # Louder samples would be cut in a file, too.
        samples = wav.float().clamp(-1, 1).cpu().numpy()
        return float(dnsmos.run(samples, SAMPLE_RATE)["ovrl_mos"])

    return judge


class SpeakerEncoder(nn.Module):
    """What says whose voice a recording is, as a vector.

    Arguments
    ---------
    compute_features, mean_var_norm, embedding_model : torch.nn.Module
        As SpeechBrain's ``EncoderClassifier`` calls them.

    Example
    -------
    >>> from speechbrain.lobes.features import Fbank
    >>> from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    >>> from speechbrain.processing.features import InputNormalization
    >>> encoder = SpeakerEncoder(
    ...     Fbank(n_mels=80), InputNormalization(norm_type="sentence"),
    ...     ECAPA_TDNN(80, channels=[16] * 5, lin_neurons=8),
    ... ).eval()
    >>> encoder(torch.randn(16000)).shape
    torch.Size([8])
    """

    def __init__(
        self,
        compute_features: nn.Module,
        mean_var_norm: nn.Module,
        embedding_model: nn.Module,
    ):
        super().__init__()
        self.compute_features = compute_features
        self.mean_var_norm = mean_var_norm
        self.embedding_model = embedding_model

    def forward(self, wav: Tensor) -> Tensor:
        """Return the embedding of a waveform at 16 kHz, shape (size,)."""
        device = next(self.embedding_model.parameters()).device
        whole = torch.ones(1, device=device)
        features = self.compute_features(wav.float().to(device)[None])
        features = self.mean_var_norm(features, whole)
        return self.embedding_model(features, whole).flatten()


def load_speaker_encoder(
    source: str | Path, device: str | torch.device = "cpu"
) -> SpeakerEncoder:
    """Load SpeechBrain's ECAPA-TDNN, as a folder or by its name on the Hub.

    Its YAML file is read as data: of what it names, only the features, their
    normalization and the ECAPA-TDNN are built, with plain values. Weights are
    read as data, too.

    Source: Desplanques et al., "ECAPA-TDNN: Emphasized Channel Attention,
    Propagation and Aggregation in TDNN Based Speaker Verification", 2020.

    Arguments
    ---------
    source : str or Path
        Such as ``"speechbrain/spkrec-ecapa-voxceleb"``, or a folder with its
        ``hyperparams.yaml`` and ``embedding_model.ckpt``.
    device : str or torch.device
        To run on.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If the file describes another kind of encoder, or one of another
        sampling rate than 16 kHz.
    CheckpointError
        If the weights cannot be read or do not fit.
    """
    folder = local_folder(source)
    path = folder / "hyperparams.yaml"
    try:
        yaml = ruamel.yaml.YAML(pure=True).load(read_text(path))
    except ruamel.yaml.YAMLError as error:
        raise ValueError(f"cannot read {path} as YAML: {error}") from error
    if not isinstance(yaml, Mapping):
        raise ValueError(f"{path} names no parts; is it SpeechBrain's?")
    parts = {name: _build(yaml, name, path) for name in _PARTS}
    state = read_pickle(folder / _WEIGHTS)
    load_state(parts["embedding_model"], state, folder / _WEIGHTS)
    return SpeakerEncoder(**parts).to(device).eval().requires_grad_(False)


def _build(yaml: Mapping[str, Any], name: str, path: Path) -> nn.Module:
    """Build one of the parts with the plain values that a file gives it."""
    node, known = yaml.get(name), _PARTS[name]
    if not isinstance(node, Mapping) or _tag(node) != f"!new:{known}":
        raise ValueError(
            f"{path}: {name} is {_tag(node) or node}, not !new:{known}; name "
            "a folder of SpeechBrain's ECAPA-TDNN, such as "
            "speechbrain/spkrec-ecapa-voxceleb"
        )
    values = {key: _plain(yaml, value, path) for key, value in node.items()}
    rate = values.get("sample_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise ValueError(
            f"{path}: the encoder hears {rate} Hz; name one of {SAMPLE_RATE} Hz"
        )
    module, _, kind = known.rpartition(".")
    try:
        return getattr(import_module(module), kind)(**values)
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"{path}: {name} cannot be built of {values}: {error}"
        ) from error


def _tag(value: Any) -> str | None:
    return getattr(getattr(value, "tag", None), "value", None)


def _plain(yaml: Mapping[str, Any], value: Any, path: Path) -> Any:
    """Return a value, a reference as what it names."""
    if _tag(value) == "!ref":
        value = yaml.get(str(value.value).strip("<>"), value)
    items = value if isinstance(value, list) else [value]
    if _tag(value) or not all(isinstance(item, _PLAIN) for item in items):
        raise ValueError(
            f"{path}: {value!r} is no plain value, and nothing else is read"
        )
    return list(items) if isinstance(value, list) else value


def mean_with_interval(
    values: Iterable[float | None],
    groups: Iterable[Hashable] | None = None,
) -> dict[str, Any]:
    """Return the mean of what is known, with its 95% interval.

    Arguments
    ---------
    values : iterable of float
        None where nothing is known.
    groups : iterable, optional
        As of `ratio_interval`, one for each value.

    Returns
    -------
    dict
        ``mean``, ``interval`` (two numbers) and ``count``, of how many; mean
        and interval are None where there are too few.

    Example
    -------
    >>> mean_with_interval([1.0, None, 3.0])["mean"]
    2.0
    """
    values = list(values)
    names = range(len(values)) if groups is None else groups
    known = [(v, g) for v, g in zip(values, names) if v is not None]
    if not known:
        return {"mean": None, "interval": None, "count": 0}
    numbers = [value for value, _ in known]
    interval = ratio_interval(numbers, groups=[group for _, group in known])
    return {
        "mean": fmean(numbers),
        "interval": interval and list(interval),
        "count": len(known),
    }


def quality_figures(
    rows: Iterable[Mapping[str, Any]],
    groups: Iterable[Hashable] | None = None,
) -> dict[str, Any]:
    """Return the means of `SpeechQuality` with their intervals, for reports.

    Arguments
    ---------
    rows : iterable of dict
        With `QUALITIES`, of each recording.
    groups : iterable, optional
        Such as speakers; as of `ratio_interval`.

    Returns
    -------
    dict
        Of each quality that was measured its mean, and the ends of the 95%
        interval, as in ``mos`` and ``mos_interval``.

    Example
    -------
    >>> quality_figures([{"mos": 3.0, "speaker_similarity": None}] * 20)
    {'mos': 3.0, 'mos_interval': [3.0, 3.0]}
    """
    rows = list(rows)
    names = None if groups is None else list(groups)
    figures = {}
    for quality in QUALITIES:
        found = mean_with_interval((row.get(quality) for row in rows), names)
        if found["count"]:
            figures[quality] = found["mean"]
            figures[f"{quality}_interval"] = found["interval"]
    return figures
