"""The command line: a verb, its input, then settings as `--section.key value`.

Help and completion come from cyclopts over the recipe's dataclasses; settings themselves go through the recipe's own loader,
so that a flag and a line of YAML are read by the same rules. Nothing heavy is imported before a verb needs it.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO, cast

from fangcun.errors import ConfigError, FangcunError, LostRankError

if TYPE_CHECKING:
    from cyclopts import App

RECIPE_VERBS = ("run", "demo", "corpus", "tokenizer", "pack", "pretrain")
_HELP = {"--help", "-h"}
_SECONDS_FOR_THE_FIRST_RANK = 5.0
_DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_BUGS = {errno.EBADF, errno.EINVAL, errno.EFAULT}
_HINTS = {
    errno.ENAMETOOLONG: "A name may have about 255 bytes, which is some 85 hanzi. Expected the path of a file or a folder.",
    errno.ENOTDIR: "A part of this path is a file where a folder is needed. Choose another path.",
    errno.EIO: "The disk or the network behind it fails.",
    errno.EMFILE: "Too many files are open at once; raise the limit: ulimit -n 4096.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; 0 is success, 2 a mistake in the command, 130 Ctrl-C."""
    _speak_utf8()
    warnings.showwarning = _show_warning
    tokens = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(tokens)
        sys.stdout.flush()
        return code
    except FangcunError as error:
        return _fail(str(error), error.exit_code, at_once=isinstance(error, LostRankError))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) went away: no complaint, not even from the interpreter's last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        sentence = _os_sentence(error)
        if sentence is None:
            raise
        return _fail(sentence, 1)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        return _fail(_memory_sentence(tokens), 1)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning meant for people is one line; those of libraries about themselves are for developers."""
    if category is UserWarning:
        print(f"warning: {message}", file=sys.stderr)


def _dispatch(tokens: list[str]) -> int:
    verb = tokens[0] if tokens else ""
    if verb == "tokenizer" and tokens[1:2] in (["trim"], ["report"]):
        from fangcun.cli_tokenizer import build_tokenizer_app

        return _run_app(tokens[1:], build_tokenizer_app())
    if verb in RECIPE_VERBS and not _HELP & set(tokens):
        return _run_recipe(verb, tokens[1:])
    if verb == "launch" and not _HELP & set(tokens):
        from fangcun.cli_verbs import launch

        return launch(tokens[1:])
    return _run_app(tokens)


def _run_recipe(verb: str, tokens: list[str]) -> int:
    """`fangcun run RECIPE [--section.key value …]` and the verbs of single stages."""
    if verb == "pack" and "--adopt" in tokens:
        from fangcun.cli_verbs import adopt

        return adopt(tokens)
    if verb == "corpus" and tokens[:1] in (["show"], ["report"]):
        from fangcun import cli_corpus

        return getattr(cli_corpus, tokens[0])(tokens[1:])
    yes, tokens = take_yes(tokens)
    if verb == "demo":
        source = "demo"
    elif tokens and not tokens[0].startswith("-"):
        source, tokens = tokens[0], tokens[1:]
    else:
        from fangcun.config import recipe_names

        names = ", ".join(recipe_names())
        raise ConfigError(
            f"fangcun {verb} needs a recipe first: fangcun {verb} RECIPE [--section.key value …]. A YAML file, or one of {names}."
        )
    from fangcun.config import load_recipe

    loaded = load_recipe(source, tokens)
    from fangcun import pipeline

    return pipeline.run(loaded, verb=cast("pipeline.Verb", verb), yes=yes)


def take_yes(tokens: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether `--yes` is among the words, and the others: it belongs to the command, not to the recipe. Raises ConfigError."""
    rest: list[str] = []
    for number, token in enumerate(tokens):
        if token.startswith("--yes="):
            raise ConfigError(f"--yes: takes no value, got '{token.partition('=')[2]}'.")
        behind = number > 1 and tokens[number - 1] == "--yes"
        if behind and not token.startswith("--"):
            raise ConfigError(f"--yes: takes no value, got '{token}'.")
        if token != "--yes":
            rest.append(token)
    return len(rest) < len(tokens), rest


def _run_app(tokens: list[str], app: App | None = None) -> int:
    from cyclopts import CycloptsError

    from fangcun.cli_app import build_app

    try:
        result = (app or build_app())(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int, *, at_once: bool = False) -> int:
    rank = os.environ.get("RANK", "0")
    if rank != "0":
        # What the first rank says too is said once: torchrun ends the others when it has failed. At a loss one a machine
        # speaks, and the second, in case that the first was lost.
        if not at_once or os.environ.get("LOCAL_RANK", "0") not in ("0", "1"):
            time.sleep(_SECONDS_FOR_THE_FIRST_RANK)
        message = f"[rank {rank}] {message}"
    print(f"error: {message}", file=sys.stderr)
    return code


def _os_sentence(error: OSError) -> str | None:
    """A sentence for what users can mend about their disk; None for anything else."""
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in _DISK_FULL:
        return f"no space left{where}. Nothing that was complete is lost; free some space, or choose another folder with --out."
    if error.errno in _FORBIDDEN:
        return f"no permission{where} ({error.strerror}). Choose a folder you may write to with --out, or mend the permissions."
    if error.errno is None or (error.errno in _BUGS and not error.filename):
        return None
    hint = _HINTS.get(error.errno, "Check the path, or choose another folder with --out.")
    return f"{error.filename or 'the disk'}: {error.strerror}. {hint}"


def _is_out_of_memory(error: BaseException) -> bool:
    """Known by name, so that a command that needs no torch does not import it to fail."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "not enough memory", "out of memory"))


def _memory_sentence(tokens: list[str]) -> str:
    if tokens[:1] == ["generate"]:
        return "out of memory: try --dtype bfloat16, a smaller model, or --device cpu."
    if tokens[:1] and tokens[0] in ("corpus", "tokenizer", "pack"):
        return "out of memory: lower --tokens.workers or --tokenizer.sample_bytes, or close other programs."
    return (
        "out of memory: lower --train.micro_batch_size (the result is the same, only slower), or --model.block_size. "
        "What was saved is kept."
    )


def _speak_utf8() -> None:
    """Chinese on every terminal: Windows and minimal locales would otherwise stop at the first hanzi."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
        if reconfigure is not None and isinstance(stream, io.TextIOWrapper):
            reconfigure(encoding="utf-8", errors="replace")
