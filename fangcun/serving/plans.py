"""From the body of a request to what the engine is asked: prompts as ids, settings, limits kept or refused with numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fangcun.generation import LanguageModel, Request, SamplingSettings, TokenScore
from fangcun.serving.errors import ApiError
from fangcun.serving.schema import Call, ChatCall, CompletionCall, Message
from fangcun.serving.settings import ServerSettings
from fangcun.tokenizer.chat_template import render_chat, turn_end_id

COMPLETION_TOKENS = 16
"""max_tokens of a completion that names none, as in OpenAI's API. An answer of a chat takes what the context has left."""
MAX_STOP_STRINGS = 64
MAX_SCORES = 1 << 20
"""Log-probabilities of one answer, which is held in memory until it is sent: about 100 MB."""
DEFAULTS = SamplingSettings(no_repeat_ngram=12)
"""What a request gets that does not say how to draw."""


@dataclass(frozen=True)
class Plan:
    """One HTTP request: a Request for each prompt, and what the answer shows of them."""

    requests: tuple[Request, ...]
    n: int
    echo: tuple[str, ...] | None = None
    """The prompts' text, where the answer begins with it."""
    end: TokenScore | None = None
    """Stands, unscored, for the end of a document that was drawn, where the prompt is scored: who reads scores by place
    (lm-eval takes all but the last token) counts on one token for each that was written."""
    only_scores: bool = False
    """max_tokens is 0: the one token that the engine has to write for the prompt's scores is not shown."""


def plan_completion(call: CompletionCall, lm: LanguageModel, limits: ServerSettings) -> Plan:
    """Raises ApiError 400, which names the key."""
    prompts = _prompts_of(call)
    _check_samples(len(prompts), call.n or 1, limits)
    wanted = COMPLETION_TOKENS if call.max_tokens is None else call.max_tokens
    if call.echo and call.truncate_prompt_tokens is not None:
        raise ApiError(
            400, "truncate_prompt_tokens goes not together with echo, which gives the whole prompt back. Leave one of them out.", param="truncate_prompt_tokens"
        )  # fmt: skip
    scored = bool(call.echo) and call.logprobs is not None
    only_scores = scored and wanted == 0
    requests, texts = [], []
    for number, prompt in enumerate(prompts):
        ids = lm.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        if call.truncate_prompt_tokens is not None:
            ids = ids[-call.truncate_prompt_tokens :]
        _check_length(len(ids), lm, "prompt")
        if call.echo:
            texts.append(prompt if isinstance(prompt, str) else lm.tokenizer.decode(ids, skip_special_tokens=False))
        requests.append(
            Request(
                tuple(ids),
                sampling_of(call),
                1 if only_scores else _checked_tokens(wanted, limits),
                None if call.seed is None else call.seed + number,
                _stop_of(call),
                n=call.n or 1,
                logprobs=call.logprobs,
                prompt_logprobs=scored,
            )
        )
    end = TokenScore(lm.tokenizer.eos_id, lm.tokenizer.eos_token, None) if scored else None
    return _checked(Plan(tuple(requests), call.n or 1, tuple(texts) if call.echo else None, end, only_scores))


def plan_chat(call: ChatCall, lm: LanguageModel, limits: ServerSettings) -> Plan:
    """Raises ApiError 400, which names the key, or FangcunError where the template refuses the messages."""
    if lm.tokenizer.chat_template is None:
        raise ApiError(
            400, "This model has no chat template: it continues texts, and was not made for conversations. Use /v1/completions.", param="messages", code="no_chat_template"
        )  # fmt: skip
    if call.max_tokens is not None and call.max_completion_tokens not in (None, call.max_tokens):
        raise ApiError(
            400, "max_tokens and max_completion_tokens differ: they mean the same. Give one of them.", param="max_tokens"
        )  # fmt: skip
    if call.top_logprobs is not None and not call.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs to be true.", param="top_logprobs")
    _check_samples(1, call.n or 1, limits)
    ids = lm.tokenizer.encode(render_chat(lm.tokenizer, [_message(m) for m in call.messages]))
    _check_length(len(ids), lm, "messages")
    wanted = call.max_completion_tokens if call.max_tokens is None else call.max_tokens
    left = max(1, min(lm.config.block_size - len(ids), limits.max_new_tokens))
    end = turn_end_id(lm.tokenizer)
    request = Request(
        tuple(ids),
        sampling_of(call),
        left if wanted is None else _checked_tokens(wanted, limits),
        call.seed,
        _stop_of(call),
        () if end is None else (end,),
        n=call.n or 1,
        logprobs=(call.top_logprobs or 0) if call.logprobs else None,
    )
    return _checked(Plan((request,), call.n or 1))


def sampling_of(call: Call) -> SamplingSettings:
    """How tokens are drawn: what the call says, and DEFAULTS for the rest. top_k 0 is all tokens."""
    given = {
        name: getattr(call, name)
        for name in (
            "temperature", "top_p", "min_p", "top_k", "repetition_penalty", "no_repeat_ngram", "frequency_penalty", "presence_penalty",
        )
        if getattr(call, name) is not None
    }  # fmt: skip
    if given.get("top_k") == 0:
        given["top_k"] = None
    return replace(DEFAULTS, **given)


def _prompts_of(call: CompletionCall) -> list[str] | list[list[int]]:
    prompt = call.prompt
    if prompt is None:
        return [""]
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise ApiError(
            400, "prompt is an empty list. Give a text; an empty text begins a new document.", param="prompt"
        )
    return [prompt] if isinstance(prompt[0], int) else prompt  # type: ignore[list-item, return-value]


def _message(message: Message) -> dict[str, str]:
    """As templates know it: a developer is the system, parts of text stand on lines of their own."""
    content = message.content if isinstance(message.content, str) else "\n".join(p.text for p in message.content)
    said = {"role": "system" if message.role == "developer" else message.role, "content": content}
    return said if message.name is None else {**said, "name": message.name}


def _stop_of(call: Call) -> tuple[str, ...]:
    stop = (call.stop,) if isinstance(call.stop, str) else tuple(call.stop or ())
    if len(stop) > MAX_STOP_STRINGS:
        raise ApiError(400, f"stop has {len(stop)} strings, at most {MAX_STOP_STRINGS} are taken.", param="stop")
    if "" in stop:
        raise ApiError(400, "stop holds an empty string, expected at least one character.", param="stop")
    return stop


def _checked_tokens(wanted: int, limits: ServerSettings) -> int:
    if wanted > limits.max_new_tokens:
        raise ApiError(
            400, f"max_tokens is {wanted:,}, this server writes at most {limits.max_new_tokens:,} a sample (--max-new-tokens).", param="max_tokens", code="max_tokens_exceeded"
        )  # fmt: skip
    return wanted


def _check_samples(prompts: int, n: int, limits: ServerSettings) -> None:
    if prompts * n > limits.max_samples:
        raise ApiError(
            400, f"{prompts:,} prompts with n = {n} are {prompts * n:,} samples, this server writes at most {limits.max_samples:,} a request. Send several.", param="n"
        )  # fmt: skip


def _check_length(length: int, lm: LanguageModel, param: str) -> None:
    if length > lm.config.block_size:
        raise ApiError(
            400, f"The prompt has {length:,} tokens, the model reads at most {lm.config.block_size:,}. Shorten it.", param=param, code="context_length_exceeded"
        )  # fmt: skip


def _checked(plan: Plan) -> Plan:
    """The plan, where what it asks for can be held."""
    scores = 0
    for request in plan.requests:
        if request.logprobs is not None:
            length = request.max_new_tokens + (len(request.prompt_ids) if request.prompt_logprobs else 0)
            scores += request.n * length * (1 + request.logprobs)
    if scores > MAX_SCORES:
        raise ApiError(
            400, f"That would be up to {scores:,} log-probabilities, at most {MAX_SCORES:,} are told in one answer. Ask for fewer tokens, samples or alternatives.", param="logprobs"
        )  # fmt: skip
    return plan
