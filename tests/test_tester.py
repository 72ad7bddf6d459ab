"""Predictions of a trained run: scores computed by hand, the csv, a user's own pictures, and every error message."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console
from skimage.metrics import peak_signal_noise_ratio

from src import tester
from src.base import console
from src.base.console import UserError
from src.base.files import file_hash
from src.base.randomness import keyed_seed
from src.dance.prediction import predict_dance
from src.dance.scores import baselines, drift, psnr_between
from src.dataset import open_data
from src.evaluation.scores import read_scores
from src.evaluation.trained import data_of, open_run
from src.maths.metrics import psnr_per_frame
from src.models.interface import build_model
from src.packing import pack_synthetic
from src.submission import Provenance
from src.tester import evaluate, main, predict_pictures, print_scores, submission
from src.trainer import train
from src.training.checkpoint import WITHOUT_HASH
from src.training.saved_config import read_config, write_config
from tests.conftest import TEST_LENGTH, tiny_config
from tests.run_folders import write_run

CONFIG = tiny_config("reference_cvae", num_epochs=2, validate_every=1)


@pytest.fixture(scope="module")
def trained_runs(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one trained run, `tiny`."""
    folder = tmp_path_factory.mktemp("runs")
    train(CONFIG, folder / "tiny", data_folder=data_folder)
    return folder


@pytest.fixture
def places(trained_runs: Path, data_folder: Path, tmp_path: Path) -> dict[str, Path]:
    """The folders that the commands read, with a copy of the trained run."""
    shutil.copytree(trained_runs, tmp_path / "runs")
    return {"runs_folder": tmp_path / "runs", "data_folder": data_folder}


def predicted(
    places: dict[str, Path], frames: np.ndarray, poses: np.ndarray, *, rounding: bool = True, **changed: object
) -> np.ndarray:
    """The pixels (T, 3, H, W) in 0..255 of one clip, from a model built here. `changed`: the seed and settings."""
    model = build_model(CONFIG, height=32, width=64)
    weights = torch.load(places["runs_folder"] / "tiny" / "best.pt", weights_only=True)["ema"]
    model.load_state_dict(weights)
    given, conditions = torch.from_numpy(frames[:1].copy())[None], torch.from_numpy(poses.copy())[None]
    seed = changed.pop("seed", CONFIG.seed)
    settings = CONFIG.evaluation.model_copy(update=changed)
    drawn = 255 * predict_dance(model.eval(), given, conditions, settings, seed=seed)[0].numpy()
    return rounded(drawn) if rounding else drawn


def rounded(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def mean_psnr(drawn: np.ndarray, truth: np.ndarray) -> float:
    """Mean PSNR over frames 1, 2, ..., computed by another library."""
    return float(np.mean([peak_signal_noise_ratio(*pair) for pair in zip(truth[1:], drawn[1:], strict=True)]))


def test_scores_are_those_of_a_rollout_made_by_hand(places: dict[str, Path]) -> None:
    scores = evaluate("tiny", **places)
    folder, data = places["runs_folder"] / "tiny", open_data("tiny", places["data_folder"])
    truth, poses = np.array(data.val.frames), np.array(data.val.poses)
    score = mean_psnr(predicted(places, truth, poses), truth)
    assert scores.score == scores.mean_psnr == pytest.approx(score, abs=1e-6)
    assert scores.baselines["first frame"].score == pytest.approx(mean_psnr(truth[:1].repeat(12, 0), truth))
    assert scores.posterior_minus_prior_db == pytest.approx(scores.posterior_latent.score - scores.score)
    assert scores.psnr_1_to_10 == pytest.approx(np.mean(scores.psnr_by_frame[1:11]))
    assert scores.psnr_100 is scores.psnr_300 is scores.psnr_600 is None
    assert (scores.system, scores.num_given, scores.scored_frames) == ("dance", 1, (1, TEST_LENGTH - 1))
    assert scores.checkpoint_sha256 == file_hash(folder / "best.pt")
    assert scores.num_parameters == sum(p.numel() for p in build_model(CONFIG, height=32, width=64).parameters())

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads((folder / "scores.json").read_text(), parse_constant=refuse)
    assert content["psnr_by_frame"][0] == "Infinity", "the given frame"
    assert read_scores(folder / "scores.json") == scores
    for name in ("psnr_by_frame.png", "curves.png", "rollout.gif", "rollout_strip.png"):
        with Image.open(folder / name) as picture:
            picture.verify()


def test_an_unfinished_run_says_so(places: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    evaluate("tiny", **places)
    assert "epochs" not in capsys.readouterr().out
    log = places["runs_folder"] / "tiny" / "log.jsonl"
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    evaluate("tiny", **places)
    assert "; only 1 of 2 epochs are trained, make train RUN=tiny continues\n" in capsys.readouterr().out


@pytest.fixture
def talkative(places: dict[str, Path]) -> dict[str, Path]:
    """The same folders, with weights for which the latent changes the frames."""
    path = places["runs_folder"] / "tiny" / "best.pt"
    state, generator = torch.load(path, weights_only=True), torch.Generator().manual_seed(4)
    for name in ("members.0.network.modulation.weight", "members.0.head.2.weight", "gaussian_predictor.head.weight"):
        state["ema"][name] = torch.randn(state["ema"][name].shape, generator=generator)
    torch.save(state | {"format": WITHOUT_HASH}, path)
    return places


def test_the_posterior_is_measured_with_its_own_latents(talkative: dict[str, Path]) -> None:
    assert abs(evaluate("tiny", **talkative).posterior_minus_prior_db) > 1e-3


def test_latents_are_compared_without_mirror_images(talkative: dict[str, Path]) -> None:
    scores, data = evaluate("tiny", **talkative), open_data("tiny", talkative["data_folder"])
    truth, poses = np.array(data.val.frames), np.array(data.val.poses)
    mean = predicted(talkative, truth, poses, mirror=False)
    seeds = [keyed_seed(CONFIG.seed, "rollout", number) for number in range(3)]
    settings = {"mirror": False, "latent": "sample", "rounding": False}
    unrounded = [predicted(talkative, truth, poses, seed=seed, **settings) for seed in seeds]
    picture, samples = rounded(np.mean(unrounded, axis=0)), [rounded(sample) for sample in unrounded]
    expected = {"prior_mean": mean, "single": samples[0], "mean_of_samples": picture}
    levels = {name: mean_psnr(clip, truth) for name, clip in expected.items()}
    assert {name: getattr(scores, f"score_{name}") for name in levels} == pytest.approx(levels, abs=1e-4)
    assert scores.num_samples_compared == 3
    assert min(abs(levels["single"] - levels[name]) for name in ("prior_mean", "mean_of_samples")) > 1e-2
    between = [mean_psnr(samples[a], samples[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert scores.psnr_between_samples == pytest.approx(np.mean(between))


def test_samples_are_compared_where_the_poses_say_least() -> None:
    """Ten of a hundred frames have no pose. Only there the samples differ by one grey level; elsewhere by ten."""
    poses = torch.zeros(101, 3, 4, 8, dtype=torch.uint8)
    empty = torch.arange(7, 101, 10)
    poses[empty] = 255
    samples = [torch.full((101, 3, 4, 8), 100, dtype=torch.uint8) for _ in range(2)]
    samples[1] += 10
    samples[1][empty] = 101
    everywhere, emptiest = psnr_between(samples, poses)
    far, near = 20 * math.log10(255 / 10), 20 * math.log10(255)
    assert emptiest == pytest.approx(near)
    assert everywhere == pytest.approx(0.9 * far + 0.1 * near)


class Take:
    """A take of 630 frames. Drawn frames are one grey level further from the truth for every hundred frames."""

    def __init__(self, drifts: bool) -> None:
        self.frames = torch.full((630, 3, 4, 8), 100, dtype=torch.uint8)
        self.poses = torch.arange(630)[:, None, None, None].expand(-1, 3, 4, 8)
        self.drifts, self.scored = drifts, (1, 600)

    def draw(self, model: object, *, poses: torch.Tensor | None = None) -> torch.Tensor:
        """Draws frames from poses. A pose holds its own number; after a jump in the numbers the frame is black."""
        followed = self.poses if poses is None else poses
        numbers = followed[:, 0, 0, 0]
        jumps = (numbers[1:] != numbers[:-1] + 1).nonzero().flatten() + 1
        drawn = self.frames[: len(followed)] + 1 + (torch.arange(len(followed)) // 100)[:, None, None, None]
        drawn = drawn if self.drifts else torch.full_like(drawn, 101)
        drawn[jumps] = 0
        return drawn.to(torch.uint8)


@pytest.mark.parametrize("drifts", [False, True])
def test_drift_is_what_depth_costs_and_not_what_a_jump_costs(drifts: bool) -> None:
    take, model = Take(drifts), SimpleNamespace(context=2)
    lost = drift(take, model, psnr_per_frame(take.draw(model), take.frames))
    early = np.mean([20 * math.log10(255 / (1 + (3 + number) // 100)) for number in range(101)])
    late = np.mean([20 * math.log10(255 / (1 + number // 100)) for number in range(500, 601)])
    assert lost == pytest.approx(early - late if drifts else 0.0, abs=1e-4)


def test_baselines_by_hand(data_folder: Path) -> None:
    data = open_data("tiny", data_folder)
    truth, poses = np.array(data.val.frames), np.array(data.val.poses)
    clips = baselines(data, torch.from_numpy(truth[0]), torch.from_numpy(poses))
    frames, known = np.array(data.train.frames), np.array(data.train.poses).astype(float)
    distances = ((known[None] - poses[:, None].astype(float)) ** 2).sum(axis=(2, 3, 4))
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :5]
    assert all(clip.shape == truth.shape for clip in clips.values())
    assert np.array_equal(clips["first frame"].numpy(), truth[:1].repeat(TEST_LENGTH, 0))
    assert np.array_equal(clips["median frame"][3].numpy(), np.sort(frames, axis=0)[(len(frames) - 1) // 2])
    assert np.array_equal(clips["nearest pose"].numpy(), frames[nearest[:, 0]])
    mean_of_five = frames[nearest].astype(float).mean(axis=1)
    assert np.abs(clips["mean of 5 nearest poses"].numpy() - mean_of_five).max() <= 0.5


def test_a_submission_holds_the_test_rollouts(places: dict[str, Path], tmp_path: Path) -> None:
    data, folder = open_data("tiny", places["data_folder"]), tmp_path / "submissions"
    path = submission("tiny", submissions_folder=folder, **places)
    assert path == folder / "tiny.csv"
    table = pd.read_csv(path)
    assert table.shape == (2 * TEST_LENGTH, 1 + 6144)
    assert table["id"].tolist() == list(range(2 * TEST_LENGTH))
    values = table.drop(columns="id").to_numpy().reshape(2, TEST_LENGTH, 3, 32, 64)
    for clip, frame, poses in zip(values, data.test_frames, data.test_poses, strict=True):
        assert np.array_equal(clip[0], frame)
        assert np.abs(clip - predicted(places, frame[None], poses).astype(int)).max() <= 1

    origin = Provenance.load(folder / "tiny.json")
    run = places["runs_folder"] / "tiny"
    assert origin.run == origin.dataset == "tiny"
    assert (origin.num_rows, origin.num_sequences, origin.seed) == (2 * TEST_LENGTH, 2, CONFIG.seed)
    assert origin.csv_sha256 == file_hash(path)
    assert origin.checkpoint_sha256 == file_hash(run / "best.pt")
    assert origin.config_sha256 == file_hash(run / "config.json")
    assert origin.dataset_fingerprint == data.manifest.fingerprint
    assert origin.local_score is None
    for number in range(2):
        with Image.open(run / f"pred_seq{number}.gif") as gif:
            assert gif.size == (4 * (64 + 1 + 64), 4 * 32)  # a GIF of only twelve frames is enlarged the most


def test_a_submission_is_written_once(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    places |= {"submissions_folder": tmp_path / "submissions"}
    path = submission("tiny", **places)
    before = [(file.read_bytes(), file.stat().st_mtime_ns) for file in (path, path.with_suffix(".json"))]
    capsys.readouterr()
    assert submission("tiny", **places) == path
    assert capsys.readouterr().out.startswith(f"{path} is up to date")
    assert [(file.read_bytes(), file.stat().st_mtime_ns) for file in (path, path.with_suffix(".json"))] == before

    score = evaluate("tiny", runs_folder=places["runs_folder"], data_folder=places["data_folder"]).score
    submission("tiny", **places)  # the provenance can now contain the score
    assert Provenance.load(path.with_suffix(".json")).local_score == score
    assert path.read_bytes() == before[0][0]

    run = places["runs_folder"] / "tiny"
    shutil.copy(run / "last.pt", run / "best.pt")
    submission("tiny", **places)
    assert Provenance.load(path.with_suffix(".json")).checkpoint_sha256 == file_hash(run / "last.pt")


def test_a_csv_of_someone_else_is_not_overwritten(places: dict[str, Path], tmp_path: Path) -> None:
    places |= {"submissions_folder": tmp_path}
    (tmp_path / "tiny.csv").write_text("mine")
    with pytest.raises(UserError, match=r"tiny.csv exists and no tiny.json beside it"):
        submission("tiny", **places)
    assert (tmp_path / "tiny.csv").read_text() == "mine"
    (tmp_path / "tiny.csv").unlink()
    path = submission("tiny", **places)
    path.write_text("changed by hand")
    with pytest.raises(UserError, match=r"tiny.csv exists and is not the file that tiny.json describes"):
        submission("tiny", **places)
    assert path.read_text() == "changed by hand"


@pytest.mark.parametrize("step", [(tester, "check_submission"), (Provenance, "save"), (Path, "rename")])
def test_an_interrupted_submission_leaves_no_csv(
    step: tuple[object, str], places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    places |= {"submissions_folder": tmp_path / "submissions"}
    with monkeypatch.context() as patch:
        patch.setattr(*step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            submission("tiny", **places)
    assert not (tmp_path / "submissions" / "tiny.csv").exists()
    assert submission("tiny", **places).is_file()
    assert sorted(path.name for path in (tmp_path / "submissions").iterdir()) == ["tiny.csv", "tiny.json"]


def picture(key: int, size: tuple[int, int] = (100, 50)) -> Image.Image:
    """A smooth picture of `size` (width, height)."""
    blocks = np.random.default_rng(key).integers(0, 256, (5, 10, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Path]:
    """A user's own pictures, 100 x 50: a first frame and 11 poses."""
    (tmp_path / "poses").mkdir()
    picture(0).save(tmp_path / "first.png")
    for number in range(1, 12):
        picture(number).save(tmp_path / "poses" / f"{number}.png")
    return {"frame": tmp_path / "first.png", "poses": tmp_path / "poses", "out": tmp_path / "new" / "mine.gif"}


def test_own_pictures_of_another_size(places: dict[str, Path], own: dict[str, Path]) -> None:
    def resized(path: Path) -> np.ndarray:
        return np.asarray(Image.open(path).resize((64, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)

    drawn = predict_pictures("tiny", **own, runs_folder=places["runs_folder"]).numpy()
    poses = np.stack([resized(own["poses"] / f"{number}.png") for number in range(1, 12)])
    assert np.array_equal(drawn, predicted(places, resized(own["frame"])[None], poses))
    assert np.array_equal(drawn[0], resized(own["frame"]))
    with Image.open(own["out"]) as gif:
        assert gif.n_frames == 11


def spoil(own: dict[str, Path], what: str) -> dict[str, Path]:
    frame, poses = own["frame"], own["poses"]
    if what == "no frame":
        frame.unlink()
    elif what == "no png":
        frame.write_text("hello")
    elif what == "cut off":
        frame.write_bytes(frame.read_bytes()[:-20])
    elif what == "no folder":
        return own | {"poses": frame}
    elif what == "a hole":
        (poses / "4.png").unlink()
        (poses / "9.png").unlink()
    elif what == "a double":
        shutil.copy(poses / "4.png", poses / "04.png")
    elif what == "another name":
        shutil.copy(poses / "4.png", poses / "cover.png")
    elif what == "one pose":
        for number in range(2, 12):
            (poses / f"{number}.png").unlink()
    return own


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no frame", r"^FRAME=.*first.png is no file; needed: a picture as PNG, JPEG"),
        ("no png", r"^FRAME=.*first.png is no picture of a known format"),
        ("cut off", r"^FRAME=.*first.png is damaged or cut off"),
        ("no folder", r"first.png is not a folder"),
        ("a hole", r"poses holds 9 pictures, but no 4.png; needed: one picture for each number"),
        ("a double", r"poses/04.png and 4.png are both number 4; needed: one of them"),
        ("another name", r"poses/cover.png is unexpected; needed in .*: numbered pictures such as"),
        ("one pose", r"poses holds 1 poses?; needed: 2 or more"),
    ],
)
def test_wrong_pictures_are_named(places: dict[str, Path], own: dict[str, Path], what: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        predict_pictures("tiny", **spoil(own, what), runs_folder=places["runs_folder"])
    assert not list(own["frame"].parent.rglob("*.gif"))


@pytest.mark.parametrize("pose", ["a file", "a folder"])
def test_a_wrong_pose_is_named_with_its_place(places: dict[str, Path], own: dict[str, Path], pose: str) -> None:
    path = own["poses"] / "12.png"
    path.write_text("hello") if pose == "a file" else path.mkdir()
    with pytest.raises(UserError, match=rf"^POSES: {path} is no (file|picture of)"):
        predict_pictures("tiny", **own, runs_folder=places["runs_folder"])


@pytest.fixture
def workplace(places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with runs/ and data/."""
    (tmp_path / "data").symlink_to(places["data_folder"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def break_run(workplace: Path, what: str) -> None:
    run = workplace / "runs" / "tiny"
    if what == "not trained":
        (run / "best.pt").unlink()
        (run / "last.pt").unlink()
    elif what == "best is gone":
        (run / "best.pt").unlink()
    elif what == "truncated":
        (run / "best.pt").write_bytes((run / "best.pt").read_bytes()[:-100])
    elif what == "other settings":
        (run / "config.json").write_text((run / "config.json").read_text().replace('"seed": 5', '"seed": 6'))
    elif what == "damaged config":
        (run / "config.json").write_text("{")
    elif what == "no data":
        (workplace / "data").unlink()


@pytest.mark.parametrize("command", ["evaluate", "submission"])
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("not trained", "error: runs/tiny/best.pt does not exist; train the run first: make train RUN=tiny"),
        ("best is gone", "error: runs/tiny/best.pt does not exist; restore it, or evaluate last.pt, of step 4: make "),
        ("truncated", "error: runs/tiny/best.pt is no checkpoint of this project, or a truncated one; restore it, or "),
        (
            "other settings",
            "error: runs/tiny/best.pt was trained with other settings than runs/tiny/config.json",
        ),
        ("damaged config", "error: runs/tiny/config.json is damaged"),
        ("no data", "error: data/tiny does not exist"),
    ],
)
def test_a_broken_run_is_one_line(
    workplace: Path, command: str, what: str, message: str, outcome: Callable[..., tuple[int, str]]
) -> None:
    break_run(workplace, what)
    code, errors = outcome(main, command, "tiny")
    assert code == 2
    assert errors.startswith(message)
    assert errors.count("\n") == 1
    assert not (workplace / "submissions").exists()


def test_a_run_that_was_not_evaluated_has_no_scores(workplace: Path, outcome: Callable[..., tuple[int, str]]) -> None:
    message = "error: runs/tiny/scores.json does not exist; evaluate the run first: make evaluate RUN=tiny\n"
    assert outcome(main, "scores", "tiny") == (2, message)
    assert outcome(main, "scores", "none")[0] == 2
    assert outcome(main, "evaluate", "none") == (2, "error: there is no run none; there are: tiny\n")


def test_the_commands_say_what_they_did(
    workplace: Path, own: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "QUIET_SECONDS", 3600)  # on a busy machine, lines would say what takes long

    def output(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["tester", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    monkeypatch.setenv("COLUMNS", "120")
    announced, _, shown = output("evaluate", "tiny", "--all").partition("\n")
    assert announced == f"runs/tiny: rolling out {TEST_LENGTH} frames of validation"
    scores = json.loads((workplace / "runs" / "tiny" / "scores.json").read_text())
    assert f"{scores['score']:.2f}" in shown
    assert "nearest pose" in shown
    assert "dB against the best baseline" in shown
    brief = output("scores", "tiny").splitlines()
    assert re.match(r"tiny scores .* dB: mean PSNR of frames ", brief[-3])
    assert "against the best baseline (" in brief[-2]
    assert brief[-1].startswith("A rehearsal: the pictures are synthetic") and len(brief) < len(shown.splitlines())
    lines = {line.split("  ")[0]: line.split()[-1] and line for line in shown.splitlines()}
    for label, name in (
        ("mean PSNR", "mean_psnr"),
        ("PSNR 1-10", "psnr_1_to_10"),
        ("prior's mean (dB)", "score_prior_mean"),
    ):
        assert f" {scores[name]:.2f} " in lines[label], label
    assert "PSNR 100" not in lines, "the take is too short"
    assert output("scores", "tiny", "--all") == shown
    before, _, after = output("submission", "tiny").partition("submissions/tiny.csv: valid")
    assert before.splitlines() == [
        f"runs/tiny: rolling out 2 test sequences of {TEST_LENGTH} frames",
        f"submissions/tiny.csv: writing and checking {2 * TEST_LENGTH} rows",
    ]
    assert after
    options = [text for name, path in own.items() for text in (f"--{name}", path)]
    resized, announced, result = output("predict", "tiny", *options).splitlines()
    assert resized == "pictures of 50 x 100 are resized to 32 x 64, height x width"
    assert announced == "runs/tiny: rolling out 11 frames"
    assert result.endswith("mine.gif: 11 frames, drawn | pose")
    output("evaluate", "tiny", "--set", "evaluation.mirror=false")
    scores = json.loads((workplace / "runs" / "tiny" / "scores.json").read_text())
    assert scores["score"] == scores["score_prior_mean"]


@pytest.mark.parametrize("terminal", [True, False])
def test_status_lines_go_to_stderr_on_a_terminal(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make evaluate > file` writes only the table to the file. `make demo` hides the table, but not the status."""
    monkeypatch.setattr(tester, "terminal", Console(stderr=True, force_terminal=terminal))
    tester.announce("runs/tiny: rolling out")
    shown = capsys.readouterr()
    assert (shown.err if terminal else shown.out) == "runs/tiny: rolling out\n"
    assert (shown.out if terminal else shown.err) == ""


def test_the_suggested_fix_for_a_lost_checkpoint_works(
    workplace: Path, outcome: Callable[..., tuple[int, str]]
) -> None:
    break_run(workplace, "best is gone")
    _, errors = outcome(main, "evaluate", "tiny")
    words = errors.strip().partition(": make evaluate RUN=tiny SET=")[2].strip('"')
    assert open_run("tiny", overrides=words).checkpoint == Path("runs/tiny/last.pt")


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (
            (),
            "FRAME=first.png, the picture of the first frame; POSES=folder, with the pose pictures 0.png, 1.png, ...",
        ),
        (("frame",), "POSES=folder, with the pose pictures 0.png, 1.png, ..."),
        (("poses",), "FRAME=first.png, the picture of the first frame"),
    ],
)
def test_pictures_that_are_not_given_are_asked_for(
    workplace: Path,
    own: dict[str, Path],
    given: tuple[str, ...],
    missing: str,
    outcome: Callable[..., tuple[int, str]],
) -> None:
    before = read_config(workplace / "runs" / "tiny")
    options = [text for name in ("frame", "poses") for text in (f"--{name}", own[name] if name in given else "")]
    options += ["--out", own["out"], "--set", "evaluation.mirror=false"]
    assert outcome(main, "predict", "tiny", *options) == (2, f"error: missing: {missing}\n")
    assert read_config(workplace / "runs" / "tiny") == before


def test_a_perfect_score_can_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "run", score=math.inf, mean_psnr="Infinity")
    print_scores("run", tmp_path)
    assert "inf" in capsys.readouterr().out


def test_scores_of_an_earlier_version_are_named(workplace: Path, outcome: Callable[..., tuple[int, str]]) -> None:
    (workplace / "runs" / "tiny" / "scores.json").write_text('{"run": "tiny", "score": 20.0}')
    code, errors = outcome(main, "scores", "tiny")
    assert (code, errors.count("\n")) == (2, 1)
    assert "as in earlier versions; to write it again: make evaluate RUN=tiny" in errors


def test_the_last_checkpoint_can_be_read(places: dict[str, Path]) -> None:
    run = places["runs_folder"] / "tiny"
    write_config(
        run, CONFIG.model_copy(update={"evaluation": CONFIG.evaluation.model_copy(update={"checkpoint": "last"})})
    )
    trained = open_run("tiny", places["runs_folder"])
    assert trained.checkpoint == run / "last.pt"
    state, read = torch.load(run / "last.pt", weights_only=True), trained.model.state_dict()
    assert all(torch.equal(read[name], state["ema"][name]) for name in read)
    assert not all(torch.equal(read[name], state["model"][name]) for name in read)
    assert trained.step == 4
    assert not trained.model.training


def test_only_evaluate_and_submission_save_their_settings(
    workplace: Path, own: dict[str, Path], outcome: Callable[..., tuple[int, str]]
) -> None:
    run = workplace / "runs" / "tiny"
    before, options = (run / "config.json").read_bytes(), [text for name in own for text in (f"--{name}", own[name])]
    words = ("--set", "evaluation.latent=sample evaluation.mirror=false")
    assert outcome(main, "predict", "tiny", *options, *words)[0] == 0
    assert (
        outcome(main, "predict", "tiny", "--frame", "none.png", "--poses", own["poses"], "--out", "x.gif", *words)[0]
        == 2
    )
    assert (run / "config.json").read_bytes() == before
    assert outcome(main, "submission", "tiny", *words)[0] == 0
    assert read_config(run).evaluation.latent == "sample"
    assert Provenance.load(workplace / "submissions" / "tiny.json").config_sha256 == file_hash(run / "config.json")


def test_another_data_set_under_the_name_of_the_first_is_refused(
    places: dict[str, Path], tmp_path: Path, outcome: Callable[..., tuple[int, str]]
) -> None:
    other = tmp_path / "other"
    lengths = {"take_length": 24, "val_length": TEST_LENGTH, "test_length": TEST_LENGTH}
    pack_synthetic("synthetic", "tiny", data_folder=other, seed=4, num_takes=2, num_tests=2, num_processes=1, **lengths)
    message = r"best\.pt was trained on other data than .*other/tiny now holds; pack that data again"
    for command in (evaluate, submission):
        with pytest.raises(UserError, match=message):
            command("tiny", runs_folder=places["runs_folder"], data_folder=other)


def test_a_folder_gets_the_frames_and_is_never_replaced(
    workplace: Path, own: dict[str, Path], outcome: Callable[..., tuple[int, str]]
) -> None:
    options = [text for name in ("frame", "poses") for text in (f"--{name}", own[name])]
    assert outcome(main, "predict", "tiny", *options, "--out", "new/frames") == (0, "")
    drawn = predict_pictures("tiny", own["frame"], own["poses"], workplace / "same.gif")
    frames = [np.asarray(Image.open(f"new/frames/{number}.png")) for number in range(11)]
    assert np.array_equal(np.stack(frames).transpose(0, 3, 1, 2), drawn.numpy())
    before = sorted(path.name for path in Path("new/frames").iterdir())
    for folder in ("new/frames", own["poses"]):
        code, errors = outcome(main, "predict", "tiny", *options, "--out", folder)
        assert code == 2 and errors.startswith(f"error: OUT={folder} exists; needed: a new folder")
    assert sorted(path.name for path in Path("new/frames").iterdir()) == before
    assert len(list(own["poses"].iterdir())) == 11


def test_damaged_scores_are_named(workplace: Path, outcome: Callable[..., tuple[int, str]]) -> None:
    """They stop the command that shows them. A csv does not need them: it is written, and the damage is said."""
    (workplace / "runs" / "tiny" / "scores.json").write_text('{"score": ')
    damage = "is damaged: EOF while parsing a value at line 1 column 10; to write it again: make evaluate RUN=tiny"
    code, errors = outcome(main, "scores", "tiny")
    assert (code, errors.count("\n")) == (2, 1)
    assert damage in errors
    assert outcome(main, "submission", "tiny")[0] == 0
    assert Provenance.load(workplace / "submissions" / "tiny.json").local_score is None


def test_the_description_of_a_csv_follows_the_data_set(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["tester", "submission", "tiny"])
    main()
    said = capsys.readouterr().out
    assert f"submissions/tiny.csv: valid, 2 sequences of {TEST_LENGTH} frames of 32 x 64." in said
    assert "A rehearsal: the dancers are synthetic" in said
    assert "make submit" not in said
    assert Provenance.load(workplace / "submissions" / "tiny.json").synthetic


def test_a_baseline_without_error_is_named_for_what_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Validation equal to training: the nearest pose's frame is the true one, and no score can be compared with it."""
    exact = SimpleNamespace(score=float("inf"), mean_ssim=1.0)
    scores = SimpleNamespace(score=30.0, mean_ssim=0.9, baselines={"nearest pose": exact}, scored_frames=(1, 5))
    monkeypatch.setattr("src.tester.read_scores", lambda path: scores)
    print_scores("tiny")
    said = capsys.readouterr().out
    assert said.endswith("has no error: validation and training are the same footage. This proves nothing.\n")
    assert "-inf" not in said


def test_a_data_set_without_tests_has_nothing_to_submit(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = data_of

    def without_tests(trained: Any, folder: Path) -> Any:
        data = whole(trained, folder)
        return replace(data, manifest=data.manifest.model_copy(update={"num_tests": 0, "test_length": 0}))

    monkeypatch.setattr("src.tester.data_of", without_tests)
    with pytest.raises(
        UserError, match=r"tiny has no tests, so there is nothing to submit; needed: .*make evaluate RUN"
    ):
        submission("tiny")
    assert not list(workplace.glob("submissions/*"))
