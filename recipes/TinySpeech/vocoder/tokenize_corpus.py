"""Tokenize TinySpeech: units at full rate beside what the manifests say.

    cd recipes/TinySpeech/vocoder
    python tokenize_corpus.py hparams/tokenize.yaml --manifest_folder FOLDER \
        --phonetic PART --pitch PART --style PART

or, with the tokenizer of a whole model, --codec FOLDER. Writes
<output_folder>/<split> for each split. Under torchrun the processes share the work; a
run that was stopped goes on when it is started again.
"""

from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.training.tokenizing import (
    TokenizingSettings,
    load,
    tokenize_splits,
)
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, TokenizingSettings)
    device = run_opts["device"] or infer_device()
    tokenize_splits(hparams, load(hparams).to(device))


if __name__ == "__main__":
    run(main)
