"""The JSON of answers, in the shapes of OpenAI's completions and chat: whole, or as chunks of a stream."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fangcun.generation import TokenScore
from fangcun.serving.choices import Update
from fangcun.tokenizer import Tokenizer


class Shape:
    """An answer being written: `whole` gives it at once, `chunk` a part of it."""

    prefix: str
    whole_object: str
    chunk_object: str

    def __init__(self, model: str, fingerprint: str, tokenizer: Tokenizer, scored: int | None) -> None:
        """scored: the number of alternatives that were asked for; None: no log-probabilities."""
        self.tokenizer, self.scored = tokenizer, scored
        self._head = {
            "id": f"{self.prefix}{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def whole(self, updates: Sequence[Update], usage: dict[str, Any]) -> dict[str, Any]:
        """The answer from all updates in their order."""
        texts: dict[int, list[str]] = defaultdict(list)
        tokens: dict[int, list[TokenScore]] = defaultdict(list)
        reasons: dict[int, str | None] = {}
        for update in updates:
            texts[update.index].append(update.text)
            tokens[update.index] += update.tokens
            reasons[update.index] = update.reason
        choices = [self.choice(i, "".join(texts[i]), tokens[i], reasons[i]) for i in sorted(reasons)]
        return {**self._head, "object": self.whole_object, "choices": choices, "usage": usage}

    def chunk(self, choice: dict[str, Any] | None, usage: dict[str, Any] | None, *, counted: bool) -> dict[str, Any]:
        """A part of a stream. counted: the stream ends with usage, so that its other chunks hold a null in its place."""
        body = {**self._head, "object": self.chunk_object, "choices": [] if choice is None else [choice]}
        return {**body, "usage": usage} if counted else body

    def opening(self, index: int) -> dict[str, Any] | None:
        """What a stream says of a choice before its first text."""
        return None

    def choice(self, index: int, text: str, tokens: Sequence[TokenScore], reason: str | None) -> dict[str, Any]:
        """A choice of a whole answer."""
        raise NotImplementedError

    def delta(self, update: Update) -> dict[str, Any]:
        """A choice of a chunk."""
        raise NotImplementedError

    def token_bytes(self, token: TokenScore) -> bytes:
        """What a token stands for: a part of a character, perhaps."""
        if token.id in self.tokenizer.special_ids:
            return (self.tokenizer.backend.id_to_token(token.id) or "").encode()
        pieces = self.tokenizer.pieces(
            [token.id, token.id]
        )  # the second: a space at the start of a text may be dropped
        return pieces[1] if pieces else token.text.encode()

    def token_text(self, token: TokenScore) -> str:
        """The token as text; `bytes:\\xe5\\x8d` for a part of a character, so that no two tokens look the same."""
        raw = self.token_bytes(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class CompletionShape(Shape):
    """/v1/completions."""

    prefix, whole_object, chunk_object = "cmpl-", "text_completion", "text_completion"

    def __init__(self, model: str, fingerprint: str, tokenizer: Tokenizer, scored: int | None) -> None:
        super().__init__(model, fingerprint, tokenizer, scored)
        self._decoders = defaultdict(lambda: tokenizer.stream(skip_special_tokens=False))
        self._offsets: dict[int, int] = defaultdict(int)

    def choice(self, index: int, text: str, tokens: Sequence[TokenScore], reason: str | None) -> dict[str, Any]:
        return {"index": index, "text": text, "logprobs": self._scores(index, tokens), "finish_reason": reason}

    def delta(self, update: Update) -> dict[str, Any]:
        return self.choice(update.index, update.text, update.tokens, update.reason)

    def _scores(self, index: int, tokens: Sequence[TokenScore]) -> dict[str, Any] | None:
        if self.scored is None:
            return None
        offsets = []
        for token in tokens:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(self._decoders[index].push(token.id))
        return {
            "tokens": [self.token_text(token) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [self._best(token) for token in tokens] if self.scored else None,
            "text_offset": offsets,
        }

    def _best(self, token: TokenScore) -> dict[str, float | None] | None:
        """The likeliest tokens, and the one that stands here, if it is none of them."""
        if token.logprob is None:
            return None
        return {self.token_text(other): other.logprob for other in (*token.alternatives, token)}


class ChatShape(Shape):
    """/v1/chat/completions."""

    prefix, whole_object, chunk_object = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def opening(self, index: int) -> dict[str, Any] | None:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def choice(self, index: int, text: str, tokens: Sequence[TokenScore], reason: str | None) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": self._scores(tokens), "finish_reason": reason}

    def delta(self, update: Update) -> dict[str, Any]:
        return {
            "index": update.index,
            "delta": {"content": update.text} if update.text or update.tokens else {},
            "logprobs": self._scores(update.tokens) if update.tokens else None,
            "finish_reason": update.reason,
        }

    def _scores(self, tokens: Sequence[TokenScore]) -> dict[str, Any] | None:
        if self.scored is None:
            return None
        content = [
            {**self._token(token), "top_logprobs": [self._token(other) for other in token.alternatives]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: TokenScore) -> dict[str, Any]:
        return {"token": self.token_text(token), "logprob": token.logprob, "bytes": list(self.token_bytes(token))}
