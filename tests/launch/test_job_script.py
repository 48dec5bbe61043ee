"""The job script says what was asked for, quotes what needs it, and mistakes are told before anything is submitted."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from terminal import on_terminal
from tiny import fangcun, write_story

from fangcun.config.keys import recipe_keys
from fangcun.errors import ConfigError
from fangcun.launch import SlurmOptions, job_script, looks_like_job, split_options
from fangcun.launch.options import option_names


def script(options: SlurmOptions, folder: str = "/data/run", command: tuple[str, ...] = ("run", "demo")) -> str:
    return job_script(options, name="demo", folder=Path(folder), cwd=Path("/home/me"), command=command, python="/py")


def test_no_option_of_the_job_hides_a_setting_of_the_recipe() -> None:
    names = {name.replace("-", "_") for name in option_names()}
    assert not names & {*recipe_keys(), "text", "out"}


def test_options_and_settings_are_told_apart_in_any_order() -> None:
    options, others = split_options(
        ["--text", "a.txt", "b.txt", "--nodes", "2", "--train.max_steps=3", "--gpus_per_node=8", "--sbatch", "--exclusive",
         "--sbatch=--nodelist=x", "--setup", "module load cuda", "--dry-run", "--seed", "4"]
    )  # fmt: skip
    assert others == ["--text", "a.txt", "b.txt", "--train.max_steps=3", "--seed", "4"]
    assert (options.nodes, options.processes, options.dry_run) == (2, 8, True)
    assert options.sbatch == ["--exclusive", "--nodelist=x"] and options.setup == ["module load cuda"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--nodes", "two"], "--nodes: expected a whole number, got 'two'"),
        (["--nodes", "0"], "--nodes: expected at least 1"),
        (["--nodes"], "--nodes: needs a value"),
        (["--nodes", "1", "--nodes", "2"], "--nodes: given twice"),
        (["--nodse", "2"], "--nodse: unknown option. Did you mean '--nodes'?"),
        (["--time", "1h"], "--time: expected minutes, HH:MM:SS or D-HH:MM:SS, got '1h'"),
        (["--dry-run=yes"], "--dry-run: takes no value"),
        (["--gpus-per-node", "4", "--processes-per-node", "2"], "each process has one GPU"),
    ],
)
def test_a_mistaken_option_names_itself(words: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected.replace("?", r"\?")):
        split_options(words)


@pytest.mark.parametrize("time", ["90", "30:00", "12:00:00", "2-0", "2-12:30", "2-12:30:15"])
def test_every_form_of_slurms_time_is_taken(time: str) -> None:
    assert f"#SBATCH --time={time}\n" in script(split_options(["--time", time])[0])


def test_the_script_asks_for_what_was_asked() -> None:
    text = script(SlurmOptions(nodes=2, gpus_per_node=4, cpus_per_process=6, account="lab", mem="64G"))
    for line in (
        "--nodes=2", "--gpus-per-node=4", "--cpus-per-task=24", "--ntasks-per-node=1", "--account=lab", "--mem=64G",
        "--requeue", "--open-mode=append", "--signal=B:USR1@120",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in text
    assert "--nnodes=2 --nproc-per-node=4 --max-restarts=3" in text
    assert "--partition" not in text


@pytest.mark.skipif(os.name == "nt", reason="the script is for bash")
def test_the_script_is_bash_and_hands_on_every_word_as_it_was(tmp_path: Path) -> None:
    folder = "/data/有 空格's $run%j"
    command = ("run", "my recipe.yaml", "--text", "a b.txt", "it's", "--samples.prompts", "却说 $HOME `x`")
    text = script(SlurmOptions(), folder, command)
    file = tmp_path / "job.sh"
    file.write_text(text, encoding="utf-8")
    assert subprocess.run(["bash", "-n", str(file)], check=False).returncode == 0
    line = next(line for line in text.splitlines() if "-m fangcun" in line)
    assert shlex.split(line)[2:-1] == list(command)
    assert f'#SBATCH "--output={folder.replace("%", "%%")}/slurm/log-%j.txt"' in text


def test_a_dry_run_prints_and_touches_nothing(tmp_path: Path) -> None:
    done = fangcun("launch", "slurm", "demo", "--dry-run", "--out", str(tmp_path / "run"))
    assert done.returncode == 0 and done.stdout.startswith("#!/bin/bash\n# Fangcun job: demo")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        ([], 2, "Usage: fangcun launch slurm RECIPE"),
        (["pbs", "demo"], 2, "'pbs': no scheduler that is known"),
        (["slurm"], 2, "fangcun launch slurm needs a recipe first"),
        (["slurm", "dmeo"], 2, "Did you mean 'demo'"),
        (["slurm", "demo", "--train.max_stesp", "3"], 2, "Did you mean '--train.max_steps'"),
        (["slurm", "demo", "--resume", "false"], 2, "must go on from its checkpoint"),
        (["slurm", "demo", "--text", "nowhere.txt"], 2, "there is no 'nowhere.txt'"),
        (["slurm", "demo"], 1, "there is no sbatch on PATH"),
    ],
)
def test_what_would_fail_in_the_queue_is_said_before(
    tmp_path: Path, words: list[str], code: int, expected: str
) -> None:
    done = fangcun("launch", *words, cwd=tmp_path, env={**os.environ, "PATH": str(tmp_path)})
    assert done.returncode == code
    assert expected in done.stderr and "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir())


def test_what_was_agreed_to_is_told_to_the_job_and_what_was_not_never_gets_into_the_queue(tmp_path: Path) -> None:
    text, out = write_story(tmp_path), tmp_path / "run"
    words = ["demo", "--text", str(text), "--out", str(out), "--corpus.val_share"]
    assert fangcun("corpus", *words, "0.1").returncode == 0
    shown = fangcun("launch", "slurm", *words, "0.3", "--yes", "--dry-run").stdout
    assert any(line.strip().startswith("-m fangcun run demo") and "--yes" in line for line in shown.splitlines())
    (out / "timings.json").write_text('{"corpus": {"seconds": 1e6, "input_bytes": 1, "kind": "read"}}')
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 7\n")
    sbatch.chmod(0o755)
    environment = {**os.environ, "PATH": f"{sbatch.parent}{os.pathsep}{os.environ['PATH']}"}
    refused = fangcun("launch", "slurm", *words, "0.3", env=environment)
    assert refused.returncode == 1 and "--yes" in refused.stderr and not (out / "slurm").exists()
    submitted = fangcun("launch", "slurm", *words, "0.3", "--yes", env=environment)
    assert submitted.returncode == 0, submitted.stderr
    assert "--yes &" in (out / "slurm" / "job.sh").read_text(encoding="utf-8")
    if os.name != "nt":  # on a terminal it is asked there, where the job could ask nobody
        for typed, exit_code in ((b"n\n", 1), (b"y\n", 0)):
            (out / "slurm" / "job.sh").unlink(missing_ok=True)
            code, shown = on_terminal(["launch", "slurm", *words, "0.3"], typed, PATH=environment["PATH"])
            assert (code, (out / "slurm" / "job.sh").exists()) == (exit_code, typed == b"y\n"), shown
        assert "--yes &" in (out / "slurm" / "job.sh").read_text(encoding="utf-8")


def test_a_folder_that_waits_in_the_queue_is_a_run_folder(tmp_path: Path) -> None:
    from fangcun.pipeline import check_folder

    job = tmp_path / "run" / "slurm" / "job.sh"
    job.parent.mkdir(parents=True)
    job.write_text(script(SlurmOptions()), encoding="utf-8")
    assert looks_like_job(tmp_path / "run")
    check_folder(tmp_path / "run")
    job.write_text("#!/bin/bash\necho mine\n", encoding="utf-8")
    assert not looks_like_job(tmp_path / "run")


def test_a_torn_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    text = write_story(tmp_path)
    folder = tmp_path / "run" / "checkpoints" / "step-00000002"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{")
    done = fangcun("launch", "slurm", "demo", "--dry-run", "--text", str(text), "--out", str(tmp_path / "run"))
    assert done.returncode == 1 and "manifest.json cannot be read" in done.stderr and "Traceback" not in done.stderr
