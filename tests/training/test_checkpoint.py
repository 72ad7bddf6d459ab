"""Checkpoints: complete or absent, safe to load, refused if they belong to another run or model."""

import errno
import io
import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src.base.console import UserError
from src.config import from_json, load_config
from src.models.interface import build_model
from src.training.checkpoint import FORMAT, load_checkpoint, load_weights, save_checkpoint
from src.training.saved_config import check_config, read_config, read_trained_config, write_config
from tests.conftest import POSE_MODELS, tiny_config

CPU = torch.device("cpu")
CONFIG = tiny_config("reference_cvae")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Returns the path of a checkpoint of an untrained model."""
    (tmp_path / "run").mkdir()
    save(tmp_path / "run" / "last.pt")
    return tmp_path / "run" / "last.pt"


def save(path: Path, **state: Any) -> None:
    model = build_model(CONFIG, height=4, width=8)
    save_checkpoint(path, {"model": model.state_dict(), "step": 3, "plan": ((0, 10),), **state}, CONFIG)


def test_what_is_saved_comes_back(path: Path) -> None:
    tensors = {"a": torch.randn(3, 2), "n": torch.tensor(7), "half": torch.randn(2).bfloat16()}
    save(path, tensors=tensors, best_score=-float("inf"))
    state = load_checkpoint(path, CPU)
    assert all(torch.equal(state["tensors"][name], tensors[name]) for name in tensors)
    assert (state["step"], state["best_score"], state["plan"]) == (3, -float("inf"), [(0, 10)])
    assert from_json(state["config"], "test") == CONFIG
    assert state["format"] == FORMAT
    assert "commit" in state


def test_a_failure_while_writing_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        save(path, step=4)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"best.pt does not exist; .*make train RUN=run"):
        load_checkpoint(tmp_path / "run" / "best.pt", CPU)


def refusal(path: Path) -> str:
    """Returns the message about a checkpoint that cannot be loaded."""
    with pytest.raises(UserError) as error:
        load_checkpoint(path, CPU)
    assert str(error.value).startswith(f"{path} ")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_run_that_stopped_before_its_first_validation_can_be_resumed(path: Path) -> None:
    save(path, best_score=-math.inf, without_gain=0)
    message = refusal(path.with_name("best.pt"))
    assert message.endswith("run stopped at step 3, before its first validation; resume it: make train RUN=run")


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-100])])
@pytest.mark.parametrize(("lost", "other"), [("best", "last"), ("last", "best")])
def test_the_other_checkpoint_of_a_run_is_suggested(
    path: Path, spoil: Callable[[Path], object], lost: str, other: str
) -> None:
    save(path.with_name("last.pt"), best_score=20.0, without_gain=1)
    save(path.with_name("best.pt"), best_score=20.0)
    spoil(path.with_name(f"{lost}.pt"))
    message = refusal(path.with_name(f"{lost}.pt"))
    fix = f'evaluate {other}.pt, of step 3: make evaluate RUN=run SET="evaluation.checkpoint={other}"'
    assert f"; restore it, or {fix}" in message
    assert "validation" not in message
    assert (f"move {path.parent} away" in message) == (lost == "last"), "training can resume only from last.pt"


def test_a_run_whose_scores_were_all_nan_has_been_validated(path: Path) -> None:
    save(path, best_score=-math.inf, without_gain=2)
    assert "restore it, or evaluate last.pt" in refusal(path.with_name("best.pt"))


def test_without_any_whole_checkpoint_the_run_is_trained_again(path: Path) -> None:
    for name in ("last.pt", "best.pt"):
        path.with_name(name).write_bytes(b"PK")
    for name in ("last.pt", "best.pt"):
        message = refusal(path.with_name(name))
        assert message.endswith(f"; restore it, or move {path.parent} away and train again: make train RUN=run")
        assert "PytorchStreamReader" not in message
    path.unlink()
    assert "train again" in refusal(path), "best.pt exists but is damaged"


def test_a_truncated_checkpoint_is_named(path: Path) -> None:
    content = path.read_bytes()
    for size in [0, 1, 2, 100, *range(1000, len(content), len(content) // 10), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(
            UserError, match=r"last.pt is (no checkpoint of this project, or a truncated one|truncated: .*); restore it"
        ):
            load_checkpoint(path, CPU)


@pytest.mark.parametrize("sealed", [True, False], ids=["hash", "format 1"])
def test_a_flipped_bit_of_a_weight_is_refused(path: Path, sealed: bool) -> None:
    """torch would read it as another number without a word."""
    marked = torch.full((64,), 1.5)
    save(path, ema={"marked": marked})
    content = path.read_bytes()
    if not sealed:  # as earlier versions wrote it
        buffer = io.BytesIO()
        torch.save({"format": 1, "step": 3, "ema": {"marked": marked}}, buffer)
        content = buffer.getvalue()
    place = content.index(marked.numpy().tobytes()) + 4 * 7
    path.write_bytes(content)
    assert torch.equal(load_checkpoint(path, CPU)["ema"]["marked"], marked)
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(UserError, match=r"last.pt is damaged: .* does not match its (hash|checksum)"):
        load_checkpoint(path, CPU)


def test_every_flipped_byte_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for place in (*range(0, len(content), len(content) // 60), *range(len(content) - 72, len(content))):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with pytest.raises(UserError, match=r"last.pt is "):
            load_checkpoint(path, CPU)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "write",
    [
        lambda trap, path: torch.save({"format": FORMAT, "step": trap}, path),
        lambda trap, path: torch.save({"format": FORMAT, "step": trap}, path, _use_new_zipfile_serialization=False),
        lambda trap, path: path.write_bytes(pickle.dumps(trap)),
    ],
    ids=["zip", "legacy", "pickle"],
)
def test_code_in_a_checkpoint_is_not_run(path: Path, tmp_path: Path, write: Callable[[Trap, Path], None]) -> None:
    marker = tmp_path / "was here"
    pickle.loads(pickle.dumps(Trap(marker)))
    marker.rmdir()  # it exists, so the trap works
    write(Trap(marker), path)
    with pytest.raises(UserError, match=r"last.pt is no checkpoint of this project"):
        load_checkpoint(path, CPU)
    assert not marker.exists()


@pytest.mark.parametrize("content", [[1, 2], {"format": FORMAT + 1}, {"format": "1"}, {}, torch.zeros(2)])
def test_another_format_is_refused(path: Path, content: object) -> None:
    torch.save(content, path)
    with pytest.raises(UserError, match=rf"last.pt has format .*; this version reads format {FORMAT}"):
        load_checkpoint(path, CPU)


@pytest.mark.parametrize("other", [tiny_config("lab_cvae"), tiny_config("reference_cvae", model={"width": 16})])
def test_weights_of_another_model_are_refused(path: Path, other: Any) -> None:
    weights = load_checkpoint(path, CPU)["model"]
    with pytest.raises(UserError, match=r"last.pt does not hold the weights of the model in .*config.json"):
        load_weights(build_model(other, height=4, width=8), weights, path)
    load_weights(build_model(CONFIG, height=4, width=8), weights, path)


@pytest.mark.parametrize("model", POSE_MODELS)
def test_a_config_can_change_only_in_some_settings(tmp_path: Path, model: str) -> None:
    folder = tmp_path / "runs" / "run"
    config = tiny_config(model)
    write_config(folder, config)
    assert read_config(folder) == config
    longer = tiny_config(model, num_epochs=9, patience=3, evaluation={"mirror": False})
    check_config(folder, longer)
    write_config(folder, longer)
    assert read_config(folder) == longer
    other = tiny_config(model, num_epochs=9, batch_size=8, kl_weight={"stop": 2.0})
    with pytest.raises(UserError) as error:
        check_config(folder, other)
    assert "(kl_weight.stop: 0.0001 -> 2.0; training.batch_size: " in str(error.value)
    assert "num_epochs" not in str(error.value)
    assert read_config(folder) == longer


def test_the_missing_words_of_set_are_named(tmp_path: Path) -> None:
    """With the suggested SET, the command has the configuration of the run again."""
    toml = tmp_path / "run.toml"
    toml.write_text('seed = 4\n[training]\nloss = "mse"\n')
    overrides = (
        "seed=1 training.shuffle=true training.loss=log_mse training.held_out_takes=[0,2] augmentation.mirror=false"
    )
    write_config(tmp_path / "run", load_config(toml, overrides))
    with pytest.raises(UserError) as error:
        check_config(tmp_path / "run", load_config(toml))
    words = str(error.value).partition('SET="')[2].partition('"')[0]
    assert "seed=1" in words.split()
    check_config(tmp_path / "run", load_config(toml, words))


def test_only_the_evaluation_of_a_trained_run_can_change(tmp_path: Path) -> None:
    write_config(tmp_path, CONFIG)
    words = f"evaluation.mirror=false evaluation.latent=sample training.device=auto seed={CONFIG.seed}"
    changed = read_trained_config(tmp_path, words)
    assert (changed.evaluation.mirror, changed.evaluation.latent, changed.training.device) == (False, "sample", "auto")
    training = changed.training.model_copy(update={"device": CONFIG.training.device})
    assert changed.model_copy(update={"evaluation": CONFIG.evaluation, "training": training}) == CONFIG
    for words, message in (
        ("evaluation.mirror=true seed=77", "SET changes seed of .*; needed: only settings of .evaluation."),
        ("model.width=64", "SET changes model.width of "),
        ("evaluation.mirror=3", "SET: evaluation.mirror = 3"),
        ("mirror", "SET: found 'mirror'"),
    ):
        with pytest.raises(UserError, match=message):
            read_trained_config(tmp_path, words)
    assert read_config(tmp_path) == CONFIG


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    write_config(tmp_path / "dance", CONFIG)
    with pytest.raises(UserError, match=r"there is no run b; there are: dance$"):
        read_config(tmp_path / "b")
    with pytest.raises(UserError, match=r"there is no run dnace; did you mean RUN=dance\?$"):
        read_config(tmp_path / "dnace")


def test_an_untrained_run_is_not_taken_for_a_misspelt_one(tmp_path: Path) -> None:
    write_config(tmp_path / "runs" / "dance_mini", CONFIG)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "dance.toml").touch()
    with pytest.raises(UserError, match=r"runs/dance is not trained yet: make train RUN=dance$"):
        read_config(tmp_path / "runs" / "dance")
    with pytest.raises(UserError, match=r"there is no run dance_mni; did you mean RUN=dance_mini\?$"):
        read_config(tmp_path / "runs" / "dance_mni")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"seed": "x"}'])
def test_a_damaged_config_is_named(tmp_path: Path, content: bytes) -> None:
    write_config(tmp_path / "run", CONFIG)
    (tmp_path / "run" / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"run/config.json"):
        check_config(tmp_path / "run", CONFIG)
