"""Training: a resumed run equals a whole one, the seed decides, a bad step changes no weight, mistakes are refused."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch

from src import trainer
from src.base.console import UserError
from src.base.randomness import Draws
from src.config import Config, load_config, replaced
from src.dance import cost as dance_cost
from src.dance.validation import TakeValidation
from src.dataset import Batch, DanceData, open_data
from src.maths.schedules import schedule
from src.models.configs import MODELS
from src.pushing.data import PushingData
from src.trainer import Trainer, main, train
from src.training.checkpoint import WITHOUT_HASH, load_checkpoint
from src.training.log import LOG_NAMES, read_history
from src.training.resolution import resolved
from src.training.saved_config import read_config, write_config
from src.training.stop_signals import stop_signals
from tests.conftest import POSE_MODELS, ROOT, tiny_config
from tests.differences import first_difference

CPU = torch.device("cpu")
CLOCKED = {"clips_per_s", "data_share"}
VARIANTS = {
    "lab_cvae": tiny_config("lab_cvae", num_epochs=3, model={"teacher_forcing": {"start": 0.7, "decay_from": 1}}),
    "reference_cvae": tiny_config("reference_cvae"),
    "reference_cvae, other settings": tiny_config(
        "reference_cvae",
        model={"prior_probability": 0.3},
        kl_weight={"kind": "cyclical", "cycles": 2, "per": "run"},
        precision="bfloat16",
        channels_last=True,
    ),
    "svg": tiny_config(
        "svg",
        model={"prior": "learned", "teacher_forcing": {"start": 0.5}},
        kl_weight={"kind": "cyclical", "cycles": 3, "per": "within_epoch"},
    ),
    "conv_svg": tiny_config("conv_svg", evaluation={"latent": "sample"}),
}
pytestmark = pytest.mark.usefixtures("small_data")


def last(folder: Path, name: str = "last.pt") -> dict[str, Any]:
    """A run's checkpoint without the commit, which may change while the tests run, and without the measured speed."""
    varying = ("commit", "clock")
    return {key: value for key, value in load_checkpoint(folder / name, CPU).items() if key not in varying}


def unclocked(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in CLOCKED} for row in read_history(folder)]


def build(config: Config, data: DanceData | PushingData, folder: Path) -> Trainer:
    return Trainer(config, data, folder, CPU)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_equals_one_that_was_never_stopped(variant: str, tmp_path: Path) -> None:
    config = VARIANTS[variant]
    whole = tmp_path / "whole"
    parts = tmp_path / "parts"
    assert train(config, whole)
    for stop in (3, 4):  # within an epoch and at its end
        assert not train(config, parts, stop_at_step=stop)
        assert last(parts)["step"] == stop
    assert train(config, parts)
    assert last(whole)["step"] == 2 * config.training.num_epochs
    assert first_difference(last(whole), last(parts)) is None
    assert first_difference(last(whole, "best.pt"), last(parts, "best.pt")) is None
    assert unclocked(whole) == unclocked(parts)
    assert [row["step"] for row in read_history(parts)] == list(range(2, last(whole)["step"] + 1, 2))


@pytest.mark.parametrize("model", MODELS)
def test_the_seed_decides(model: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(tiny_config(model), tmp_path / name, stop_at_step=2)
    train(tiny_config(model).model_copy(update={"seed": 6}), tmp_path / "c", stop_at_step=2)
    first, second, other = (last(tmp_path / name)["model"] for name in "abc")
    assert first_difference(first, second) is None
    assert first_difference(first, other)


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """The time of the last change of each file of a run, and its content."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = tiny_config("reference_cvae", num_epochs=1), tmp_path / "run"
    train(config, folder)
    before = files_of(folder)
    assert train(config, folder)
    assert files_of(folder) == before
    assert capsys.readouterr().out.splitlines()[-1].endswith("run: step 2 of 2, finished; nothing to do")


def test_settings_of_an_evaluation_stay_until_those_of_the_file_change(tmp_path: Path) -> None:
    folder, epochs = tmp_path / "run", {"num_epochs": 2, "validate_every": 1}
    config = tiny_config("reference_cvae", **epochs)
    train(config, folder, stop_at_step=2)
    evaluated = replaced(read_config(folder), "evaluation.shift=1 evaluation.checkpoint=last")
    write_config(folder, evaluated)  # as `make evaluate SET=...` does
    for _ in range(3):  # the first resumes the run; the others have nothing to do
        assert train(config, folder)
        assert read_config(folder) == evaluated
    before = last(folder)
    changed = tiny_config("reference_cvae", evaluation={"mirror": False}, **epochs)
    assert train(changed, folder)
    assert read_config(folder).evaluation == changed.evaluation
    write_config(folder, evaluated)
    assert train(changed, folder)
    assert read_config(folder) == evaluated, "the file has not changed again"
    assert first_difference(last(folder)["model"], before["model"]) is None


def test_a_run_with_more_epochs_than_requested_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    train(tiny_config("reference_cvae", num_epochs=3), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    capsys.readouterr()
    assert train(tiny_config("reference_cvae", num_epochs=1), folder)
    assert capsys.readouterr().out == f"{folder}: already at step 6, beyond the 2 of 1 epochs; nothing to do\n"
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_the_number_of_validations_changes_no_weight(tmp_path: Path) -> None:
    seldom, often = (tiny_config("reference_cvae", num_epochs=4, validate_every=epochs) for epochs in (9, 1))
    assert train(seldom, tmp_path / "whole")
    train(seldom, tmp_path / "changed", stop_at_step=3)
    assert train(often, tmp_path / "changed")
    validated = [row["epoch"] for row in read_history(tmp_path / "changed") if "validation_score" in row]
    assert validated == [2, 3, 4]
    whole, changed = last(tmp_path / "whole"), last(tmp_path / "changed")
    for name in ("step", "model", "ema", "optimizer", "plan", "sums"):
        assert first_difference(whole[name], changed[name]) is None


def test_every_name_in_the_log_is_explained(tmp_path: Path) -> None:
    train(tiny_config("reference_cvae"), tmp_path / "run", stop_at_step=4)
    first, second = read_history(tmp_path / "run")
    assert "validation_score" not in first
    assert second.keys() <= LOG_NAMES.keys()
    assert all(math.isfinite(value) for value in second.values())
    assert 0 <= second["data_share"] <= 1


@pytest.mark.parametrize(("decay", "steps"), [(0.0, 3), (0.3, 6), (0.9, 3)])
def test_moving_average_by_hand(decay: float, steps: int, small_data: DanceData, tmp_path: Path) -> None:
    subject = build(tiny_config("reference_cvae", ema_decay=decay), small_data, tmp_path)
    averages = {name: weight.clone() for name, weight in subject.model.state_dict().items()}
    for step in range(steps):
        subject.train_step()
        weights = {name: weight.clone() for name, weight in subject.model.state_dict().items()}
        kept = min(decay, (1 + step) / (10 + step))
        averages = {name: kept * averages[name] + (1 - kept) * weights[name] for name in weights}
    for name, weight in subject.ema.state_dict().items():
        assert torch.allclose(weight, averages[name], atol=1e-6)


def test_each_step_has_its_own_clips_and_learning_rate(small_data: DanceData, tmp_path: Path) -> None:
    subject = build(tiny_config("reference_cvae", learning_rate=0.1, warmup_steps=4), small_data, tmp_path)
    draw, asked, rates = subject.sampler.batch, [], []

    def note(epoch: int, first: int, clips: range) -> Batch:
        asked.append((epoch, first, clips))
        return draw(epoch, first, clips)

    subject.sampler.batch = note  # type: ignore[method-assign]
    for _ in range(4):
        subject.train_step()
        rates.append(subject.optimizer.param_groups[0]["lr"])
    assert asked == [(0, 0, range(4)), (0, 4, range(4)), (1, 0, range(4)), (1, 4, range(4))]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1])


class PoisonedDraws(Draws):
    """Random numbers that are NaN at some steps."""

    bad_steps: tuple[int, ...] = ()

    def normal(self, purpose: str, shape: tuple[int, ...]) -> torch.Tensor:
        noise = super().normal(purpose, shape)
        return noise * math.nan if self.step in self.bad_steps else noise


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def spoil(*steps: int) -> None:
        monkeypatch.setattr(PoisonedDraws, "bad_steps", steps)
        monkeypatch.setattr(trainer, "Draws", PoisonedDraws)

    return spoil


@pytest.mark.parametrize("model", POSE_MODELS)
def test_a_bad_step_leaves_the_weights_alone(
    model: str, small_data: DanceData, tmp_path: Path, poison: Callable[..., None]
) -> None:
    poison(1)
    subject = build(tiny_config(model), small_data, tmp_path)
    subject.train_step()
    before = [{**subject.model.state_dict()}, subject.optimizer.state_dict()["state"]]
    before = [
        {
            key: value.clone() if isinstance(value, torch.Tensor) else {k: v.clone() for k, v in value.items()}
            for key, value in part.items()
        }
        for part in before
    ]
    subject.train_step()
    assert first_difference(before, [{**subject.model.state_dict()}, subject.optimizer.state_dict()["state"]]) is None
    assert subject.sums[-1] == 1
    assert subject.sums.isfinite().all()
    subject.train_step()
    after = subject.model.state_dict()
    assert first_difference(before[0], {**after})
    assert all(weight.isfinite().all() for weight in [*after.values(), *subject.ema.state_dict().values()])


def test_bad_steps_are_counted_and_reported(
    tmp_path: Path, poison: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    poison(3)
    assert train(tiny_config("reference_cvae", num_epochs=3), tmp_path / "run")
    rows = read_history(tmp_path / "run")
    assert [row["skipped_steps"] for row in rows] == [0, 1, 0]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    lines = [line for line in capsys.readouterr().out.splitlines() if "skipped" in line]
    assert len(lines) == 1
    assert "skipped steps: 1 (gradient not finite)" in lines[0]


def test_the_mean_of_an_epoch_is_over_its_good_steps(tmp_path: Path, poison: Callable[..., None]) -> None:
    config = tiny_config("reference_cvae", num_epochs=1)
    train(config, tmp_path / "good", stop_at_step=1)
    poison(1)
    train(config, tmp_path / "spoilt")
    (row,), sums = read_history(tmp_path / "spoilt"), last(tmp_path / "good")["sums"]
    assert [row["total"], row["reconstruction"], row["kl"]] == pytest.approx(sums[:3].tolist(), rel=1e-6)


def test_an_epoch_without_a_good_step_ends_the_run(tmp_path: Path, poison: Callable[..., None]) -> None:
    poison(2, 3)
    with pytest.raises(UserError, match=r"no step of epoch 2 had a finite gradient.*training.learning_rate"):
        train(tiny_config("reference_cvae"), tmp_path / "run")
    assert last(tmp_path / "run")["step"] == 4, "it was saved before the validation"
    assert all(weight.isfinite().all() for weight in last(tmp_path / "run")["model"].values())


def test_patience_ends_a_run_early(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"learning_rate": 1e-12, "validate_every": 1}
    assert train(tiny_config("reference_cvae", patience=2, **settings), tmp_path / "run")
    assert [row["epoch"] for row in read_history(tmp_path / "run")] == [1, 2, 3]
    assert "step 6 of 10, finished" in capsys.readouterr().out
    assert last(tmp_path / "run", "best.pt")["step"] == 2
    assert train(tiny_config("reference_cvae", patience=2, **settings), tmp_path / "run")
    assert last(tmp_path / "run")["step"] == 6
    assert train(tiny_config("reference_cvae", **settings), tmp_path / "run")
    assert last(tmp_path / "run")["step"] == 10


@pytest.mark.parametrize("stop", [6, 10])
def test_the_learning_rate_does_not_jump_when_a_run_is_extended(
    stop: int, small_data: DanceData, tmp_path: Path
) -> None:
    short, long = (tiny_config("reference_cvae", num_epochs=epochs) for epochs in (5, 10))
    train(short, tmp_path / "run", stop_at_step=stop)
    extended, original = build(long, small_data, tmp_path / "run"), build(short, small_data, tmp_path)
    extended.resume()
    rates = [extended.learning_rate(step) for step in range(20)]
    before = [original.learning_rate(step) for step in range(11)]
    assert rates[:stop] == before[:stop]
    assert rates[stop] == pytest.approx(before[stop])
    assert all(later <= earlier for earlier, later in pairwise(rates[1:]))
    assert rates[-1] >= 0.01 * max(rates) * (1 - 1e-9)
    steepest = max(earlier - later for earlier, later in pairwise(before[1:]))
    assert all(earlier - later <= steepest for earlier, later in pairwise(rates[1:]))


def test_an_extended_run_equals_one_never_finished(tmp_path: Path) -> None:
    short, long = (
        tiny_config("reference_cvae", num_epochs=epochs, learning_rate_kind="constant", warmup_steps=0)
        for epochs in (2, 4)
    )
    train(short, tmp_path / "extended")
    train(long, tmp_path / "extended")
    train(long, tmp_path / "whole")
    assert first_difference(last(tmp_path / "extended")["model"], last(tmp_path / "whole")["model"]) is None


@pytest.mark.parametrize(
    ("model", "settings", "spans"),
    [
        ("reference_cvae", {"kl_weight": {"kind": "monotonic"}}, True),
        ("reference_cvae", {"kl_weight": {"kind": "cyclical", "per": "run"}}, True),
        ("reference_cvae", {"kl_weight": {"kind": "cyclical", "per": "within_epoch"}}, False),
        ("lab_cvae", {"model": {"teacher_forcing": {"kind": "plan"}}}, True),
        ("lab_cvae", {"model": {"teacher_forcing": {"start": 1.0}}}, False),
    ],
)
def test_a_schedule_that_spans_the_run_cannot_be_stretched(
    model: str, settings: dict[str, Any], spans: bool, tmp_path: Path
) -> None:
    short, long = (tiny_config(model, num_epochs=epochs, validate_every=9, **settings) for epochs in (1, 2))
    train(short, tmp_path / "run")
    if not spans:
        assert train(long, tmp_path / "run")
        return
    with pytest.raises(UserError, match=r"training.num_epochs: 1 -> 2, but a schedule of run spans the whole run"):
        train(long, tmp_path / "run")
    assert train(short, tmp_path / "run"), "the run itself is as it was"


def test_takes_held_out_choose_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The score of the validation take, which is reported, rises. The score of the held-out takes falls."""
    reports = ({"validation_score": 20.0 + n, "held_out_score": 30.0 - n} for n in count())
    monkeypatch.setattr(TakeValidation, "report", lambda *_, **__: next(reports))
    train(tiny_config("reference_cvae", num_epochs=3, validate_every=1), tmp_path / "run")
    assert last(tmp_path / "run", "best.pt")["step"] == 2
    assert (last(tmp_path / "run")["best_score"], last(tmp_path / "run")["without_gain"]) == (30.0, 2)


def test_scores_of_other_rollouts_do_not_compete(tmp_path: Path) -> None:
    settings = {"validate_every": 1, "learning_rate": 1e-12}
    train(tiny_config("reference_cvae", **settings), tmp_path / "run", stop_at_step=4)
    assert last(tmp_path / "run")["without_gain"] == 1
    train(tiny_config("reference_cvae", evaluation={"mirror": False}, **settings), tmp_path / "run", stop_at_step=6)
    state = last(tmp_path / "run")
    assert state["without_gain"] == 0
    assert state["best_score"] == read_history(tmp_path / "run")[-1]["validation_score"]
    assert last(tmp_path / "run", "best.pt")["step"] == 6


@pytest.mark.parametrize(
    ("kl_kind", "forcing"), list(product(["cyclical", "monotonic", "constant"], ["decay", "late", "plan"]))
)
def test_every_schedule_trains(kl_kind: str, forcing: str, small_data: DanceData, tmp_path: Path) -> None:
    ratio = {"decay": {"start": 0.5}, "late": {"start": 1.0, "begin": 1}, "plan": {}}[forcing]
    coin = "batch" if kl_kind == "cyclical" else "step"
    forced = {"teacher_forcing": {"kind": forcing, "coin": coin} | ratio}
    config = tiny_config("lab_cvae", model=forced, kl_weight={"kind": kl_kind, "stop": 1.0}, num_epochs=2)
    subject = build(config, small_data, tmp_path)
    for _ in range(3):
        subject.train_step()
    assert subject.sums[-1] == 0
    assert all(weight.isfinite().all() for weight in subject.model.state_dict().values())


def test_schedules_follow_the_config() -> None:
    cycles = {"kind": "cyclical", "cycles": 2, "stop": 1.0, "start": 0.25, "maximum": 0.9}
    config = tiny_config(
        "lab_cvae", num_epochs=8, kl_weight=cycles, model={"teacher_forcing": {"start": 1.0, "decay_from": 2}}
    )
    by_epoch = [schedule(config, 10 * epoch + 9, 10) for epoch in range(8)]
    assert [row["kl_weight"] for row in by_epoch] == pytest.approx([0.25, 0.625, 0.9, 0.9] * 2)
    ratios = [row["teacher_forcing_ratio"] for row in by_epoch]
    assert ratios == pytest.approx([1, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5])
    assert schedule(tiny_config("reference_cvae"), 0, 10) == {"kl_weight": 1e-4, "teacher_forcing_ratio": 0.0}


def steps_of_pushing(config: Config, data: PushingData, folder: Path) -> list[dict[str, float]]:
    """Returns the values of the schedules that the model gets at each step of a run. No step may be skipped."""
    subject = build(config, data, folder)
    seen: list[dict[str, float]] = []
    subject.model.register_forward_pre_hook(lambda model, given, named: seen.append(named), with_kwargs=True)
    for _ in range(subject.num_steps):
        subject.train_step()
    assert subject.sums[-1] == 0
    assert all(weight.isfinite().all() for weight in subject.model.state_dict().values())
    return seen


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": "constant"}, [2] * 8),
        ({"kind": "constant", "maximum": 1.5}, [1.5] * 8),
        ({"kind": "monotonic", "start": 1.0, "per": "run"}, [1, 1.25, 1.5, 1.75, 2, 2, 2, 2]),
        ({"kind": "monotonic", "maximum": 1.25, "per": "run"}, [0, 0.5, 1, 1.25, 1.25, 1.25, 1.25, 1.25]),
        ({"kind": "monotonic", "per": "epoch"}, [0, 0, 0, 0, 2, 2, 2, 2]),
        ({"kind": "cyclical", "cycles": 2, "ratio": 1.0, "per": "run"}, [0, 0.5, 1, 1.5, 0, 0.5, 1, 1.5]),
        ({"kind": "cyclical", "cycles": 2, "ratio": 1.0, "per": "within_epoch"}, [0, 1, 0, 1, 0, 1, 0, 1]),
    ],
)
def test_pushing_trains_under_every_kl_schedule(
    settings: dict[str, Any], expected: list[float], pushing_data: PushingData, tmp_path: Path
) -> None:
    brief = {"num_epochs": 2, "clips_per_epoch": 4, "batch_size": 1, "window": 3}
    seen = steps_of_pushing(
        tiny_config("conv_svg", kl_weight={"stop": 2.0} | settings, **brief), pushing_data, tmp_path
    )
    assert [given["kl_weight"] for given in seen] == pytest.approx(expected)


def test_the_kl_weight_of_pushing_rises_three_times_within_an_epoch(pushing_data: PushingData, tmp_path: Path) -> None:
    rises = {"kind": "cyclical", "cycles": 3, "ratio": 0.5, "per": "within_epoch", "stop": 2.0}
    brief = {"num_epochs": 1, "clips_per_epoch": 12, "batch_size": 1, "window": 3}
    seen = steps_of_pushing(tiny_config("svg", kl_weight=rises, **brief), pushing_data, tmp_path)
    assert [given["kl_weight"] for given in seen] == pytest.approx([0, 1, 2, 2] * 3)


def test_svg_trains_through_the_plan_of_teacher_forcing(pushing_data: PushingData, tmp_path: Path) -> None:
    planned = {"prior": "learned", "teacher_forcing": {"kind": "plan"}}
    brief = {"num_epochs": 6, "clips_per_epoch": 1, "batch_size": 1, "window": 4}
    seen = steps_of_pushing(tiny_config("svg", model=planned, **brief), pushing_data, tmp_path)
    assert [given["teacher_forcing_ratio"] for given in seen] == pytest.approx([1, 1, 1, 2 / 3, 1 / 3, 0])


@pytest.mark.parametrize("wanted", [False, True])
def test_the_blocks_are_compiled_where_asked(
    wanted: bool, small_data: DanceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[torch.nn.Module] = []

    def note(block: torch.nn.Module) -> None:
        compiled.append(block)

    monkeypatch.setattr(torch.nn.Module, "compile", note)
    subject = build(tiny_config("reference_cvae", compile=wanted), small_data, tmp_path)
    blocks = [*subject.model.members, subject.model.gaussian_predictor]
    assert compiled == (blocks if wanted else [])


def test_impossible_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("reference_cvae")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r'training.device = "cuda", but no CUDA device'):
        train(tiny_config("reference_cvae", device="cuda"), tmp_path / "run")
    with pytest.raises(UserError, match=r"training.window = 25: the longest take has 24 frames"):
        train(tiny_config("reference_cvae", window=25), tmp_path / "run")
    monkeypatch.setattr(trainer.distributed, "world_size", lambda: 3)
    with pytest.raises(UserError, match=r"training.batch_size = 4 cannot be shared by 3 processes"):
        train(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_another_config_or_data_set_is_refused(
    small_data: DanceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = tiny_config("reference_cvae"), tmp_path / "run"
    train(config, folder, stop_at_step=1)
    before = (folder / "last.pt").read_bytes()
    with pytest.raises(UserError, match=r"config.json belongs to another configuration \(training.learning_rate: "):
        train(tiny_config("reference_cvae", learning_rate=0.5), folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"settings \(training.learning_rate: .*SET=.training.learning_rate=0.002"):
        train(tiny_config("reference_cvae", learning_rate=0.5), folder)
    assert not (folder / "config.json").exists()
    manifest = small_data.manifest.model_copy(update={"fingerprint": "another"})
    other = replace(small_data, manifest=manifest)
    monkeypatch.setattr(trainer, "open_data", lambda name, data_folder: other)
    with pytest.raises(UserError, match=r"last.pt was trained on other data than data/tiny now holds"):
        train(config, folder)
    assert (folder / "last.pt").read_bytes() == before


def test_a_refused_resume_leaves_the_configuration_untouched(tmp_path: Path) -> None:
    folder, schedule = tmp_path / "run", {"kl_weight": {"kind": "monotonic"}}
    train(tiny_config("reference_cvae", num_epochs=2, **schedule), folder, stop_at_step=1)
    before = (folder / "config.json").read_bytes()
    with pytest.raises(UserError, match="a schedule of run spans the whole run"):
        train(tiny_config("reference_cvae", num_epochs=3, **schedule), folder)
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.parametrize("stops", [(3,), (4,), (1, 2, 5)])  # within an epoch; at its end; several stops
def test_the_speed_is_that_of_this_process(
    stops: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, step = [0.0], Trainer.train_step
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def two_seconds(subject: Trainer) -> None:
        clock[0] += 2
        step(subject)

    monkeypatch.setattr(Trainer, "train_step", two_seconds)
    config = tiny_config("reference_cvae", num_epochs=4, validate_every=9)
    for stop in (*stops, None):
        train(config, tmp_path / "run", stop_at_step=stop)
        clock[0] += 100
    rows = read_history(tmp_path / "run")
    assert [row["clips_per_s"] for row in rows] == [config.training.batch_size / 2] * 4


def test_signals_are_collected_and_a_second_interrupt_kills() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_signals() as stops:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stops.received == [signal.SIGTERM]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def write_toml(folder: Path, **training: object) -> Path:
    """Writes configs/short.toml, a small reference model, into the folder and returns its path."""
    settings = {
        "clips_per_epoch": 4,
        "batch_size": 2,
        "warmup_steps": 2,
        "validate_every": 50,
        "device": "cpu",
    } | training
    lines = ['dataset = "tiny"', "[model]", 'name = "reference_cvae"', "width = 8", "num_levels = 2", "num_blocks = 1"]
    lines += [
        "[kl_weight]",
        "stop = 1e-4",
        "[training]",
        *(f"{name} = {value!r}".replace("'", '"') for name, value in settings.items()),
    ]
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs" / "short.toml").write_text("\n".join(lines), encoding="utf-8")
    return folder / "configs" / "short.toml"


def command(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts the trainer's command in that folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "src.trainer", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_mistake_of_several_processes_is_one_line(tmp_path: Path, data_folder: Path) -> None:
    """The mistake is found only in the processes: the data set was packed again."""
    (tmp_path / "data").symlink_to(data_folder)
    config = write_toml(tmp_path, num_epochs=2)
    train(load_config(config), tmp_path / "runs" / "short", stop_at_step=1)
    path = tmp_path / "runs" / "short" / "last.pt"
    torch.save(torch.load(path) | {"dataset_fingerprint": "another", "format": WITHOUT_HASH}, path)
    process = command(tmp_path, "configs/short.toml", "--gpus", "2")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors
    assert errors.startswith("error: runs/short/last.pt was trained on other data than data/tiny now holds")
    assert errors.count("\n") == 1
    assert output == ""


@pytest.fixture
def working_folder(tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a folder `data`."""
    (tmp_path / "data").symlink_to(data_folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("configs/short.toml", "--gpus", "two"), "error: GPUS=two; needed: how many processes"),
        (("configs/short.toml", "--gpus", "3"), "error: training.batch_size = 2 cannot be shared by 3 processes"),
        (("configs/short.toml", "--gpus", "2", "--set", "seed=1"), "error: runs/short/config.json belongs to another"),
        (("configs/shrt.toml",), r"error: configs/shrt.toml does not exist; did you mean RUN=short?"),
        (("configs/short",), r"error: RUN=configs/short; needed: up to 100 letters"),
    ],
)
def test_mistakes_are_reported_before_other_processes_start(
    arguments: tuple[str, ...],
    line: str,
    working_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Callable[..., tuple[int, str]],
) -> None:
    config = resolved(load_config(write_toml(working_folder)), dance_cost.ASSUMED)
    write_config(working_folder / "runs" / "short", config)
    monkeypatch.setattr(trainer.distributed, "launch", None)
    code, errors = outcome(main, *arguments)
    assert code == 2
    assert errors.startswith(line)
    assert errors.count("\n") == 1


def test_ctrl_c_saves_and_the_same_command_finishes(
    tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch, outcome: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "data").symlink_to(data_folder)
    config = write_toml(tmp_path, num_epochs=16).relative_to(tmp_path)
    process = command(tmp_path, str(config))
    log, deadline = tmp_path / "runs" / "short" / "log.jsonl", time.monotonic() + 300
    while not (log.is_file() and log.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert errors == ""
    stopped = last(tmp_path / "runs" / "short")["step"]
    assert output.splitlines()[-1] == f"runs/short: step {stopped} of 32, stopped; run the same command again to resume"
    assert 2 <= stopped < 32
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainer, "open_data", open_data)
    assert outcome(main, config) == (0, "")
    assert last(tmp_path / "runs" / "short")["step"] == 32
    assert [row["epoch"] for row in read_history(tmp_path / "runs" / "short")] == list(range(1, 17))
