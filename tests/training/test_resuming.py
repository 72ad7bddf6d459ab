"""A run that is killed or stopped at any moment goes on as if nothing had happened."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from src import trainer
from src.base.console import UserError
from src.trainer import Trainer, train
from src.training import checkpoint
from src.training.checkpoint import WITHOUT_HASH, load_checkpoint, save_checkpoint
from src.training.log import History, read_history
from tests.conftest import tiny_config
from tests.differences import first_difference

CPU = torch.device("cpu")
CONFIG = tiny_config("reference_cvae", num_epochs=3, validate_every=1)  # 2 steps an epoch
EVENTS = (  # what one epoch does after its last step, in this order
    *((Trainer, "save", "last.pt before the validation"), (Trainer, "validate", "validation")),
    *((History, "add", "row of the log"), (Trainer, "save", "last.pt after the validation")),
)
pytestmark = pytest.mark.usefixtures("small_data")


class Killed(BaseException):
    """Ends a training as SIGKILL does: nothing of the project catches it."""


@contextmanager
def killed_at(number: int, when: str) -> Iterator[list[str]]:
    """Kills before, or after, the event with this number; yields the names of the events so far."""
    events: list[str] = []
    originals = {(owner, name): getattr(owner, name) for owner, name, _ in EVENTS}

    def watched(owner: Any, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            events.append(f"{name} {arguments[1] if name == 'save' else ''}")
            is_this_one = len(events) == number
            if is_this_one and when == "before":
                raise Killed
            result = originals[owner, name](*arguments)
            if is_this_one:
                raise Killed
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in originals:
            patch.setattr(owner, name, watched(owner, name))
        yield events


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same run, never stopped; filled by the first test that needs it."""
    return tmp_path_factory.mktemp("whole") / "run"


def state(folder: Path, name: str) -> dict[str, Any]:
    varying = ("commit", "clock")
    return {key: value for key, value in load_checkpoint(folder / name, CPU).items() if key not in varying}


def rows(folder: Path) -> list[dict[str, Any]]:
    timed = ("clips_per_s", "data_share")
    return [{key: value for key, value in row.items() if key not in timed} for row in read_history(folder)]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 11))
def test_a_kill_at_any_event_changes_nothing(number: int, when: str, whole: Path, tmp_path: Path) -> None:
    if not whole.exists():
        train(CONFIG, whole)
    with pytest.raises(Killed), killed_at(number, when):
        train(CONFIG, tmp_path / "run")
    train(CONFIG, tmp_path / "run")
    for name in ("last.pt", "best.pt"):
        assert first_difference(state(whole, name), state(tmp_path / "run", name)) is None
    assert rows(tmp_path / "run") == rows(whole)
    assert all(row["clips_per_s"] > 0 for row in read_history(tmp_path / "run"))


def test_the_events_are_those_of_an_epoch(tmp_path: Path) -> None:
    with killed_at(0, "before") as events:
        train(CONFIG, tmp_path / "run", stop_at_step=2)
    improved = ["save last.pt", "save last.pt", "validate ", "save best.pt", "add ", "save last.pt"]
    assert events[:6] == improved, "the first save is that of step 0"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_during_a_validation_does_not_wait_for_it(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    reached = threading.Event()

    def endless(*arguments: Any) -> dict[str, float]:
        reached.set()
        while True:
            time.sleep(0.01)

    def stop() -> None:
        reached.wait(60)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop, daemon=True).start()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", endless)
        assert not train(CONFIG, folder)
    assert state(folder, "last.pt")["step"] == 2 and rows(folder) == []
    assert train(CONFIG, folder)
    assert [row["step"] for row in rows(folder)] == [2, 4, 6]


@pytest.mark.parametrize("left", [("best.pt",), ("log.jsonl",), ("best.pt", "log.jsonl")])
def test_a_trained_run_without_last_is_not_begun_anew(left: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(CONFIG, folder, stop_at_step=4)
    for name in {"last.pt", "best.pt", "log.jsonl"} - set(left):
        (folder / name).unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(UserError, match=rf"holds {' and '.join(left)} .* not last.pt, .*; restore last.pt; or move"):
        train(CONFIG, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_another_checkpoint_under_the_name_of_last_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(CONFIG, folder, stop_at_step=2)
    (folder / "last.pt").write_bytes((folder / "best.pt").read_bytes())
    with pytest.raises(UserError, match=r"last.pt does not hold model, optimizer, .*: it is another checkpoint"):
        train(CONFIG, folder)


def test_what_has_changed_since_the_last_save_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    train(CONFIG, folder, stop_at_step=2)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "environment_of", lambda device: {"torch": "9.9", "threads": "7"})
        patch.setattr(checkpoint, "commit", lambda: "abc")
        capsys.readouterr()
        train(CONFIG, folder, stop_at_step=4)
        told = [line for line in capsys.readouterr().out.splitlines() if "changed since it was saved" in line]
        assert len(told) == 1
        assert f"torch {torch.__version__} -> 9.9" in told[0] and "threads 1 -> 7" in told[0] and "-> abc" in told[0]
        train(CONFIG, folder, stop_at_step=5)
        assert "changed since" not in capsys.readouterr().out


def test_a_checkpoint_of_an_earlier_version_is_resumed(tmp_path: Path, whole: Path) -> None:
    """It has no hash, and neither clock nor environment."""
    if not whole.exists():
        train(CONFIG, whole)
    folder = tmp_path / "run"
    train(CONFIG, folder, stop_at_step=3)
    kept: dict[str, Any] = torch.load(folder / "last.pt", weights_only=True)
    for new in ("environment", "is_epoch_open", "clock"):
        del kept[new]
    torch.save(kept | {"format": WITHOUT_HASH}, folder / "last.pt")
    assert train(CONFIG, folder)
    assert first_difference(state(whole, "last.pt"), state(folder, "last.pt")) is None


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_every_flipped_bit_of_a_checkpoint_is_found(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(CONFIG, folder, stop_at_step=2)
    content = (folder / name).read_bytes()
    generator = torch.Generator().manual_seed(1)
    places = torch.randint(8 * len(content), (120,), generator=generator).tolist()
    ends = [0, 8 * len(content) - 1, *(8 * (len(content) - n) for n in (64, 65, 70, 72, 73))]  # the hash, its sign
    for place in (*places, *ends):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        (folder / name).write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{name} (is |has |cannot |does )"):
            load_checkpoint(folder / name, CPU)
    (folder / name).write_bytes(content)
    load_checkpoint(folder / name, CPU)


def test_a_flipped_bit_is_found_without_a_hash_too(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"format": WITHOUT_HASH, "step": 1, "ema": {"w": torch.ones(1000)}}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"last.pt is damaged: '.*' in it does not match its checksum"):
        load_checkpoint(path, CPU)


def test_other_tools_read_the_file_too(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best.pt", {"step": 3, "ema": {"w": torch.ones(2)}}, CONFIG)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["step"] == 3


def test_the_first_difference_is_named() -> None:
    one = {"a": [torch.ones(2), torch.zeros(1)], "b": 1.0}
    assert first_difference(one, {"a": [torch.ones(2), torch.zeros(1)], "b": 1.0}) is None
    assert first_difference(one, one | {"a": [torch.ones(2), torch.ones(1)]}) == "checkpoint.a[1]: differs by up to 1"
    assert first_difference(one, one | {"b": 2.0}) == "checkpoint.b: 1.0 and 2.0"
    assert first_difference(one, {"b": 1.0}) == "checkpoint.a[0]: only the first has it"


def test_the_trainer_is_owned_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Callable[..., tuple[int, str]]
) -> None:
    from src.base.ownership import owned  # noqa: PLC0415

    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.toml").write_text("seed = 1\n")
    with owned(Path("runs/demo")):
        code, errors = outcome(trainer.main, "configs/demo.toml")
    assert code == 2 and errors.startswith(f"error: runs/demo is in use by process {os.getpid()} on ")
    assert not (tmp_path / "runs" / "demo").exists()
