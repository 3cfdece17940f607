"""Tokenize LibriSpeech: units at full rate beside what the manifests say.

    cd recipes/LibriSpeech/finetuning
    python tokenize_corpus.py hparams/tokenize.yaml --manifest_folder FOLDER \
        --codec MODEL

with the tokenizer of the model that is to be fine-tuned. Writes
<output_folder>/<split> for each split. Under torchrun the processes share the work;
with --engine ray the cluster of RAY_ADDRESS does, or all of this machine. A run that
was stopped goes on when it is started again.
"""

from spiritlm_plugin.training.tokenizing import (
    TokenizingSettings,
    tokenize_splits,
)
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, TokenizingSettings)
    tokenize_splits(hparams, run_opts)


if __name__ == "__main__":
    run(main)
