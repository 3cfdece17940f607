"""Say how well a model understands its own voice, where no other ears are.

    python listen.py --manifest_folder DIR --model DIR --output_folder DIR

Recordings, what the vocoder makes of their units, and readings of their texts are
transcribed by the model itself. A recognizer of the language, where there is one,
is the better judge: see --recognizer of tts and vocoder beside this folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from spiritlm_plugin.dataio.audio.reading import read_audio
from spiritlm_plugin.dataio.batching import spread
from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.inference.spiritlm import SpiritLM
from spiritlm_plugin.metrics.recognition import WordErrorStats
from spiritlm_plugin.utils.files import write_file

BATCH = 10


def listen(
    manifest_folder: str | Path,
    model: str | Path,
    output_folder: str | Path,
    split: str = "test",
    utterances: int = 60,
    hparams_file: str = "hyperparams.yaml",
) -> dict:
    """Transcribe recordings, their resynthesis and readings.

    Arguments
    ---------
    manifest_folder : path
        Of the corpus.
    model : str or Path
        Of `SpiritLM.from_hparams`, trained to transcribe and to read.
    output_folder : path
        Gets ``report.json`` and the alignments.
    split : str
        Whose utterances, evenly spread.
    utterances : int
        How many.
    hparams_file : str
        Of the model.

    Returns
    -------
    dict
        The word error rate of each, in percent, and its 95% interval, by the
        bootstrap over speakers.
    """
    items = load_manifest(Path(manifest_folder) / split)
    chosen = spread(list(items.items()), utterances)
    lm = SpiritLM.from_hparams(model, hparams_file=hparams_file)
    heard: dict[str, list[str]] = {}
    for start in range(0, len(chosen), BATCH):
        rows = [item for _, item in chosen[start : start + BATCH]]
        for kind, wavs in say(lm, rows, start):
            heard.setdefault(kind, []).extend(hear(lm, wavs))
    names = [name for name, _ in chosen]
    speakers = {name: item["speaker"] for name, item in chosen}
    folder = Path(output_folder)
    folder.mkdir(parents=True, exist_ok=True)
    report: dict = {"utterances": len(chosen), "split": split}
    for kind, texts in heard.items():
        stats = WordErrorStats()
        stats.append(names, texts, [item["text"] for _, item in chosen])
        interval = stats.interval(speakers)
        report[kind] = {"WER": stats.rate(), "WER_interval": interval}
        with open(folder / f"{kind}.txt", "w", encoding="utf-8") as file:
            stats.write_stats(file)
    write_file(folder / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def say(
    lm: SpiritLM, rows: Sequence[dict], seed: int
) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield recordings, their resynthesis, and readings, all as waveforms.

    A voice that the vocoder does not have is left to it.
    """
    recordings = [read_audio(row["wav"]) for row in rows]
    yield "recordings", recordings
    units = [lm.encode_file(row["wav"]) for row in rows]
    known = all(row["speaker"] in lm.speakers for row in rows)
    voices = [row["speaker"] for row in rows] if known else None
    yield "resynthesis", cut(*lm.decode_batch(units, speaker=voices))
    texts = [row["text"] for row in rows]
    yield "readings", cut(*lm.synthesize(texts, seed=seed, max_new_tokens=500))


def hear(lm: SpiritLM, wavs: Sequence[Tensor]) -> list[str]:
    """Transcribe waveforms; what is empty has no words."""
    spoken = [wav for wav in wavs if len(wav)]
    texts = lm.transcribe_batch(spoken, max_new_tokens=120) if spoken else []
    found = iter(texts)
    return [next(found) if len(wav) else "" for wav in wavs]


def cut(wavs: Tensor, wav_lens: Tensor) -> list[Tensor]:
    """Return a padded batch without its padding."""
    lengths = (wav_lens * wavs.shape[1]).round().long().tolist()
    return [wav[:length] for wav, length in zip(wavs, lengths)]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--manifest_folder", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--hparams_file", default="hyperparams.yaml")
    parser.add_argument("--output_folder", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--utterances", type=int, default=60)
    print(json.dumps(listen(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
