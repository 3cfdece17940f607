"""Cluster features of speech: cepstra, or a layer of a HuBERT.

The centres make a phonetic tokenizer: the teacher of a HuBERT, or of the
linear quantizer.

    python recipes/TinySpeech/phonetic/train_kmeans.py \
        recipes/TinySpeech/phonetic/hparams/kmeans.yaml --manifest_folder DIR
"""

import json
import random
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import HubertModel

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.dataio.units.units import PHONETIC_HOP
from spiritlm_plugin.integrations.parts import save_part
from spiritlm_plugin.lobes.hubert_pretraining import hubert_arguments
from spiritlm_plugin.lobes.mfcc import MFCC
from spiritlm_plugin.lobes.phonetic import KMeansQuantizer, PhoneticTokenizer
from spiritlm_plugin.utils.recipes import load_recipe, run


def build_tokenizer(hparams):
    """Return a tokenizer without centres and its arguments."""
    units = hparams["kmeans"].n_clusters
    if hparams["hubert"] is None:
        quantizer = {"input_dim": MFCC.dim, "units": units}
        arguments = {"hubert": None, "quantizer": quantizer}
        return PhoneticTokenizer(None, KMeansQuantizer(**quantizer)), arguments
    model = HubertModel.from_pretrained(hparams["hubert"])
    hubert = hubert_arguments(model.config, hparams["layer"])
    hop = torch.tensor(hubert["conv_stride"]).prod().item()
    if PHONETIC_HOP % hop:
        raise ValueError(
            f"{hparams['hubert']} has a hop of {hop} samples, which does not "
            f"divide the {PHONETIC_HOP} of phonetic units; use a HuBERT with "
            "a hop of 640 or 320"
        )
    arguments = {
        "hubert": hubert,
        "quantizer": {"input_dim": hubert["hidden_size"], "units": units},
        "normalize": hparams["normalize"],
        "pool": PHONETIC_HOP // hop,
    }
    quantizer = KMeansQuantizer(**arguments["quantizer"])
    tokenizer = PhoneticTokenizer(**arguments | {"quantizer": quantizer})
    model.encoder.layers = model.encoder.layers[: hparams["layer"]]
    tokenizer.encoder.model.load_state_dict(model.state_dict())
    return tokenizer, arguments


@torch.inference_mode()
def sample_features(items, tokenizer, frames, seed, device):
    """Return about so many frames of utterances drawn at random."""
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


def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    items = load_manifest(Path(hparams["manifest_folder"]) / "train.json")
    tokenizer, part = build_tokenizer(hparams)
    kmeans = hparams["kmeans"]
    frames = hparams["frames"]
    if run_opts["debug"]:
        frames = 10 * kmeans.n_clusters
    features = sample_features(
        items, tokenizer, frames, hparams["seed"], run_opts["device"]
    )
    if len(features) < kmeans.n_clusters:
        raise ValueError(
            f"{len(features)} frames cannot make {kmeans.n_clusters} units; "
            "use more speech or fewer units"
        )
    kmeans.fit(features.numpy())
    tokenizer.cpu().quantizer.centres.copy_(
        torch.from_numpy(kmeans.cluster_centers_)
    )
    folder = Path(hparams["output_folder"])
    save_part(folder / "phonetic", part, tokenizer)
    report = {
        "frames": len(features),
        "units": kmeans.n_clusters,
        "variance_explained": 1
        - kmeans.inertia_ / len(features) / float(features.var(0).sum()),
    }
    (folder / "kmeans.json").write_text(json.dumps(report, indent=2))
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    run(main)
