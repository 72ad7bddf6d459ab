"""Pose-conditioned video prediction in one file: read, train, roll out, score, write the csv.

    python examples/minimal.py DATA_FOLDER_OR_ZIP [--epochs N] [--out submission.csv]

The task: a test sequence has one given frame x_0, and a pose image p_t for each frame t. Draw all the other frames.
The method: a conditional variational autoencoder (CVAE) draws x_t from the first frame, the poses p_{t-1}, p_t, p_{t+1}
and a small latent z_t. It never sees a frame that it has drawn itself, so errors cannot grow over time.

Shapes: B is the batch, T is time. A picture is (3, 32, 64): uint8 in memory, float32 in [0, 1] in the network.
"""

import argparse
import copy
import math
import re
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

FOLDERS = ("train_img", "train_label", "val_img", "val_label", "test_img", "test_label")  # frames, poses; three times
HEIGHT, WIDTH = 32, 64
NUM_VALUES = 3 * HEIGHT * WIDTH  # 6,144 numbers in a frame
NUM_CONDITION = 15  # channels of x_0, p_0, p_{t-1}, p_t and p_{t+1} together
FINE, MIDDLE, COARSE = 24, 48, 72  # channels of the U-Net at its three resolutions
NUM_LATENTS = 16  # too few to store a picture: the latent can only say something about it
BATCH_SIZE, LEARNING_RATE, WARMUP_STEPS, EMA_DECAY = 32, 2e-3, 100, 0.998
PRIOR_SHARE = 0.75  # share of the training frames that are drawn from the prior mean
KL_WEIGHT = 2 / NUM_VALUES  # with this weight beside the log MSE, the loss is a bound of the likelihood (ELBO)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NEIGHBOURS = torch.tensor([-1, 0, 1])


# 1. Data. PNG files become uint8 arrays. Decoding so many small files is slow, so we do it once, not in every epoch.
def read_pictures(root: Path, folder: str) -> Tensor:
    """Returns all pictures in a folder at any depth below root, (N, 3, 32, 64) uint8, in the order of their numbers."""
    files = [file for file in root.glob(f"**/{folder}/**/*.png") if not file.name.startswith(".")]
    if not files:
        raise ValueError(f"found no PNG files in {folder}")
    files.sort(key=lambda file: [int(number) for number in re.findall(r"\d+", str(file))])  # as text, 10 is before 9
    pictures = np.empty((len(files), HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index, file in enumerate(files):  # a larger picture is resized; Pillow does it with antialiasing
        pictures[index] = np.asarray(Image.open(file).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def read_dataset(path: Path) -> dict[str, Tensor]:
    """Returns an array for each of the FOLDERS. Those of the K test sequences begin with K."""
    if zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory() as unpacked:
            zipfile.ZipFile(path).extractall(unpacked)
            return read_dataset(Path(unpacked))
    data = {folder: read_pictures(path, folder) for folder in FOLDERS}
    if len(data["train_img"]) != len(data["train_label"]) or len(data["val_img"]) != len(data["val_label"]):
        raise ValueError("needs one pose for each frame of train and val")
    data["test_label"] = data["test_label"].unflatten(0, (len(data["test_img"]), -1))  # (K, T, 3, 32, 64)
    return data


def to_condition(first_frame: Tensor, first_pose: Tensor, poses: Tensor) -> Tensor:
    """Returns all that the network knows of frames, (B, 15, 32, 64), from two (B, 3, 32, 64) and (B, 3, 3, 32, 64)."""
    ink = 255 - torch.cat([first_pose, poses.flatten(1, 2)], dim=1)  # poses are drawn on white: the ground becomes 0
    return torch.cat([first_frame, ink], dim=1).to(DEVICE) / 255


# 2. Mirror images double the training data. A mirrored left arm is a right arm, so the two must exchange colours.
BOTH_SIDES = [(0, 0, 255), (0, 0, 190), (180, 0, 40), (60, 150, 0), (0, 90, 180)]  # trunk, neck, fingers
RIGHT_SIDE = [(0, 51, 255), (0, 107, 255), (0, 255, 175), (0, 255, 85), (0, 255, 0), (85, 0, 170), (200, 0, 200)]
LEFT_SIDE = [(0, 216, 255), (0, 235, 255), (114, 0, 0), (255, 85, 0), (255, 170, 0), (85, 0, 130), (140, 0, 80)]
LIMB_INKS = 255.0 - torch.tensor([*BOTH_SIDES, *RIGHT_SIDE, *LEFT_SIDE])  # (19, 3): white minus the colour
TWIN_INKS = 255.0 - torch.tensor([*BOTH_SIDES, *LEFT_SIDE, *RIGHT_SIDE])  # (19, 3): the same limb of the other side


def mirror_poses(poses: Tensor) -> Tensor:
    """Mirrors pose images (N, 3, 32, 64) uint8, and draws each limb in the colour of its twin."""
    # Lines are thin, so their colours are mixed with white. But the direction of a pixel's ink still says which limb
    # it is, and the length of the ink says how much of the pixel the line covers.
    ink = 255 - poses.flip(-1).float().movedim(1, -1)  # (N, 32, 64, 3)
    limb = (ink @ functional.normalize(LIMB_INKS, dim=1).T).argmax(dim=-1)  # (N, 32, 64)
    own, twin = LIMB_INKS[limb], TWIN_INKS[limb]
    cover = (ink * own).sum(dim=-1, keepdim=True) / own.square().sum(dim=-1, keepdim=True)
    swapped = ink + cover * (twin - own)
    return (255 - swapped).round().clamp(0, 255).to(torch.uint8).movedim(-1, 1)


# 3. The network.
def norm_and_convolve(num_in: int, num_out: int, scale: float = 1.0) -> nn.Module:
    convolution = nn.Conv2d(num_in, num_out, 3, padding=1)
    convolution.weight.data *= scale  # 0 makes a layer that is silent at first: deep networks then train faster
    return nn.Sequential(nn.GroupNorm(8, num_in), nn.SiLU(), convolution)


class Block(nn.Module):
    """Two convolutions with a shortcut around them: (B, num_in, H, W) -> (B, num_out, H, W)."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(norm_and_convolve(num_in, num_out), norm_and_convolve(num_out, num_out, scale=0))
        self.shortcut = nn.Conv2d(num_in, num_out, 1) if num_in != num_out else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return self.shortcut(features) + self.layers(features)


class ReferenceCVAE(nn.Module):
    """p(x | z, c) with the prior z ~ N(0, I), and the posterior q(z | x, c). c is the condition (B, 15, 32, 64)."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv2d(4 * NUM_CONDITION, FINE, 3, padding=1)  # 4: two by two pixels become channels
        self.down_fine = nn.Sequential(Block(FINE, FINE), Block(FINE, FINE))
        self.to_middle = nn.Conv2d(FINE, MIDDLE, 3, stride=2, padding=1)
        self.down_middle = nn.Sequential(Block(MIDDLE, MIDDLE), Block(MIDDLE, MIDDLE))
        self.to_coarse = nn.Conv2d(MIDDLE, COARSE, 3, stride=2, padding=1)
        self.modulation = nn.Linear(NUM_LATENTS, 2 * COARSE)
        nn.init.zeros_(self.modulation.weight)  # at first the latent is noise, which must not disturb the drawing
        self.bottom = nn.Sequential(Block(COARSE, COARSE), Block(COARSE, COARSE))
        self.from_coarse = nn.Sequential(nn.Conv2d(COARSE, MIDDLE, 1), nn.Upsample(scale_factor=2))
        self.up_middle = nn.Sequential(Block(2 * MIDDLE, MIDDLE), Block(MIDDLE, MIDDLE))
        self.from_middle = nn.Sequential(nn.Conv2d(MIDDLE, FINE, 1), nn.Upsample(scale_factor=2))
        self.up_fine = nn.Sequential(Block(2 * FINE, FINE), Block(FINE, FINE))
        self.exit = norm_and_convolve(FINE, 4 * (3 + 1), scale=0)
        self.place = nn.Parameter(torch.zeros(4 * NUM_CONDITION, HEIGHT // 2, WIDTH // 2))  # the studio does not move
        entry = nn.Conv2d(4 * (3 + NUM_CONDITION), FINE, 3, stride=2, padding=1)
        self.encoder = nn.Sequential(entry, Block(FINE, MIDDLE), norm_and_convolve(MIDDLE, 2 * NUM_LATENTS))

    def draw(self, condition: Tensor, latent: Tensor) -> Tensor:
        """Returns frames (B, 3, 32, 64). A U-Net goes down to a coarse picture and up again, at half resolution."""
        inputs = functional.pixel_unshuffle(condition, 2)  # (B, 60, 16, 32)
        fine = self.down_fine(self.entry(inputs + self.place))  # (B, 24, 16, 32)
        middle = self.down_middle(self.to_middle(fine))  # (B, 48, 8, 16)
        scale, shift = self.modulation(latent)[:, :, None, None].chunk(2, dim=1)  # the latent changes all channels
        coarse = self.bottom(self.to_coarse(middle) * (1 + scale) + shift)  # (B, 72, 4, 8)
        middle = self.up_middle(torch.cat([self.from_coarse(coarse), middle], dim=1))  # (B, 48, 8, 16)
        fine = self.up_fine(torch.cat([self.from_middle(middle), fine], dim=1))  # (B, 24, 16, 32)
        drawn, kept = functional.pixel_shuffle(self.exit(fine), 2).sigmoid().split([3, 1], dim=1)
        return kept * condition[:, :3] + (1 - kept) * drawn  # each pixel is a mixture of the first frame and a drawing

    def posterior(self, frame: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and log variance, (B, 16) each. It sees the frame itself, so only training may use it."""
        inputs = functional.pixel_unshuffle(torch.cat([frame, condition], dim=1), 2)
        mean, log_variance = self.encoder(inputs).mean(dim=(2, 3)).chunk(2, dim=1)
        return mean, 8 * torch.tanh(log_variance / 8)  # bounded, because exp() of a large number is infinite


# 4. Training.
def loss_of(model: ReferenceCVAE, frame: Tensor, condition: Tensor) -> Tensor:
    """Returns the hybrid objective of Sohn et al. 2015, a scalar. The mean log MSE is the score in other units."""
    mean, log_variance = model.posterior(frame, condition)
    sample = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
    # Most frames have the prior mean z = 0, as at test, and no KL term. The others pay for what their latent says.
    informed = (torch.rand(len(frame), device=DEVICE) >= PRIOR_SHARE).float()  # (B,): 0 or 1
    drawn = model.draw(condition, informed[:, None] * sample)
    mse = (drawn - frame).square().mean(dim=(1, 2, 3))  # (B,)
    log_mse = torch.log(mse + 1e-5)  # 1e-5 is 50 dB: a frame that is better matters no more
    kl = 0.5 * (log_variance.exp() - log_variance - 1 + mean.square()).sum(dim=1)  # (B,): to N(0, I), in nats
    return (log_mse + KL_WEIGHT * informed * kl).mean()


def train(frames: Tensor, poses: Tensor, num_epochs: int) -> ReferenceCVAE:
    """Trains on frames and poses (N, 3, 32, 64) uint8. Returns the moving average (EMA) of the weights."""
    torch.manual_seed(0)
    num_frames = len(frames)
    frames = torch.stack([frames, frames.flip(-1)])  # (2, N, 3, 32, 64): as they are, and mirrored
    poses = torch.stack([poses, torch.cat([mirror_poses(part) for part in poses.split(512)])])  # parts save memory
    model = ReferenceCVAE().to(DEVICE)
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
    steps_per_epoch = max(1, num_frames // BATCH_SIZE)
    num_steps = num_epochs * steps_per_epoch
    for step in range(num_steps):
        side = torch.randint(2, (BATCH_SIZE,))
        time = torch.randint(num_frames, (BATCH_SIZE,))
        first = torch.randint(num_frames, (BATCH_SIZE,))  # in training, any frame may serve as the first one
        around = (time[:, None] + NEIGHBOURS).clamp(0, num_frames - 1)  # (B, 3)
        condition = to_condition(frames[side, first], poses[side, first], poses[side[:, None], around])
        loss = loss_of(model, frames[side, time].to(DEVICE) / 255, condition)
        cosine = 0.5 * (1 + math.cos(math.pi * step / num_steps))  # falls from 1 to 0
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min((step + 1) / WARMUP_STEPS, cosine)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))  # smaller at first, to forget the weights of the start
        for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
            mean.data.lerp_(weight.data, 1 - decay)
        if (step + 1) % steps_per_epoch == 0:
            print(f"epoch {(step + 1) // steps_per_epoch}/{num_epochs}  loss {loss.item():.3f}", flush=True)
    return average


# 5. The rollout, its score, and the file.
@torch.no_grad()
def roll_out(model: ReferenceCVAE, first_frame: Tensor, poses: Tensor) -> Tensor:
    """Returns a sequence (T, 3, 32, 64) uint8 from its first frame (3, 32, 64) and its poses (T, 3, 32, 64)."""
    around = (torch.arange(len(poses))[:, None] + NEIGHBOURS).clamp(0, len(poses) - 1)  # (T, 3)
    latent = torch.zeros(len(poses), NUM_LATENTS, device=DEVICE)  # the prior mean scores higher than a sample
    drawn = []
    for frame, label in ((first_frame, poses), (first_frame.flip(-1), mirror_poses(poses))):
        condition = to_condition(frame.expand_as(label), label[:1].expand_as(label), label[around])
        drawn.append(model.draw(condition, latent).cpu())
    mean = (drawn[0] + drawn[1].flip(-1)) / 2  # the mean of two drawings has a smaller error
    sequence = (255 * mean).round().clamp(0, 255).to(torch.uint8)
    sequence[0] = first_frame
    return sequence


def score(drawn: Tensor, truth: Tensor) -> float:
    """Returns the mean PSNR in dB of frames 1..600, from two (T, 3, 32, 64) uint8. Frame 0 is given."""
    mse = (drawn.double() - truth.double()).square().flatten(1).mean(dim=1)  # (T,)
    psnr = 20 * math.log10(255) - 10 * torch.log10(mse)
    return psnr[1:601].mean().item()


def write_csv(path: Path, sequences: Tensor) -> None:
    """Writes (K, T, 3, 32, 64) uint8, one frame in a row. Its numbers are in the order C, H, W."""
    rows = sequences.flatten(0, 1).flatten(1).numpy()
    assert rows.shape[1] == NUM_VALUES, rows.shape
    header = ",".join(["id", *map(str, range(NUM_VALUES))])
    np.savetxt(path, np.column_stack([np.arange(len(rows)), rows]), fmt="%d", delimiter=",", header=header, comments="")


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains on a data set, scores the result, and writes the csv.")
    parser.add_argument("data", type=Path, help="folder or zip file in the layout of the competition")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("submission.csv"))
    arguments = parser.parse_args()
    if not arguments.out.parent.is_dir():
        parser.exit(2, f"error: {arguments.out}: there is no folder {arguments.out.parent}\n")
    try:
        data = read_dataset(arguments.data.resolve(strict=True))
    except (OSError, SyntaxError, ValueError, zipfile.BadZipFile) as error:
        parser.exit(2, f"error: {arguments.data}: {error}; needed: the data set, a folder or a zip file\n")
    model = train(data["train_img"], data["train_label"], arguments.epochs)
    truth = data["val_img"]
    reached = score(roll_out(model, truth[0], data["val_label"]), truth)
    copied = score(truth[:1].expand_as(truth), truth)
    tests = zip(data["test_img"], data["test_label"], strict=True)
    write_csv(arguments.out, torch.stack([roll_out(model, frame, poses) for frame, poses in tests]))
    print(f"{reached:.2f} dB on val; a copy of the first frame: {copied:.2f} dB; wrote {arguments.out}")


if __name__ == "__main__":
    main()
