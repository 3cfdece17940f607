#!/usr/bin/env bash
# Models that hear natural voices: TinySpeech by several engines, the tokenizers, the
# vocoders, the Base language model, and what they are worth:
#
#     recipes/TinySpeech/voices/train.sh WORK_FOLDER [--debug]
#
# With --debug the corpus is tiny and each training has a few steps: it tries all of
# it out. Vocoder and language model start from those that ship, carried over to the
# new units.
#
# Needs the package with its extras `train` and `eval`, and the engines of
# recipes/TinySpeech/README.md. PROCESSES processes, two or as many as are named, share
# what is long. Stopped, it goes on where it was. Two cores need about twelve hours
# for it, five of them for the language model, by the speed that was seen in its parts.
source "$(dirname "$0")/../training.sh" "$@"
trap 'jobs -p | xargs -r kill' EXIT
together=(torchrun --nproc_per_node "${PROCESSES:-2}")
all=()
if [ "$size" = debug ]; then
    all=(--debug --utterances 2)
fi

corpus=$work/corpus
manifests=(--manifest_folder "$corpus")
python tinyspeech_prepare.py "$corpus" --size "$size" --voices all
# The same world by other seeds, whose texts are in no test.
for seed in 2 3 4; do
    python tinyspeech_prepare.py "${corpus}_$seed" --size "$size" --voices all \
        --seed "$seed" --splits train,valid
done

# Units: of a HuBERT that predicts phones, which are the same whoever says them.
if [ ! -e "$work/hubert/hubert/config.json" ]; then
    python phonetic/make_targets.py "${manifests[@]}" --output_folder "$work/phones"
fi
step hubert/hubert phonetic/train_hubert.py phonetic/hparams/hubert.yaml \
    "${manifests[@]}" --teacher none --units_folder "$work/phones" --units 54 \
    --heard_weight 2 --mask_probability 0.05 \
    --number_of_epochs 16 --training_steps 8128 --precision bf16
step kmeans/phonetic phonetic/train_kmeans.py phonetic/hparams/kmeans.yaml \
    "${manifests[@]}" --hubert "$work/hubert/hubert" --layer 4 --units 200
phonetic=(--phonetic "$work/kmeans/phonetic")
step pitch/pitch pitch/train.py pitch/hparams/train.yaml "${manifests[@]}"
step features/style style/train.py style/hparams/features.yaml "${manifests[@]}"
step clusters/style style/cluster.py style/hparams/cluster.yaml "${manifests[@]}" \
    --features_folder "$work/features/style"
step style/style style/train.py style/hparams/units.yaml "${manifests[@]}" \
    --clusters_folder "$work/clusters"
parts=("${phonetic[@]}" --pitch "$work/pitch/pitch" --style "$work/style/style")

# read_corpus NAME CORPUS [OPTIONS]
read_corpus() {
    local folder=$work/$1 manifests=$2
    shift 2
    "${together[@]}" vocoder/tokenize_corpus.py vocoder/hparams/tokenize.yaml \
        "${parts[@]}" --manifest_folder "$manifests" \
        --output_folder "$folder" "$@"
}
read_corpus units "$corpus"
read_corpus units_3 "${corpus}_3"
changes=(--equalizer 12 --formants "[0.87, 1.15]") # as if others spoke
read_corpus units_2 "${corpus}_2" "${changes[@]}"
read_corpus units_4 "${corpus}_4" "${changes[@]}"
units="[$work/units, $work/units_2, $work/units_3, $work/units_4]"
[ -e "$work/start/vocoder/config.json" ] ||
    python voices/start.py "$work/start" "${parts[@]}" "${manifests[@]}"

# train_vocoder NAME EPOCHS PARTS
train_vocoder() {
    local name=$1 epochs=$2
    shift 2
    step "vocoder_$name/vocoder" vocoder/train.py "vocoder/hparams/$name.yaml" \
        "$@" --corpus_folder "$work/units" --precision bf16 \
        --lr 0.0008 --adversarial_step 400 --crop_frames 32 \
        --number_of_epochs "$epochs" --total_steps $((827 * epochs))
}
train_vocoder base 5 "${phonetic[@]}" --pretrained "$work/start/vocoder_base" &
pid=$!
train_vocoder expressive 4 "${parts[@]}" --pretrained "$work/start/vocoder"
wait "$pid"
spiritlm-assemble "$work/codec" "${parts[@]}" \
    --vocoder "$work/vocoder_expressive/vocoder" \
    --base_vocoder "$work/vocoder_base/vocoder"

# More recognition than `prompted` has: many voices need it.
shares="{prompted: {asr: 8, asr_span: 2, asr_shuffled: 6, tts: 4, tts_span: 2,
    tts_shuffled: 3, few_shot_intent: 1}}"
if [ ! -e "$work/base/model/language_model/config.json" ]; then
    "${together[@]}" pretraining/train.py pretraining/hparams/base.yaml \
        --output_folder "$work/base" --codec "$work/codec" \
        --precision bf16 --compile \
        --text_files "[$corpus/text/train.txt]" --corpus_folders "$units" \
        --mode prompted --shares "$shares" --loss_weights "{text: 2}" \
        --row_tokens 512 --step_rows 6 \
        --pretrained "$work/start/language_model_base" \
        --lr 0.0015 --number_of_epochs 30 --epoch_steps 1000 "${few_lm[@]}"
fi

# evaluate NAME SCRIPT YAML [ARGUMENTS]: run an evaluation.
evaluate() {
    local output=$work/results/$1
    shift
    note "$output"
    "${together[@]}" "$@" --output_folder "$output"
}
model=("${manifests[@]}" --model "$work/base/model")
heard=(asr/evaluate.py asr/hparams/evaluate.yaml "${model[@]}"
    --trained_asr true --shots 0 --num_beams 4)
evaluate asr "${heard[@]}" "${all[@]}"
evaluate asr_unseen_voice "${heard[@]}" --split test_unseen_voice "${all[@]}"
evaluate asr_unseen_natural "${heard[@]}" --split test_unseen_natural "${all[@]}"
