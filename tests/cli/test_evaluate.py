"""A setting of a task that was not asked for is an error: it would change nothing and say nothing."""

from __future__ import annotations

import pytest

from fangcun.cli import main


@pytest.mark.parametrize(
    ("flags", "task"),
    [
        (["--form", "cloze"], "--exam"),
        (["--shots", "5"], "--exam"),
        (["--subjects", "anatomy"], "--exam"),
        (["--prompt-style", "authors"], "--exam"),
        (["--stride", "8"], "--text"),
        (["--txt-split", "chapter"], "--text"),
        (["--temperature", "0"], "--samples"),
        (["--prompts", "却说"], "--samples"),
        (["--include-path", "x"], "--harness"),
        (["--exam", "cmmlu=x", "--stride", "8"], "--text"),
    ],
)
def test_a_setting_without_its_task_is_refused(flags: list[str], task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "runs/none", *flags]) == 2
    shown = capsys.readouterr().err
    assert "belongs to" in shown
    assert task in shown
