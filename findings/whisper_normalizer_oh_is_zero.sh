#!/usr/bin/env bash
# Whisper's normalization of English, by which word error rates are reported, makes the
# digit of the word "oh", wherever it stands, and words of their own of dots behind it:
# "Oh..." has two words then, and an utterance of dots alone has one.
#
# Versions: whisper-normalizer 0.1.15 (the code and table of openai-whisper), Python
# 3.11; seen on 2026-11-28. The normalizers of openai-whisper 20250625 and of
# transformers give the same.
# Seen:     'Oh no!' -> '0 no'
#           'Oh...' -> '0 .'
#           '...' -> '.'
# Ends with 0 while this is so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check \
    whisper-normalizer==0.1.15
"$python" - <<'PYTHON'
from whisper_normalizer.english import EnglishTextNormalizer

normalize = EnglishTextNormalizer()
expected = {"Oh no!": "0 no", "Oh...": "0 .", "...": "."}
found = {text: normalize(text) for text in expected}
for text, words in found.items():
    print(repr(text), "->", repr(words))
assert found == expected, found
PYTHON
