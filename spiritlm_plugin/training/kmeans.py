"""Clusters of features of speech: a phonetic tokenizer without training."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import HubertModel
from typing_extensions import NotRequired

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.units.units import PHONETIC_HOP
from spiritlm_plugin.integrations.parts import save_part
from spiritlm_plugin.lobes.hubert_pretraining import hubert_arguments
from spiritlm_plugin.lobes.mfcc import MFCC
from spiritlm_plugin.lobes.phonetic import KMeansQuantizer, PhoneticTokenizer
from spiritlm_plugin.utils.configuration import Settings


class KMeansSettings(Settings):
    """What the clustering reads."""

    manifest_folder: str
    hubert: str | None
    layer: int
    normalize: bool
    window_seconds: NotRequired[float | None]
    frames: int
    kmeans: Any


def build_tokenizer(
    hparams: KMeansSettings,
) -> tuple[PhoneticTokenizer, dict[str, Any]]:
    """Return a tokenizer without centres, and its arguments.

    Its features are cepstra, or those of a layer of a HuBERT where one is
    named.

    Raises
    ------
    ValueError
        If the hop of that HuBERT does not divide that of phonetic units.
    """
    units = hparams["kmeans"].n_clusters
    if hparams["hubert"] is None:
        quantizer = {"input_dim": MFCC.dim, "units": units}
        tokenizer = PhoneticTokenizer(None, KMeansQuantizer(**quantizer))
        return tokenizer, {"hubert": None, "quantizer": quantizer}
    model = HubertModel.from_pretrained(hparams["hubert"])
    hubert = hubert_arguments(model.config, hparams["layer"])
    hop = int(torch.tensor(hubert["conv_stride"]).prod())
    if PHONETIC_HOP % hop:
        raise ValueError(
            f"{hparams['hubert']} has a hop of {hop} samples, which does not "
            f"divide the {PHONETIC_HOP} of phonetic units; use a HuBERT with "
            "a hop of 640 or 320"
        )
    arguments: dict[str, Any] = {
        "hubert": hubert,
        "quantizer": {"input_dim": hubert["hidden_size"], "units": units},
        "normalize": hparams["normalize"],
        "pool": PHONETIC_HOP // hop,
        "window_seconds": hparams.get("window_seconds"),
    }
    tokenizer = PhoneticTokenizer(
        **arguments | {"quantizer": KMeansQuantizer(**arguments["quantizer"])}
    )
    model.encoder.layers = model.encoder.layers[: hparams["layer"]]
    encoder = tokenizer.get_submodule("encoder.model")
    encoder.load_state_dict(model.state_dict())
    return tokenizer, arguments


@torch.inference_mode()
def sample_features(
    items: Mapping[str, Mapping[str, Any]],
    tokenizer: PhoneticTokenizer,
    frames: int,
    seed: int,
    device: str,
) -> Tensor:
    """Return about so many frames of utterances drawn at random.

    Arguments
    ---------
    items : dict
        As of `load_manifest`.
    tokenizer : PhoneticTokenizer
        Whose features they are.
    frames : int
        To find; fewer where the utterances have no more.
    seed : int
        Of the draw.
    device : str
        To run on.

    Returns
    -------
    Tensor
        On the CPU, shape (frames, features).
    """
    names = sorted(items)
    random.Random(seed).shuffle(names)
    tokenizer.to(device).eval()
    features, count = [], 0
    with tqdm(total=frames, desc="features", unit="frame") as progress:
        for name in names:
            wav = read_audio(items[name]["wav"]).to(device)
            lengths = torch.tensor([len(wav)], device=device)
            new, _ = tokenizer.features(wav[None], lengths)
            features.append(new[0].cpu())
            count += len(features[-1])
            progress.update(len(features[-1]))
            if count >= frames:
                break
    return torch.cat(features)


def fit_centres(
    hparams: KMeansSettings,
    features: Tensor,
    tokenizer: PhoneticTokenizer,
    arguments: Mapping[str, Any],
) -> None:
    """Give a tokenizer its centres, write it as a part, and say how well.

    Arguments
    ---------
    hparams : KMeansSettings
        The recipe's.
    features : Tensor
        Of `sample_features`, shape (frames, features).
    tokenizer, arguments
        Of `build_tokenizer`.

    Raises
    ------
    ValueError
        If there are fewer frames than units.
    """
    kmeans = hparams["kmeans"]
    if len(features) < kmeans.n_clusters:
        raise ValueError(
            f"{len(features)} frames cannot make {kmeans.n_clusters} units; "
            "use more speech or fewer units"
        )
    kmeans.fit(features.numpy())
    tokenizer.cpu().get_parameter("quantizer.centres").copy_(
        torch.from_numpy(kmeans.cluster_centers_)
    )
    folder = Path(hparams["output_folder"])
    save_part(folder / "phonetic", arguments, tokenizer)
    report = {
        "frames": len(features),
        "units": kmeans.n_clusters,
        "variance_explained": 1
        - kmeans.inertia_ / len(features) / float(features.var(0).sum()),
    }
    (folder / "kmeans.json").write_text(json.dumps(report, indent=2))
    print(json.dumps(report, indent=2))
