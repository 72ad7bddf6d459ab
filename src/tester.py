"""runs/<run>/ -> predictions and scores: evaluation on known footage, the test rollout, a person's own pictures."""

import argparse
import json
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from src.checkpoint import check_settings, load_checkpoint, load_weights, read_config
from src.config import Config
from src.console import UserError, run_main, say
from src.dataset import DanceData, open_dance
from src.distributed import pick_device
from src.files import commit, file_hash, write_atomically
from src.history import read_history
from src.intake.listing import NUMBERED
from src.intake.sources import decode, image_size
from src.metrics import (
    copy_first_frame,
    median_frame,
    nearest_pose,
    psnr_per_frame,
    quantise,
    rollout_scores,
    ssim_per_frame,
)
from src.models import Model, build_model
from src.reporting.plots import plot_history, plot_psnr, save_gif, save_strip, side_by_side
from src.rollout import predict
from src.submission import Provenance, check_submission, safe_to_replace, write_submission
from src.validation import Validation


@dataclass(frozen=True)
class Trained:
    """A trained run: its configuration, its network in evaluation mode, and the checkpoint it came from."""

    folder: Path
    config: Config
    model: Model
    checkpoint: Path
    step: int
    frame_size: tuple[int, int]  # height and width
    device: torch.device


def open_run(run: str, runs_folder: Path = Path("runs")) -> Trained:
    """Returns the trained model of a run; UserError where it is missing, damaged or trained with other settings."""
    folder = runs_folder / run
    config = read_config(folder)
    device = pick_device(config.training.device)
    path = folder / f"{config.evaluation.checkpoint}.pt"
    state = load_checkpoint(path, device)
    check_settings(state, config, path)
    height, width = state["frame_size"]
    model = build_model(config, height=height, width=width).to(device)
    load_weights(model, state["ema"], path)
    return Trained(folder, config, model.eval(), path, state["step"], (height, width), device)


def evaluate(run: str, *, data_folder: Path = Path("data"), runs_folder: Path = Path("runs")) -> dict[str, object]:
    """Rolls out the validation take and writes scores.json, the plots and the GIF into the run's folder.

    Returns what scores.json holds: the competition's score first, the rest of mission's list, the baselines.
    """
    trained = open_run(run, runs_folder)
    config = trained.config
    data = open_dance(config.dataset, data_folder)
    validation = Validation(config, data.val, context=trained.model.context, device=trained.device)
    started = time.monotonic()
    drawn = validation.draw(trained.model).cpu()
    seconds = time.monotonic() - started
    truth, poses = validation.frames.cpu(), validation.poses.cpu()
    informed = validation.draw_from_posterior(trained.model).cpu()
    candidates = {run: drawn, "posterior latent": informed, **baselines(data, truth[0], poses)}
    psnr = {name: psnr_per_frame(clip, truth) for name, clip in candidates.items()}
    scores = {name: rollout_scores(psnr[name], ssim_per_frame(clip, truth)) for name, clip in candidates.items()}
    leak = scores["posterior latent"].score - scores[run].score
    content: dict[str, object] = {
        "run": run,
        **scores.pop(run).as_json(),
        "posterior_minus_prior_db": leak,
        "posterior_latent": scores.pop("posterior latent").as_json(),
        "baselines": {name: score.as_json() for name, score in scores.items()},
        "protocol": f"free rollout of {len(truth)} frames from frame 0 of the validation take of {config.dataset}; "
        f"checkpoint: {config.evaluation.checkpoint} by the validations on this take; latent: {_latent(config)} of the "
        f"prior; mirror: {config.evaluation.mirror}; score: mean PSNR of frames 1-600",
        "psnr_by_frame": ["inf" if value == math.inf else value for value in psnr[run].tolist()],
        "rollout_seconds": seconds,
        "num_parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "checkpoint_step": trained.step,
        "checkpoint_sha256": file_hash(trained.checkpoint),
        "config_sha256": file_hash(trained.folder / "config.json"),
        "dataset_fingerprint": data.manifest.fingerprint,
        "commit": commit(),
    }
    write_atomically(trained.folder / "scores.json", (json.dumps(content, indent=1) + "\n").encode())
    del psnr["posterior latent"]
    plot_psnr(trained.folder / "psnr_by_frame.png", psnr)
    plot_history(trained.folder / "curves.png", read_history(trained.folder))
    save_gif(trained.folder / "validation.gif", side_by_side([truth, drawn, poses]))
    save_strip(trained.folder / "validation_strip.png", [truth, drawn, poses])
    return content


def baselines(data: DanceData, first: Tensor, poses: Tensor) -> dict[str, Tensor]:
    """Returns clips (T, 3, H, W) uint8 that need no training, for a first frame (3, H, W) and poses (T, 3, H, W)."""
    frames, known = (torch.from_numpy(np.array(pixels)) for pixels in (data.train.frames, data.train.poses))
    return {
        "first frame": copy_first_frame(first, len(poses)),
        "median frame": copy_first_frame(median_frame(frames), len(poses)),
        "nearest pose": nearest_pose(frames, known, poses, 1),
        "mean of 5 nearest poses": nearest_pose(frames, known, poses, 5),
    }


def roll_out_tests(trained: Trained, data: DanceData) -> Tensor:
    """Returns the prediction of all test sequences as one batch, (K, T, 3, H, W) uint8; frame 0 is the given one."""
    given = torch.from_numpy(np.array(data.test_frames)).to(trained.device)
    poses = torch.from_numpy(np.array(data.test_poses)).to(trained.device)
    num_sequences, length = poses.shape[:2]
    assert given.shape == (num_sequences, *poses.shape[2:]), f"1 given frame and {length} poses each: {given.shape}"
    drawn = predict(trained.model, given, poses, trained.config.evaluation, seed=trained.config.seed)
    assert drawn.shape == (num_sequences, length, 3, *data.frame_size), f"rollout of {tuple(drawn.shape)}"
    rollouts = quantise(drawn).cpu()
    assert torch.equal(rollouts[:, 0], given.cpu()), "frame 0 must be the given frame"
    return rollouts


def submission(
    run: str,
    *,
    data_folder: Path = Path("data"),
    runs_folder: Path = Path("runs"),
    submissions_folder: Path = Path("submissions"),
) -> Path:
    """Rolls out the test sequences and returns submissions/<run>.csv, checked; writes its provenance and GIFs."""
    trained = open_run(run, runs_folder)
    config = trained.config
    data = open_dance(config.dataset, data_folder)
    path = submissions_folder / f"{run}.csv"
    safe_to_replace(path)
    origin: dict[str, Any] = {
        "run": run,
        "dataset": config.dataset,
        "dataset_fingerprint": data.manifest.fingerprint,
        "config_sha256": file_hash(trained.folder / "config.json"),
        "checkpoint_sha256": file_hash(trained.checkpoint),
        "checkpoint_step": trained.step,
        "local_score": _local_score(trained),
        "seed": config.seed,
    }
    if path.is_file() and origin.items() <= Provenance.load(path.with_suffix(".json")).model_dump().items():
        say(f"{path} is up to date: it was written from this checkpoint, configuration and data set")
        return path
    rollouts = roll_out_tests(trained, data)
    for number, clip in enumerate(rollouts):
        poses = torch.from_numpy(np.array(data.test_poses[number]))
        save_gif(trained.folder / f"pred_seq{number}.gif", side_by_side([clip, poses]))
    write_submission(path, rollouts, sequence_length=rollouts.shape[1])
    try:
        checked = check_submission(
            path, first_frames=data.test_frames, num_sequences=len(rollouts), sequence_length=rollouts.shape[1]
        )
        Provenance(
            **origin,
            csv_sha256=checked.sha256,
            num_rows=checked.num_rows,
            num_sequences=checked.num_sequences,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=commit(),
        ).save(path.with_suffix(".json"))
    except BaseException:
        path.unlink()  # nothing would say where this csv comes from, so nothing could replace it
        raise
    return path


def _local_score(trained: Trained) -> float | None:
    """Returns the validation score of this very checkpoint and configuration, if it has been evaluated."""
    path = trained.folder / "scores.json"
    scores = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    present = (file_hash(trained.checkpoint), file_hash(trained.folder / "config.json"))
    return scores["score"] if (scores.get("checkpoint_sha256"), scores.get("config_sha256")) == present else None


def _latent(config: Config) -> str:
    settings = config.evaluation
    return f"mean of {settings.num_samples} samples" if settings.latent == "mean_of_samples" else settings.latent


def predict_pictures(run: str, frame: Path, poses: Path, out: Path, *, runs_folder: Path = Path("runs")) -> Tensor:
    """Draws a person's own clip, (T, 3, H, W) uint8, from a first frame and a folder of numbered pose pictures.

    Writes a GIF of prediction and poses to `out`, and the frames as PNG into a folder of the same name.
    """
    if out.suffix.lower() != ".gif":
        raise UserError(f"OUT={out}: the result is a GIF; give a name that ends in .gif")
    given, folder = _read_picture(frame), out.with_suffix("")
    conditions = torch.stack([_read_picture(path) for path in _numbered_pictures(poses)])
    if folder.exists() and (folder.samefile(poses) or not (out.is_file() and folder.is_dir())):
        raise UserError(f"{folder} exists and was not written together with {out}; move it away, or give another OUT")
    trained = open_run(run, runs_folder)
    conditions = conditions.to(trained.device)
    settings, seed = trained.config.evaluation, trained.config.seed
    drawn = quantise(predict(trained.model, given[None].to(trained.device), conditions[None], settings, seed=seed)[0])
    folder.mkdir(parents=True, exist_ok=True)
    save_gif(out, side_by_side([drawn.cpu(), conditions.cpu()]))
    for earlier in folder.glob("*.png"):  # a longer clip would leave its last frames among these
        earlier.unlink()
    for number, picture in enumerate(drawn.cpu()):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    return drawn


def _read_picture(path: Path) -> Tensor:
    """Returns a PNG as (3, H, W) uint8, resized as the training frames were."""
    if not path.is_file():
        raise UserError(f"FRAME or POSES: {path} is no file; needed: a PNG file")
    content = path.read_bytes()
    image_size(content, str(path))
    return torch.from_numpy(decode(content, str(path)).transpose(2, 0, 1).copy())


def _numbered_pictures(folder: Path) -> list[Path]:
    """Returns the PNG files N.png or frameN.png of a folder in the order of their numbers."""
    if not folder.is_dir():
        raise UserError(f"POSES={folder} is not a folder; needed: a folder with the pose pictures 0.png, 1.png, ...")
    matches = {path: NUMBERED.fullmatch(path.name) for path in folder.glob("*.png")}
    numbers = {int(match[1]): path for path, match in matches.items() if match}
    if len(numbers) != len(matches) or sorted(numbers) != list(
        range(min(numbers, default=0), max(numbers, default=-1) + 1)
    ):
        raise UserError(
            f"{folder} holds {len(matches)} PNG files; needed: one for each number, without holes: 0.png, 1.png, ..."
        )
    if len(numbers) < 2:
        raise UserError(f"{folder} holds {len(numbers)} poses; needed: 2 or more, the first belongs to the given frame")
    return [numbers[number] for number in sorted(numbers)]


def print_scores(run: str, runs_folder: Path = Path("runs")) -> None:
    """Prints the score of an evaluated run beside the baselines."""
    path = runs_folder / run / "scores.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist; evaluate the run first: make evaluate RUN={run}")
    scores = json.loads(path.read_text(encoding="utf-8"))
    table = Table("validation take", "score (dB)", "SSIM", title=f"{run}: mean PSNR of frames 1 to 600")
    score = float(scores["score"])  # a perfect one is the string "inf"
    table.add_row(run, f"{score:.2f}", f"{scores['mean_ssim']:.3f}", style="bold")
    for name, baseline in scores["baselines"].items():
        table.add_row(name, f"{float(baseline['score']):.2f}", f"{baseline['mean_ssim']:.3f}")
    Console().print(table)
    best = max(float(baseline["score"]) for baseline in scores["baselines"].values())
    say(f"{score - best:+.2f} dB against the best baseline; all of it in {path}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m src.tester", description="What a trained run predicts.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("evaluate", help="validation rollout and scores").add_argument("run")
    commands.add_parser("scores", help="the scores of an evaluated run").add_argument("run")
    commands.add_parser("submission", help="test rollout and csv").add_argument("run")
    own = commands.add_parser("predict", help="a clip from a person's own pictures")
    own.add_argument("run")
    own.add_argument("--frame", type=Path, required=True, help="the first frame")
    own.add_argument("--poses", type=Path, required=True, help="folder of numbered pose pictures")
    own.add_argument("--out", type=Path, required=True, help="GIF to write")
    arguments = parser.parse_args()
    if arguments.command == "evaluate":
        evaluate(arguments.run)
        print_scores(arguments.run)
    elif arguments.command == "scores":
        print_scores(arguments.run)
    elif arguments.command == "submission":
        path = submission(arguments.run)
        say(f"{path}: valid. Upload it with")
        say(f'  kaggle competitions submit -c COMPETITION -f {path} -m "{arguments.run}"')
    else:
        drawn = predict_pictures(arguments.run, arguments.frame, arguments.poses, arguments.out)
        say(f"{arguments.out}: {len(drawn)} frames; single frames in {arguments.out.with_suffix('')}/")


if __name__ == "__main__":
    run_main(main)
