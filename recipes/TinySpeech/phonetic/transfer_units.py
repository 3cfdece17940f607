"""Give recordings of new voices the units of one that a tokenizer knows.

    cd recipes/TinySpeech/phonetic
    python transfer_units.py --manifest_folder DIR --own_units DIR \
        --known anna,ben,cora,dan,ella,finn --units_folder DIR --output_folder DIR

The manifests are of TinySpeech in more voices; `--own_units` is what the tokenizer
hears in them, and `--units_folder` what it hears where a voice that it knows says the
same (`tinyspeech_prepare.py --speakers finn`, the same seed). Writes
<output_folder>/train and /valid, for `--units_folder` of train_hubert.py and
train_quantizer.py.
"""

import argparse
from pathlib import Path

from spiritlm_plugin.dataio.corpus.manifests import open_source
from spiritlm_plugin.dataio.corpus.parallel import transfer_units

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
for name in ("manifest_folder", "own_units", "units_folder", "output_folder"):
    parser.add_argument(f"--{name}", type=Path, required=True)
parser.add_argument(
    "--known",
    default="anna,ben,cora,dan,ella,finn",
    help="speakers who keep their own units (default: %(default)s)",
)

if __name__ == "__main__":
    options = parser.parse_args()
    for split in ("train", "valid"):
        transfer_units(
            open_source(options.manifest_folder / split),
            options.output_folder / split,
            options.units_folder / split,
            options.own_units / split,
            options.known.split(","),
        )
