"""Scores of robot pushing compared with numpy and scikit-image, and the pictures and the report of a run."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from src.base.console import UserError
from src.base.randomness import keyed_seed
from src.config import EvaluationConfig
from src.dataset import open_data, to_unit
from src.evaluation.rollout import predict
from src.evaluation.scores import read_scores, write_scores
from src.evaluation.trained import open_run
from src.maths.metrics import best_of
from src.models.interface import build_model
from src.pushing.schema import PushingScores
from src.pushing.scores import score as score_pushing
from src.report import write_report
from src.reporting.clips import read_clips
from src.reporting.results import read_run
from src.reporting.tables import table_of
from src.tester import evaluate
from src.trainer import train
from tests.conftest import tiny_config
from tests.run_folders import write_run

GIVEN, WINDOW, SAMPLES = 2, 12, 3
SETTINGS = {"num_samples": SAMPLES, "latent": "mean_of_samples"}
CONFIG = tiny_config(
    "svg", model={"prior": "learned"}, evaluation=SETTINGS, num_epochs=1, learning_rate=1e-3, warmup_steps=0
)
PROTOCOLS = ("prior_mean", "single", "best_of_n", "shuffled_actions", "shuffled_conditions")


class Evaluated(NamedTuple):
    """An evaluated run, and the data of its test clips."""

    folder: Path
    scores: PushingScores
    frames: np.ndarray  # (N, 5, 3, 64, 64) uint8
    conditions: np.ndarray  # (N, 5, 7)


@pytest.fixture(scope="module")
def evaluated(pushing_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    runs = tmp_path_factory.mktemp("runs")
    train(CONFIG, runs / "pusher", data_folder=pushing_folder)
    evaluate("pusher", data_folder=pushing_folder, runs_folder=runs)
    test = open_data("pushed", pushing_folder).test
    scores = read_scores(runs / "pusher" / "scores.json")
    assert isinstance(scores, PushingScores)
    return Evaluated(runs / "pusher", scores, test.frames[:, :WINDOW], test.conditions[:, :WINDOW])


def drawn(evaluated: Evaluated, latent: str, *, number: int = 0, num_shuffled: int = 0) -> np.ndarray:
    """Returns rollouts (N, T, 3, H, W) of all clips by a model that is built here.

    The first `num_shuffled` numbers of each condition are those of the previous clip.
    """
    model = build_model(CONFIG, height=64, width=64)
    model.load_state_dict(torch.load(evaluated.folder / "best.pt", weights_only=True)["ema"])
    conditions = torch.from_numpy(evaluated.conditions.copy())
    for clip in range(len(conditions)):
        conditions[clip, :, :num_shuffled] = torch.from_numpy(evaluated.conditions[clip - 1, :, :num_shuffled])
    settings = EvaluationConfig(latent=latent, num_samples=SAMPLES, mirror=False)
    given = torch.from_numpy(evaluated.frames[:, :GIVEN].copy())
    return (
        predict(model.eval(), to_unit(given), conditions, settings, seed=keyed_seed(CONFIG.seed, "rollout", number, 0))
        .double()
        .numpy()
    )


def slow_psnr(clips: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the PSNR (N, T) in dB of the predicted frames: the mean over channels, computed by another library."""
    levels = np.empty((len(truth), WINDOW - GIVEN))
    for n, t in np.ndindex(*levels.shape):
        pairs = zip(truth[n, GIVEN + t] / 255, clips[n, GIVEN + t], strict=True)
        levels[n, t] = np.mean([peak_signal_noise_ratio(true, channel, data_range=1.0) for true, channel in pairs])
    return levels


def slow_ssim(clips: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the SSIM (N, T) of the predicted frames after rounding, computed by another library."""
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0}
    rounded, values = np.rint(255 * clips), np.empty((len(truth), WINDOW - GIVEN))
    for n, t in np.ndindex(*values.shape):
        pair = truth[n, GIVEN + t].astype(np.float64), rounded[n, GIVEN + t]
        values[n, t] = structural_similarity(*pair, data_range=255.0, **settings)
    return values


def test_every_number_is_that_of_a_slow_computation(evaluated: Evaluated, pushing_folder: Path) -> None:
    scores, truth = evaluated.scores, evaluated.frames
    samples = [slow_psnr(drawn(evaluated, "sample", number=n), truth) for n in range(SAMPLES)]
    best = [max((sample[n] for sample in samples), key=lambda levels: levels.mean()) for n in range(len(truth))]
    training = open_data("pushed", pushing_folder).train.frames.astype(np.float64)
    still = {
        "copy of the last frame": np.broadcast_to(truth[:, GIVEN - 1 : GIVEN] / 255, truth.shape),
        "mean training frame": np.broadcast_to(training.mean(axis=(0, 1)) / 255, truth.shape),
    }
    levels = {
        "prior_mean": slow_psnr(drawn(evaluated, "mean"), truth),
        "single": samples[0],
        "best_of_n": np.array(best),
        "shuffled_actions": slow_psnr(drawn(evaluated, "mean", num_shuffled=4), truth),
        "shuffled_conditions": slow_psnr(drawn(evaluated, "mean", num_shuffled=7), truth),
    }
    for name, expected in levels.items():
        assert getattr(scores, f"score_{name}") == pytest.approx(expected.mean(), abs=1e-4), name
        assert scores.psnr_by_protocol[f"score_{name}"] == pytest.approx(expected.mean(axis=0), abs=1e-4), name
    assert scores.score_shuffled_actions != scores.score_shuffled_conditions
    own = drawn(evaluated, "mean_of_samples")
    assert scores.score == pytest.approx(slow_psnr(own, truth).mean(), abs=1e-4)
    assert scores.psnr_by_frame[:GIVEN] == [math.inf] * GIVEN
    assert scores.psnr_by_frame[GIVEN:] == pytest.approx(slow_psnr(own, truth).mean(axis=0), abs=1e-4)
    assert scores.mean_ssim == pytest.approx(slow_ssim(own, truth).mean(), abs=1e-4)
    assert scores.ssim_by_frame == pytest.approx(slow_ssim(own, truth).mean(axis=0), abs=1e-4)
    for name, clips in still.items():
        assert scores.baselines[name].score == pytest.approx(slow_psnr(clips, truth).mean(), abs=1e-4)
        assert scores.baselines[name].mean_ssim == pytest.approx(slow_ssim(clips, truth).mean(), abs=1e-4)


def test_the_protocol_is_described(evaluated: Evaluated) -> None:
    scores = evaluated.scores
    assert set(scores.psnr_by_protocol) == {f"score_{name}" for name in PROTOCOLS}
    assert (scores.num_clips, scores.num_given, scores.num_samples_compared) == (3, GIVEN, SAMPLES)
    assert scores.scored_frames == (GIVEN, WINDOW - 1)
    assert "3 test clips of pushed, from the first frame on, 2 -> 10 frames" in scores.protocol
    assert "mean of 3 samples of the prior" in scores.protocol


def test_the_best_sample_is_chosen_clip_by_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = [torch.rand(6, 4, generator=generator) for _ in range(5)]
    best = best_of(samples)
    for clip in range(6):
        candidates = [sample[clip] for sample in samples]
        assert best[clip].mean() == max(levels.mean() for levels in candidates)
        assert any(torch.equal(best[clip], levels) for levels in candidates)


def test_the_best_of_n_is_not_worse_than_one(evaluated: Evaluated) -> None:
    assert evaluated.scores.score_best_of_n >= evaluated.scores.score_single


def test_an_infinite_psnr_is_a_string(evaluated: Evaluated, pushing_folder: Path, tmp_path: Path) -> None:
    data = open_data("pushed", pushing_folder)
    still = replace(data.test, frames=np.repeat(data.test.frames[:, :1], WINDOW, axis=1))
    shutil.copytree(evaluated.folder, tmp_path / "runs" / "pusher")
    scores, _ = score_pushing(open_run("pusher", tmp_path / "runs"), replace(data, test=still))
    assert scores.baselines["copy of the last frame"].score == math.inf
    write_scores(tmp_path / "scores.json", scores)
    content = json.loads((tmp_path / "scores.json").read_text(), parse_constant=pytest.fail)
    assert content["baselines"]["copy of the last frame"]["score"] == "Infinity"
    assert read_scores(tmp_path / "scores.json") == scores


def test_one_clip_alone_has_no_actions_of_another(evaluated: Evaluated, pushing_folder: Path) -> None:
    data = open_data("pushed", pushing_folder)
    alone = replace(data, test=replace(data.test, frames=data.test.frames[:1], conditions=data.test.conditions[:1]))
    with pytest.raises(UserError, match="pushed has only one test clip"):
        score_pushing(open_run("pusher", evaluated.folder.parent), alone)


def test_the_pictures_are_whole(evaluated: Evaluated) -> None:
    rows = 2 + SAMPLES  # truth, the prior's mean, samples
    with Image.open(evaluated.folder / "rollout.gif") as gif:
        assert gif.width * 64 == gif.height * (rows * 64 + rows - 1)
        durations = []
        for number in range(gif.n_frames):
            gif.seek(number)
            gif.load()
            durations.append(gif.info["duration"])
    assert sum(durations) == WINDOW * 3 * 40  # each frame three times 40 ms
    for name in ("rollout_strip.png", "psnr_by_frame.png", "curves.png"):
        with Image.open(evaluated.folder / name) as image:
            image.load()
            assert np.asarray(image.convert("L")).std() > 1, name
    with Image.open(evaluated.folder / "rollout_strip.png") as strip:
        assert strip.size == (3 * (WINDOW * 64 + WINDOW - 1), 3 * rows * 65)


def test_the_report_shows_pushing_beside_dancers(evaluated: Evaluated, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_run(runs / "dancer", score=24.5)
    (runs / "pusher").symlink_to(evaluated.folder)
    run = read_run(runs / "pusher")
    assert run.notes == ()
    assert run.scores is not None
    table = table_of([run, read_run(runs / "dancer")])
    cells = {row.cells[0]: dict(zip(table.header, row.cells, strict=True)) for row in table.rows}
    columns = {"score (dB)": "score", "prior's mean (dB)": "score_prior_mean", "one sample (dB)": "score_single"}
    of_pushing = {"best of n (dB)": "score_best_of_n", "others' actions (dB)": "score_shuffled_actions"}
    of_pushing |= {"others' conditions (dB)": "score_shuffled_conditions"}
    for column, name in (columns | of_pushing).items():
        assert cells["pusher"][column] == f"{getattr(evaluated.scores, name):.2f}", column
        assert (cells["dancer"][column] == "-") == (column in of_pushing)
    still = evaluated.scores.baselines["copy of the last frame"]
    assert cells["copy of the last frame"]["score (dB)"] == f"{still.score:.2f}"
    text = write_report(runs, tmp_path / "submissions", tmp_path / "reports").read_text()
    for expected in (evaluated.scores.protocol, f"{evaluated.scores.score_best_of_n:.2f}", "24.50"):
        assert expected in re.sub(r"&gt;", ">", text)
    best, *others = read_clips(evaluated.folder, evaluated.scores.checkpoint_sha256)
    assert best.name == "best test clip" and others[-1].name == "worst test clip"
    assert [layer.name for layer in best.layers[:3]] == ["true", "drawn", "sample 1"]
    assert best.scored == evaluated.scores.scored_frames and set(best.baselines) == set(evaluated.scores.baselines)
    means = [np.mean(clip.layers[1].psnr[clip.scored[0] :]) for clip in (best, *others)]
    assert means == sorted(means, reverse=True)
    assert f"pusher ({evaluated.scores.score:.2f} dB)" not in text and '"pusher"' in text  # the player adds the score
