"""Which device is chosen, and what is said about a GPU that torch cannot see. Machines are imitated, none is needed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny import run_tiny, write_story

from fangcun.config import Recipe, load_recipe
from fangcun.errors import FangcunError
from fangcun.model import choose_device, device, unseen_gpu
from fangcun.training import choose_compute

TRACES = ("/dev/nvidia0", "/proc/driver/nvidia/gpus", "/dev/kfd", "/opt/rocm")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> object:
    """`machine(cuda=…, mps=…, build=…, has=…)`: what torch sees, what it was built for, and what the machine shows."""

    def imitate(
        *, cuda: bool = False, mps: bool = False, cuda_build: str | None = None, hip: str | None = None, has: str = "",
        smi: str | None = None,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.version, "cuda", cuda_build)
        monkeypatch.setattr(torch.version, "hip", hip)
        for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
            monkeypatch.delenv(name, raising=False)
        real = Path.exists, Path.is_dir
        monkeypatch.setattr(Path, "exists", lambda p: str(p) == has if str(p) in TRACES else real[0](p))
        monkeypatch.setattr(Path, "is_dir", lambda p: str(p) == has if str(p) in TRACES else real[1](p))
        monkeypatch.setattr(device.shutil, "which", lambda name: smi and f"/usr/bin/{name}")
        monkeypatch.setattr(
            device.subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=0 if smi else 9, stdout=smi or "")
        )
        monkeypatch.setattr(device.sys, "platform", "linux")

    return imitate


@pytest.mark.parametrize(
    ("sees", "chosen"),
    [({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": True}, "cuda"), ({"cuda": True, "mps": True}, "cuda")],
)
def test_auto_takes_the_best_that_torch_sees(sees: dict[str, bool], chosen: str, machine) -> None:
    machine(**sees)
    assert choose_device("auto").type == chosen


def test_mps_trains_in_float32_and_says_what_it_does_not(machine) -> None:
    machine(mps=True)
    compute = choose_compute(Recipe())
    assert (compute.device.type, compute.precision, compute.compile) == ("mps", "32-true", False)
    with pytest.raises(FangcunError, match=r"bf16-mixed is not supported on mps .* --precision 32-true"):
        choose_compute(Recipe(precision="bf16-mixed"))
    with pytest.raises(FangcunError, match="does not compile for mps"):
        choose_compute(Recipe(compile=True))


def test_mps_where_there_is_none_is_an_error(machine) -> None:
    machine()
    with pytest.raises(FangcunError, match=r"mps is Apple's GPU, but torch .* Use --device auto or cpu"):
        choose_device("mps")


def test_mps_is_a_device_of_the_recipe() -> None:
    assert load_recipe("demo", ["--device", "mps"]).recipe.device == "mps"
    with pytest.raises(FangcunError, match="16-mixed is not supported on mps"):
        load_recipe("demo", ["--device", "mps", "--precision", "16-mixed"])


@pytest.mark.parametrize(
    "shows", [{"has": "/dev/nvidia0"}, {"smi": "GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-x)"}], ids=["driver", "smi"]
)
def test_an_nvidia_gpu_with_a_cpu_build_names_the_wheel(shows: dict[str, str], machine) -> None:
    machine(**shows)
    advice = unseen_gpu()
    assert "NVIDIA GPU, but torch" in advice and "a build without CUDA" in advice
    assert "torch --index-url https://download.pytorch.org/whl/cu" in advice
    assert "--index-url https://mirrors.nju.edu.cn/pytorch/whl/cu" in advice
    with pytest.raises(FangcunError, match=r"sees no GPU\. This machine has an NVIDIA GPU"):
        choose_device("cuda")


def test_a_cuda_build_that_cannot_use_the_gpu_points_at_the_driver(machine) -> None:
    machine(has="/dev/nvidia0", cuda_build="13.0")
    assert "for CUDA 13.0) cannot use it" in unseen_gpu() and "driver" in unseen_gpu()


@pytest.mark.parametrize("trace", ["/dev/kfd", "/opt/rocm"])
def test_an_amd_gpu_names_the_rocm_wheel(trace: str, machine) -> None:
    machine(has=trace)
    assert "AMD GPU" in unseen_gpu() and "https://download.pytorch.org/whl/rocm" in unseen_gpu()
    machine(has=trace, hip="7.0")
    assert unseen_gpu() == ""


def test_nvidia_smi_without_a_gpu_is_no_gpu(machine) -> None:
    machine(smi="No devices found.")
    assert unseen_gpu() == ""


def test_nvidia_smi_that_hangs_is_no_gpu(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(smi="x")

    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", 10)

    monkeypatch.setattr(device.subprocess, "run", hang)
    assert unseen_gpu() == ""


@pytest.mark.parametrize("value", ["", "-1"])
def test_a_gpu_that_is_hidden_on_purpose_is_not_named(value: str, machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(has="/dev/nvidia0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert unseen_gpu() == ""


def test_windows_is_asked_for_its_driver_file(machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine()
    monkeypatch.setattr(device.sys, "platform", "win32")
    monkeypatch.setenv("SYSTEMROOT", str(tmp_path))
    assert unseen_gpu() == ""
    (tmp_path / "System32").mkdir()
    (tmp_path / "System32" / "nvcuda.dll").touch()
    assert "NVIDIA GPU" in unseen_gpu()


def test_a_run_says_it_at_the_start_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "unseen_gpu", lambda: "This machine has an NVIDIA GPU.")
    text = write_story(tmp_path)
    assert run_tiny(text, tmp_path / "run") == 0
    assert "warning: This machine has an NVIDIA GPU. Going on with the CPU" in capsys.readouterr().err
    assert run_tiny(text, tmp_path / "chosen", "--device", "cpu") == 0
    assert "NVIDIA" not in capsys.readouterr().err


def test_a_machine_without_traces_is_asked_quickly() -> None:
    if any(os.path.exists(trace) for trace in TRACES):  # noqa: PTH110
        pytest.skip("this machine has a GPU")
    assert unseen_gpu() == ""
