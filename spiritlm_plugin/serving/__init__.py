"""A server: OpenAI's forms over HTTP, and conversations over a WebSocket."""

from spiritlm_plugin.serving.app import create_app
from spiritlm_plugin.serving.settings import Settings

__all__ = ["Settings", "create_app"]
