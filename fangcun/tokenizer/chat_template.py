"""Messages to a prompt, through the Jinja template that lies beside the tokenizer, rendered as transformers renders it.

The template is of the checkpoint, never of a request, and runs in Jinja's sandbox: it reaches neither files nor objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from fangcun.errors import FangcunError
from fangcun.tokenizer.core import Tokenizer
from fangcun.tokenizer.hf_folder import NAMED_TOKENS


def render_chat(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
) -> str:
    """The prompt for `messages` (each with role and content); encode it with special tokens.

    Raises FangcunError when there is no template, or when the template refuses the messages.
    """
    source = tokenizer.chat_template
    if source is None:
        raise FangcunError("This model has no chat template: it continues texts, and was not made for conversations.")
    from jinja2.exceptions import TemplateError

    named = {key: tokenizer.config[key] for key in NAMED_TOKENS if isinstance(tokenizer.config.get(key), str)}
    try:
        return compile_template(source).render(
            messages=[dict(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **named,
        )
    except TemplateError as error:
        raise FangcunError(f"The model's chat template refuses these messages: {error}.") from error
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise FangcunError(f"The model's chat template fails at these messages: {error}.") from error


@lru_cache(maxsize=8)
def compile_template(source: str) -> Any:
    """The Jinja template with what transformers' environment has. Raises FangcunError for a broken one."""
    try:
        import jinja2
        import jinja2.ext
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise FangcunError("Chat needs the package jinja2: pip install jinja2.") from error

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks the assistant's words for training masks; for a prompt it is what stands in it."""

        tags = {"generation"}  # noqa: RUF012  (Jinja's own protocol)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    known: dict[str, Any] = environment.globals
    known.update(raise_exception=_raise, strftime_now=lambda form: datetime.now().strftime(form))
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise FangcunError(f"The model's chat template is broken: {error}. Correct chat_template beside its tokenizer.") from error  # fmt: skip


def turn_end_id(tokenizer: Tokenizer) -> int | None:
    """Id of the special token that the template writes behind an answer, such as `<|im_end|>`; None where it writes none."""
    if tokenizer.chat_template is None:
        return None
    mark = "0123456789"
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}]
    try:
        text = render_chat(tokenizer, messages, add_generation_prompt=False)
    except FangcunError:
        return None
    _, found, behind = text.rpartition(mark)
    ids = tokenizer.encode(behind) if found else []
    return next((index for index in ids if index in tokenizer.special_ids), None)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    from jinja2.exceptions import TemplateError

    raise TemplateError(message)
