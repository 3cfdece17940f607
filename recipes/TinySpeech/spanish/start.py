"""Write of a model what a training in another language starts from.

    python start.py FOLDER [--model tinyspeech]

FOLDER/hubert is the HuBERT of its phonetic tokenizer, as far up as that reads it,
FOLDER/phonetic the tokenizer, as a part, and FOLDER/vocoder the weights of its
Base vocoder, for --pretrained.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from spiritlm_plugin.integrations.parts import save_part
from spiritlm_plugin.lobes.hubert_pretraining import hubert_arguments
from spiritlm_plugin.lobes.phonetic import LinearQuantizer, PhoneticTokenizer
from spiritlm_plugin.pretrained.building import build_folder
from spiritlm_plugin.pretrained.folders import local_folder

YAML = "hyperparams_base.yaml"


def write_start(folder: str | Path, model: str = "tinyspeech") -> None:
    """Write the parts.

    Arguments
    ---------
    folder : path
        Is made.
    model : str
        Of `local_folder`: with a Base.
    """
    folder, source = Path(folder), local_folder(model, YAML)
    # As trained: what a codec prepares for inference is no start.
    built = build_folder(
        source, YAML, {"pretrained_path": str(source), "language_model": None}
    )
    phonetic = built["modules"]["tokenizer"].phonetic
    phonetic.get_submodule("encoder.model").save_pretrained(folder / "hubert")
    save_part(folder / "phonetic", phonetic_arguments(phonetic), phonetic)
    vocoder = built["modules"]["vocoder"]
    known = {"speakers": vocoder.speakers}
    save_part(folder / "vocoder", known, vocoder)


def phonetic_arguments(phonetic: PhoneticTokenizer) -> dict:
    """Return what the part is made with."""
    config = phonetic.get_submodule("encoder.model").config
    quantizer = phonetic.quantizer
    shape = {"input_dim": config.hidden_size, "units": quantizer.units}
    if isinstance(quantizer, LinearQuantizer):
        shape["hidden_dims"] = [
            quantizer.layers[i].out_features for i in (0, 2)
        ]
    return {
        "hubert": hubert_arguments(config, config.num_hidden_layers),
        "quantizer": shape,
        "normalize": phonetic.encoder.normalize_eps is not None,
        "pool": phonetic.pool,
        "window_seconds": phonetic.window_seconds,
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the parts go")
    parser.add_argument(
        "--model", default="tinyspeech", help="default: %(default)s"
    )
    write_start(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
