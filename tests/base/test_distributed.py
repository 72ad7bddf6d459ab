"""Keyed random numbers, and training in two processes: it must give the same result as in one."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from src import trainer
from src.base.console import UserError
from src.base.devices import check_processes, pick_device
from src.base.distributed import any_process, launch, local_rank, mean_over_processes, process_group, rank, world_size
from src.base.randomness import Draws, keyed_generator
from src.config import Config
from src.dataset import DanceData, open_data
from src.trainer import train
from src.training.checkpoint import load_checkpoint
from src.training.log import read_history
from src.training.stop_signals import Stops
from tests.conftest import POSE_MODELS, shrink, tiny_config

CPU = torch.device("cpu")
NUM_STEPS = 3  # an epoch and a half
TRAINED = (*POSE_MODELS, "conv_svg")


def test_a_key_gives_the_same_numbers_for_ever() -> None:
    # If these numbers change, runs of earlier versions cannot be resumed or repeated.
    assert keyed_generator(0, "order", 0).initial_seed() == 8801576944019965792
    assert keyed_generator(5, "latent", 3, 1).initial_seed() == 7497777752574181923


def test_each_part_of_a_key_matters() -> None:
    keys = [(0, "order", 0), (1, "order", 0), (0, "order", 1), (0, "prior", 0), (0, "order"), (0, "order", 0, 0)]
    seeds = [keyed_generator(seed, purpose, *position).initial_seed() for seed, purpose, *position in keys]
    assert len(set(seeds)) == len(keys)


@pytest.mark.parametrize("edges", [(0, 4), (0, 2, 4), (0, 1, 2, 3, 4), (0, 3, 4)])
def test_draws_do_not_depend_on_the_number_of_processes(edges: tuple[int, ...]) -> None:
    whole = Draws(seed=1, step=2, clips=range(4), device=CPU)
    parts = [Draws(seed=1, step=2, clips=range(*pair), device=CPU) for pair in pairwise(edges)]
    normal = torch.cat([part.normal("latent", (3, 40)) for part in parts])
    uniform = torch.cat([part.uniform("prior", 5) for part in parts])
    assert normal.shape == (4, 3, 40)
    assert uniform.shape == (4, 5)
    assert torch.equal(normal, whole.normal("latent", (3, 40)))
    assert torch.equal(uniform, whole.uniform("prior", 5))
    for part in parts:
        assert torch.equal(part.shared_uniform("coin", 6), whole.shared_uniform("coin", 6))


def test_the_numbers_of_each_clip_are_those_of_earlier_versions() -> None:
    # One generator, one call and one tensor for each clip, as Draws once was. Sizes on both sides of 16 take other
    # ways through torch's generator.
    draws = Draws(seed=5, step=3, clips=range(1, 4), device=CPU)
    generators = [keyed_generator(5, "latent", 3, clip) for clip in (1, 2, 3)]
    for shape in ((5,), (2, 13), (3, 4, 8)):
        known = [
            torch.randn(shape, generator=generator.manual_seed(generator.initial_seed())) for generator in generators
        ]
        assert torch.equal(draws.normal("latent", shape), torch.stack(known))
    known = [torch.rand(7, generator=keyed_generator(5, "prior", 3, clip)) for clip in (1, 2, 3)]
    assert torch.equal(draws.uniform("prior", 7), torch.stack(known))


def test_draws_have_their_distribution_and_differ() -> None:
    draws = Draws(seed=1, step=2, clips=range(50), device=CPU)
    normal = draws.normal("latent", (100,))
    uniform = draws.uniform("prior", 100)
    assert abs(normal.mean()) < 0.05
    assert abs(normal.std() - 1) < 0.05
    assert 0 <= uniform.min() < 0.01
    assert 0.99 < uniform.max() < 1
    later = Draws(seed=1, step=3, clips=range(50), device=CPU)
    assert not torch.equal(normal, later.normal("latent", (100,)))
    assert not torch.equal(normal, draws.normal("prior", (100,)))
    assert not torch.equal(normal[0], normal[1])
    assert not torch.equal(draws.shared_uniform("coin", 5), later.shared_uniform("coin", 5))


def test_a_single_process_is_alone() -> None:
    with process_group(CPU):
        assert (rank(), world_size(), local_rank()) == (0, 1, 0)
        assert (any_process(True, CPU), any_process(False, CPU)) == (True, False)
        assert torch.equal(mean_over_processes(torch.tensor([1.0, 2.0])), torch.tensor([1.0, 2.0]))


def shared_config(model: str, **settings: Any) -> Config:
    """A configuration that uses every kind of random number and in which every gradient is clearly not zero."""
    part = {"teacher_forcing": {"start": 0.5}} if model == "lab_cvae" else {"width": 16, "prior_probability": 0.5}
    return tiny_config(model, model=part, **{"batch_size": 4, "clips_per_epoch": 8, "validate_every": 1} | settings)


def patient_config() -> Config:
    return shared_config("reference_cvae", learning_rate=1e-12, patience=1)


def open_small(data_folder: Path) -> DanceData:
    return shrink(open_data("tiny", data_folder))


def one_of_two(number: int, ports: list[int], data_folder: Path, pushing_folder: Path, folder: Path) -> None:
    """Runs in each of the two processes."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ["TORCHELASTIC_RUN_ID"] = "test"  # torchrun sets it
    data = {"tiny": open_small(data_folder), "pushed": open_data("pushed", pushing_folder)}
    trainer.open_data = lambda name, data_folder: data[name]
    jobs = iter(ports)

    os.environ["MASTER_PORT"] = str(next(jobs))
    with process_group(CPU):
        assert (rank(), world_size(), local_rank()) == (number, 2, number)
        assert any_process(number == 1, CPU)
        assert not any_process(False, CPU)
        values = torch.tensor([1.0 + number])
        assert mean_over_processes(values).item() == 1.5
        assert values.item() == 1.0 + number, "the argument is not changed"

    for model in TRAINED:
        os.environ["MASTER_PORT"] = str(next(jobs))
        assert not train(shared_config(model), folder / model, stop_at_step=NUM_STEPS)

    os.environ["MASTER_PORT"] = str(next(jobs))
    assert train(patient_config(), folder / "patient")

    @contextmanager
    def one_is_stopped() -> Any:
        stops = Stops()
        stops.received += [15] if number == 1 else []
        yield stops

    trainer.stop_signals = one_is_stopped
    os.environ["MASTER_PORT"] = str(next(jobs))
    assert not train(shared_config("reference_cvae"), folder / "stopped")


@pytest.fixture(scope="module")
def together(data_folder: Path, pushing_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the runs of the two processes."""
    folder = tmp_path_factory.mktemp("together")
    num_jobs = len(TRAINED) + 3
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(num_jobs)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["src.trainer"])  # so torch is imported only once
    arguments = (ports, data_folder, pushing_folder, folder)
    pair = [context.Process(target=one_of_two, args=(number, *arguments)) for number in (0, 1)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(300)
    alive = [process for process in pair if process.is_alive()]
    for process in alive:
        process.kill()
    assert not alive, "the processes wait for each other"
    assert [process.exitcode for process in pair] == [0, 0]
    return folder


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("model", TRAINED)
def test_two_processes_train_what_one_trains(model: str, together: Path, tmp_path: Path) -> None:
    train(shared_config(model), tmp_path / "alone", stop_at_step=NUM_STEPS)
    alone, pair = (load_checkpoint(folder / "last.pt", CPU) for folder in (tmp_path / "alone", together / model))
    assert alone["step"] == pair["step"] == NUM_STEPS
    for part in ("model", "ema"):
        for name, weight in alone[part].items():
            assert torch.allclose(weight, pair[part][name], rtol=1e-4, atol=1e-5), name  # a step is 1e-3
    rows = [read_history(folder) for folder in (tmp_path / "alone", together / model)]
    assert len(rows[0]) == len(rows[1]) == 1
    for name in rows[0][0].keys() - {"clips_per_s", "data_share"}:
        assert rows[0][0][name] == pytest.approx(rows[1][0][name], rel=1e-4), name


def test_one_process_goes_on_where_two_stopped(
    together: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop is in the middle of an epoch, so the epoch's mean covers clips of the pair and of the single process."""
    data = open_small(data_folder)
    config = shared_config("reference_cvae")
    monkeypatch.setattr(trainer, "open_data", lambda name, data_folder: data)
    shutil.copytree(together / "reference_cvae", tmp_path / "on")
    train(config, tmp_path / "on", stop_at_step=NUM_STEPS + 1)
    train(config, tmp_path / "alone", stop_at_step=NUM_STEPS + 1)
    on, alone = (read_history(tmp_path / name)[1] for name in ("on", "alone"))
    for name in ("total", "reconstruction", "kl", "validation_total"):
        assert on[name] == pytest.approx(alone[name], rel=1e-4), name


@pytest.mark.parametrize(
    ("wanted", "count", "device"),
    [
        ("cpu", 2, "cpu"),
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:1"),
        ("cuda", 2, "cuda:1"),
        ("cuda", 0, None),
        ("auto", 1, None),
    ],
)
def test_each_process_has_its_device(
    wanted: str, count: int, device: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    if device:
        assert str(pick_device(wanted)) == device
    else:
        found = "process 2 has no GPU of its own: there are 1" if count else "no CUDA device is usable here"
        with pytest.raises(UserError, match=found):
            pick_device(wanted)


@pytest.mark.parametrize(
    ("wanted", "device", "count", "number"),
    [
        ("1", "auto", 0, 1),
        ("4", "auto", 0, 4),  # the processes share the CPU
        ("4", "cpu", 2, 4),
        ("2", "auto", 2, 2),
        ("1", "cuda", 0, 1),  # `pick_device` refuses it
        ("3", "auto", 2, r"GPUS=3, but only 2 can be used here; use GPUS=2"),
        ("2", "cuda", 0, r"GPUS=2, but no CUDA device is usable here"),
        *[(word, "auto", 2, f"GPUS={word}; needed: how many") for word in ("", "0", "-1", "two", "1.5", "1 2")],
    ],
)
def test_the_number_of_processes(
    wanted: str, device: str, count: int, number: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if isinstance(number, int):
        assert check_processes(wanted, device) == number
    else:
        with pytest.raises(UserError, match=number):
            check_processes(wanted, device)


def test_two_processes_stop_together(together: Path) -> None:
    assert load_checkpoint(together / "stopped" / "last.pt", CPU)["step"] == 0  # it stopped before the first step
    assert [row["epoch"] for row in read_history(together / "patient")] == [1, 2]


def test_the_process_that_ended_by_itself_is_told_and_not_the_one_that_torchrun_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 1 has written its mistake first, but torchrun stops it because process 0 has already ended."""
    failures = {}
    for number, (exit_code, time) in enumerate(((2, 200), (-signal.SIGTERM, 100))):
        file = tmp_path / f"{number}.json"
        known = {"timestamp": time, "py_callstack": ""}
        message = {"message": f"UserError: mistake of process {number}", "extraInfo": known}
        file.write_text(json.dumps({"message": message}))
        failures[number] = ProcessFailure(number, 10 + number, exit_code, str(file))

    def run(_: object) -> None:
        raise ChildFailedError("src.trainer", failures)

    monkeypatch.setattr("torch.distributed.run.run", run)
    with pytest.raises(UserError, match=r"^mistake of process 0$"):
        launch("src.trainer", [], 2)
