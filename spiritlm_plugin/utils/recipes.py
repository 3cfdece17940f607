"""A recipe's command line, and how its processes begin and end."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
import torch.distributed as dist
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.distributed import ddp_init_group, if_main_process
from speechbrain.utils.seed import seed_everything

from spiritlm_plugin.utils.configuration import (
    Settings,
    check_arguments,
    check_configuration,
    parse_overrides,
)
from spiritlm_plugin.utils.environment import describe_environment
from spiritlm_plugin.utils.files import write_file

# Stands for an equals sign inside a value; of Unicode's private use.
_EQUALS = "\ue000"


def load_recipe(
    arguments: Sequence[str], schema: type[Settings]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a recipe's command line as all SpeechBrain recipes do.

    Checks the configuration, joins the other processes under ``torchrun``,
    sets the seed and makes the experiment's folder.

    Arguments
    ---------
    arguments : sequence of str
        The YAML file, run options such as ``--debug`` and overrides.
    schema : type
        What the recipe reads of the file; see `Settings`.

    Returns
    -------
    hparams : dict
        The loaded YAML.
    run_opts : dict
        For the Brain.

    Raises
    ------
    FileNotFoundError, ConfigurationError
        As of `check_configuration`, before anything is built.
    """
    arguments = list(arguments)
    check_arguments(arguments)
    if not torch.cuda.is_available():
        arguments.append("--distributed_backend=gloo")
    hparams_file, run_opts, text = sb.parse_arguments(
        [_hide_equals(argument) for argument in arguments]
    )
    text = text.replace(_EQUALS, "=")
    overrides = parse_overrides(text)
    values = check_configuration(hparams_file, overrides, schema)
    if not dist.is_initialized():  # by a recipe that runs this one
        ddp_init_group(run_opts)
    # Weights are drawn when the YAML is loaded.
    seed_everything(values["seed"], verbose=False)
    with open(hparams_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    folder = hparams["output_folder"]
    sb.create_experiment_directory(
        folder, hparams_file, text, save_env_desc=False
    )
    if if_main_process():
        write_file(Path(folder) / "env.log", describe_environment())
        if os.path.isfile(sys.argv[0]):
            shutil.copy(sys.argv[0], folder)
    return hparams, run_opts


def _hide_equals(argument: str) -> str:
    """Keep SpeechBrain from dividing a value at its equals signs."""
    name, equals, value = argument.partition("=")
    if not name.startswith("--"):
        return argument.replace("=", _EQUALS)
    return name + equals + value.replace("=", _EQUALS)


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
