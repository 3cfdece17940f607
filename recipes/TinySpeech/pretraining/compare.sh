#!/usr/bin/env bash
# The paper's first two findings in miniature: trainings of the same length,
# interleaved and not, and from a text model and from random weights; then what
# they comprehend, as one table.
#
#     recipes/TinySpeech/pretraining/compare.sh WORK_FOLDER [--debug]
#
# With --debug each training has a few steps: it tries all of it out.
#
# WORK_FOLDER is that of train_shipped.sh, whose corpus, codec, units and text model
# it takes. PROCESSES share the work, two or as many as are named. Stopped, it goes on
# where it was. Seven minutes a training on a GPU, more than two hours on two cores.
set -euo pipefail

work=$(cd "$1" && pwd)
cd "$(dirname "$0")"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
run="torchrun --nproc_per_node ${PROCESSES:-2}"
few=()
if [ "${2:-}" = --debug ]; then
    few=(--debug)
fi

compare() { # its name, options
    local output=$work/compare/$1
    shift
    if [ ! -e "$output/model/language_model/config.json" ]; then
        $run train.py hparams/base.yaml --output_folder "$output" \
            --codec "$work/codec" \
            --corpus_folders "[$work/units, $work/units_2, $work/units_3]" \
            --text_files "[$work/corpus/text/train.txt]" \
            --pretrained "$work/text/model/language_model" --precision bf16 \
            --row_tokens 512 --step_rows 12 --loss_weights "{text: 1}" \
            --documents "{text_words: [1, 4], speech_words: [1, 4]}" \
            --number_of_epochs 1 --epoch_steps 7500 --sample_count 0 \
            "$@" "${few[@]}"
    fi
}

compare interleaved --mode interleaved
compare no_interleaving --mode no_interleaving
compare random_start --mode interleaved --random_weights true

models=""
for name in interleaved no_interleaving random_start; do
    models+="$name: {model: $work/compare/$name/model,"
    models+=" hparams_file: hyperparams.yaml}, "
done
$run ../evaluate.py ../hparams/evaluate.yaml \
    --manifest_folder "$work/corpus" \
    --output_folder "$work/compare/evaluation" \
    --models "{Base: null, Expressive: null, ${models%, }}" \
    --evaluations "{ASR: null, 'ASR, voice held out': null, \
'ASR, natural voice held out': null, \
'ASR, prompted': null, TTS: null, IC: null, STSP: null, resynthesis: null}"
