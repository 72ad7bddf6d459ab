"""What the player of the page shows, as JSON: clips of several runs, each layer as a picture inside the page."""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from src.base.console import UserError
from src.base.system_errors import explained
from src.reporting.clips import StoredClip, read_clips, read_sprite
from src.reporting.results import Run

MAX_SPRITE_BYTES = 6_000_000  # of all pictures together; in the page, they take a third more


@dataclass
class PlayerContent:
    """The runs with clips, the pictures of their layers by hash, and what was left out."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    sprites: dict[str, bytes] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)  # by run

    @property
    def num_bytes(self) -> int:
        """The size of all pictures."""
        return sum(map(len, self.sprites.values()))

    def as_json(self) -> dict[str, Any]:
        """Returns the content as the player reads it."""
        texts = {key: base64.b64encode(data).decode() for key, data in self.sprites.items()}
        sprites = {key: f"data:image/webp;base64,{text}" for key, text in texts.items()}
        return {"runs": self.runs, "sprites": sprites}


def player_content(runs: Sequence[Run]) -> PlayerContent:
    """Returns what the player shows of these runs, the most important first.

    Layers are added until the page would be too large: first true, drawn and pose of every run, then the samples. Equal
    pictures, such as the true frames of one data set, are stored once.
    """
    content = PlayerContent()
    chosen: list[tuple[Run, tuple[StoredClip, ...]]] = []
    for run in runs:
        if run.scores is None:
            continue
        try:
            chosen.append((run, read_clips(run.folder, run.scores.checkpoint_sha256)))
        except (UserError, OSError) as error:
            content.notes[run.name] = [_note(error, run)]
    fitting: dict[tuple[str, str], str] = {}  # run and file -> key of the picture
    for are_samples in (False, True):
        for run, clips in chosen:
            _add_layers(content, run, clips, are_samples, fitting)
    for run, clips in chosen:
        shown = [_clip(run.name, clip, fitting) for clip in clips]
        if whole := [clip for clip in shown if {"true", "drawn"} <= clip["layers"].keys()]:
            content.runs.append(_run(run, whole))
    return content


def _note(error: Exception, run: Run) -> str:
    """Returns why a file of a run is not shown: it is damaged, or the system refuses it."""
    return explained(error) or f"{error}; make evaluate RUN={run.name}"


def _add_layers(
    content: PlayerContent,
    run: Run,
    clips: Sequence[StoredClip],
    are_samples: bool,
    fitting: dict[tuple[str, str], str],
) -> None:
    for layer in (layer for clip in clips for layer in clip.layers if layer.name.startswith("sample") == are_samples):
        try:
            data = read_sprite(run.folder, layer)
        except (UserError, OSError) as error:
            content.notes.setdefault(run.name, []).append(_note(error, run))
            continue
        key = hashlib.sha256(data).hexdigest()[:16]
        if key not in content.sprites and content.num_bytes + len(data) > MAX_SPRITE_BYTES:
            note = f"{layer.name} is not in the player, because the page would be too large; to see it: "
            content.notes.setdefault(run.name, []).append(f'{note}make report RUNS="{run.name}" OUT=page.html')
            continue
        content.sprites[key] = data
        fitting[run.name, layer.file] = key


def _clip(run: str, clip: StoredClip, fitting: dict[tuple[str, str], str]) -> dict[str, Any]:
    shown = [layer for layer in clip.layers if (run, layer.file) in fitting]
    return {
        "name": clip.name,
        "frames": clip.num_frames,
        "height": clip.height,
        "width": clip.width,
        "rows": clip.rows,
        "scored": clip.scored,
        "layers": {
            layer.name: {"sprite": fitting[run, layer.file], "psnr": _curve(layer.psnr) or None} for layer in shown
        },
        "baselines": {name: _curve(psnr) for name, psnr in clip.baselines.items()},
    }


def _curve(psnr: Sequence[float | None]) -> list[float | str | None]:
    """Returns a curve without infinite numbers, because JSON has none: those of identical frames become a word."""
    return ["identical" if level is not None and math.isinf(level) else level for level in psnr]


def _run(run: Run, clips: list[dict[str, Any]]) -> dict[str, Any]:
    assert run.scores is not None, "it has clips"
    return {"name": run.name, "score": run.scores.score, "system": run.scores.system, "clips": clips}
