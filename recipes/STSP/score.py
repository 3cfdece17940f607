#!/usr/bin/env python3
"""Score predictions of the STSP benchmark, of any system.

    python score.py ARCHIVE --datasets emov expresso_read \
        --predictions run0.jsonl run1.jsonl run2.jsonl

A line of a file is {"id": 17, "pred": "positive"}, or an emotion such as
"happy"; each file is a run in one direction and predicts all records of the
datasets. Prints accuracies, mean and standard deviation of the runs, with 95%
intervals over records, those of a speaker drawn together.
"""

from __future__ import annotations

import argparse
import json

from spiritlm_plugin.dataio.corpus.stsp import MODALITIES, STSPArchive
from spiritlm_plugin.metrics.sentiment import (
    most_common,
    read_predictions,
    sentiment_accuracy,
    sentiment_intervals,
)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("archive", help="folder of the unpacked archive")
    parser.add_argument("--datasets", nargs="+", required=True)
    parser.add_argument("--split", default="test", help="default: %(default)s")
    parser.add_argument(
        "--modality",
        choices=MODALITIES,
        default="speech",
        help="of the prompts (default: %(default)s)",
    )
    parser.add_argument("--predictions", nargs="+", required=True)
    options = parser.parse_args(arguments)
    try:
        records = STSPArchive(options.archive).records(
            options.datasets, options.split, options.modality
        )
        runs = [read_predictions(path) for path in options.predictions]
        figures = sentiment_accuracy(records, runs)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    figures = {
        "records": len(records),
        "without_words": sum(not record.has_words for record in records),
        "runs": len(runs),
        "split": options.split,
        "datasets": options.datasets,
        "modality": options.modality,
        "accuracy": figures,
        "interval": sentiment_intervals(records, runs),
        "most_common": most_common(records),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
