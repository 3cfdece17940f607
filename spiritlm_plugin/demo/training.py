"""What the demo needs of the recipes: a corpus, and a few steps of training."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from spiritlm_plugin.dataio.corpus.manifests import load_manifest
from spiritlm_plugin.demo.report import Report

_ROOT = Path(__file__).resolve().parents[2]
_RECIPES = _ROOT / "recipes" / "TinySpeech"
# Not that of the corpus that the shipped model was trained on.
_SEED = 11
_EPOCHS = 8
_STYLES = ("happy", "sad")


class TinyCorpus:
    """A few minutes of TinySpeech that no shipped part has heard.

    Arguments
    ---------
    folder : Path
        Where it is made, unless it is there.

    Raises
    ------
    FileNotFoundError
        If there are no recipes, as in an installed package.
    """

    def __init__(self, folder: Path):
        if not _RECIPES.is_dir():
            raise FileNotFoundError(
                f"no {_RECIPES}: the recipes are in a source tree of the "
                "plugin, not in an installed package; clone the repository, "
                "or name a recording and --steps 0"
            )
        self.folder = folder
        _run(
            _RECIPES / "tinyspeech_prepare.py",
            folder,
            "--size=debug",
            f"--seed={_SEED}",
        )

    def held_out(self) -> tuple[str, str, str]:
        """Return a recording, what it says, and whose voice it is."""
        items = load_manifest(self.folder / "test").values()
        chosen = next(i for i in items if len(i["text"].split()) >= 8)
        return chosen["wav"], chosen["text"], chosen["speaker"]

    def styles(self) -> dict[str, str]:
        """Return a recording in each of two styles."""
        items = load_manifest(self.folder / "test").values()
        return {
            style: next(i["wav"] for i in items if i["style"] == style)
            for style in _STYLES
        }


def train_a_little(corpus: TinyCorpus, steps: int, report: Report) -> None:
    """Run some steps of the pretraining recipe, and plot the loss.

    The shipped model goes on, on a minute of speech, which it soon knows by
    heart: a training run to look at, not to use.

    Arguments
    ---------
    corpus : TinyCorpus
        To train on.
    steps : int
        Of the optimizer.
    report : Report
        Gets the figures and the plot.
    """
    recipe = _RECIPES / "pretraining"
    units = corpus.folder / "units"
    output = corpus.folder / "training"
    start = _ROOT / "spiritlm_plugin/pretrained/tinyspeech/language_model"
    each = max(steps // _EPOCHS, 1)
    _run(
        recipe / "tokenize_corpus.py",
        recipe / "hparams" / "tokenize.yaml",
        f"--manifest_folder={corpus.folder}",
        f"--output_folder={units}",
    )
    _run(
        recipe / "train.py",
        recipe / "hparams" / "expressive.yaml",
        f"--corpus_folders=[{units}]",
        f"--pretrained={start}",
        f"--output_folder={output}",
        "--mode=all",
        f"--number_of_epochs={_EPOCHS}",
        f"--epoch_steps={each}",
        f"--warmup_steps={each}",
        "--valid_steps=1",
        "--step_rows=4",
        "--sample_count=0",
        "--device=cpu",
    )
    losses = read_losses(output / "train_log.txt")
    report.say(
        f"\n## Training\n\n{_EPOCHS * each} steps of the recipe, on a minute of "
        "speech, which the model soon knows by heart:\n"
    )
    report.say("| step | loss, training | loss, validation |\n|---:|---:|---:|")
    for epoch, (train, valid) in enumerate(losses, 1):
        report.say(f"| {epoch * each} | {train:.2f} | {valid:.2f} |")
    path = report.path("loss.png", "the loss of the training")
    plot_losses(losses, each, path)


def read_losses(log: Path) -> list[tuple[float, float]]:
    """Return the losses in training and validation of each epoch."""
    found = re.findall(
        r"train loss: ([\d.e+-]+).*?valid loss: ([\d.e+-]+)",
        log.read_text(encoding="utf-8"),
    )
    return [(float(train), float(valid)) for train, valid in found]


def plot_losses(
    losses: list[tuple[float, float]], steps: int, path: Path
) -> None:
    """Draw losses that were written every so many steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axis = figure.subplots()
    places = [steps * (i + 1) for i in range(len(losses))]
    for label, values in zip(("training", "validation"), zip(*losses)):
        axis.plot(places, values, marker="o", label=label)
    axis.set(xlabel="step", ylabel="loss, nats a token")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=120)


def _run(script: Path, *arguments: str | Path) -> None:
    """Run a script of the recipes."""
    command = [sys.executable, str(script), *map(str, arguments)]
    subprocess.run(command, check=True)
