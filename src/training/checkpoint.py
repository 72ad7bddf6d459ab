"""The state of a run on disk: its checkpoints.

A checkpoint is a file of torch, a zip, followed by the SHA-256 of its bytes. The hash is compared when the file is
read, because torch ignores the checksums of its zip. A checkpoint of an earlier version, format 1, has no hash. Its
zip's checksums are compared.
"""

import hashlib
import io
import math
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from torch import Tensor
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from src.base.bfloat16 import instruction_set
from src.base.console import UserError
from src.base.files import write_atomically
from src.base.provenance import commit
from src.base.reading import read_bytes, reason_of
from src.base.settings import NotNegative
from src.config import Config, differences, from_json, to_json
from src.intake.facts import DataFacts
from src.training.clock import ClockState
from src.training.saved_config import as_set

FORMAT = 2
WITHOUT_HASH = 1  # the format of earlier versions, whose files do not end with a hash
SEAL = re.compile(rb"\nsha256:([0-9a-f]{64})\Z")
SEAL_BYTES = len(b"\nsha256:") + 64
WEIGHTS = ("step", "config", "ema", "dataset_fingerprint")  # what an evaluation needs
PROGRESS = ("model", "optimizer", "plan", "sums", "best_score", "without_gain")  # what resuming needs as well
Weights = dict[str, Tensor]


@with_config(ConfigDict(arbitrary_types_allowed=True, extra="allow"))
class State(TypedDict, total=False):
    """The content of a checkpoint. Only last.pt has what is needed to resume: `PROGRESS`."""

    format: int
    config: str  # JSON
    commit: str | None
    environment: dict[str, str]  # as `environment_of` returns it; earlier versions did not save it
    step: NotNegative
    ema: Weights  # the averaged weights
    dataset_fingerprint: str
    facts: DataFacts
    frame_size: tuple[int, int]  # earlier versions saved it instead of the facts
    best_score: float  # dB
    model: Weights
    optimizer: dict[str, Any]
    scaler: dict[str, int | float]  # of the gradients in float16; empty in another precision
    plan: list[tuple[int, int]]
    sums: Tensor
    without_gain: NotNegative  # validations without a better score
    is_epoch_open: bool  # the last step ends an epoch whose row is not in the log yet
    clock: ClockState


STATE = TypeAdapter(State)


def environment_of(device: torch.device) -> dict[str, str]:
    """Returns what the last digits of a training step depend on, besides code, settings and data."""
    if device.type == "cuda":
        return {"torch": str(torch.__version__), "processor": torch.cuda.get_device_name(device)}
    processor = f"CPU with {instruction_set()}"
    return {"torch": str(torch.__version__), "threads": str(torch.get_num_threads()), "processor": processor}


def changes_since(state: State, device: torch.device) -> list[str]:
    """Returns a line on what has changed since a checkpoint was saved, if a resumed run can differ by it; else none."""
    before = {"code": str(state.get("commit")), **state.get("environment", {})}
    now = {"code": str(commit()), **environment_of(device)}
    changed = [f"{name} {old} -> {now[name]}" for name, old in before.items() if name in now and now[name] != old]
    if not changed:
        return []
    return [f"changed since it was saved: {'; '.join(changed)}; the weights can differ from those of an unbroken run"]


def save_checkpoint(path: Path, state: dict[str, Any], config: Config) -> None:
    """Writes state dicts and plain values to `path`. A reader sees the old file or the new one, never a part."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "config": to_json(config), "commit": commit(), **state}, buffer)
    content = buffer.getvalue()
    write_atomically(path, content + b"\nsha256:" + hashlib.sha256(content).hexdigest().encode())


def load_checkpoint(path: Path, device: torch.device, needed: Iterable[str] = ()) -> State:
    """Returns what `save_checkpoint` wrote, with the tensors on `device`. It never runs code from the file.

    needed: names of `State` that must be there. Raises UserError for a missing, damaged or foreign file; the message
    says how to fix it.
    """
    try:
        return _load(path, device, needed)
    except UserError as error:
        raise UserError(f"{error}; {_suggest_fix(path, device)}") from None


def _load(path: Path, device: torch.device, needed: Iterable[str] = ()) -> State:
    content = _verified(read_bytes(path), path)
    try:
        loaded = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except MemoryError:
        raise
    except Exception:  # torch and pickle raise errors of many types for a file that they cannot read
        raise UserError(f"{path} is no checkpoint of this project") from None
    found = loaded.get("format") if isinstance(loaded, dict) else type(loaded).__name__
    if found != (WITHOUT_HASH if len(content) == path.stat().st_size else FORMAT):
        if found == FORMAT:
            raise UserError(f"{path} is truncated: it does not end with its hash")
        raise UserError(f"{path} has format {found}; this version reads format {FORMAT}")
    try:
        state = STATE.validate_python(loaded)
    except ValidationError as error:
        raise UserError(f"{path} {reason_of(error)}") from None
    if missing := [name for name in needed if name not in state]:
        raise UserError(f"{path} does not hold {', '.join(missing)}: it is another checkpoint under this name")
    return state


def _verified(content: bytes, path: Path) -> bytes:
    """Returns the part of a checkpoint that torch reads; UserError if its bytes are not those that were written."""
    if seal := SEAL.search(content[-SEAL_BYTES:]):
        content = content[:-SEAL_BYTES]
        if hashlib.sha256(content).hexdigest().encode() != seal[1]:
            raise UserError(f"{path} is damaged: its content does not match its hash")
        return content
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            damaged = archive.testzip()
    except MemoryError:
        raise
    except Exception:  # zipfile raises errors of many types for a damaged file
        raise UserError(f"{path} is no checkpoint of this project, or a truncated one") from None
    if damaged:
        raise UserError(f"{path} is damaged: {damaged!r} in it does not match its checksum")
    return content


def _suggest_fix(path: Path, device: torch.device) -> str:
    """Suggests a fix for an unreadable checkpoint: use the run's other one, resume, or retrain."""
    folder = path.parent
    other = path.with_name("best.pt" if path.stem == "last" else "last.pt")
    train = f"make train RUN={folder.name}"
    try:
        state = _load(other, device, ("step",))
    except UserError:
        if not path.exists() and not other.exists():
            return f"train the run first: {train}"
        return f"restore it, or move {folder} away and train again: {train}"
    step = state["step"]
    if not path.exists() and state.get("best_score") == -math.inf and not state.get("without_gain"):
        return f"{folder} stopped at step {step}, before its first validation; resume it: {train}"
    evaluate = f'make evaluate RUN={folder.name} SET="evaluation.checkpoint={other.stem}"'
    again = f"; to train again, move {folder} away" if path.stem == "last" else ""
    return f"restore it, or evaluate {other.name}, of step {step}: {evaluate}{again}"


def load_weights(model: torch.nn.Module, weights: Weights, path: Path) -> None:
    """Loads weights into the model; UserError if they belong to another model."""
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise UserError(f"{path} does not hold the weights of the model in {path.parent}/config.json") from None


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], path: Path) -> None:
    """Loads the state of an optimiser; UserError if it belongs to another model."""
    try:
        optimizer.load_state_dict(state)
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError):
        raise UserError(f"{path} does not hold the optimiser of the model in {path.parent}/config.json") from None


def load_scaler(scaler: torch.amp.GradScaler, state: dict[str, int | float], path: Path) -> None:
    """Loads the state of a gradient scaler; UserError if it belongs to another precision."""
    if state.keys() != scaler.state_dict().keys():
        raise UserError(f"{path} does not hold the gradient scaler of the precision in {path.parent}/config.json")
    scaler.load_state_dict(state)


def refuse_without_progress(folder: Path) -> None:
    """Raises UserError for a run that has trained and whose last.pt is missing, because training would start anew."""
    left = [name for name in ("best.pt", "log.jsonl") if (folder / name).exists()]
    if left and not (folder / "last.pt").exists():
        raise UserError(
            f"{folder} holds {' and '.join(left)} of an earlier training, but not last.pt, from which it would resume; "
            f"restore last.pt; or move {folder} away, or train under another name, to start anew"
        )


def check_settings(state: State, config: Config, path: Path) -> None:
    """Raises UserError if the settings in a checkpoint differ from those of its run's configuration."""
    before = from_json(state["config"], str(path))
    changed = differences(before, config)
    if changed and not (path.parent / "config.json").exists():
        raise UserError(
            f"{path} was trained with other settings ({'; '.join(changed)}), and {path.parent}/config.json is missing; "
            f'repeat the command with SET="{as_set(before, changed)}"'
        )
    if changed:
        raise UserError(
            f"{path} was trained with other settings than {path.parent}/config.json has ({'; '.join(changed)}); "
            "restore one of the two files"
        )


def check_data(state: State, dataset: str, fingerprint: str, path: Path) -> None:
    """Raises UserError if a checkpoint was trained on other data than those that a data set now holds."""
    if state["dataset_fingerprint"] != fingerprint:
        raise UserError(
            f"{path} was trained on other data than data/{dataset} now holds; pack those data again, or train under "
            f"another name, or move {path.parent} away"
        )
