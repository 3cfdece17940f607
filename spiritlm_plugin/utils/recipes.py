"""A recipe's command line, and how its processes begin and end."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import speechbrain as sb
import torch
import torch.distributed as dist
import yaml
from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.utils.distributed import ddp_init_group, if_main_process
from speechbrain.utils.seed import seed_everything


def load_recipe(
    arguments: Sequence[str],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a recipe's command line as all SpeechBrain recipes do.

    Joins the other processes under ``torchrun``, sets the seed and makes the
    experiment's folder.

    Arguments
    ---------
    arguments : sequence of str
        The YAML file, run options such as ``--debug`` and overrides.

    Returns
    -------
    hparams : dict
        The loaded YAML.
    run_opts : dict
        For the Brain.
    """
    arguments = list(arguments)
    if not torch.cuda.is_available():
        arguments.append("--distributed_backend=gloo")
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
    if not dist.is_initialized():  # by a recipe that runs this one
        ddp_init_group(run_opts)
    with open(hparams_file, encoding="utf-8") as file:
        # Weights are drawn when the YAML is loaded.
        seed_everything(_read_seed(file, overrides), verbose=False)
        file.seek(0)
        hparams = load_hyperpyyaml(file, overrides)
    folder = hparams["output_folder"]
    sb.create_experiment_directory(folder, hparams_file, overrides)
    script = sys.argv[0]
    if if_main_process() and os.path.isfile(script):
        shutil.copy(script, folder)
    return hparams, run_opts


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run a recipe's main function with the command line.

    Under ``torchrun`` the processes leave together, when all are done, and
    without tearing the interpreter down: threads of gloo may abort a process
    that does, and torchrun then stops the others, which may still be saving.

    Arguments
    ---------
    main : callable
        Of the recipe.
    """
    main(sys.argv[1:])
    if dist.is_initialized():
        dist.barrier()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _read_seed(file: TextIO, overrides: str) -> int:
    for key, value in yaml.compose(resolve_references(file, overrides)).value:
        if key.value == "seed" and value.value.isdecimal():
            return int(value.value)
    raise ValueError(
        f"{file.name} has no seed; add a line such as `seed: 1986`, or name "
        "a number with --seed"
    )
