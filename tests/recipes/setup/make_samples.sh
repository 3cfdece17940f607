#!/usr/bin/env bash
# Make what the debug flags of the tables name, in results/samples: a corpus of a
# few minutes and parts and models of a few steps.
#
#     tests/recipes/setup/make_samples.sh [FOLDER, results/samples by default]
set -euo pipefail

cd "$(dirname "$0")/../../.."
samples=${1:-results/samples}
VOICES=espeak recipes/TinySpeech/train_shipped.sh "$samples" --debug

# Units by a teacher of cepstra, and by a quantizer, which what ships has not.
phonetic=recipes/TinySpeech/phonetic
python $phonetic/train_kmeans.py $phonetic/hparams/kmeans.yaml --debug \
    --manifest_folder "$samples/corpus" --output_folder "$samples/targets"
python $phonetic/train_quantizer.py $phonetic/hparams/quantizer.yaml --debug \
    --manifest_folder "$samples/corpus" --teacher "$samples/kmeans/phonetic" \
    --output_folder "$samples/phonetic"

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

# Pairs of answers, as users' own.
python - "$samples/pairs" <<'PYTHON'
import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
for split, count in {"train": 4, "valid": 2}.items():
    lines = [
        {
            "id": f"{split}{i}",
            "output": "text",
            "prompt": [["speech", f"[Hu{i}][Hu{i + 1}]"]],
            "chosen": {"segments": [["text", "a farmer"]], "ended": True},
            "rejected": {"segments": [["text", "a"]], "ended": True},
        }
        for i in range(count)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / f"{split}.jsonl").write_text(text)
PYTHON
