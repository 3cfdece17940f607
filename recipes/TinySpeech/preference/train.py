"""Train a language model on pairs of a better and a worse answer.

    cd recipes/TinySpeech/preference
    python train.py hparams/train.yaml --pairs_folder PAIRS --model MODEL

PAIRS is what make_pairs.py has written, MODEL the model that it has asked. Writes
to the output folder the model for SpiritLM.from_hparams (model/), in which
language_model/ is a folder of transformers. Runs under torchrun, and goes on where
it was stopped.
"""

from pathlib import Path

from speechbrain.utils.distributed import if_main_process

from spiritlm_plugin.integrations.export_model import export_model
from spiritlm_plugin.integrations.training_record import training_record
from spiritlm_plugin.lobes.adapters import merge_adapters
from spiritlm_plugin.training.preference import (
    PreferenceBrain,
    PreferenceSettings,
    load_pairs,
    load_start,
    prepare_reference,
)
from spiritlm_plugin.training.sharding import full_state
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, PreferenceSettings)
    lm = load_start(hparams)
    pairs = load_pairs(hparams, lm)
    brain = PreferenceBrain(
        modules={"model": lm},
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    loaders = prepare_reference(brain, pairs, lm.vocabulary.eos_id)
    codec = {
        "codec": hparams["model"],
        "codec_hparams": hparams["hparams_file"],
    }
    record = training_record(
        hparams | codec | {"pretrained": hparams["model"]}, brain.device
    )
    brain.fit(hparams["epoch_counter"], *loaders)
    best = {f"{which}_key": key for which, key in hparams["best"].items()}
    hparams["checkpointer"].recover_if_possible(**best)
    state = full_state(lm) if hparams["fsdp"] else None
    merge_adapters(lm)
    if if_main_process():
        export_model(
            lm,
            Path(hparams["output_folder"]) / "model",
            **codec,
            state=state,
            dtype=hparams["export_dtype"],
            training=record | {"steps": brain.optimizer_step},
        )


if __name__ == "__main__":
    run(main)
