"""Writing with a trained model: `load` a run, a checkpoint or a Hugging Face folder, then `generate` or `stream`; many
requests at once with an `Engine`.

The same text for the same seed, greedy text equal to that of transformers, and nothing shown that has to be taken back.
"""

from fangcun.generation.engine import Engine, Ticket
from fangcun.generation.ids import generate_ids, stream_ids
from fangcun.generation.language_model import LanguageModel, load
from fangcun.generation.requests import Finished, Piece, QueueFullError, Request, TokenScore
from fangcun.generation.sampling import SamplingSettings, sample
from fangcun.generation.stopping import StopStrings

__all__ = [
    "Engine",
    "Finished",
    "LanguageModel",
    "Piece",
    "QueueFullError",
    "Request",
    "SamplingSettings",
    "StopStrings",
    "Ticket",
    "TokenScore",
    "generate_ids",
    "load",
    "sample",
    "stream_ids",
]
