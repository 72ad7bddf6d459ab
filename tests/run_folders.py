"""Run folders as trainer.py and tester.py leave them, written by hand: no training, all numbers known."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from src.config import Config, to_json
from src.reporting.clips import NewClip, save_clips
from tests.conftest import tiny_config

ROLLOUT = {
    "mean_psnr": 24.0,
    "mean_ssim": 0.8125,
    "psnr_1_to_10": 30.0,
    "psnr_100": 26.5,
    "psnr_300": None,
    "psnr_600": None,
}
BASELINES = {"first frame": 18.25, "median frame": 19.5}


def log_rows(num_epochs: int, *, offset: float = 0.0) -> list[dict[str, float]]:
    """Rows of 2 steps an epoch at 4 clips/s; the validation score is 20 + epoch + offset, every second epoch."""
    rows = []
    for epoch in range(1, num_epochs + 1):
        row = {"epoch": epoch, "step": 2 * epoch, "total": 1 / epoch + offset, "reconstruction": 0.5 / epoch, "kl": 3.0}
        row |= {"kl_weight": 1e-4, "teacher_forcing_ratio": 0.0, "learning_rate": 1e-3, "skipped_steps": 0.0}
        row |= {"clips_per_s": 4.0, "data_share": 0.1}
        if epoch % 2 == 0 or epoch == num_epochs:
            row |= {"validation_score": 20 + epoch + offset, "validation_score_posterior": 21.0 + epoch + offset}
            row |= {"validation_total": 1.1, "validation_reconstruction": 0.6, "validation_kl": 3.5}
        rows.append(row)
    return rows


def scores(run: str, score: float, checkpoint: bytes, config: bytes) -> dict[str, object]:
    """What scores.json holds after an evaluation of a checkpoint with a config.json."""
    return {
        "system": "dance",
        "run": run,
        "score": "Infinity" if math.isinf(score) else score,
        "num_given": 1,
        "scored_frames": [1, 11],
        "num_samples_compared": 3,
        **ROLLOUT,
        "posterior_minus_prior_db": 0.25,
        "score_prior_mean": 20.5,
        "score_single": 18.5,
        "score_mean_of_samples": 19.5,
        "psnr_between_samples": 40.0,
        "psnr_between_samples_vague": 35.0,
        "posterior_latent": {"score": score + 0.25} | ROLLOUT,
        "baselines": {name: {"score": value} | ROLLOUT for name, value in BASELINES.items()},
        "protocol": "free rollout of 12 frames of tiny",
        "psnr_by_frame": ["Infinity", *[score] * 11],
        "rollout_seconds": 1.5,
        "num_parameters": 1_585_620,
        "checkpoint_step": 10,
        "checkpoint_sha256": hashlib.sha256(checkpoint).hexdigest(),
        "config_sha256": hashlib.sha256(config).hexdigest(),
        "dataset_fingerprint": "ab" * 32,
        "commit": "0123456789ab",
    }


def write_run(
    folder: Path, *, score: float = 25.0, config: Config | None = None, num_epochs: int = 5, **numbers: object
) -> Path:
    """A trained and evaluated run with pictures of 6 x 10 pixels, some numbers its own; returns its folder."""
    folder.mkdir(parents=True)
    checkpoint = f"weights of {folder.name}".encode()
    settings = to_json(config or tiny_config("reference_cvae")).encode()
    (folder / "config.json").write_bytes(settings)
    rows = log_rows(num_epochs, offset=score - 25)
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "best.pt").write_bytes(checkpoint)
    (folder / "scores.json").write_text(json.dumps(scores(folder.name, score, checkpoint, settings) | numbers))
    noise = np.random.default_rng(0).integers(0, 255, (3, 6, 10, 3), dtype=np.uint8)
    pictures = [Image.fromarray(frame) for frame in noise]
    for name in ("rollout_strip.png", "psnr_by_frame.png"):
        pictures[0].save(folder / name)
    for name in ("rollout.gif", "samples.gif", "pred_seq0.gif", "pred_seq1.gif"):
        pictures[0].save(folder / name, save_all=True, append_images=pictures[1:])
    save_clips(folder, [noise_clip(score)], hashlib.sha256(checkpoint).hexdigest())
    return folder


def noise_clip(score: float, *, num_frames: int = 12, name: str = "validation take") -> NewClip:
    """A clip of noise, 6 x 10 pixels. The true frames and the poses are always the same, what is drawn is not."""
    chance = np.random.default_rng(1)
    shape = (num_frames, 3, 6, 10)
    truth, pose = (torch.from_numpy(chance.integers(0, 256, shape, dtype=np.uint8)) for _ in range(2))
    own = np.random.default_rng(int(abs(score) * 100) if math.isfinite(score) else 0)
    layers = {"true": truth, "drawn": torch.from_numpy(own.integers(0, 256, shape, dtype=np.uint8)), "pose": pose}
    layers["sample 1"] = layers["drawn"].flip(0)
    curve = [math.inf, *[score] * (num_frames - 1)]
    psnr = {
        "drawn": curve,
        "sample 1": [math.inf, *range(1, num_frames)],
        "median frame": [math.inf, *[19.5] * (num_frames - 1)],
    }
    return NewClip(name, layers, psnr, (1, num_frames - 1))
