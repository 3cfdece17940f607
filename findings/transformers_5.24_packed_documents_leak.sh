#!/usr/bin/env bash
# Documents side by side in one row, told apart by position_ids, are kept apart by
# Llama, Qwen and many other models of transformers, whose causal mask is made of the
# positions. GPT-OSS and LFM2 take the same arguments without a word, and each document
# sees those before it: the attention of the first, the short convolutions of the
# second. A speech language model that is trained on packed rows learns from its
# neighbours, and no loss tells. Compare a packed row with its documents alone.
#
# Versions: transformers 5.24.0, torch 2.11.0, Python 3.11; seen on 2026-11-28.
# Seen:     llama: the second document differs by 0.0e+00
#           gpt_oss: the second document differs by 1.4e-01
#           lfm2: the second document differs by 1.1e-04
# Ends with 0 while this is so. Downloads about 3 GB.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    torch==2.11.0 transformers==5.24.0 numpy==2.2.6
"$python" - <<'PYTHON'
import torch
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}
OF_KIND = {
    "llama": {},
    "gpt_oss": {
        "head_dim": 16, "num_local_experts": 2, "num_experts_per_tok": 1
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
}
row = torch.tensor([[5, 9, 11, 7, 13, 8, 21, 30]])  # two documents of four
positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
for kind, more in OF_KIND.items():
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES, **more)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.inference_mode():
        packed = model(row, position_ids=positions, use_cache=False).logits
        alone = model(row[:, 4:], use_cache=False).logits
    difference = float((packed[:, 4:] - alone).abs().max())
    print(f"{kind}: the second document differs by {difference:.1e}")
    leaks = difference > 1e-6
    if leaks != (kind != "llama"):
        raise SystemExit("the behaviour has changed")
PYTHON
