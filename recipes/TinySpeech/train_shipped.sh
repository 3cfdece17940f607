#!/usr/bin/env bash
# Make TinySpeech, train all parts on it and put together the folder that ships
# with the package:
#
#     recipes/TinySpeech/train_shipped.sh WORK_FOLDER [--debug]
#
# With --debug the corpora are tiny and each training has a few steps: it tries all
# of it out.
#
# Needs the package with its extra `train`, and is shared by PROCESSES processes, two
# or as many as are named: on a machine with GPUs one for each. Stopped, it goes on
# where it was.
source "$(dirname "$0")/training.sh" "$@"
processes=${PROCESSES:-2}
trap 'jobs -p | xargs -r kill' EXIT

corpus=$work/corpus
manifests=(--manifest_folder "$corpus")
python tinyspeech_prepare.py "$corpus" --size "$size"

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

# A first training with spectra alone to judge by, a second one, on longer pieces, that
# also hears with the tokenizer, and a third one of the same with many pieces a step,
# which is for GPUs.
train_vocoder() { # its name, its parts
    local name=$1
    shift
    local common=(vocoder/train.py "vocoder/hparams/$name.yaml" --precision bf16
        --corpus_folder "$work/units" "$@")
    step "vocoder_${name}_first/vocoder" "${common[@]}" \
        --phonetic_weight 0 --merged_share 0
    step "vocoder_${name}_second/vocoder" "${common[@]}" \
        --pretrained "$work/vocoder_${name}_first/vocoder" \
        --crop_frames 32 --train_loader "{batch_size: 4, drop_last: true}" \
        --lr 0.0006 --lr_decay 0.1 --adversarial_step 200 \
        --number_of_epochs 6 --total_steps 9930
    step "vocoder_$name/vocoder" "${common[@]}" \
        --pretrained "$work/vocoder_${name}_second/vocoder" --crop_frames 32 \
        --train_loader "{batch_size: 64, drop_last: true, num_workers: 2}" \
        --valid_loader "{batch_size: 64}" \
        --lr 0.0006 --lr_decay 0.05 --adversarial_step 30 \
        --number_of_epochs 27 --total_steps 2781
}

# What does not need each other runs side by side.
train_phonetic &
pid=$!
train_prosody
wait "$pid"
torchrun --nproc_per_node "$processes" vocoder/tokenize_corpus.py \
    vocoder/hparams/tokenize.yaml "${manifests[@]}" "${parts[@]}" \
    --output_folder "$work/units"
train_vocoder base "${phonetic[@]}" &
pid=$!
train_vocoder expressive "${parts[@]}"
wait "$pid"

# The language models read a codec that is put together of what there is.
codec=("${parts[@]}" --vocoder "$work/vocoder_expressive/vocoder"
    --base_vocoder "$work/vocoder_base/vocoder")
spiritlm-assemble "$work/codec" "${codec[@]}"

# The language models read more than the parts have heard: the same world by other
# seeds, none of whose texts is in a test, and some of it as if other voices spoke
# into other microphones.
units="$work/units"
read_more() { # its name, the corpus, options
    local folder=$work/$1 corpus=$2
    shift 2
    torchrun --nproc_per_node "$processes" pretraining/tokenize_corpus.py \
        pretraining/hparams/tokenize.yaml --codec "$work/codec" \
        --manifest_folder "$corpus" --output_folder "$folder" "$@"
    units+=", $folder"
}
for seed in 2 3 4; do
    python tinyspeech_prepare.py "$work/corpus_$seed" --size "$size" --seed "$seed" \
        --splits train,valid
done
shifts=(--pitch_ratios "[[9, 8], [8, 9], [16, 15], [15, 16]]")
read_more units_2 "$work/corpus_2"
read_more units_3 "$work/corpus_3"
read_more units_4_shifted "$work/corpus_4" "${shifts[@]}"
read_more units_filtered "$corpus" --equalizer 12
read_more units_4_filtered "$work/corpus_4" --equalizer 12
read_more units_2_changed "$work/corpus_2" --equalizer 12 "${shifts[@]}"
read_more units_3_changed "$work/corpus_3" --equalizer 12 "${shifts[@]}"

train_lm() { # its name, its YAML, options
    local output=$work/$1 yaml=pretraining/hparams/$2.yaml
    shift 2
    if [ ! -e "$output/model/language_model/config.json" ]; then
        note "$output"
        torchrun --nproc_per_node "$processes" pretraining/train.py "$yaml" \
            --output_folder "$output" --codec "$work/codec" \
            --precision bf16 --compile \
            --text_files "[$corpus/text/train.txt]" "$@" "${few_lm[@]}"
    fi
}

train_lm text text --corpus_folders "[$work/units]"
all=(--corpus_folders "[$units]")
some=(--corpus_folders "[$work/units, $work/units_2_changed, $work/units_3]")
train_lm base_first base "${all[@]}" \
    --pretrained "$work/text/model/language_model"
prompted=(--mode prompted --loss_weights "{text: 2}")
train_lm base_second base "${all[@]}" "${prompted[@]}" \
    --row_tokens 512 --step_rows 6 \
    --pretrained "$work/base_first/model/language_model" \
    --lr 0.0016 --number_of_epochs 10 --epoch_steps 1500
# The rate falls over this training and the next as over one.
train_lm base_third base "${all[@]}" --loss_weights "{text: 2}" \
    --pretrained "$work/base_second/model/language_model" \
    --lr 0.0016 --number_of_epochs 6 --epoch_steps 1250 --total_steps 12500
train_lm base_fourth base "${all[@]}" "${prompted[@]}" \
    --row_tokens 512 --step_rows 6 \
    --pretrained "$work/base_third/model/language_model" \
    --lr 0.0008 --number_of_epochs 2 --epoch_steps 1500
# Four times as many tokens a step, which is for GPUs.
long=(--row_tokens 1024 --step_rows 12 --workers 3 --lr 0.002
    --pretrained "$work/base_fourth/model/language_model" --number_of_epochs 1)
train_lm base base "${all[@]}" "${prompted[@]}" "${long[@]}" --epoch_steps 5500
train_lm expressive expressive "${some[@]}" "${long[@]}" --epoch_steps 5750

spiritlm-assemble "$work/tinyspeech" "${codec[@]}" \
    --language_model "$work/expressive/model/language_model" \
    --base_language_model "$work/base/model/language_model"
