#!/usr/bin/env bash
# The JSON reader of datasets makes dates of a column of texts that look like dates, and
# keeps on doing so when the column is said to be text: what comes then is the date,
# written anew. A corpus of JSON lines in which a shard begins with such texts (file
# names, session ids, spoken dates) gets other texts than it holds.
#
# Versions: datasets 5.2.0, pyarrow 26.0.1, Python 3.11; seen on 2026-11-28.
# Seen:     without features: datetime.datetime(2024, 1, 1, 0, 0)
#           with features={"text": Value("string")}: '2024-01-01 00:00:00'
#           in the file: '2024-01-01'
# Ends with 0 while this is so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    datasets==5.2.0 pyarrow==26.0.1
cd "$folder"
HF_HOME=$folder/home "$python" - <<'PYTHON'
import json

import datasets

texts = ["2024-01-01", "2024-02-03"]
with open("texts.jsonl", "w") as file:
    file.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def read(features):
    rows = datasets.load_dataset(
        "json", data_files="texts.jsonl", split="train", features=features
    )
    return rows[0]["text"]


plain = read(None)
typed = read(datasets.Features({"text": datasets.Value("string")}))
print("without features:", repr(plain))
print('with features={"text": Value("string")}:', repr(typed))
print("in the file:", repr(texts[0]))
assert not isinstance(plain, str), "the behaviour has changed"
assert typed == "2024-01-01 00:00:00", "the behaviour has changed"
PYTHON
