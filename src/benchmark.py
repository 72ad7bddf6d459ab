"""The speed of each part of the pipeline, compared with a plain loop that does the same work.

`python -m src.benchmark` prints one row per part and writes reports/benchmark.md. Both sides run in turn. The ratio is
the plain loop's median time divided by ours. The spread is the smallest and the largest ratio of two consecutive runs.
"""

import io
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from src.base.bfloat16 import instruction_set
from src.base.console import run_program, say, track
from src.base.devices import hardware
from src.base.files import write_atomically
from src.base.ownership import owned
from src.base.provenance import commit
from src.base.randomness import Draws
from src.commands import bench_options
from src.config import AugmentationConfig, parse_config
from src.dataset import Batch, ClipSampler, Footage, to_unit, with_context
from src.evaluation.rollout import rollout
from src.intake.facts import NUM_ACTION, NUM_POSITION
from src.maths.losses import LOG_VARIANCE_BOUNDS, bound_log_variance, kl_between, kl_to_standard_normal, reparameterise
from src.models.configs import SVGConfig
from src.models.interface import VideoModel, build_model
from src.models.lab_cvae import LabCVAE
from src.models.svg import SVG
from src.packing import pack_images
from src.pushing.data import PushingBatch
from src.submission import write_submission
from src.synthetic.dancers import dance_take, write_dance

HEIGHT, WIDTH = 32, 64
SVG_SIZE = 64  # height and width
SVG_KL_WEIGHT = 1e-4
REPORT = Path("reports/benchmark.md")
Work = Callable[[], object]


@dataclass(frozen=True)
class BenchmarkRow:
    """A part of the pipeline: our code and the plain loop, which do the same work."""

    name: str
    work: str
    ours: Work
    plain: Work


@dataclass(frozen=True)
class Timing:
    """The time of each run in seconds. Ours and plain are measured in turn."""

    row: BenchmarkRow
    ours: list[float]
    plain: list[float]

    def cells(self) -> list[str]:
        """Returns name, work, both medians in ms, the ratio of the medians, and the spread of the ratios."""
        ratios = [plain / ours for ours, plain in zip(self.ours, self.plain, strict=True)]
        ours, plain = statistics.median(self.ours), statistics.median(self.plain)
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        return [self.row.name, self.row.work, f"{1e3 * ours:.1f}", f"{1e3 * plain:.1f}", f"{plain / ours:.2f}", spread]


def measure(row: BenchmarkRow, repeats: int) -> Timing:
    """Returns the seconds of `repeats` runs of each side, after one warm-up run."""
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for repeat in range(repeats + 1):
        for side, work in (("ours", row.ours), ("plain", row.plain)):
            started = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                seconds[side].append(time.perf_counter() - started)
    return Timing(row, seconds["ours"], seconds["plain"])


def packing_row(folder: Path, num_images: int) -> BenchmarkRow:
    """`make data`. Plain: one process decodes one PNG after the other with Pillow."""
    source = folder / "pictures"
    write_dance(source, num_takes=1, take_length=num_images // 2, val_length=2, num_tests=1, test_length=2)
    pictures = sorted((source / "train").rglob("*.png"))

    def ours() -> None:
        pack_images(source, "benchmark", data_folder=folder, cuts=(), test_length=2)
        shutil.rmtree(folder / "benchmark")

    def plain() -> None:
        np.stack([np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) for path in pictures])

    return BenchmarkRow("pack", f"{len(pictures)} pictures", ours, plain)


def csv_row(folder: Path) -> BenchmarkRow:
    """Writing the submission's csv. Plain: pandas."""
    rollouts = torch.from_numpy(np.resize(_footage(64).frames, (5, 630, 3, HEIGHT, WIDTH)))

    def ours() -> None:
        (folder / "ours.csv").unlink(missing_ok=True)
        write_submission(folder / "ours.csv", rollouts)

    def plain() -> None:
        pd.DataFrame(rollouts.reshape(5 * 630, -1).numpy()).to_csv(folder / "plain.csv", index_label="id")

    return BenchmarkRow("csv", "3,150 rows", ours, plain)


def batch_row(folder: Path, device: torch.device) -> BenchmarkRow:
    """A training batch from packed pixels. Plain: decode the batch's PNGs, as every epoch does without packing."""
    footage = _footage(256)
    context = 1  # poses before and after each frame
    sampler = ClipSampler(
        footage, window=1, context=context, augmentation=AugmentationConfig(mirror=False), seed=0, device=device
    )
    encoded = [[_png(picture) for picture in pictures] for pictures in (footage.frames, footage.poses)]
    starts = range(context, 33 - context)

    def decoded(kind: int, index: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(encoded[kind][index]))).transpose(2, 0, 1)

    def plain() -> None:
        frames = np.stack([[decoded(0, t)] for t in starts])
        poses = np.stack([[decoded(1, t + offset) for offset in (-1, 0, 1)] for t in starts])
        reference, reference_pose = (np.stack([decoded(kind, 0) for _ in starts]) for kind in (0, 1))
        Batch(*(to_unit(part).to(device) for part in (frames, poses, reference, reference_pose)))

    return BenchmarkRow("batch", f"{len(starts)} clips", lambda: sampler.batch(0, 0, range(len(starts))), plain)


@torch.no_grad()
def rollout_rows(device: torch.device, length: int) -> list[BenchmarkRow]:
    """Rollouts of both pose models. Plain: one sequence after the other, encoding one pose at a time."""
    footage = _footage(256)
    rows = []
    poses = to_unit(np.resize(footage.poses, (2, length, 3, HEIGHT, WIDTH))).to(device)
    given = to_unit(footage.frames[:2]).to(device)
    for name in ("reference_cvae", "lab_cvae"):
        model = _model(name).to(device).eval()
        latents = torch.zeros(2, length, *model.latent_shape, device=device)
        ours = partial(rollout, model, given[:, None], poses, latents)
        plain = partial(_plain_rollout, model, given, poses)
        rows.append(BenchmarkRow(f"rollout {name}", f"2 x {length} frames", ours, plain))
    return rows


@torch.no_grad()
def _plain_rollout(model: VideoModel, given: Tensor, poses: Tensor) -> Tensor:
    sequences = []
    for sequence in range(len(poses)):
        clip = with_context(poses[sequence : sequence + 1], model.context)
        state = model.start(given[sequence : sequence + 1, None], poses[sequence : sequence + 1, :1])
        frames = [given[sequence : sequence + 1]]
        for time_step in range(1, poses.shape[1]):
            condition = model.encode_conditions(clip[:, time_step : time_step + 2 * model.context + 1])[:, 0]
            latent = torch.zeros(1, *model.latent_shape, device=given.device)
            frame, state = model.step(state, condition, latent)
            frames.append(frame)
        sequences.append(torch.stack(frames, dim=1))
    return torch.cat(sequences)


def training_row(device: torch.device) -> BenchmarkRow:
    """A training step of the lab CVAE with teacher forcing, parallel over time. Plain: the same step frame by frame."""
    model: LabCVAE = _model("lab_cvae").to(device)
    clip = to_unit(_footage(8).frames.reshape(2, 4, 3, HEIGHT, WIDTH)).to(device)
    batch = Batch(clip, clip, clip[:, 0], clip[:, 0])
    draws = Draws(0, 0, range(2), device)

    def ours() -> None:
        model.zero_grad()
        model(batch, draws, kl_weight=1.0, teacher_forcing_ratio=1.0).total.backward()

    def plain() -> None:
        model.zero_grad()
        total = torch.zeros((), device=device)
        for t in range(1, clip.shape[1]):
            pose = model.pose_encoder(clip[:, t])
            current = torch.cat([model.frame_encoder(clip[:, t]), pose], dim=1)
            mean, log_variance = model.gaussian_predictor(current).chunk(2, dim=1)
            latent = reparameterise(mean, log_variance, torch.randn_like(mean))
            drawn = model.decode(model.frame_encoder(clip[:, t - 1]), pose, latent)
            total = total + functional.mse_loss(drawn, clip[:, t]) + kl_to_standard_normal(mean, log_variance).mean()
        total.backward()

    return BenchmarkRow("train lab_cvae", "2 clips of 4 frames", ours, plain)


def svg_training_row(device: torch.device, width: int = 16) -> BenchmarkRow:
    """A training step of SVG with teacher forcing. Plain: the same step as it is usually written.

    The usual code encodes each frame twice, once as input and once as target, and decodes one frame at a time.
    """
    model = _svg(device, width)
    batch = _pushing_batch(device)
    draws = Draws(0, 0, range(len(batch.frames)), device)

    def ours() -> Tensor:
        return _backward(model, model(batch, draws, kl_weight=SVG_KL_WEIGHT, teacher_forcing_ratio=1.0).total)

    def plain() -> Tensor:
        return _backward(model, _plain_svg_loss(model, batch, draws))

    return BenchmarkRow("train svg", "4 clips of 12 frames", ours, plain)


def svg_rollout_row(device: torch.device, width: int = 16) -> BenchmarkRow:
    """Samples of several clips as one batch. Plain: one after the other, each encoding its given frames again."""
    model = _svg(device, width).eval()
    batch = _pushing_batch(device)
    num_samples = 4
    given = batch.frames[:, : model.num_given]
    conditions = batch.conditions
    noise = torch.randn(num_samples, *conditions.shape[:2], *model.latent_shape, device=device)
    all_given, all_conditions = (part.repeat(num_samples, *[1] * (part.ndim - 1)) for part in (given, conditions))

    def ours() -> Tensor:
        return rollout(model, all_given, all_conditions, noise.flatten(0, 1))

    def plain() -> Tensor:
        pairs = [(sample, clip) for sample in range(num_samples) for clip in range(len(given))]
        return torch.cat([_plain_svg_rollout(model, given[c], conditions[c], noise[s, c]) for s, c in pairs])

    return BenchmarkRow("rollout svg", f"{num_samples} samples of {len(given)} clips of 12 frames", ours, plain)


def _backward(model: SVG, total: Tensor) -> Tensor:
    """Computes the gradients of the loss and returns the loss."""
    model.zero_grad()
    total.backward()
    return total.detach()


def _plain_svg_loss(model: SVG, batch: PushingBatch, draws: Draws) -> Tensor:
    assert model.prior is not None, "_svg builds it with a learned prior"
    frames, conditions = batch.frames.unbind(1), batch.conditions.unbind(1)
    noise = draws.normal("latent", (len(frames) - 1, *model.latent_shape))
    blank = frames[0].new_zeros(len(frames[0]), 1)
    predictor, prior, posterior = (block.start(blank) for block in (model.predictor, model.prior, model.posterior))
    total = torch.zeros((), device=blank.device)
    for t in range(1, len(frames)):
        before, skips = model.encoder(frames[t - 1])
        mean, raw, posterior = model.posterior(model.encoder(frames[t])[0], posterior)
        log_variance = bound_log_variance(raw, *LOG_VARIANCE_BOUNDS)
        prior_mean, raw, prior = model.prior(before, prior)
        divergence = kl_between(mean, log_variance, prior_mean, bound_log_variance(raw, *LOG_VARIANCE_BOUNDS))
        latent = reparameterise(mean, log_variance, noise[:, t - 1])
        features, predictor = model.predictor(torch.cat([before, latent, conditions[t - 1]], dim=1), predictor)
        drawn = model.decoder(features, skips)
        total = total + functional.mse_loss(drawn, frames[t]) + SVG_KL_WEIGHT * divergence.mean()
    return total


@torch.no_grad()
def _plain_svg_rollout(model: SVG, given: Tensor, conditions: Tensor, noise: Tensor) -> Tensor:
    """Returns a clip (1, T, 3, H, W) from its given frames (G, 3, H, W), conditions (T, N) and noise (T, latents)."""
    assert model.prior is not None, "_svg builds it with a learned prior"
    frames = [given[:1]]
    blank = given.new_zeros(1, 1)
    predictor, prior, posterior = (block.start(blank) for block in (model.predictor, model.prior, model.posterior))
    for t in range(1, len(conditions)):
        before, skips = model.encoder(frames[-1])
        mean, raw, prior = model.prior(before, prior)
        if t < len(given):
            latent, _, posterior = model.posterior(model.encoder(given[t : t + 1])[0], posterior)
        else:
            latent = reparameterise(mean, bound_log_variance(raw, *LOG_VARIANCE_BOUNDS), noise[t : t + 1])
        features, predictor = model.predictor(torch.cat([before, latent, conditions[t - 1 : t]], dim=1), predictor)
        drawn = model.decoder(features, skips)
        frames.append(given[t : t + 1] if t < len(given) else drawn)
    return torch.stack(frames, dim=1)


def benchmark(*, num_images: int, length: int, repeats: int) -> str:
    """Returns the table as Markdown, with the command, the hardware and the commit."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [packing_row(folder, num_images), csv_row(folder), batch_row(folder, device)]
        rows += [training_row(device), *rollout_rows(device, length)]
        rows += [svg_training_row(device), svg_rollout_row(device)]
        timings = [measure(row, repeats) for row in track(rows, "benchmark", len(rows))]
    head = ["part", "work", "ours (ms)", "plain loop (ms)", "ratio of medians", "smallest to largest"]
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *(t.cells() for t in timings)]]
    threads = f"{torch.get_num_threads()} threads, {instruction_set()}"
    note = f"{repeats} runs of each side, in turn; {hardware()}; {threads}; commit {commit()}."
    command = f"python -m src.benchmark --images {num_images} --length {length} --repeats {repeats}"
    return f"# Benchmark\n\n`{command}`\n\n" + "\n".join(lines) + f"\n\n{note}\n"


def _footage(num_frames: int) -> Footage:
    pairs = list(dance_take(length=num_frames))
    frames, poses = (np.stack([pair[side] for pair in pairs]).transpose(0, 3, 1, 2).copy() for side in (0, 1))
    return Footage(frames, poses, ((0, num_frames),))


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def _model(name: str) -> Any:
    torch.manual_seed(0)
    config = parse_config({"model": {"name": name}, "training": {"window": 4, "loss": "mse"}}, "benchmark")
    return build_model(config, height=HEIGHT, width=WIDTH)


def _svg(device: torch.device, width: int) -> SVG:
    torch.manual_seed(0)
    config = SVGConfig(prior="learned", width=width, num_features=32, num_latents=16, num_hidden=64)
    return SVG(config, height=SVG_SIZE, width=SVG_SIZE, loss="mse").to(device)


def _pushing_batch(device: torch.device) -> PushingBatch:
    random = torch.Generator().manual_seed(0)
    frames = torch.rand(4, 12, 3, SVG_SIZE, SVG_SIZE, generator=random)
    return PushingBatch(frames.to(device), torch.randn(4, 12, NUM_ACTION + NUM_POSITION, generator=random).to(device))


def main() -> None:
    """The command line."""
    chosen = bench_options()
    with owned(REPORT):
        text = benchmark(num_images=chosen.images, length=chosen.length, repeats=chosen.repeats)
        write_atomically(REPORT, text.encode())
    say(text)


if __name__ == "__main__":
    run_program(main)
