#!/usr/bin/env bash
# praatio reads the times of a long TextGrid as digits and a point: one that is written
# with an exponent, as programs print what is below 0.0001, and one below zero make the
# whole file unreadable ("Expected field in Textgrid missing"). The same grid in the
# short form, with the same times, is read.
#
# Versions: praatio 6.2.2, Python 3.11; seen on 2026-11-28.
# Seen:     long, 0.5: read     long, 1e-05: refused     long, -0.25: refused
#           short, 0.5: read    short, 1e-05: read       short, -0.25: read
# Ends with 0 while this is so.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
python=$folder/env/bin/python
"$python" -m pip install --quiet --disable-pip-version-check praatio==6.2.2
cd "$folder"
"$python" - <<'PYTHON'
from praatio import textgrid

HEAD = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
LONG = """xmin = {first}
xmax = 1
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = {first}
        xmax = 1
        intervals: size = 2
        intervals [1]:
            xmin = {first}
            xmax = {time}
            text = "two"
        intervals [2]:
            xmin = {time}
            xmax = 1
            text = "boats"
"""
SHORT = """{first}
1
<exists>
1
"IntervalTier"
"words"
{first}
1
2
{first}
{time}
"two"
{time}
1
"boats"
"""


def is_read(form, time):
    first = "-0.5" if time.startswith("-") else "0"
    with open("words.TextGrid", "w") as file:
        file.write(HEAD + form.format(first=first, time=time))
    try:
        grid = textgrid.openTextgrid("words.TextGrid", True)
    except Exception as error:
        print("   ", type(error).__name__, str(error).strip()[:60])
        return False
    end = grid.getTier("words").entries[0].end
    print("   ", end)
    return end == float(time)


found = {}
for name, form in (("long", LONG), ("short", SHORT)):
    for time in ("0.5", "1e-05", "-0.25"):
        print(f"{name}, {time}:")
        found[name, time] = is_read(form, time)
assert found["long", "0.5"] and found["short", "0.5"]
assert not found["long", "1e-05"] and not found["long", "-0.25"]
assert found["short", "1e-05"] and found["short", "-0.25"], found
PYTHON
