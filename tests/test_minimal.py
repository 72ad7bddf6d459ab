"""examples/minimal.py stands alone, agrees with src to the bit, and reaches what src reaches with the same training."""

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from examples import minimal
from src import trainer
from src.config import parse_config
from src.dance.augmentations import mirror_poses
from src.dataset import DanceData, open_data
from src.maths.metrics import competition_score, psnr_per_frame
from src.packing import pack_images, pack_synthetic
from src.submission import check_submission, write_submission
from src.training.log import read_history
from tests.conftest import ROOT
from tests.dance_images import dance_files, write_folder, write_zip

FILE = ROOT / "examples" / "minimal.py"
TOLERANCE = 1.5  # dB
FRAME = (3, 32, 64)


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def arrays_of(data: DanceData) -> dict[str, np.ndarray]:
    """The packed arrays, by the names that minimal.py gives them."""
    train, val = data.train, data.val
    arrays = (train.frames, train.poses, val.frames, val.poses, data.test_frames, data.test_poses)
    return dict(zip(minimal.FOLDERS, arrays, strict=True))


# It is one short file that needs nothing of the project


def test_it_is_short_and_stands_alone() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert text.count("\n") <= 250
    imported: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level
            imported.add(node.module.split(".")[0])
        elif isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 40, node.name
    assert imported <= {"torch", "numpy", "PIL"} | sys.stdlib_module_names


# It agrees with src


@pytest.mark.parametrize("top", ["", "LAB4_Dataset/LAB4_Dataset/"])
@pytest.mark.parametrize("write", [write_folder, write_zip])
def test_it_packs_the_same_arrays(write: Callable[..., Path], top: str, tmp_path: Path) -> None:
    files = {top + name: content for name, content in dance_files().items()}
    path = write(tmp_path / "pictures", files)
    pack_images(path, "packed", data_folder=tmp_path, cuts=(), test_length=5)
    read = minimal.read_dataset(path)
    for name, array in arrays_of(open_data("packed", tmp_path)).items():
        assert np.array_equal(read[name].numpy(), array), name


def test_it_mirrors_poses_alike(data_folder: Path) -> None:
    drawn = torch.from_numpy(np.array(open_data("tiny", data_folder).train.poses))
    for poses in (drawn, pixels(20, *FRAME)):
        assert torch.equal(minimal.mirror_poses(poses), mirror_poses(poses))


def test_it_scores_alike() -> None:
    truth, noise = pixels(630, *FRAME), pixels(630, *FRAME, seed=1)
    drawn = ((3 * truth.int() + noise.int()) // 4).to(torch.uint8)
    assert minimal.score(drawn, truth) == pytest.approx(competition_score(psnr_per_frame(drawn, truth)), rel=1e-12)
    assert minimal.score(drawn[:9], truth[:9]) != minimal.score(drawn, truth)


def test_it_writes_the_same_csv(tmp_path: Path) -> None:
    sequences = pixels(2, 4, *FRAME)
    minimal.write_csv(tmp_path / "minimal.csv", sequences)
    write_submission(tmp_path / "project.csv", sequences, sequence_length=4)
    assert (tmp_path / "minimal.csv").read_bytes() == (tmp_path / "project.csv").read_bytes()


def test_its_rollout_is_rounded_and_begins_with_the_given_frame() -> None:
    class Drawing(minimal.ReferenceCVAE):
        def draw(self, condition: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
            values = torch.tensor([-0.2, 0.5, 1.5, 2.5, 300]) / 255
            return values[:, None, None, None].expand_as(condition[:, :3])

    first = pixels(*FRAME)
    sequence = minimal.roll_out(Drawing(), first, pixels(5, *FRAME, seed=1))
    assert torch.equal(sequence[0], first)
    assert sequence.flatten(1)[1:, 0].tolist() == [0, 2, 2, 255]


# It does the whole job


def test_from_pictures_to_a_valid_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path, dance_files())
    monkeypatch.setattr(minimal, "BATCH_SIZE", 2)
    monkeypatch.setattr("sys.argv", ["minimal.py", str(tmp_path), "--epochs", "1", "--out", str(tmp_path / "own.csv")])
    minimal.main()
    assert re.search(r"^\d+\.\d\d dB on val; a copy of the first frame: ", capsys.readouterr().out, re.MULTILINE)
    given = minimal.read_pictures(tmp_path, "test_img")
    checked = check_submission(tmp_path / "own.csv", sequence_length=5, first_frames=given.numpy())
    assert checked.num_sequences == 2


def test_mistakes_are_told_in_one_line(tmp_path: Path, outcome: Callable[..., tuple[int, str]]) -> None:
    (tmp_path / "text.zip").write_text("no zip file")
    files = dance_files()
    write_folder(tmp_path / "damaged", files | {"val/val_img/2.png": b"no picture"})
    write_folder(tmp_path / "partial", {name: files[name] for name in files if name != "val/val_label/2.png"})
    for name in ("nowhere", "text.zip", "damaged", "partial"):
        code, told = outcome(minimal.main, tmp_path / name)
        assert code == 2 and told.startswith(f"error: {tmp_path / name}: ") and told.count("\n") == 1, told
    code, told = outcome(minimal.main, tmp_path, "--out", tmp_path / "no" / "own.csv")
    assert code == 2 and told == f"error: {tmp_path}/no/own.csv: there is no folder {tmp_path}/no\n"


# It reaches what src reaches


def test_it_learns_as_much_as_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], None]
) -> None:
    """A small `make demo`: one take, a network of a third of the width, 210 steps. Both beat the copy by far."""
    pack_synthetic(
        "synthetic",
        "small",
        data_folder=tmp_path,
        num_takes=1,
        take_length=240,
        val_length=60,
        num_tests=1,
        test_length=2,
    )
    settings = {"FINE": 8, "MIDDLE": 16, "COARSE": 24, "BATCH_SIZE": 8, "WARMUP_STEPS": 20}
    for name, value in settings.items():
        monkeypatch.setattr(minimal, name, value)
    data = {name: torch.from_numpy(array.copy()) for name, array in arrays_of(open_data("small", tmp_path)).items()}
    truth = data["val_img"]
    model = minimal.train(data["train_img"], data["train_label"], num_epochs=7)
    reached = minimal.score(minimal.roll_out(model, truth[0], data["val_label"]), truth)
    copied = minimal.score(truth[:1].expand_as(truth), truth)

    network = {"name": "reference_cvae", "width": 8, "patch": 2, "num_levels": 3}
    training = {"num_epochs": 7, "batch_size": 8, "warmup_steps": 20, "validate_every": 7, "device": "cpu"}
    config = parse_config({"dataset": "small", "model": network, "training": training}, "small")
    trainer.train(config, tmp_path / "run", data_folder=tmp_path)
    expected = read_history(tmp_path / "run")[-1]["validation_score"]
    tell(f"minimal.py {reached:.2f} dB, project {expected:.2f} dB, copy of the first frame {copied:.2f} dB")
    assert abs(reached - expected) < TOLERANCE
    assert min(reached, expected) > copied + 2 * TOLERANCE
