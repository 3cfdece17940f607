#!/usr/bin/env bash
# The paper's first two findings in miniature: trainings of the same length,
# interleaved and not, and from a text model and from random weights.
#
#     recipes/TinySpeech/pretraining/compare.sh WORK_FOLDER
#
# WORK_FOLDER is that of train_shipped.sh, whose corpus, units and text model it
# takes. Stopped, it goes on where it was.
set -euo pipefail

work=$(cd "$1" && pwd)
cd "$(dirname "$0")"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

compare() { # its name, options
    local output=$work/compare/$1
    shift
    if [ ! -e "$output/model/language_model/config.json" ]; then
        python train.py hparams/base.yaml --output_folder "$output" \
            --corpus_folders "[$work/units]" \
            --text_files "[$work/corpus/text/train.txt]" \
            --pretrained "$work/text/model/language_model" --precision bf16 \
            --number_of_epochs 4 --epoch_steps 200 --sample_count 0 "$@"
    fi
    python ../comprehension/evaluate.py ../comprehension/hparams/evaluate.yaml \
        --model "$output/model" --manifest_folder "$work/corpus" \
        --output_folder "$output/comprehension"
}

compare interleaved --mode interleaved
compare no_interleaving --mode no_interleaving
compare random_start --mode interleaved --random_weights true
