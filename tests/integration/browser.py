"""A server in a thread, and a browser that talks to it."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from contextlib import contextmanager

import uvicorn

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "google-chrome"))), None
)


@contextmanager
def running(app):
    """Serve an app in a thread; give its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def launch(playwright, microphone):
    """Start Chromium, whose microphone hears a WAV file again and again."""
    return playwright.chromium.launch(
        executable_path=CHROMIUM,
        args=[
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={microphone}",
        ],
    )
