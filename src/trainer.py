"""configs/<run>.toml -> runs/<run>/: the only training loop.

Run `python -m src.trainer configs/dance.toml`, or start it under torchrun for several processes. The same command
resumes a stopped run. On a CPU the resumed run is identical, bit for bit, to one that was never stopped, if the code,
torch, the number of threads and the processor are the same; a line says when they are not. A larger
`training.num_epochs` extends a finished run, and the learning rate does not jump.
"""

import copy
import math
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from src.base import distributed
from src.base.console import UserError, activity, progress_bar, run_program, say
from src.base.devices import check_processes, pick_device
from src.base.names import checked_name, toml_file
from src.base.ownership import owned
from src.base.processes import Stopped
from src.base.randomness import Draws
from src.base.systems import SYSTEMS
from src.commands import train_options
from src.config import Config, from_json, load_config
from src.dataset import PackedData, open_data
from src.evaluation.final import state_of_recipe
from src.intake.manifest import Manifest
from src.maths.schedules import change_plan, extended_learning_rate, schedule
from src.models.interface import build_model, compile_blocks
from src.training import checkpoint, saved_config
from src.training.clock import EpochClock, clock_at
from src.training.dial import as_started, dialled, with_minutes, with_recipe_of
from src.training.idle_settings import refuse_idle_settings
from src.training.log import History, epoch_line, score_to_choose_by
from src.training.precision import as_begun, with_precision
from src.training.resolution import left_unmirrored, resolved_for
from src.training.stop_signals import Stops, stop_signals
from src.training.update import LOSSES, RecordedUpdate, Update


class Trainer:
    """One run: data, network, averaged weights, optimiser, and progress."""

    def __init__(self, config: Config, data: PackedData, folder: Path, device: torch.device) -> None:
        settings = config.training
        self.config = config
        self.folder = folder
        self.device = device
        self.data_fingerprint = data.manifest.fingerprint
        torch.manual_seed(config.seed)  # for the initial weights; all other random numbers have keyed generators
        self.facts = data.manifest.facts
        model = build_model(config, **self.facts.network).to(device)
        self.model = model.to(memory_format=torch.channels_last) if settings.channels_last else model
        self.ema = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.network: Any = DistributedDataParallel(self.model) if distributed.world_size() > 1 else self.model
        if settings.compile:
            compile_blocks(self.model)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        update = Update(self.network, self.model, self.optimizer, settings, device)
        self.scaler = update.scaler
        self.update = RecordedUpdate(update) if update.records() else update
        context = self.model.context
        system = SYSTEMS[config.model.system]
        self.sampler = system.part("data").sampler(config, data, context=context, device=device)
        self.validation: Any = None
        if distributed.rank() == 0 and not settings.final_of:  # the other processes do not validate
            self.validation = system.part("validation").validation_of(config, data, context=context, device=device)
        clips = settings.clips_per_epoch or len(self.sampler)
        self.steps_per_epoch = max(1, clips // settings.batch_size)
        self.num_steps = self.steps_per_epoch * settings.num_epochs
        self.step = 0
        self.plan = change_plan((), step=0, num_steps=self.num_steps)
        self.best_score = -math.inf
        self.validations_without_improvement = 0
        self.sums = torch.zeros(len(LOSSES) + 1, dtype=torch.float64, device=device)  # the last one: skipped steps
        self.is_epoch_open = False  # the last step has ended an epoch, which is not validated and logged yet
        self.clock = EpochClock()

    def train_step(self) -> None:
        """Takes one optimiser step. If the gradient is not finite, no weight changes; the step counts as skipped."""
        settings = self.config.training
        epoch, position = divmod(self.step, self.steps_per_epoch)
        num_clips = settings.batch_size // distributed.world_size()
        clips = range(distributed.rank() * num_clips, (distributed.rank() + 1) * num_clips)
        with self.clock.waiting_for_data():
            batch = self.sampler.batch(epoch, position * settings.batch_size, clips)
        draws = Draws(self.config.seed, self.step, clips, self.device)
        self.network.train()
        weights = schedule(self.config, self.step, self.steps_per_epoch)
        self.sums += self.update(batch, draws, learning_rate=self.learning_rate(self.step), **weights)
        self.average_weights()
        self.step += 1
        self.is_epoch_open = self.step % self.steps_per_epoch == 0

    def average_weights(self) -> None:
        """Moves the averaged weights towards the current ones. The decay grows with the step, up to `ema_decay`."""
        decay = min(self.config.training.ema_decay, (1 + self.step) / (10 + self.step))
        average = get_ema_multi_avg_fn(decay)  # torch's AveragedModel supports only a fixed decay
        average(list(self.ema.parameters()), list(self.model.parameters()), self.step)

    def learning_rate(self, step: int) -> float:
        """Returns the learning rate of a step."""
        settings = self.config.training
        return extended_learning_rate(
            step,
            plan=self.plan,
            base=settings.learning_rate,
            warmup_steps=settings.warmup_steps,
            final_ratio=settings.final_ratio,
            kind=settings.learning_rate_kind,
        )

    def finish_epoch(self) -> dict[str, float]:
        """Returns the log row of the epoch that has just ended, with the scores of a validation if one is due."""
        epoch = self.step // self.steps_per_epoch
        *losses, skipped = distributed.mean_over_processes(self.sums.clone()).tolist()
        taken = self.steps_per_epoch - skipped
        if taken == 0:
            raise UserError(
                f"no step of epoch {epoch} had a finite gradient; the weights are still those of the last good step. "
                "Lower training.learning_rate or raise training.warmup_steps, and train under another name"
            )
        weights = schedule(self.config, self.step - 1, self.steps_per_epoch)
        row: dict[str, float] = {"epoch": epoch, "step": self.step}
        row |= {name: loss / taken for name, loss in zip(LOSSES, losses, strict=True)}
        row |= weights | {"learning_rate": self.learning_rate(self.step - 1), "skipped_steps": skipped}
        row |= self.clock.speed(self.step, self.config.training.batch_size)
        if distributed.rank() == 0 and self.is_validation_due():
            row |= self.validate(weights)
        self.sums.zero_()
        self.clock.start(self.step)
        self.is_epoch_open = False
        return row

    def is_validation_due(self) -> bool:
        """Returns whether the epoch that has just ended is to be validated."""
        if self.config.training.final_of:  # all footage is trained on
            return False
        epoch = self.step // self.steps_per_epoch
        return epoch % self.config.training.validate_every == 0 or self.step == self.num_steps

    def is_over(self) -> bool:
        """Returns whether training has ended: all steps are taken and logged, or the patience is used up."""
        return not self.is_epoch_open and (self.step >= self.num_steps or self.patience_is_over())

    def patience_is_over(self) -> bool:
        """Returns whether `training.patience` validations have passed without a better score."""
        return 0 < self.config.training.patience <= self.validations_without_improvement

    def validate(self, weights: dict[str, float]) -> dict[str, float]:
        """Returns the scores of the averaged weights. Saves the weights as best.pt if they are the best so far."""
        scores = self.validation.report(self.ema, **weights)
        score = score_to_choose_by(scores)
        if score > self.best_score:
            self.best_score = score
            self.validations_without_improvement = 0
            self.save("best.pt")
        else:
            self.validations_without_improvement += 1
        return scores

    def save(self, name: str) -> None:
        """Writes the averaged weights to a checkpoint. last.pt also holds everything that `resume` needs."""
        state: dict[str, Any] = {"step": self.step, "ema": self.ema.state_dict(), "best_score": self.best_score}
        state |= {"dataset_fingerprint": self.data_fingerprint, "facts": asdict(self.facts)}
        if name == "last.pt":
            state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            state |= {"scaler": self.scaler.state_dict(), "plan": self.plan}
            state |= {"sums": self.sums, "without_gain": self.validations_without_improvement}
            state |= {"is_epoch_open": self.is_epoch_open, "clock": self.clock.state()}
            state["environment"] = checkpoint.environment_of(self.device)
        checkpoint.save_checkpoint(self.folder / name, state, self.config)

    def resume(self) -> Config:
        """Loads last.pt and returns the configuration to write to config.json.

        Usually that is this configuration with the evaluation settings of config.json, which `make evaluate SET=...`
        may have changed. If the evaluation settings of the TOML have changed, the TOML counts. Raises UserError if
        last.pt has other settings or another data set.
        """
        path = self.folder / "last.pt"
        state = checkpoint.load_checkpoint(path, self.device, (*checkpoint.WEIGHTS, *checkpoint.PROGRESS))
        checkpoint.check_settings(state, self.config, path)
        checkpoint.check_data(state, self.config.dataset, self.data_fingerprint, path)
        checkpoint.load_weights(self.model, state["model"], path)
        checkpoint.load_weights(self.ema, state["ema"], path)
        checkpoint.load_optimizer(self.optimizer, state["optimizer"], path)
        checkpoint.load_scaler(self.scaler, state.get("scaler", {}), path)
        self.sums.copy_(state["sums"])
        self.step = state["step"]
        self.is_epoch_open = state.get("is_epoch_open", False)
        self.clock.restore(state.get("clock") or clock_at(self.step))
        self.changes = checkpoint.changes_since(state, self.device)
        before = from_json(state["config"], str(path))
        saved_config.refuse_moved_schedules(before, self.config, self.folder)
        self.evaluation_changed = before.evaluation != self.config.evaluation
        if not self.evaluation_changed:  # after a change, old and new scores cannot be compared: the best starts anew
            self.best_score = state["best_score"]
            self.validations_without_improvement = state["without_gain"]
        self.plan = change_plan(state["plan"], step=self.step, num_steps=self.num_steps)
        if self.evaluation_changed or not (self.folder / "config.json").is_file():
            return self.config
        return self.config.model_copy(update={"evaluation": saved_config.read_config(self.folder).evaluation})

    def update_settings(self, config: Config) -> None:
        """Brings the settings in the files of a finished run up to date. Writes nothing if they already are."""
        path = self.folder / "config.json"
        if not path.is_file() or saved_config.read_config(self.folder) != config:
            saved_config.write_config(self.folder, config)
        if self.evaluation_changed:
            self.save("last.pt")


def train(config: Config, folder: Path, *, data_folder: Path = Path("data"), stop_at_step: int | None = None) -> bool:
    """Trains to the last step, a stop signal or `stop_at_step`. Returns whether the run is finished."""
    device = pick_device(config.training.device)
    with distributed.process_group(device):
        as_written = config
        config, lines = with_precision(config, folder, device)
        data: PackedData = open_data(config.dataset, data_folder)
        unmirrored = left_unmirrored(config, data.manifest.facts)
        lines += [f"{folder}: no clip is mirrored: {unmirrored}"] if unmirrored else []
        config = dialled(resolved_for(config, data.manifest), folder, data, device)
        lines += state_of_recipe(folder, config)
        as_written = with_recipe_of(config, as_written)
        distributed.refuse_unequal_shares(config.training.batch_size, distributed.world_size())
        # In every process: if one stopped alone, the others would wait for ever.
        saved_config.check_config(folder, config)
        trainer = Trainer(config, data, folder, device)
        to_write = config
        checkpoint.refuse_without_progress(folder)
        if (folder / "last.pt").is_file():
            to_write = trainer.resume()
            lines += [f"{folder}: {change}" for change in trainer.changes]
        elif not (folder / "config.json").is_file():
            refuse_idle_settings(as_written, trainer.num_steps, stop=config.kl_weight.stop)
        if trainer.is_over():
            if distributed.rank() == 0:
                say(f"{folder}: {_nothing_to_do(trainer, to_write)}")
            return True
        if distributed.rank() == 0:
            saved_config.write_config(folder, to_write)
            if not (folder / "last.pt").is_file():
                trainer.save("last.pt")  # from now on, a trained run without it has lost it
            progress = f"step {trainer.step} of {trainer.num_steps} ({trainer.steps_per_epoch} an epoch)"
            for line in (*lines, f"{folder}: {progress} on {device}"):
                say(line)
        with stop_signals() as stops:
            return _loop(trainer, stops, trainer.num_steps if stop_at_step is None else stop_at_step)


def _nothing_to_do(trainer: Trainer, config: Config) -> str:
    """Describes the progress of a run that has ended, and brings the settings in its files up to date."""
    if trainer.step > trainer.num_steps:
        wanted = f"beyond the {trainer.num_steps} of {trainer.config.training.num_epochs} epochs"
        return f"already at step {trainer.step}, {wanted}; nothing to do"
    trainer.update_settings(config)
    return f"step {trainer.step} of {trainer.num_steps}, finished; nothing to do"


def _loop(trainer: Trainer, stops: Stops, last_step: int) -> bool:
    """Takes steps up to `last_step`; returns whether the run is finished. Saves after each epoch and when stopped."""
    logged = trainer.step - trainer.is_epoch_open
    history = History(trainer.folder, logged, logged // trainer.steps_per_epoch) if distributed.rank() == 0 else None
    first_step, end = trainer.step, min(last_step, trainer.num_steps)
    bar = progress_bar(f"{trainer.folder.name}: steps", trainer.num_steps, trainer.step, visible=history is not None)
    try:
        with bar as advance:
            while True:
                if trainer.is_epoch_open:
                    _end_epoch(trainer, history, stops)
                stop = bool(stops.received) or trainer.patience_is_over()
                if trainer.step >= end or distributed.any_process(stop, trainer.device):
                    break
                trainer.train_step()
                advance()
        finished = distributed.any_process(trainer.is_over(), trainer.device)
        trainer.sums = distributed.mean_over_processes(trainer.sums)
        if history and trainer.step > first_step:
            trainer.save("last.pt")
    except Stopped:  # during a validation; last.pt was saved before it
        finished = False
    if history:
        history.close()
        result = "finished" if finished else "stopped; run the same command again to resume"
        say(f"{trainer.folder}: step {trainer.step} of {trainer.num_steps}, {result}")
    return finished


def _end_epoch(trainer: Trainer, history: History | None, stops: Stops) -> None:
    """Validates and logs the epoch that has just ended. Saves before a validation, because it can take long."""
    if history and trainer.is_validation_due():
        trainer.save("last.pt")
    what = "validating" if trainer.is_validation_due() else "ending the epoch"
    with stops.at_once(), activity(f"{trainer.folder.name}: {what}"):
        row = trainer.finish_epoch()
    if history:
        history.add(row)
        say(epoch_line(row, trainer.config))
        trainer.save("last.pt")


def main() -> None:
    """The command line."""
    arguments = train_options()
    path = toml_file(arguments.config, Path("configs"), "RUN")
    overrides = with_minutes(arguments.set, arguments.minutes)
    config = load_config(path, overrides)
    folder = Path("runs") / (checked_name(arguments.name, "RUN") if arguments.name else path.stem)
    config = as_started(config, folder, arguments.set)
    num_processes = check_processes(arguments.gpus, config.training.device)
    if num_processes > 1:
        distributed.refuse_unequal_shares(config.training.batch_size, num_processes)
        manifest = Manifest.load(Path("data") / config.dataset)
        saved_config.check_config(folder, resolved_for(as_begun(config, folder), manifest))
        own = [str(path), "--set", overrides, "--name", folder.name]
        sys.exit(distributed.launch("src.trainer", own, num_processes))
    try:
        with owned(folder) if distributed.is_first_process() else nullcontext():
            finished = train(config, folder)
    except UserError as error:
        if not distributed.is_launched():
            raise
        distributed.report_mistake(error)
        sys.exit(2)
    sys.exit(0 if finished else 130)


if __name__ == "__main__":
    run_program(main)
