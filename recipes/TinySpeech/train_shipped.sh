#!/usr/bin/env bash
# Make TinySpeech, train all parts on it and put together the folder that ships
# with the package:
#
#     recipes/TinySpeech/train_shipped.sh WORK_FOLDER
#
# Needs the package with its extra `train`. Stopped, it goes on where it was.
set -euo pipefail

mkdir -p "$1"
work=$(cd "$1" && pwd)
cd "$(dirname "$0")"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
trap 'jobs -p | xargs -r kill' EXIT

# step PART SCRIPT YAML [ARGUMENTS]: run a recipe unless its part is there.
step() {
    local result=$work/$1 script=$2 yaml=$3
    shift 3
    if [ ! -e "$result/config.json" ]; then
        echo "$(date +%T) $result"
        python "$script" "$yaml" --output_folder "$(dirname "$result")" "$@"
    fi
}

corpus=$work/corpus
manifests=(--manifest_folder "$corpus")
python tinyspeech_prepare.py "$corpus" --size full

train_phonetic() {
    local kmeans=(phonetic/train_kmeans.py phonetic/hparams/kmeans.yaml)
    step targets/phonetic "${kmeans[@]}" "${manifests[@]}"
    step hubert/hubert phonetic/train_hubert.py phonetic/hparams/hubert.yaml \
        "${manifests[@]}" --teacher "$work/targets/phonetic" --precision bf16
    step kmeans/phonetic "${kmeans[@]}" "${manifests[@]}" \
        --hubert "$work/hubert/hubert" --units 200
    step phonetic/phonetic \
        phonetic/train_quantizer.py phonetic/hparams/quantizer.yaml \
        "${manifests[@]}" --teacher "$work/kmeans/phonetic"
}

train_prosody() {
    step pitch/pitch pitch/train.py pitch/hparams/train.yaml "${manifests[@]}"
    step features/style style/train.py style/hparams/features.yaml \
        "${manifests[@]}"
    step clusters/style style/cluster.py style/hparams/cluster.yaml \
        "${manifests[@]}" --features_folder "$work/features/style"
    step style/style style/train.py style/hparams/units.yaml \
        "${manifests[@]}" --clusters_folder "$work/clusters"
}

phonetic=(--phonetic "$work/phonetic/phonetic")
parts=("${phonetic[@]}" --pitch "$work/pitch/pitch" --style "$work/style/style")

train_vocoder() { # its name, its parts
    local name=$1
    shift
    step "$name/vocoder" vocoder/train.py "vocoder/hparams/$name.yaml" \
        --corpus_folder "$work/units" --precision bf16 "$@"
}

# What does not need each other runs side by side.
train_phonetic &
pid=$!
train_prosody
wait "$pid"
torchrun --nproc_per_node 2 vocoder/tokenize_corpus.py \
    vocoder/hparams/tokenize.yaml "${manifests[@]}" "${parts[@]}" \
    --output_folder "$work/units"
train_vocoder base "${phonetic[@]}" &
pid=$!
train_vocoder expressive "${parts[@]}"
wait "$pid"

spiritlm-assemble "$work/tinyspeech" "${parts[@]}" \
    --vocoder "$work/expressive/vocoder" --base_vocoder "$work/base/vocoder"
