"""Train a language model on text, the speech of LibriSpeech and both interleaved.

    cd recipes/LibriSpeech/pretraining
    python train.py hparams/smollm2_360m.yaml --corpus_folders "[FOLDER]" \
        --text_files "[FILE]"
    torchrun --nproc_per_node 8 train.py hparams/llama2_7b.yaml \
        --corpus_folders "[FOLDER]" --text_files "[FILE]"

The corpora are what tokenize_corpus.py writes. Writes to the output folder the
model for SpiritLM.from_hparams (model/), in which language_model/ is a folder of
transformers, and what the model says after each epoch (samples/).
"""

from pathlib import Path

from speechbrain.utils.distributed import if_main_process

from spiritlm_plugin.dataio.corpus.unit_store import fingerprints
from spiritlm_plugin.inference import SpeechCodec
from spiritlm_plugin.integrations.export_model import export_model
from spiritlm_plugin.integrations.training_record import training_record
from spiritlm_plugin.lobes.adapters import merge_adapters
from spiritlm_plugin.training.pretraining import (
    LanguageModelBrain,
    PretrainingSettings,
    make_language_model,
    prepare_validation,
)
from spiritlm_plugin.training.pretraining_stream import (
    make_loaders,
    make_mixture,
)
from spiritlm_plugin.training.sharding import full_state
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, PretrainingSettings)
    codec = SpeechCodec.from_hparams(hparams["codec"], hparams["codec_hparams"])
    lm = make_language_model(hparams, codec.mods.tokenizer.unit_counts())
    parts = fingerprints(codec.mods.tokenizer)
    mixtures = [
        make_mixture(hparams, lm.vocabulary, parts, split)
        for split in ("train", "valid")
    ]
    loader, valid_loader = make_loaders(hparams, run_opts, *mixtures)
    hparams["checkpointer"].add_recoverable("loader", loader)
    brain = LanguageModelBrain(
        modules={"model": lm},
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    prepare_validation(brain, codec, valid_loader, parts)
    record = training_record(hparams, brain.device)
    brain.fit(hparams["epoch_counter"], loader, valid_loader)
    state = full_state(lm) if hparams["fsdp"] else None
    merge_adapters(lm)
    if if_main_process():
        export_model(
            lm,
            Path(hparams["output_folder"]) / "model",
            hparams["codec"],
            hparams["codec_hparams"],
            state,
            hparams["export_dtype"],
            record | {"steps": brain.optimizer_step},
        )


if __name__ == "__main__":
    run(main)
