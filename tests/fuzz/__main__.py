"""Run fuzzes: ``python -m tests.fuzz audio --count 1000 --seed 0``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.fuzz.harness import Worker, fuzz, print_report

_FUZZES = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if path.stem not in ("__init__", "__main__", "harness")
)
# Of cases, where it is not 500.
_COUNTS = {"audio": 1000}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("fuzzes", nargs="*", metavar="|".join(_FUZZES))
    parser.add_argument(
        "--count", type=int, help="of cases, each; default: 1000 of audio, 500"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run this one alone, aloud")
    parser.add_argument("--summary", type=Path, help="JSON file of the counts")
    options = parser.parse_args()
    unknown = set(options.fuzzes) - set(_FUZZES)
    if unknown:
        parser.error(f"no such fuzz: {', '.join(sorted(unknown))}")
    names = options.fuzzes or _FUZZES
    if options.case is not None:
        for name in names:
            with Worker(name, options.seed) as worker:
                print(worker.run(options.case))
        return 0
    reports = [
        fuzz(name, options.count or _COUNTS.get(name, 500), options.seed)
        for name in names
    ]
    for report in reports:
        print_report(report)
    if options.summary is not None:
        options.summary.write_text(json.dumps(reports, indent=2) + "\n")
    return int(any(report["bad"] for report in reports))


if __name__ == "__main__":
    sys.exit(main())
