"""Train a style encoder on TinySpeech, a second at a time, in two stages.

    cd recipes/TinySpeech/style
    python train.py hparams/features.yaml --manifest_folder DIR
    python cluster.py hparams/cluster.yaml --manifest_folder DIR
    python train.py hparams/units.yaml --manifest_folder DIR

The first stage learns features that tell the styles of the corpus apart; the
second, which starts from them, gives noisy audio the clusters of the clean
one. Writes to the output folder the trained part (style/), the same as a
transformers folder (transformers/), and report.json.
"""

from pathlib import Path

from speechbrain.utils.distributed import if_main_process

from spiritlm_plugin.integrations.export import export_style
from spiritlm_plugin.integrations.parts import save_part
from spiritlm_plugin.training.style import (
    Classifier,
    StyleBrain,
    StyleSettings,
    evaluate,
    make_dataset,
)
from spiritlm_plugin.training.trainer import train
from spiritlm_plugin.utils.recipes import load_recipe, run


def main(arguments):
    hparams, run_opts = load_recipe(arguments, StyleSettings)
    tokenizer = hparams["tokenizer"]
    brain = StyleBrain(
        modules={"classifier": Classifier(tokenizer)},
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    datasets = {
        split: make_dataset(hparams, split)
        for split in ["train", "valid", *hparams["test_splits"]]
    }
    train(brain, hparams, datasets.pop("train"), datasets["valid"])
    evaluate(brain, hparams, datasets)
    if if_main_process():
        folder = Path(hparams["output_folder"])
        save_part(folder / "style", tokenizer.arguments, tokenizer)
        export_style(folder / "transformers", tokenizer)


if __name__ == "__main__":
    run(main)
