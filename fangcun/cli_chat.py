"""`fangcun chat`: a conversation in the terminal, or, with a base model, texts that it writes on."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from cyclopts import Parameter

from fangcun.cli_sampling import Sampling, SamplingFlags
from fangcun.errors import FangcunError, did_you_mean

if TYPE_CHECKING:
    from fangcun.generation import Engine, LanguageModel, SamplingSettings

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"]

HELP = """\
  /new            forget what was said
  /again          answer the last message anew
  /set NAME VALUE change temperature, top_k (0: all), top_p, min_p, repetition_penalty, frequency_penalty,
                  presence_penalty, no_repeat_ngram, max_new_tokens or seed (none: a fresh one each time)
  /settings       show them
  /quit           leave (so does Ctrl-D); Ctrl-C ends an answer"""


def chat(
    path: str,
    /,
    *,
    system: str | None = None,
    max_new_tokens: int = 512,
    sampling: Sampling = None,
    seed: int | None = None,
    base: Annotated[bool, Parameter(negative=())] = False,
    dtype: Dtype = "auto",
    device: str = "auto",
) -> int:
    """Talk with a model in the terminal. A base model, which knows no turns, writes on from each line.

    Parameters
    ----------
    path
        A run (its newest complete checkpoint), a checkpoint, or a Hugging Face folder.
    system
        What the model is told before the conversation.
    max_new_tokens
        Tokens of an answer at most.
    seed
        The same seed and the same words give the same answers.
    base
        Write on from each line, whatever the model is.
    dtype
        Arithmetic. auto: bfloat16 where that is fast. int8, int4: weights of so many bits.
    device
        cpu, cuda, cuda:1; auto takes cuda where there is one.
    """
    import fangcun
    from fangcun.generation import Engine

    settings = (sampling or SamplingFlags()).settings()
    lm = fangcun.load(path, dtype=dtype, device=device)
    talks = lm.tokenizer.chat_template is not None and not base
    if system is not None and not talks:
        raise FangcunError("--system: this is a base model, which knows no system message. Leave it out.")
    talk = Talk(lm, Engine(lm, max_batch=1), settings, max_new_tokens, seed, system, talks=talks)
    print("A conversation. " if talks else "A base model: it writes on from what you type. ", end="")
    print("/help lists the commands, Ctrl-D leaves.")
    _with_history()
    return talk.run(_lines())


def _with_history() -> None:
    """Arrow keys and hanzi that can be deleted whole, where the terminal has them."""
    with contextlib.suppress(ImportError):  # Windows has its own
        import readline  # noqa: F401


def _lines() -> Iterator[str]:
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        except KeyboardInterrupt:
            print()
            return


class Talk:
    """What was said, and how to go on."""

    def __init__(
        self,
        lm: LanguageModel,
        engine: Engine,
        settings: SamplingSettings,
        max_new_tokens: int,
        seed: int | None,
        system: str | None,
        *,
        talks: bool,
    ) -> None:
        self.lm, self.engine, self.settings = lm, engine, settings
        self.max_new_tokens, self.seed, self.talks = max_new_tokens, seed, talks
        self.opening = [{"role": "system", "content": system}] if system is not None else []
        self.messages = list(self.opening)
        self.last = ""

    def run(self, lines: Iterator[str]) -> int:
        """Answer each line until they end; returns the exit code."""
        for line in lines:
            word, _, rest = line.strip().partition(" ")
            try:
                if word in ("/quit", "/exit"):
                    return 0
                if word.startswith("/"):
                    self._command(word, rest.strip())
                elif line.strip():
                    self._answer(line)
            except FangcunError as error:
                print(f"error: {error}", file=sys.stderr)
        print()
        return 0

    def _command(self, word: str, rest: str) -> None:
        commands: dict[str, Callable[[], None]] = {
            "/help": lambda: print(HELP),
            "/new": self._forget,
            "/again": self._again,
            "/set": lambda: self._set(*([*rest.split(maxsplit=1), "", ""][:2])),
            "/settings": self._show,
        }
        if word not in commands:
            raise FangcunError(f"{word} is no command.{did_you_mean(word, [*commands, '/quit'])} /help lists them.")
        commands[word]()

    def _forget(self) -> None:
        self.messages, self.last = list(self.opening), ""

    def _again(self) -> None:
        if not self.last:
            raise FangcunError("/again: there is nothing to answer yet.")
        while self.messages and self.messages[-1]["role"] != "user":
            self.messages.pop()
        if self.messages:
            self.messages.pop()
        self._answer(self.last)

    def _show(self) -> None:
        shown = {**dataclasses.asdict(self.settings), "max_new_tokens": self.max_new_tokens, "seed": self.seed}
        print("  " + ", ".join(f"{name} {value}" for name, value in shown.items()))

    def _set(self, name: str, value: str) -> None:
        from fangcun.generation import SamplingSettings

        hints = get_type_hints(SamplingSettings)
        names = [*hints, "max_new_tokens", "seed"]
        if name not in names:
            raise FangcunError(f"/set {name}: no such setting.{did_you_mean(name, names)} They are {', '.join(names)}.")
        whole = name in ("max_new_tokens", "seed") or "int" in str(hints[name])
        try:
            number: Any = None if value.lower() in ("none", "null") else int(value) if whole else float(value)
        except ValueError:
            raise FangcunError(
                f"/set {name} {value}: expected a {'whole ' if whole else ''}number, such as /set {name} {'50' if whole else '0.7'}."
            ) from None
        if name == "seed":
            self.seed = number
        elif name == "max_new_tokens":
            if not isinstance(number, int) or number < 1:
                raise FangcunError(f"/set max_new_tokens {value}: expected a whole number >= 1.")
            self.max_new_tokens = number
        else:
            number = None if name == "top_k" and not number else number
            changed: dict[str, Any] = {**dataclasses.asdict(self.settings), name: number}
            self.settings = SamplingSettings(**changed)

    def _answer(self, line: str) -> None:
        from fangcun.generation import Finished, Piece, Request
        from fangcun.tokenizer.chat_template import render_chat, turn_end_id

        self.last = line
        text, ends = line, ()
        if self.talks:
            self.messages.append({"role": "user", "content": line})
            text = self._fitting(render_chat)
            end = turn_end_id(self.lm.tokenizer)
            ends = () if end is None else (end,)
        ids = tuple(self.lm.tokenizer.encode(text))
        request = Request(ids, self.settings, self.max_new_tokens, self.seed, stop_ids=ends)
        written = ""
        events = self.engine.stream(request)
        try:
            if not self.talks:
                sys.stdout.write(line)
            for event in events:
                if isinstance(event, Piece):
                    written += event.text
                    sys.stdout.write(event.text)
                    sys.stdout.flush()
                elif isinstance(event, Finished) and event.reason == "length":
                    sys.stdout.write(" …")
        except KeyboardInterrupt:
            sys.stdout.write(" (stopped)")
        finally:
            events.close()
        sys.stdout.write("\n")
        if self.talks:
            self.messages.append({"role": "assistant", "content": written})

    def _fitting(self, render: Callable[..., str]) -> str:
        """The conversation as a prompt; its oldest turns are left out where it is longer than the model reads."""
        room = self.lm.config.block_size - min(self.max_new_tokens, self.lm.config.block_size // 2)
        messages, first = self.messages, len(self.opening)
        while True:
            text = render(self.lm.tokenizer, messages)
            if len(self.lm.tokenizer.encode(text)) <= room or len(messages) <= first + 1:
                break
            messages = [*self.opening, *messages[first + 2 :]]
        if len(messages) < len(self.messages):
            print(f"(the first {len(self.messages) - len(messages)} messages no longer fit and are forgotten)")
            self.messages = messages
        return text
