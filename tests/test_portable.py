"""What works on Linux alone stays out of the package: text without an encoding, and system calls without a way round."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fangcun
from fangcun.artifacts import folder
from fangcun.artifacts.folder import sync_file, sync_folder, write_text_atomic

PACKAGE = Path(fangcun.__file__).parent
LINUX_ONLY = {"fork", "forkpty", "set_blocking", "sched_getaffinity", "getuid", "geteuid", "mkfifo", "killpg", "setsid"}
UNIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "pty"}


def calls(tree: ast.AST) -> list[tuple[ast.Call, str]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found.append((node, name))
    return found


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_text_is_read_and_written_with_its_encoding_named(file: Path) -> None:
    """Windows takes the code page of the country otherwise: GBK in China, cp1252 in Europe."""
    for call, name in calls(ast.parse(file.read_text(encoding="utf-8"))):
        method = isinstance(call.func, ast.Attribute)
        if name not in ("open", "fdopen", "read_text", "write_text", "NamedTemporaryFile"):
            continue
        if (
            method
            and name == "open"
            and ast.unparse(call.func) not in ("gzip.open", "lzma.open", "bz2.open", "io.open")
        ):
            continue  # os.open, and methods of our own
        modes = [
            a.value
            for a in [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "mode")]
            if isinstance(a, ast.Constant)
        ]
        unknown = name == "open" and len(call.args) > 1 and not isinstance(call.args[1], ast.Constant)
        if (
            any("b" in str(mode) for mode in modes)
            or unknown
            or (name != "open" and name.startswith("Named") and not modes)
        ):
            continue
        if method and name == "open" and not modes:
            continue  # gzip and its like open bytes where nothing is said
        assert any(k.arg == "encoding" for k in call.keywords), f"{file}:{call.lineno}: {ast.unparse(call)[:80]}"


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_calls_that_windows_lacks_stand_behind_a_question(file: Path) -> None:
    """In one function with it there is a look at the system, a hasattr, or an except ImportError."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    scopes = [tree, *functions]
    for node in ast.walk(tree):
        used = (isinstance(node, ast.Attribute) and node.attr in LINUX_ONLY and ast.unparse(node.value) == "os") or (
            isinstance(node, ast.Import) and any(alias.name in UNIX_MODULES for alias in node.names)
        )
        if not used:
            continue
        inner = [s for s in scopes if any(n is node for n in ast.walk(s))][-1]
        words = ast.unparse(inner)
        asked = any(word in words for word in ("sys.platform", "os.name", "hasattr(os", "except ImportError"))
        assert asked, f"{file}:{node.lineno}: {ast.unparse(node)}"


def test_a_system_that_cannot_flush_folders_is_not_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "a folder cannot be opened there")

    monkeypatch.setattr(folder.os, "name", "nt")
    monkeypatch.setattr(folder.os, "open", refuse)
    sync_folder(tmp_path)


def test_a_file_is_flushed_through_a_handle_that_may_write_where_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    file, modes, real = tmp_path / "a", [], builtins.open
    file.write_bytes(b"abc")

    def watched(path: object, mode: str = "r", **more: object) -> object:
        modes.append(mode)
        return real(path, mode, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(builtins, "open", watched)
    sync_file(file)
    monkeypatch.setattr(folder.os, "name", "nt")
    sync_file(file)
    monkeypatch.undo()
    assert modes == ["rb", "r+b"] and file.read_bytes() == b"abc"


def test_small_text_is_utf8_with_plain_line_ends_everywhere(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "a", "方寸\n二\n")
    assert (tmp_path / "a").read_bytes() == "方寸\n二\n".encode()
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
