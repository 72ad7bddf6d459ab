"""Decides what `training.precision = "auto"` means, once, when a run starts."""

from pathlib import Path

import torch

from src.base.bfloat16 import hardware_precision, has_bfloat16, has_fast_float16, reason, warning
from src.base.console import UserError
from src.base.distributed import any_process
from src.config import Config, from_json
from src.training.checkpoint import load_checkpoint
from src.training.saved_config import read_config


def with_precision(config: Config, folder: Path, device: torch.device) -> tuple[Config, list[str]]:
    """Returns the configuration with a decided precision, and lines to print when training starts.

    A resumed run keeps its precision; a new run gets one that suits this machine. The lines say what "auto" has become,
    and whether the precision is slow here. Raises UserError for bfloat16 on a GPU without it.
    """
    decided = as_begun(config, folder)
    why = f"as {folder} began" if decided != config else ""
    if decided.training.precision == "auto":
        common = _common_precision(device)
        own = hardware_precision(device)
        decided = with_decided(config, common)
        why = reason(device) if common == own else f"another process has no {own} arithmetic"
    lines = [f"precision: {decided.training.precision}, {why}"] if why else []
    if decided.training.precision == "bfloat16":
        _refuse_without_bfloat16(folder, device)
    slow = warning(device, decided.training.precision)
    return decided, lines + ([slow] if slow else [])


def _common_precision(device: torch.device) -> str:
    """Returns the precision that suits every process: one that computes slowly would delay the others."""
    for precision, suits in (("bfloat16", has_bfloat16(device)), ("float16", has_fast_float16(device))):
        if not any_process(not suits, device):
            return precision
    return "float32"


def as_begun(config: Config, folder: Path) -> Config:
    """Returns the configuration with "auto" replaced by the precision of the run, if the run has already started."""
    if config.training.precision != "auto":
        return config
    if (folder / "config.json").is_file():
        return with_decided(config, read_config(folder).training.precision)
    if (folder / "last.pt").is_file():
        state = load_checkpoint(folder / "last.pt", torch.device("cpu"))
        return with_decided(config, from_json(state["config"], str(folder / "last.pt")).training.precision)
    return config


def with_decided(config: Config, precision: str) -> Config:
    """Returns the configuration with this precision."""
    training = config.training.model_copy(update={"precision": precision})
    return config.model_copy(update={"training": training})


def _refuse_without_bfloat16(folder: Path, device: torch.device) -> None:
    """Raises UserError if the GPU has no bfloat16 and would only emulate it."""
    if device.type != "cuda" or has_bfloat16(device):
        return
    fitting = hardware_precision(device)
    begun = (folder / "config.json").is_file()
    fix = "resume it on another GPU, or train under another name" if begun else f"use {fitting}"
    raise UserError(f'this GPU has no bfloat16, but {folder} needs it; {fix}: SET="training.precision={fitting}"')
