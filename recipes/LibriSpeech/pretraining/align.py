"""Give the utterances of LibriSpeech word times, where they have none.

    cd recipes/LibriSpeech/pretraining
    python align.py hparams/align.yaml --manifest_folder FOLDER \
        --aligner facebook/wav2vec2-base-960h --output_folder FOLDER

Writes <output_folder>/<split>.json for each split. Under torchrun the processes
share the work; a run that was stopped goes on when it is started again.
"""

from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.lobes.ctc_aligner import CTCAligner
from spiritlm_plugin.training.aligning import AligningSettings, align_splits
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, AligningSettings)
    device = run_opts["device"] or infer_device()
    align_splits(hparams, CTCAligner(hparams["aligner"]).to(device))


if __name__ == "__main__":
    run(main)
