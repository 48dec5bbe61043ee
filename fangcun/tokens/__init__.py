"""Token shards: a corpus as ids on disk, and the order in which training reads them.

Flat little-endian files that any tool can open; each token but the first is a target exactly once an epoch; the data
position of a run is one number, and the same batches come at every world size.
"""

from fangcun.tokens.adopt import adopt
from fangcun.tokens.format import ShardWriter, TokenSplit, choose_dtype, open_split, tokens_manifest
from fangcun.tokens.loader import MASKED, Batches, fetch_windows, fixed_windows
from fangcun.tokens.mixture import MixedOrder, Phase, quotas
from fangcun.tokens.order import Window, WindowOrder
from fangcun.tokens.pack import check_tokenizer, pack, tokens_fingerprint
from fangcun.tokens.remote import RemoteTokens
from fangcun.tokens.store import RemoteFolder
from fangcun.tokens.transfer import fetch_artifact, remote_manifest, upload_artifact

__all__ = [
    "MASKED",
    "Batches",
    "MixedOrder",
    "Phase",
    "RemoteFolder",
    "RemoteTokens",
    "ShardWriter",
    "TokenSplit",
    "Window",
    "WindowOrder",
    "adopt",
    "check_tokenizer",
    "choose_dtype",
    "fetch_artifact",
    "fetch_windows",
    "fixed_windows",
    "open_split",
    "pack",
    "quotas",
    "remote_manifest",
    "tokens_fingerprint",
    "tokens_manifest",
    "upload_artifact",
]
