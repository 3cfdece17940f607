"""Give the utterances of LibriSpeech word times, where they have none.

    cd recipes/LibriSpeech/pretraining
    python align.py hparams/align.yaml --manifest_folder FOLDER \
        --aligner facebook/wav2vec2-base-960h --output_folder FOLDER

Writes <output_folder>/<split> for each split. Under torchrun the processes share the
work; with --engine ray the cluster of RAY_ADDRESS does, or all of this machine. A run
that was stopped goes on when it is started again.
"""

from spiritlm_plugin.training.aligning import AligningSettings, align_splits
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, AligningSettings)
    align_splits(hparams, run_opts)


if __name__ == "__main__":
    run(main)
