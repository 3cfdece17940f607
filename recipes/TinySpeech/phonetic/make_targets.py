"""Write the phone of each frame, for a HuBERT to predict.

    cd recipes/TinySpeech/phonetic
    python make_targets.py --manifest_folder DIR --output_folder DIR

Writes <output_folder>/train and /valid, for `--units_folder` of train_hubert.py, and
says how many phones there are, for its `--units`.
"""

import argparse
from pathlib import Path

from spiritlm_plugin.training.phone_targets import write_phone_units

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--manifest_folder", type=Path, required=True)
parser.add_argument("--output_folder", type=Path, required=True)

if __name__ == "__main__":
    options = parser.parse_args()
    phones = write_phone_units(options.manifest_folder, options.output_folder)
    print(f"{len(phones)} phones: {' '.join(phones)}")
