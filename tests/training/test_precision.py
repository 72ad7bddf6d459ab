"""`training.precision = "auto"` is decided from the hardware when a run starts, and then stays the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src.base.console import UserError
from src.trainer import train
from src.training import precision
from src.training.precision import as_begun, with_precision
from src.training.saved_config import read_config
from tests.conftest import ROOT, tiny_config

CPU, GPU = torch.device("cpu"), torch.device("cuda")
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


def on_hardware(monkeypatch: pytest.MonkeyPatch, *, with_bfloat16: bool) -> None:
    """Pretends that this machine has bfloat16, or that it has not."""
    for name in ("src.base.bfloat16.has_bfloat16", "src.training.precision.has_bfloat16"):
        monkeypatch.setattr(name, lambda device: with_bfloat16)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (6, 0))  # a P100


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("first", [False, True])
def test_a_run_that_moves_goes_on_as_it_began(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder = tiny_config("reference_cvae", num_epochs=1, precision="auto"), tmp_path / "run"
    decided = "bfloat16" if first else "float32"
    on_hardware(monkeypatch, with_bfloat16=first)
    train(config, folder, stop_at_step=1)
    assert read_config(folder).training.precision == decided
    assert capsys.readouterr().out.splitlines()[0].startswith(f"precision: {decided}, this CPU (")
    on_hardware(monkeypatch, with_bfloat16=not first)
    assert train(config, folder)
    assert read_config(folder).training.precision == decided
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"precision: {decided}, as {folder} began"
    assert ("warning" in lines[1]) == first  # bfloat16 on a machine without it
    other = "float32" if first else "bfloat16"
    with pytest.raises(UserError, match=rf"another configuration \(training.precision: {decided} -> {other}\)"):
        train(tiny_config("reference_cvae", num_epochs=1, precision=other), folder)
    (folder / "config.json").unlink()
    assert as_begun(config, folder).training.precision == decided, "last.pt knows it, too"


def test_a_gpu_without_bfloat16_is_refused_and_auto_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_hardware(monkeypatch, with_bfloat16=False)
    demanded, auto = (tiny_config("reference_cvae", precision=value) for value in ("bfloat16", "auto"))
    with pytest.raises(UserError, match=r'this GPU has no bfloat16.*SET="training.precision=float32"'):
        with_precision(demanded, tmp_path / "run", GPU)
    config, lines = with_precision(auto, tmp_path / "run", GPU)
    assert config.training.precision == "float32"
    assert lines == ["precision: float32, this GPU has no bfloat16 arithmetic"]


def test_processes_decide_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_hardware(monkeypatch, with_bfloat16=True)
    monkeypatch.setattr(precision, "any_process", lambda flag, device: True)  # another process has no bfloat16
    config, lines = with_precision(tiny_config("reference_cvae", precision="auto"), tmp_path, CPU)
    assert config.training.precision == "float32"
    assert lines == ["precision: float32, another process has no bfloat16 arithmetic"]


def test_processes_on_a_t4_and_a_newer_gpu_train_in_float16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_hardware(monkeypatch, with_bfloat16=True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (8, 0))
    answers = iter([True, False])  # another process has no bfloat16; all have float16
    monkeypatch.setattr(precision, "any_process", lambda flag, device: next(answers))
    config, lines = with_precision(tiny_config("reference_cvae", precision="auto"), tmp_path, GPU)
    assert config.training.precision == "float16"
    assert lines == ["precision: float16, another process has no bfloat16 arithmetic"]


def test_float16_on_a_cpu_is_allowed_and_called_slow(tmp_path: Path) -> None:
    config, lines = with_precision(tiny_config("reference_cvae", precision="float16"), tmp_path, CPU)
    assert config.training.precision == "float16"
    assert lines == ["warning: a training step in float16 takes several times as long as in float32 on a CPU"]


def test_with_avx2_alone_the_demo_trains_in_float32(data_folder: Path, tmp_path: Path) -> None:
    """Takes a step with the demo's configuration in a process that may not use AVX-512."""
    (tmp_path / "data").symlink_to(data_folder)
    small = "dataset=tiny training.num_epochs=1 training.clips_per_epoch=2 training.batch_size=2 model.width=8"
    done = subprocess.run(
        [sys.executable, "-m", "src.trainer", str(ROOT / "configs/demo.toml"), "--set", f"{small} training.device=cpu"],
        cwd=tmp_path,
        env=os.environ | AVX2 | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "precision: float32, this CPU (AVX2) has no bfloat16 arithmetic\n" in done.stdout
    assert read_config(tmp_path / "runs/demo").training.precision == "float32"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_no_shipped_recipe_asks_for_bfloat16(path: Path) -> None:
    assert "bfloat16" not in path.read_text(encoding="utf-8")
