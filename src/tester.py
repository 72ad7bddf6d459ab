"""runs/<run>/ -> predictions and scores: evaluation, the submission, and predictions for a user's own pictures."""

import sys
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from src.base.console import UserError, activity, run_program, say, terminal
from src.base.ownership import owned, remove_leftovers
from src.base.systems import SYSTEMS
from src.commands import tester_options
from src.dance.prediction import predict_dance
from src.dataset import DanceData
from src.evaluation.final import local_score, refuse_final
from src.evaluation.scores import Scores, lines_of_scores, read_scores, write_scores
from src.evaluation.trained import Trained, data_of, open_run, origin_of, save_settings
from src.intake.facts import Size
from src.intake.file_names import numbered_pictures
from src.intake.manifest import Manifest
from src.intake.pictures import count_kinds, read_picture, say_conversions
from src.maths.metrics import quantise
from src.reporting.plots import plot_history, save_gif, side_by_side
from src.reporting.videos import save_clip
from src.submission import (
    CheckedSubmission,
    Provenance,
    check_submission,
    safe_to_replace,
    say_doubts,
    write_submission,
)
from src.training.log import TrainingLog, read_log
from src.training.saved_config import read_config

DATA, RUNS, SUBMISSIONS = Path("data"), Path("runs"), Path("submissions")


def announce(line: str) -> None:
    """Prints a status line: to stderr on a terminal, where the progress bars are, else to stdout."""
    print(line, file=sys.stderr if terminal.is_terminal else sys.stdout, flush=True)


def unfinished(trained: Trained, log: TrainingLog) -> str:
    """Describes the progress of an unfinished run, from its log; "" for a finished one."""
    config = trained.config
    if log.is_finished(config):
        return ""
    progress = f"{log.num_epochs} of {config.training.num_epochs} epochs"
    return f"; only {progress} are trained, make train RUN={trained.folder.name} continues"


def evaluate(run: str, *, overrides: str = "", data_folder: Path = DATA, runs_folder: Path = RUNS) -> Scores:
    """Rolls out the validation data and returns the scores. Writes scores.json and pictures into the run's folder.

    `overrides` is the text of SET: evaluation settings to change. They are saved with the run.
    """
    trained = open_run(run, runs_folder, overrides)
    refuse_final(trained.folder, trained.config)
    data = data_of(trained, data_folder)
    log = read_log(trained.folder)
    system = SYSTEMS[trained.config.model.system]
    scorer = system.part("scores")
    announce(f"{trained.folder}: rolling out {scorer.what_is_rolled_out(data)}{unfinished(trained, log)}")
    scores, rollouts = scorer.score(trained, data)
    with activity("writing GIFs and plots"):
        system.part("pictures").save_pictures(trained.folder, rollouts, scores.checkpoint_sha256)
        plot_history(trained.folder / "curves.png", log.rows, log.schedules(trained.config))
    save_settings(trained)
    write_scores(trained.folder / "scores.json", scores)  # last: if this file exists, the pictures exist, too
    return scores


def roll_out_tests(trained: Trained, data: DanceData) -> Tensor:
    """Returns the predictions of all test sequences, (K, T, 3, H, W) uint8. Frame 0 is the given frame."""
    given = torch.from_numpy(np.array(data.test_frames)).to(trained.device)
    poses = torch.from_numpy(np.array(data.test_poses)).to(trained.device)
    num_sequences, length = data.manifest.num_tests, data.manifest.test_length
    assert given.shape == (num_sequences, 3, *data.frame_size), f"one given frame per sequence: {given.shape}"
    assert poses.shape == (num_sequences, length, 3, *data.frame_size), f"a pose for each frame: {poses.shape}"
    drawn = predict_dance(trained.model, given[:, None], poses, trained.config.evaluation, seed=trained.config.seed)
    assert drawn.shape == (num_sequences, length, 3, *data.frame_size), f"rollout of {tuple(drawn.shape)}"
    rollouts = quantise(drawn).cpu()
    assert torch.equal(rollouts[:, 0], given.cpu()), "frame 0 must be the given frame"
    return rollouts


def submission(
    run: str,
    *,
    overrides: str = "",
    data_folder: Path = DATA,
    runs_folder: Path = RUNS,
    submissions_folder: Path = SUBMISSIONS,
) -> Path:
    """Returns submissions/<run>.csv, the checked predictions of the test sequences; writes its provenance and GIFs.

    Does nothing if the csv is up to date. `overrides` is the text of SET: evaluation settings to change. They are saved
    with the run.
    """
    trained = _open_pose_run(run, runs_folder, overrides)
    data: DanceData = data_of(trained, data_folder)
    if not data.manifest.num_tests:
        found = f"{trained.config.dataset} has no tests, so there is nothing to submit; needed: a data set with test/"
        raise UserError(f"{found}; to score this run: make evaluate RUN={run}")
    path = submissions_folder / f"{run}.csv"
    remove_leftovers(submissions_folder / run)
    safe_to_replace(path)
    origin = _origin_of_csv(trained, data_folder)
    if path.is_file() and _is_up_to_date(path, origin):
        say(f"{path} is up to date: it was written from this checkpoint, configuration and data set")
        return path
    num_sequences, length = data.test_poses.shape[:2]
    hint = unfinished(trained, read_log(trained.folder))
    announce(f"{trained.folder}: rolling out {num_sequences} test sequences of {length} frames{hint}")
    rollouts = roll_out_tests(trained, data)
    with activity("writing GIFs"):
        for number, clip in enumerate(rollouts):
            poses = torch.from_numpy(np.array(data.test_poses[number]))
            save_gif(trained.folder / f"pred_seq{number}.gif", side_by_side([clip, poses]))
    announce(f"{path}: writing and checking {num_sequences * length} rows")
    unchecked = path.with_name(f".{path.name}")
    checked = _write_and_check(unchecked, rollouts, data)
    say_doubts(path, checked)
    save_settings(trained)
    _publish(unchecked, path, checked, origin, data)
    return path


def _origin_of_csv(trained: Trained, data_folder: Path) -> dict[str, Any]:
    """Returns what a csv is made from, by the names of `Provenance`: run, checkpoint, settings, data set and code."""
    source = origin_of(trained)
    return {
        "run": trained.folder.name,
        "dataset": trained.config.dataset,
        "synthetic": is_synthetic(trained.config.dataset, data_folder),
        **{name: value for name, value in source.items() if name in Provenance.model_fields},
        "local_score": local_score(trained.folder, trained.config, source),
        "seed": trained.config.seed,
    }


def _is_up_to_date(path: Path, origin: dict[str, Any]) -> bool:
    """Returns whether an existing csv has this origin. The commit of the code may differ."""
    written = Provenance.load(path.with_suffix(".json")).model_dump()
    return all(written[name] == value for name, value in origin.items() if name != "commit")


def _publish(unchecked: Path, path: Path, checked: CheckedSubmission, origin: dict[str, Any], data: DanceData) -> None:
    """Writes the provenance of a checked csv, then moves the csv to `path`. So no csv is there without provenance."""
    path.unlink(missing_ok=True)
    Provenance(
        **origin,
        csv_sha256=checked.sha256,
        num_rows=checked.num_rows,
        num_sequences=checked.num_sequences,
        frame_size=data.frame_size,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    ).save(path.with_suffix(".json"))
    unchecked.rename(path)


def _write_and_check(path: Path, rollouts: Tensor, data: DanceData) -> CheckedSubmission:
    """Writes the rollouts of the test sequences as csv, reads the file back, and returns what it holds."""
    path.unlink(missing_ok=True)
    num_sequences = data.manifest.num_tests
    length = data.manifest.test_length
    shape = (3, *data.frame_size)
    write_submission(path, rollouts, frame_shape=shape, sequence_length=length)
    given = data.test_frames
    return check_submission(
        path, first_frames=given, num_sequences=num_sequences, sequence_length=length, frame_shape=shape
    )


def _open_pose_run(run: str, runs_folder: Path, overrides: str) -> Trained:
    """Returns a trained run that draws dancers; UserError if the run draws robot pushing."""
    trained = open_run(run, runs_folder, overrides)
    if not SYSTEMS[trained.config.model.system].has_submission:
        raise UserError(
            f"{run} draws robot pushing ({trained.config.model.name}), but the csv and pose pictures are of dancers; "
            f"needed: a run that draws dancers; to evaluate this one: make evaluate RUN={run}"
        )
    return trained


def predict_pictures(
    run: str, frame: Path, poses: Path, out: Path, *, overrides: str = "", runs_folder: Path = RUNS
) -> Tensor:
    """Returns a clip (T, 3, H, W) uint8, drawn from a user's first frame and folder of numbered pose pictures.

    Writes prediction and poses side by side to `out`, a GIF, WebP or MP4; or the frames as PNG into the folder `out`.
    `overrides` is the text of SET: evaluation settings to change, for this prediction only.
    """
    trained = _open_pose_run(run, runs_folder, overrides)
    given, conditions = (part.to(trained.device) for part in _own_clip(frame, poses, trained.frame_size))
    settings = trained.config.evaluation
    seed = trained.config.seed
    announce(f"{trained.folder}: rolling out {len(conditions)} frames")
    drawn = quantise(predict_dance(trained.model, given[None, None], conditions[None], settings, seed=seed)[0]).cpu()
    out.parent.mkdir(parents=True, exist_ok=True)
    with activity(f"writing {out}"):
        save_clip(out, side_by_side([drawn, conditions.cpu()]) if out.suffix else drawn)
    return drawn


def _own_clip(frame: Path, poses: Path, size: Size) -> tuple[Tensor, Tensor]:
    """Returns a user's first frame (3, H, W) and poses (T, 3, H, W) uint8. Prints how they were converted."""
    given = read_picture(frame, size, f"FRAME={frame}")
    numbered = [read_picture(path, size, f"POSES: {path}") for path in _numbered_pictures(poses)]
    say_conversions(count_kinds((picture.name, picture.kind) for picture in (given, *numbered)), announce)
    for height, width in {picture.own_size for picture in (given, *numbered)} - {size}:
        announce(f"pictures of {height} x {width} are resized to {size[0]} x {size[1]}, height x width")
    return torch.from_numpy(given.pixels), torch.from_numpy(np.stack([picture.pixels for picture in numbered]))


def _numbered_pictures(folder: Path) -> list[Path]:
    """Returns the pictures of a folder in the order of their numbers, without gaps."""
    numbers = numbered_pictures(folder, f"POSES={folder}")
    if len(numbers) < 2:
        raise UserError(f"{folder} holds {len(numbers)} poses; needed: 2 or more; the first belongs to the given frame")
    if hole := next((first + 1 for first, second in pairwise(numbers) if second > first + 1), None):
        found = f"{folder} holds {len(numbers)} pictures, but no {hole}.png"
        raise UserError(f"{found}; needed: one picture for each number: 0.png, 1.png, ...")
    return list(numbers.values())


def print_scores(run: str, runs_folder: Path = RUNS, *, everything: bool = False) -> None:
    """Prints the scores of a run and of the baselines; the last three lines say what they mean."""
    path = runs_folder / run / "scores.json"
    scores = read_scores(path)
    table = Table("rollout", "score (dB)", "SSIM")
    for name, numbers in {run: scores, **scores.baselines}.items():
        table.add_row(name, f"{numbers.score:.2f}", f"{numbers.mean_ssim:.3f}", style="bold" if name == run else "")
    Console().print(table)
    if everything:
        say("\n".join([scores.protocol, *lines_of_scores(scores)]))
    first, last = scores.scored_frames
    say(f"{run} scores {scores.score:.2f} dB: mean PSNR of frames {first} to {last}, drawn from what is given.")
    best, baseline = max((numbers.score, name) for name, numbers in scores.baselines.items())
    if best == float("inf"):
        say(f"The baseline {baseline} has no error: validation and training are the same footage. This proves nothing.")
        return
    gain = scores.score - best
    not_paid = "so the training has not paid yet: train longer, or check the data"
    meaning = "so the training pays" if gain > 0 else not_paid
    say(f"That is {gain:+.2f} dB against the best baseline ({baseline}), {meaning}.")
    say(f"{_next_step(run, scores.system, runs_folder)} All numbers: make evaluate RUN={run} ARGS=--all, or {path}.")


def _next_step(run: str, system: str, runs_folder: Path) -> str:
    """Returns in a sentence what to do after an evaluation."""
    if is_synthetic(read_config(runs_folder / run).dataset):
        return "A rehearsal: the pictures are synthetic, so there is nothing to upload."
    return f"Next: make submission RUN={run}." if SYSTEMS[system].has_submission else "Next: make report."


def is_synthetic(dataset: str, data_folder: Path = DATA) -> bool:
    """Returns whether a data set is known to be drawn by this project; False if it is not there any more."""
    try:
        return Manifest.load(data_folder / dataset).source.kind == "synthetic"
    except UserError:
        return False


def _say_how_to_upload(run: str, path: Path) -> None:
    """Says what a checked csv holds, and the commands that upload it."""
    written = Provenance.load(path.with_suffix(".json"))
    height, width = written.frame_size
    content = f"{written.num_sequences} sequences of {written.sequence_length} frames"
    say(f"{path}: valid, {content} of {height} x {width}.")
    if written.synthetic:
        say("  A rehearsal: the dancers are synthetic, so there is no competition to upload it to.")
        return
    say("  Upload it with")
    say(f'  make submit RUN={run} COMPETITION=slug MESSAGE="..."')
    say(f'  or, without an entry in the ledger: .venv/bin/kaggle competitions submit -c slug -f {path} -m "..."')


def main() -> None:
    """The command line."""
    arguments = tester_options()
    run = arguments.run
    if arguments.command == "predict":
        out = arguments.out
        with owned(out):
            drawn = predict_pictures(run, arguments.frame, arguments.poses, out, overrides=arguments.set)
        say(f"{out}: {len(drawn)} frames, {'drawn | pose' if out.suffix else '0.png, 1.png, ...'}")
        return
    with owned(RUNS / run):  # who writes submissions/<run>.csv owns the run, too
        if arguments.command == "submission":
            _say_how_to_upload(run, submission(run, overrides=arguments.set))
        elif arguments.command == "evaluate":
            evaluate(run, overrides=arguments.set)
    if arguments.command != "submission":
        print_scores(run, everything=arguments.all)


if __name__ == "__main__":
    run_program(main)
