"""Cluster features of the speech of TinySpeech: cepstra, or a layer of a HuBERT.

The centres make a phonetic tokenizer: the teacher of a HuBERT, or of the
linear quantizer.

    cd recipes/TinySpeech/phonetic
    python train_kmeans.py hparams/kmeans.yaml --manifest_folder DIR

Writes the phonetic part, <output_folder>/phonetic, and kmeans.json.
"""

from pathlib import Path

from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.training.kmeans import (
    KMeansSettings,
    build_tokenizer,
    fit_centres,
    sample_features,
)
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, KMeansSettings)
    items = load_manifest(Path(hparams["manifest_folder"]) / "train")
    tokenizer, part = build_tokenizer(hparams)
    frames = hparams["frames"]
    if run_opts["debug"]:
        frames = 10 * hparams["kmeans"].n_clusters
    features = sample_features(
        items, tokenizer, frames, hparams["seed"], run_opts["device"]
    )
    fit_centres(hparams, features, tokenizer, part)


if __name__ == "__main__":
    run(main)
