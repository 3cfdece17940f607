"""Give the utterances of a corpus word times, where they have none.

    python align.py hparams/align.yaml --manifest_folder FOLDER \
        --aligner facebook/wav2vec2-base-960h --output_folder FOLDER

Writes <output_folder>/<split>.json for each split. Under torchrun the processes
share the work; a run that was stopped goes on when it is started again.
"""

from pathlib import Path

from speechbrain.utils.distributed import infer_device

from spiritlm_plugin.dataio.corpus.alignment import align_manifest
from spiritlm_plugin.lobes.ctc_aligner import CTCAligner
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments)
    device = run_opts["device"] or infer_device()
    aligner = CTCAligner(hparams["aligner"]).to(device)
    for split in hparams["splits"]:
        align_manifest(
            Path(hparams["manifest_folder"]) / f"{split}.json",
            hparams["output_folder"],
            aligner,
            shard_utterances=hparams["shard_utterances"],
            batch_seconds=hparams["batch_seconds"],
            workers=hparams["workers"],
        )


if __name__ == "__main__":
    run(main)
