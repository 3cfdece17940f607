#!/usr/bin/env bash
# TinySpeech in Spanish: the corpus, the phonetic tokenizer, the Base vocoder, the
# language models, and what they are worth:
#
#     recipes/TinySpeech/spanish/train.sh WORK_FOLDER [--debug]
#
# With --debug the corpus is tiny and each training has a few steps: it tries all of
# it out. The HuBERT and the start of the vocoder are those of the English model that
# ships; the rest is trained here, by the recipes beside this folder.
#
# Needs the package with its extra `train`. One process does it all. Stopped, it goes
# on where it was.
source "$(dirname "$0")/../training.sh" "$@"
all=(--utterances 378) unseen=(--utterances 183)
if [ "$size" = debug ]; then
    all=(--debug --utterances 2) unseen=("${all[@]}")
fi

corpus=$work/corpus
manifests=(--manifest_folder "$corpus")
python tinyspeech_prepare.py "$corpus" --language es --size "$size"
[ -e "$work/start/vocoder/config.json" ] || python spanish/start.py "$work/start"

# Units: Spanish clusters of the English HuBERT, and a quantizer that is robust.
step kmeans/phonetic phonetic/train_kmeans.py phonetic/hparams/kmeans.yaml \
    "${manifests[@]}" --hubert "$work/start/hubert" --layer 4 --units 200
step phonetic/phonetic phonetic/train_quantizer.py \
    phonetic/hparams/quantizer.yaml "${manifests[@]}" \
    --teacher "$work/kmeans/phonetic" --number_of_epochs 2 --training_steps 1002
phonetic=(--phonetic "$work/phonetic/phonetic")

# The recordings as they are, and as if by other microphones.
read_corpus() { # its name, options
    local folder=$work/$1
    shift
    note "$folder"
    python vocoder/tokenize_corpus.py vocoder/hparams/tokenize.yaml \
        "${phonetic[@]}" "${manifests[@]}" \
        --output_folder "$folder" "$@"
}
read_corpus units
read_corpus units_filtered --equalizer 12

step vocoder/vocoder vocoder/train.py vocoder/hparams/base.yaml \
    "${phonetic[@]}" --corpus_folder "$work/units" --precision bf16 \
    --pretrained "$work/start/vocoder" --lr 0.0006 --lr_decay 0.1 \
    --adversarial_step 400 --number_of_epochs 3 --total_steps 2481
spiritlm-assemble "$work/codec" "${phonetic[@]}" \
    --vocoder "$work/vocoder/vocoder"

train_lm() { # its name, its YAML, options
    local output=$work/$1 yaml=pretraining/hparams/$2.yaml
    shift 2
    if [ ! -e "$output/model/language_model/config.json" ]; then
        note "$output"
        python pretraining/train.py "$yaml" --output_folder "$output" \
            --codec "$work/codec" --codec_hparams hyperparams.yaml \
            --precision bf16 --compile \
            --text_files "[$corpus/text/train.txt]" "$@" "${few_lm[@]}"
    fi
}
train_lm text text --corpus_folders "[$work/units]"
train_lm base base --corpus_folders "[$work/units, $work/units_filtered]" \
    --mode prompted --row_tokens 512 --step_rows 6 --loss_weights "{text: 2}" \
    --pretrained "$work/text/model/language_model" \
    --number_of_epochs 6 --epoch_steps 1000

# evaluate NAME SCRIPT YAML [ARGUMENTS]: run an evaluation.
evaluate() {
    local output=$work/results/$1
    shift
    note "$output"
    python "$@" --output_folder "$output"
}
model=("${manifests[@]}" --model "$work/base/model")
heard=(asr/evaluate.py asr/hparams/evaluate.yaml "${model[@]}"
    --trained_asr true --shots 0 --max_new_tokens 120)
evaluate asr "${heard[@]}" "${all[@]}"
evaluate asr_unseen "${heard[@]}" "${unseen[@]}" --split test_unseen_voice
evaluate intent intent/evaluate.py intent/hparams/evaluate.yaml \
    "${model[@]}" "${all[@]}" --shots 1
evaluate ears spanish/listen.py "${model[@]}" --utterances 60
evaluate asr_beams "${heard[@]}" "${all[@]}" --num_beams 4
evaluate asr_unseen_beams "${heard[@]}" "${unseen[@]}" \
    --split test_unseen_voice --num_beams 4
evaluate phonetic phonetic/evaluate.py phonetic/hparams/evaluate.yaml \
    "${manifests[@]}" --parts "{English units: $work/start/phonetic,
    k-means: $work/kmeans/phonetic, linear: $work/phonetic/phonetic}"
note done
