"""Promises of the command line: quick help without torch, one sentence per mistake, words handed on as they were typed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fangcun import __version__, cli
from fangcun.errors import ConfigError, FangcunError

VERBS = {
    "chat",
    "evaluate",
    "export",
    "verify",
    "serve",
    "import",
    "run",
    "demo",
    "corpus",
    "tokenizer",
    "pack",
    "pretrain",
    "generate",
    "recipes",
    "download",
    "launch",
}


def fangcun(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fangcun", *words]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", env=os.environ | environment, timeout=120, check=False
    )


class Pipeline:
    """Stands where `fangcun.pipeline` would be imported, and notes what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, outcome: int | BaseException = 0) -> None:
        self.calls: list[tuple[Any, str]] = []
        self.yes: list[bool] = []
        self.outcome = outcome
        module = types.ModuleType("fangcun.pipeline")
        module.run = self.run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "fangcun.pipeline", module)
        monkeypatch.setattr("fangcun.pipeline", module, raising=False)

    def run(self, loaded: Any, *, verb: str, yes: bool) -> int:
        self.calls.append((loaded, verb))
        self.yes.append(yes)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    "words",
    [["--help"], ["run", "--help"], ["generate", "--help"], ["launch", "slurm", "--help"], ["recipes"], ["--version"]],
)
def test_help_and_lists_import_no_torch(words: list[str]) -> None:
    code = f"import sys; from fangcun.cli import main; main({words!r}); sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'tokenizers')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_help_shows_the_working_verbs_and_nothing_else_without_any_word() -> None:
    shown = fangcun().stdout
    assert shown == fangcun("--help").stdout
    words = {line.split()[1] for line in shown.splitlines() if line.startswith("│ ") and not line.startswith("│  ")}
    assert {word for word in words if not word.startswith("-")} == VERBS
    assert {"--help", "--version", "--install-completion"} <= words


def test_help_of_run_lists_every_setting_with_its_docstring() -> None:
    from fangcun.config.keys import recipe_keys

    shown = fangcun("run", "--help", COLUMNS="200").stdout
    assert [name for name in recipe_keys() if f"--{name} " not in shown] == []
    assert "Query heads." in shown and "--text" in shown and "--out" in shown and "--yes" in shown
    assert "[default: 384]" in shown and "bf16-mixed" in shown


def test_version_and_python_dash_m_agree() -> None:
    done = fangcun("--version")
    assert (done.returncode, done.stdout.strip()) == (0, __version__)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["rn"], 'Unknown command "rn". Did you mean "run"?'),
        (["run"], "fangcun run needs a recipe first: fangcun run RECIPE"),
        (["run", "--train.max_steps", "3"], "fangcun run needs a recipe first"),
        (["run", "dmo"], "'dmo' is neither a shipped recipe nor a file. Did you mean 'demo'?"),
        (["run", "gone.yaml"], "gone.yaml: no such recipe file."),
        (["demo", "--train.max_step", "3"], "--train.max_step: unknown setting. Did you mean '--train.max_steps'?"),
        (["demo", "extra"], "'extra': unexpected argument."),
        (["generate"], "requires an argument"),
        (["generate", "x", "--promt", "y"], "Unknown option: --promt. Did you mean --prompt?"),
        (["generate", "x", "--top-k", "many"], "many"),
        (["recipes", "dmo"], "'dmo' is no shipped recipe. Did you mean 'demo'?"),
        (["demo", "--text", "a", "--yes", "b"], "--yes: takes no value, got 'b'."),
        (["demo", "--yes=no"], "--yes: takes no value, got 'no'."),
        (["demo", "--yse"], "--yse: unknown setting."),
        (["pack", "--adopt", "a.bin"], "--tokenizer.path: expected 1 value(s), got 0."),
        (["pack", "--adopt", "a", "b", "c"], "--adopt: expected 1 or 2 value(s), got 3."),
        (
            ["pack", "--adopt", "a", "--tokenizer.path", "t", "--out", "o", "--tokens.dtype", "int8"],
            "--tokens.dtype: expected one of",
        ),
        (["pack", "--adopt", "a", "--train.epochs", "2"], "--train.epochs: not a setting of --adopt."),
    ],
)
def test_a_mistake_is_one_sentence_on_stderr_and_exit_code_2(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ") and expected in shown.err and "Traceback" not in shown.err


@pytest.mark.parametrize("verb", cli.RECIPE_VERBS)
def test_every_recipe_verb_hands_the_loaded_recipe_and_its_name_to_the_pipeline(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(monkeypatch, outcome=7)
    words = [] if verb == "demo" else ["shakespeare-char"]
    assert cli.main([verb, *words, "--text", "a", "b", "--train.max-steps=3", "--out", "here"]) == 7
    [(loaded, given)] = pipeline.calls
    assert given == verb and loaded.name == (words or ["demo"])[0]
    assert (loaded.recipe.corpus.paths, loaded.recipe.train.max_steps, loaded.recipe.out_dir) == (["a", "b"], 3, "here")


@pytest.mark.parametrize("verb", cli.RECIPE_VERBS)
def test_yes_may_stand_anywhere_and_is_no_unless_it_is_said(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(monkeypatch)
    words = [] if verb == "demo" else ["shakespeare-char"]
    for said in (["--yes", *words, "--seed", "3"], [*words, "--seed", "3", "--yes"], [*words, "--yes", "--seed", "3"]):
        assert cli.main([verb, *said]) == 0
    assert cli.main([verb, *words, "--seed", "3"]) == 0
    assert pipeline.yes == [True, True, True, False]
    assert {loaded.recipe.seed for loaded, _ in pipeline.calls} == {3}


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (FangcunError("the corpus is empty."), 1, "error: the corpus is empty.\n"),
        (ConfigError("x: y."), 2, "error: x: y.\n"),
        (KeyboardInterrupt(), 130, ""),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a/tokens"),
            1,
            "error: no space left at runs/a/tokens.",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: no space left."),
        (
            OSError(errno.EACCES, "Permission denied", "runs/a"),
            1,
            "error: no permission at runs/a (Permission denied).",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "runs/a"),
            1,
            "error: no permission at runs/a (Read-only file system).",
        ),
        (
            OSError(errno.ENOTDIR, "Not a directory", "a.txt/run"),
            1,
            "error: a.txt/run: Not a directory. A part of this path is a file",
        ),
        (OSError(errno.EIO, "Input/output error", "runs/a"), 1, "error: runs/a: Input/output error."),
        (OSError(errno.EIO, "Input/output error"), 1, "error: the disk: Input/output error."),
        (OSError(errno.EINVAL, "Invalid argument", "a?b"), 1, "error: a?b: Invalid argument. Check the path"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
    ],
)
def test_what_goes_wrong_outside_ends_with_a_sentence_and_a_code(
    error: BaseException, code: int, expected: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Pipeline(monkeypatch, outcome=error)
    assert cli.main(["demo"]) == code
    shown = capfd.readouterr().err
    assert shown.startswith(expected) and "Traceback" not in shown
    assert bool(shown) == bool(expected)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    for bug in (
        ZeroDivisionError(),
        RuntimeError("shapes cannot be multiplied"),
        OSError(errno.EBADF, "Bad file descriptor"),
    ):
        Pipeline(monkeypatch, outcome=bug)
        with pytest.raises(type(bug)):
            cli.main(["demo"])


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        MemoryError(),
    ],
)
def test_out_of_memory_says_which_setting_to_lower(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Pipeline(monkeypatch, outcome=error)
    assert cli.main(["demo"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: out of memory: lower --train.micro_batch_size") and len(shown.splitlines()) == 1


@pytest.mark.parametrize("verb", ["corpus", "generate"])
def test_out_of_memory_names_no_setting_that_the_verb_does_not_use(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*words: Any, **settings: Any) -> None:
        raise MemoryError

    Pipeline(monkeypatch, outcome=MemoryError())
    monkeypatch.setattr("fangcun.load", fail, raising=False)
    assert cli.main([verb, "demo"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: out of memory: ") and "micro_batch_size" not in shown


def test_a_path_too_long_or_through_a_file_is_one_sentence_with_the_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "novel.txt"
    text.write_text("却说曹操。\n" * 50, encoding="utf-8")
    long = "曹" * 300
    for words, expected in (
        (["--text", long, "--out", str(tmp_path / "a")], long),
        (["--text", str(text), "--out", str(tmp_path / long)], long),
        (["--text", str(text), "--out", str(text / "sub")], str(text / "sub")),
    ):
        assert cli.main(["corpus", "demo", *words]) in (1, 2)
        shown = capsys.readouterr().err
        assert shown.startswith("error: ") and expected in shown and "Traceback" not in shown
        assert len(shown.splitlines()) == 1
    assert text.read_text(encoding="utf-8").startswith("却说")


class Model:
    """Stands for a loaded model, and for the engine on it."""

    asked: Any = None

    def encode_prompt(self, prompt: str) -> tuple[int, ...]:
        return tuple(map(ord, prompt))


class Writer:
    def __init__(self, model: Model, **settings: int) -> None:
        self.model = model

    def stream(self, request: Any) -> Iterator[Any]:
        from fangcun.generation import Finished, Piece

        self.model.asked = request
        yield Piece(0, "曰")
        yield Piece(0, "：")
        yield Finished(0, "stop", 3, 4, 0)


@pytest.mark.parametrize("flags", [[], ["--stream"]])
def test_generate_prints_the_prompt_and_what_follows(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fangcun.generation import Request, SamplingSettings

    model, opened = Model(), {}

    def load(path: str, **how: str) -> Model:
        opened.update(how, path=path)
        return model

    monkeypatch.setattr("fangcun.load", load, raising=False)
    monkeypatch.setattr("fangcun.generation.Engine", Writer)
    words = "--max-new-tokens 9 --temperature 0.5 --top-k 0 --top-p 0.9 --repetition-penalty 1.1 --min-p 0.1 --frequency-penalty 0.2 --presence-penalty 0.3 --no-repeat-ngram 4 --seed 3 --stop 。 ！ --dtype bfloat16 --device cpu"
    assert cli.main(["generate", "runs/mine", "--prompt", "却说曹操", *words.split(), *flags]) == 0
    assert capsys.readouterr().out == "却说曹操曰：\n"
    assert opened == {"path": "runs/mine", "dtype": "bfloat16", "device": "cpu"}
    settings = SamplingSettings(0.5, None, 0.9, 1.1, 0.1, 4, 0.2, 0.3)
    assert model.asked == Request(tuple(map(ord, "却说曹操")), settings, 9, 3, ("。", "！"))


def test_recipes_lists_each_with_a_line_and_prints_one(capsys: pytest.CaptureFixture[str]) -> None:
    from fangcun.config import recipe_names, recipe_text

    assert cli.main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in recipe_names():
        assert any(line.split(maxsplit=1)[0] == name and len(line.split(maxsplit=1)[1]) > 20 for line in lines if line)
    assert cli.main(["recipes", "demo"]) == 0
    assert capsys.readouterr().out == recipe_text("demo")


def test_adopt_takes_files_and_tokenizer_as_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from fangcun import pipeline

    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(pipeline, "adopt_tokens", lambda *given: calls.append(given))
    flags = ["--tokenizer.path", "t", "--out", "o"]
    assert cli.main(["pack", "--adopt", "train.bin", "val.bin", *flags, "--tokens.dtype=uint16"]) == 0
    assert cli.main(["pack", *flags, "--adopt", "train.bin"]) == 0
    assert calls == [
        (Path("train.bin"), Path("val.bin"), "t", Path("o"), "uint16"),
        (Path("train.bin"), None, "t", Path("o"), "auto"),
    ]


def test_hanzi_are_printed_whatever_the_terminal_claims() -> None:
    done = fangcun("--help", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    assert done.returncode == 0 and "方寸" in done.stdout


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m fangcun recipes gpt2-124m | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.stderr == "" and done.returncode in (0, 141)


def test_completion_can_be_installed(tmp_path: Path) -> None:
    done = fangcun("--install-completion", "--shell", "bash", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    scripts = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any("generate" in file.read_text(encoding="utf-8") for file in scripts)
