"""A trained model behind the API that people already call: OpenAI's completions and chat, streamed and not.

Every knob of a request has its effect or is refused by name; every error has OpenAI's shape; a client that goes away
frees the engine. Needs the extra `serve` (fastapi, uvicorn, prometheus-client).
"""

from fangcun.serving.app import create_app
from fangcun.serving.server import serve, start_in_thread
from fangcun.serving.settings import ServerSettings

__all__ = ["ServerSettings", "create_app", "serve", "start_in_thread"]
