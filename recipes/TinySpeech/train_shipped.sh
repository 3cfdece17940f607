#!/usr/bin/env bash
# Make TinySpeech in sixteen voices of several engines, train all parts on it and put
# together the folder that ships with the package:
#
#     recipes/TinySpeech/train_shipped.sh WORK_FOLDER [--debug]
#
# With --debug the corpora are tiny and each training has a few steps: it tries all
# of it out.
#
# Needs the package with its extra `train`, and the engines of
# recipes/TinySpeech/README.md; VOICES=espeak is content with eSpeak's six voices, and
# makes what they can. PROCESSES processes, two or as many as are named, share what is
# long: on a machine with GPUs one for each. Stopped, it goes on where it was.
source "$(dirname "$0")/training.sh" "$@"
trap 'jobs -p | xargs -r kill' EXIT
voices=${VOICES:-all}
together=(torchrun --nproc_per_node "${PROCESSES:-2}")

corpus=$work/corpus
manifests=(--manifest_folder "$corpus")
python tinyspeech_prepare.py "$corpus" --size "$size" --voices "$voices"

# Units of a HuBERT that predicts phones, which are the same whoever says them.
train_phonetic() {
    if [ ! -e "$work/hubert/hubert/config.json" ]; then
        python phonetic/make_targets.py "${manifests[@]}" \
            --output_folder "$work/phones"
    fi
    step hubert/hubert phonetic/train_hubert.py phonetic/hparams/hubert.yaml \
        "${manifests[@]}" --teacher none --units_folder "$work/phones" --units 54 \
        --heard_weight 2 --mask_probability 0.05 \
        --number_of_epochs 16 --training_steps 8128 --precision bf16
    step kmeans/phonetic phonetic/train_kmeans.py phonetic/hparams/kmeans.yaml \
        "${manifests[@]}" --hubert "$work/hubert/hubert" --layer 4 --units 200
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

phonetic=(--phonetic "$work/kmeans/phonetic")
parts=("${phonetic[@]}" --pitch "$work/pitch/pitch" --style "$work/style/style")

# What does not need each other runs side by side.
train_phonetic &
pid=$!
train_prosody
wait "$pid"

# The language models read more than the parts have heard: the same world by other
# seeds, none of whose texts is in a test, and some of it as if others spoke into
# other microphones.
read_corpus() { # its name, the corpus, options
    local folder=$work/$1 manifests=$2
    shift 2
    "${together[@]}" vocoder/tokenize_corpus.py vocoder/hparams/tokenize.yaml \
        "${parts[@]}" --manifest_folder "$manifests" --output_folder "$folder" "$@"
}
read_corpus units "$corpus"
for seed in 2 3 4; do
    python tinyspeech_prepare.py "${corpus}_$seed" --size "$size" --voices "$voices" \
        --seed "$seed" --splits train,valid
done
changes=(--equalizer 12 --formants "[0.87, 1.15]")
read_corpus units_2 "${corpus}_2" "${changes[@]}"
read_corpus units_3 "${corpus}_3"
read_corpus units_4 "${corpus}_4" "${changes[@]}"
units=(--corpus_folders "[$work/units, $work/units_2, $work/units_3, $work/units_4]")

# A vocoder learns of spectra alone at first, then, on longer pieces, also by what the
# tokenizer and discriminators hear. Expressive goes on from Base.
train_vocoder() { # its name, its YAML, options
    local name=$1 yaml=vocoder/hparams/$2.yaml
    shift 2
    step "vocoder_$name/vocoder" vocoder/train.py "$yaml" --precision bf16 \
        --corpus_folder "$work/units" "$@"
}
longer=(--crop_frames 32 --lr 0.0008 --adversarial_step 400)
train_vocoder base_first base "${phonetic[@]}" --phonetic_weight 0 --merged_share 0
train_vocoder base base "${phonetic[@]}" "${longer[@]}" \
    --pretrained "$work/vocoder_base_first/vocoder" \
    --number_of_epochs 10 --total_steps 8270
train_vocoder expressive expressive "${parts[@]}" "${longer[@]}" \
    --pretrained "$work/vocoder_base/vocoder" \
    --number_of_epochs 5 --total_steps 4135

# The language models read a codec that is put together of what there is.
codec=("${parts[@]}" --vocoder "$work/vocoder_expressive/vocoder"
    --base_vocoder "$work/vocoder_base/vocoder")
spiritlm-assemble "$work/codec" "${codec[@]}"

train_lm() { # its name, its YAML, options
    local output=$work/$1 yaml=pretraining/hparams/$2.yaml
    shift 2
    if [ ! -e "$output/model/language_model/config.json" ]; then
        note "$output"
        "${together[@]}" pretraining/train.py "$yaml" \
            --output_folder "$output" --codec "$work/codec" \
            --precision bf16 --compile \
            --text_files "[$corpus/text/train.txt]" "$@" "${few_lm[@]}"
    fi
}
prompted=(--mode prompted --loss_weights "{text: 2}")
# More recognition than `prompted` has, which many voices need.
hearing=(--shares "{prompted: {asr: 8, asr_span: 2, asr_shuffled: 6, tts: 4,
    tts_span: 2, tts_shuffled: 3, few_shot_intent: 1}}")
train_lm text text --corpus_folders "[$work/units]"
train_lm base_first base "${units[@]}" \
    --pretrained "$work/text/model/language_model"
train_lm base_second base "${units[@]}" "${prompted[@]}" \
    --row_tokens 512 --step_rows 6 \
    --pretrained "$work/base_first/model/language_model" \
    --lr 0.0016 --number_of_epochs 30 --epoch_steps 1500
train_lm base base "${units[@]}" "${prompted[@]}" "${hearing[@]}" \
    --row_tokens 512 --step_rows 6 \
    --pretrained "$work/base_second/model/language_model" \
    --lr 0.0015 --number_of_epochs 12 --epoch_steps 1000
# Documents of Expressive are longer, by tokens of pitch and style.
train_lm expressive expressive "${units[@]}" "${prompted[@]}" "${hearing[@]}" \
    --row_tokens 1024 --step_rows 3 \
    --pretrained "$work/base/model/language_model" \
    --lr 0.0015 --number_of_epochs 12 --epoch_steps 500

spiritlm-assemble "$work/tinyspeech" --half "${codec[@]}" \
    --language_model "$work/expressive/model/language_model" \
    --base_language_model "$work/base/model/language_model"
