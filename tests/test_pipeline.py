"""The whole chain as a user runs it: pictures, data set, run, scores, csv, own pictures; and error messages."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from src import packing, report, submission, tester, trainer
from src.base.console import run_main
from src.config import to_json
from src.evaluation.scores import numbers_of
from src.pushing.schema import PushingScores
from src.synthetic.dancers import write_dance
from tests.conftest import POSE_MODELS, ROOT, tiny_config

LENGTH = 4
Outcome = Callable[..., tuple[int, str]]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which holds only pictures in `dancers`."""
    lengths = {"take_length": 10, "val_length": LENGTH, "test_length": LENGTH}
    write_dance(tmp_path / "dancers", num_takes=2, num_tests=2, num_processes=1, **lengths)
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_config(model: str) -> str:
    """Writes configs/own.toml, which trains for one or two steps, and returns its name."""
    brief = {"num_epochs": 1, "validate_every": 1, "batch_size": 1, "clips_per_epoch": 1, "warmup_steps": 1}
    if model == "lab_cvae":
        brief |= {"window": 2}
    config = json.loads(to_json(tiny_config(model, evaluation={"mirror": False}, **brief)))
    lines = ['dataset = "own"']
    for section in ("model", "training", "evaluation"):
        settings = {name: value for name, value in config[section].items() if name != "teacher_forcing"}
        lines += [f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in settings.items())]
    Path("configs/own.toml").write_text("\n".join(lines), encoding="utf-8")
    return "configs/own.toml"


@pytest.mark.parametrize("model", POSE_MODELS)
def test_from_pictures_to_a_valid_csv(model: str, workplace: Path, outcome: Outcome) -> None:
    pack = ("--source", "dancers", "--dataset", "own", "--cuts", "10", "--test-length", LENGTH)
    assert outcome(packing.main, *pack) == (0, "")
    assert outcome(trainer.main, write_config(model)) == (0, "")
    assert outcome(tester.main, "evaluate", "own") == (0, "")
    assert outcome(tester.main, "submission", "own") == (0, "")
    check = ("check", "submissions/own.csv", "--length", LENGTH, "--first-frames", "dancers/test/test_img")
    assert outcome(submission.main, *check) == (0, "")
    scores = json.loads((workplace / "runs" / "own" / "scores.json").read_text())
    origin = json.loads((workplace / "submissions" / "own.json").read_text())
    assert origin["local_score"] == scores["score"]

    (first,) = (workplace / "dancers" / "test" / "test_img" / "1").iterdir()
    own = ("--frame", first, "--poses", "dancers/test/test_label/1", "--out", "clip")
    assert outcome(tester.main, "predict", "own", *own) == (0, "")
    frames = np.stack([np.asarray(Image.open(f"clip/{number}.png")) for number in range(LENGTH)])
    rows = pd.read_csv("submissions/own.csv").iloc[LENGTH:, 1:].to_numpy().reshape(LENGTH, 3, 32, 64)
    assert np.abs(rows - frames.transpose(0, 3, 1, 2).astype(int)).max() <= 1
    assert outcome(trainer.main, "configs/own.toml") == (0, "")


def write_pushing_config() -> str:
    """Writes configs/pusher.toml, which trains for one step, and returns its name."""
    sections = {
        "model": {"name": "svg", "width": 8, "num_features": 32, "num_latents": 3, "num_hidden": 16},
        "model.teacher_forcing": {"kind": "plan"},
        "augmentation": {"mirror": False},
        "kl_weight": {"kind": "cyclical", "cycles": 3, "per": "within_epoch", "stop": 1e-4},
        "training": {"num_epochs": 1, "clips_per_epoch": 2, "batch_size": 2, "window": 4, "device": "cpu"},
        "evaluation": {"mirror": False, "num_samples": 2},
    }
    lines = ['dataset = "own"']
    for section, settings in sections.items():
        lines += [f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in settings.items())]
    Path("configs").mkdir()
    Path("configs/pusher.toml").write_text("\n".join(lines), encoding="utf-8")
    return "configs/pusher.toml"


def test_from_synthetic_pushing_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def command(main: Callable[[], None], *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
        capfd.readouterr()
        try:
            run_main(main)
        except SystemExit as stop:
            return int(stop.code or 0), *capfd.readouterr()
        return 0, *capfd.readouterr()

    few = ("--num-train", 2, "--num-validate", 2, "--num-test", 2)
    assert command(packing.main, "--source", "synthetic-pushing", "--dataset", "own", *few)[::2] == (0, "")
    assert command(trainer.main, write_pushing_config())[::2] == (0, "")
    code, printed, errors = command(tester.main, "evaluate", "pusher", "--all")
    assert (code, errors) == (0, "")
    scores = json.loads(Path("runs/pusher/scores.json").read_text())
    numbers = [number for number in numbers_of(PushingScores) if number.name not in ("score", "mean_ssim")]
    assert len(numbers) == 5
    for number in numbers:
        assert f" {scores[number.name]:.2f}  {number.meaning}\n" in printed
    assert "copy of the last frame" in printed and "against the best baseline" in printed
    assert command(report.main)[::2] == (0, "")
    assert f"{scores['score_best_of_n']:.2f}" in Path("reports/index.html").read_text()
    own = ("predict", "pusher", "--frame", "first.png", "--poses", "poses", "--out", "clip.gif")
    for refused in (("submission", "pusher"), own):
        code, _, errors = command(tester.main, *refused)
        assert code == 2
        assert re.fullmatch(r"error: pusher draws robot pushing \(svg\), .*: make evaluate RUN=pusher\n", errors)
    assert not Path("submissions").exists() and not Path("clip.gif").exists()


def test_mistakes_end_in_one_line_and_exit_code_2(workplace: Path) -> None:
    (workplace / "configs" / "bad.toml").write_text("[training]\nbatch_sise = 3\n")
    (workplace / "runs" / "cut").mkdir(parents=True)
    (workplace / "runs" / "cut" / "config.json").write_text(to_json(tiny_config("reference_cvae")))
    (workplace / "runs" / "cut" / "best.pt").write_bytes(b"PK\x03\x04 and no more")
    commands = {
        ("src.trainer", "configs/bad.toml"): r"error: configs/bad.toml: .*did you mean training.batch_size\?\n",
        ("src.tester", "submission", "cut"): r"error: runs/cut/best.pt is no checkpoint of this project, or .*\n",
    }
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=workplace,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    for process, line in zip(running, commands.values(), strict=True):
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 2, errors
        assert re.fullmatch(line, errors), errors
        assert output == ""
