"""Train a unit vocoder on TinySpeech: HiFi-GAN on units, and their durations.

    cd recipes/TinySpeech/vocoder
    python train.py hparams/base.yaml --corpus_folder FOLDER --phonetic PART
    python train.py hparams/expressive.yaml --corpus_folder FOLDER \
        --phonetic PART --pitch PART --style PART

The corpus is what tokenize_corpus.py writes. Writes to the output folder the
trained part (vocoder/) and recordings as they are and resynthesized (samples/).
"""

from speechbrain.utils.distributed import if_main_process

from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.unit_store import fingerprints
from spiritlm_plugin.integrations.parts import load_tokenizer
from spiritlm_plugin.lobes.feature_loss import PhoneticFeatureLoss
from spiritlm_plugin.training.trainer import train
from spiritlm_plugin.training.vocoder import (
    Resynthesis,
    VocoderBrain,
    VocoderSettings,
    finish,
    load_rows,
    make_dataset,
    names_of,
    new_vocoder,
    unit_counts,
)
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, VocoderSettings)
    folders = {name: hparams[name] for name in hparams["streams"]}
    counts = unit_counts(folders)
    tokenizer = load_tokenizer(**folders)
    parts = fingerprints(tokenizer)
    train_rows, valid_rows = (
        load_rows(hparams, parts, split, blank=counts["phonetic_units"])
        for split in ("train", "valid")
    )
    styles = names_of(train_rows, "style") if hparams["multistyle"] else []
    speakers = names_of(train_rows, "speaker")
    vocoder, part = new_vocoder(hparams, counts, speakers, styles)
    modules = {
        "generator": Resynthesis(vocoder),
        "discriminator": hparams["discriminator"],
    }
    hparams["checkpointer"].add_recoverables(modules)
    brain = VocoderBrain(
        modules=modules,
        opt_class=[hparams["generator_opt"], hparams["discriminator_opt"]],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.sample_rows = spread(valid_rows, hparams["sample_count"])
    brain.tokenizer = tokenizer.to(brain.device)
    brain.phonetic_loss = PhoneticFeatureLoss(tokenizer.phonetic)
    train(
        brain,
        hparams,
        make_dataset(hparams, train_rows, vocoder, styles, training=True),
        make_dataset(hparams, valid_rows, vocoder, styles, training=False),
    )
    if if_main_process():
        finish(hparams, vocoder, part, train_rows, valid_rows)


if __name__ == "__main__":
    run(main)
