"""``spiritlm-serve``: serve a model."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI

from spiritlm_plugin.inference.spiritlm import SpiritLM
from spiritlm_plugin.pretrained.folders import local_folder
from spiritlm_plugin.serving.app import create_app
from spiritlm_plugin.serving.metrics import SHARED_VARIABLE
from spiritlm_plugin.serving.settings import Settings
from spiritlm_plugin.utils.arguments import whole_number
from spiritlm_plugin.utils.files import read_text

KEY_VARIABLE = "SPIRITLM_API_KEY"
# Tells the processes of a server what to serve.
_OPTIONS = "SPIRITLM_SERVE_OPTIONS"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Of a message of a WebSocket, and how many of them wait to be taken.
_MESSAGE_BYTES = 2**20
_MESSAGES = 4
_LOADING_SECONDS = 120
_VARIANTS = {"expressive": "hyperparams.yaml", "base": "hyperparams_base.yaml"}
_LIMITS = [
    f
    for f in fields(Settings)
    if f.name not in ("key", "origins", "hosts", "language")
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a model until the process is stopped."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        whole_number("workers", options.workers)
        if not 0 <= options.port < 2**16:
            raise ValueError(f"port must be below 65536, got {options.port}")
        settings = settings_of(options)
        find_models(options)
    except (FileNotFoundError, OSError, TypeError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if options.host not in _LOOPBACK and settings.key is None:
        parser.exit(
            1,
            f"{parser.prog}: whoever reaches {options.host} could use this "
            f"server: set {KEY_VARIABLE}, or name a file with --key_file\n",
        )
    os.environ[_OPTIONS] = json.dumps(vars(options))
    with TemporaryDirectory() as folder:
        if options.workers > 1:
            os.environ.setdefault(SHARED_VARIABLE, folder)
        _run(options)


def _run(options: argparse.Namespace) -> None:
    uvicorn.run(
        "spiritlm_plugin.serving.command:application",
        factory=True,
        host=options.host,
        port=options.port,
        workers=options.workers,
        log_level=options.log_level,
        http="h11",  # which has a limit for headers
        ws_max_size=_MESSAGE_BYTES,
        ws_max_queue=_MESSAGES,
        # A client's pong waits behind the samples that it has sent; who is gone
        # is found by `--idle_seconds`.
        ws_ping_timeout=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        # A model that is loaded can keep a process from answering its parent.
        timeout_worker_healthcheck=_LOADING_SECONDS,
    )


def application() -> FastAPI:
    """Return what one process of the server runs."""
    options = argparse.Namespace(**json.loads(os.environ[_OPTIONS]))
    logging.basicConfig(level=options.log_level.upper())
    if options.threads:
        torch.set_num_threads(options.threads)
    models = {
        name: partial(_settled, load)
        for name, load in find_models(options).items()
    }
    return create_app(models, settings_of(options))


def _settled(load: Callable[[], SpiritLM]) -> SpiritLM:
    """Load a model, which Python then looks through no more for garbage.

    What requests leave is little beside it, and would be kept for long.
    """
    lm = load()
    gc.collect()
    gc.freeze()
    return lm


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings of a command.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        If the file of the key is missing or empty, or a limit is none.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip() or None
    if options.key_file:
        key = read_text(options.key_file).strip()
        if not key:
            raise ValueError(f"{options.key_file} is empty; write a key")
    hosts = {*options.allowed_host, options.host, *_LOOPBACK}
    everywhere = options.host in ("0.0.0.0", "::")
    return Settings(
        key=key,
        origins=tuple(options.origin),
        hosts=()
        if everywhere and not options.allowed_host
        else tuple(sorted(hosts)),
        language=options.language,
        **{f.name: getattr(options, f.name) for f in _LIMITS},
    )


def find_models(
    options: argparse.Namespace,
) -> dict[str, Callable[[], SpiritLM]]:
    """Return functions that load the models of a command, by their names.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it lacks the variant.
    """
    settings: dict[str, Any] = {
        "run_opts": _run_opts(options),
        "engine": options.engine,
    }
    if options.release:
        chosen = _chosen(options.variant, tuple(_VARIANTS))
        return {
            variant: partial(
                SpiritLM.from_release,
                options.folder,
                variant,
                options.dtype or "auto",
                **settings,
            )
            for variant in chosen
        }
    folder = local_folder(options.folder)
    there = [v for v, name in _VARIANTS.items() if (folder / name).is_file()]
    if options.dtype:
        settings["overrides"] = {"language_model_dtype": options.dtype}
    return {
        _name(variant, there, folder): partial(
            SpiritLM.from_hparams, folder, _VARIANTS[variant], **settings
        )
        for variant in _chosen(options.variant, tuple(there))
    }


def _name(variant: str, there: Sequence[str], folder: Path) -> str:
    """Return the name of a model: its variant, or that of its folder."""
    return variant if len(there) > 1 else folder.name


def _chosen(variant: str | None, there: tuple[str, ...]) -> tuple[str, ...]:
    if variant is None:
        return there
    if variant not in there:
        raise ValueError(
            f"the folder has no {variant} model, but {', '.join(there)}"
        )
    return (variant,)


def _run_opts(options: argparse.Namespace) -> dict[str, Any]:
    run_opts: dict[str, Any] = {}
    if options.device:
        run_opts["device"] = options.device
    if options.quantize:
        run_opts["quantize"] = {"language_model": options.quantize}
    return run_opts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "spiritlm-serve",
        description="Serve a model: OpenAI's forms for transcribing, reading "
        "aloud and chat, a WebSocket for conversations, and a page.",
        epilog=f"Clients need a key where the environment variable "
        f"{KEY_VARIABLE} or --key_file has one.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        default="tinyspeech",
        help="the model: a folder, a repository of the Hub, or the name of "
        "the one that ships (default: %(default)s)",
    )
    parser.add_argument(
        "--release",
        action="store_true",
        help="the folder is Meta's, as downloaded",
    )
    parser.add_argument(
        "--variant",
        choices=[*_VARIANTS],
        help="serve this one alone; all that the folder has by default",
    )
    parser.add_argument("--host", default="127.0.0.1", help="%(default)s")
    parser.add_argument("--port", type=int, default=8000, help="%(default)s")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        help="processes, each with models of its own",
    )
    parser.add_argument("--device", help="such as cuda or cpu")
    parser.add_argument("--dtype", help="of the language model: float32, ...")
    parser.add_argument("--quantize", help="the language model: int8, ...")
    parser.add_argument(
        "--engine", default="transformers", help="transformers or vllm"
    )
    parser.add_argument(
        "--threads", type=int, help="of a process, for computing on a CPU"
    )
    parser.add_argument("--key_file", help="a file with the API key")
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        help="of pages elsewhere that may use it, as https://example.org",
    )
    parser.add_argument(
        "--allowed_host",
        action="append",
        default=[],
        help="another name that this server is called by",
    )
    parser.add_argument(
        "--language", default="en", help="that the models know (%(default)s)"
    )
    parser.add_argument(
        "--log_level",
        default="info",
        choices=["critical", "error", "warning", "info", "debug"],
    )
    limits = parser.add_argument_group("limits")
    for limit in _LIMITS:
        limits.add_argument(
            f"--{limit.name}",
            type=type(limit.default),
            default=limit.default,
            help="%(default)s",
        )
    return parser


if __name__ == "__main__":
    main()
