#!/usr/bin/env bash
# Make what the debug flags of the tables name, in results/samples: a corpus of a
# few minutes and parts and models of a few steps.
#
#     tests/recipes/setup/make_samples.sh [FOLDER, results/samples by default]
set -euo pipefail

cd "$(dirname "$0")/../../.."
samples=${1:-results/samples}
recipes/TinySpeech/train_shipped.sh "$samples" --debug

# The benchmark of sentiment has more texts than the smallest corpus.
python recipes/TinySpeech/tinyspeech_prepare.py "$samples/small" --size small
python recipes/TinySpeech/tinyspeech_stsp_prepare.py "$samples/small" "$samples/stsp"
for modality in text speech; do
    python recipes/TinySpeech/sentiment/train_classifier.py \
        "recipes/TinySpeech/sentiment/hparams/${modality}_classifier.yaml" --debug \
        --data_folder "$samples/stsp" --output_folder "$samples/stsp/model/$modality"
done

# A recognizer with random weights, as the Hub's are laid out.
python - "$samples/recognizer" <<'PYTHON'
import json
import sys
from pathlib import Path

import transformers

folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
vocabulary = folder / "vocab.json"
vocabulary.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
transformers.Wav2Vec2CTCTokenizer(str(vocabulary)).save_pretrained(folder)
transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
config = transformers.Wav2Vec2Config(
    vocab_size=len(tokens),
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    conv_dim=[8] * 7,
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=2,
    pad_token_id=0,
)
transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)
PYTHON

# Answers of the model to the prompts of the archive, in pairs.
python recipes/TinySpeech/preference/make_pairs.py \
    recipes/TinySpeech/preference/hparams/pairs.yaml \
    --data_folder "$samples/stsp" --model tinyspeech --prompts 12 --candidates 4 \
    --max_new_tokens "{t2s: 40, s2t: 12}" --margin 0 --valid_share 0.3 \
    --speech_classifier "$samples/stsp/model/speech/classifier" \
    --text_classifier "$samples/stsp/model/text/classifier" \
    --output_folder "$samples/pairs"
