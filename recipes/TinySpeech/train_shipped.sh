#!/usr/bin/env bash
# Make TinySpeech and train all parts that ship with the package, as they were:
#
#     recipes/TinySpeech/train_shipped.sh WORK_FOLDER [PROCESSES]
#
# A run that was stopped goes on where it was. PROCESSES is the number of GPUs,
# or of CPU cores, that the HuBERT is trained on (2).
set -euo pipefail

work=$(mkdir -p "$1" && cd "$1" && pwd)
processes=${2:-2}
here=$(cd "$(dirname "$0")" && pwd)
corpus=$work/corpus
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

step() { # name of the result, script, YAML, arguments
    local result=$work/$1 script=$here/$2 yaml=$here/$3
    shift 3
    [ -e "$result/done" ] && return
    echo "== $result"
    "${launcher[@]}" "$script" "$yaml" --output_folder "$result" "$@"
    touch "$result/done"
}
alone=(python)
together=(torchrun --nproc_per_node "$processes")

launcher=("${alone[@]}")
python "$here/tinyspeech_prepare.py" "$corpus" --size full

# Phonetic units: two rounds of HuBERT, k-means, and the robust quantizer.
manifests=(--manifest_folder "$corpus")
step kmeans_mfcc phonetic/train_kmeans.py phonetic/hparams/kmeans.yaml \
    "${manifests[@]}"
launcher=("${together[@]}")
step hubert1 phonetic/train_hubert.py phonetic/hparams/hubert.yaml \
    "${manifests[@]}" --teacher "$work/kmeans_mfcc/phonetic" \
    --precision bf16 --number_of_epochs 2
launcher=("${alone[@]}")
step kmeans1 phonetic/train_kmeans.py phonetic/hparams/kmeans.yaml \
    "${manifests[@]}" --hubert "$work/hubert1/hubert" --layer 3
launcher=("${together[@]}")
step hubert2 phonetic/train_hubert.py phonetic/hparams/hubert.yaml \
    "${manifests[@]}" --teacher "$work/kmeans1/phonetic" --precision bf16
launcher=("${alone[@]}")
step kmeans2 phonetic/train_kmeans.py phonetic/hparams/kmeans.yaml \
    "${manifests[@]}" --hubert "$work/hubert2/hubert" --units 200
step phonetic phonetic/train_quantizer.py phonetic/hparams/quantizer.yaml \
    "${manifests[@]}" --teacher "$work/kmeans2/phonetic"
