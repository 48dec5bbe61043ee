"""One `Tokenizer` over a standard `tokenizer.json`, trained here or taken over with its ids.

The saved folder opens in `tokenizers` and `transformers` as it is and gives the same ids there. Special tokens' strings
are tokens in prompts and plain text in documents; streamed text never shows half a character.
"""

from fangcun.tokenizer.build import build_tokenizer, tokenizer_fingerprint, tokenizer_settings
from fangcun.tokenizer.convert import ImportedTokenizer, import_tokenizer
from fangcun.tokenizer.core import Tokenizer
from fangcun.tokenizer.stream import StreamDecoder
from fangcun.tokenizer.train import train_bpe, train_char
from fangcun.tokenizer.trim import Trimmed, compare_tokens, count_tokens, trim_tokenizer

__all__ = [
    "ImportedTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "Trimmed",
    "build_tokenizer",
    "compare_tokens",
    "count_tokens",
    "import_tokenizer",
    "tokenizer_fingerprint",
    "tokenizer_settings",
    "train_bpe",
    "train_char",
    "trim_tokenizer",
]
