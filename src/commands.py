"""The command line: what `pose-video` offers, and what each command refuses before it imports torch.

Importing torch takes seconds. So options, names and settings are read here, and only then is the module of the command
imported. A module reads its options with the same function, so `python -m src.trainer` takes the same words.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from src.base.command_line import Parser, given_path, path_option, whole, with_more
from src.base.console import UserError
from src.base.gpus import gpu_named
from src.base.names import checked_name, existing_toml, nearest, toml_file
from src.config import load_config
from src.training.saved_config import read_trained_config, refuse_unknown_run

CONFIGS, RUNS, EXPERIMENTS = Path("configs"), Path("runs"), Path("configs/experiments")
MAX_AT_ONCE = 64  # runs of a comparison
SET = "'section.key=value ...'"
MOVING = (".gif", ".webp", ".mp4")  # endings of clips; a name without ending is a folder of PNG frames


def _words(words: Sequence[str] | None) -> list[str]:
    return with_more(list(sys.argv[1:] if words is None else words))


def train_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of `train`; UserError for a run or a setting that does not exist."""
    parser = Parser(description="Trains a run, or resumes it.")
    parser.add_argument("config", metavar="RUN", help="the name of the run, or its file configs/<run>.toml")
    parser.add_argument("--set", default="", metavar=SET, help="settings to override")
    parser.add_argument("--minutes", default="", help="training time: chooses width, members and epochs that fit it")
    parser.add_argument("--name", help="name of the run (default: the name of the file without .toml)")
    parser.add_argument("--gpus", default="1", metavar="N", help="number of training processes (default: %(default)s)")
    options = parser.parse_args(_words(words))
    load_config(toml_file(options.config, CONFIGS, "RUN"), options.set)
    return options


def tester_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of what a trained run does; UserError for a run that does not exist or a wrong setting."""
    parser = Parser(description="Predictions and scores of a trained run.")
    commands = parser.add_subparsers(dest="command", required=True)
    shown = commands.add_parser("scores", help="print the scores of an evaluated run")
    scored = commands.add_parser("evaluate", help="roll out the validation data and score it")
    submitted = commands.add_parser("submission", help="roll out the test sequences and write the csv")
    own = commands.add_parser("predict", help="draw a clip from your own pictures")
    for command in (shown, scored, submitted, own):
        command.add_argument("run", metavar="RUN", help="the name of a trained run")
    for command in (shown, scored):
        command.add_argument("--all", action="store_true", help="print every number with its meaning")
    for command in (scored, submitted, own):
        text = "evaluation.key=value ...; evaluate and submission save them"
        command.add_argument("--set", default="", metavar=SET, help=text)
    own.add_argument("--frame", default="", help="the first frame")
    own.add_argument("--poses", default="", help="folder of numbered pose pictures")
    own.add_argument(
        "--out", type=path_option, required=True, help="x.gif, x.webp, x.mp4, or a new folder of PNG files"
    )
    options = parser.parse_args(_words(words))
    options.run = checked_name(options.run, "RUN")
    read_trained_config(RUNS / options.run, getattr(options, "set", ""))
    if options.command == "predict":
        _check_pictures(options)
    return options


def _check_pictures(options: argparse.Namespace) -> None:
    """Makes paths of `--frame` and `--poses`. UserError if one is not given, or for an OUT that cannot be written."""
    needed = {
        "FRAME=first.png, the picture of the first frame": options.frame,
        "POSES=folder, with the pose pictures 0.png, 1.png, ...": options.poses,
    }
    if missing := [text for text, value in needed.items() if not value]:
        raise UserError(f"missing: {'; '.join(missing)}")
    options.frame, options.poses = given_path(options.frame), given_path(options.poses)
    out = options.out
    if out.suffix.lower() not in (*MOVING, ""):
        raise UserError(f"OUT={out}; needed: a name that ends in {', '.join(MOVING)}, or a folder's, without an ending")
    if out.suffix.lower() == ".mp4":
        refuse_missing_encoder()
    if not out.suffix and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise UserError(f"OUT={out} exists; needed: a new folder for the frames; move it away, or give another OUT")


def has_encoder() -> bool:
    """Returns whether the encoder of MP4 is installed."""
    return find_spec("av") is not None


def refuse_missing_encoder() -> None:
    """Raises UserError, which says how to install it, if the encoder of MP4 is not there."""
    if not has_encoder():
        install = ".venv/bin/uv pip install -r pyproject.toml --extra video"
        raise UserError(f"MP4 needs the encoder PyAV, which is not installed; to install it (36 MB): {install}")


def cost_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of `cost`; UserError for a run, a setting or a GPU that does not exist."""
    parser = Parser(description="Estimates what a run costs before it starts.")
    parser.add_argument("config", metavar="RUN", help="the name of the run, or its file configs/<run>.toml")
    parser.add_argument("--set", default="", metavar=SET, help="settings to replace")
    parser.add_argument("--clips", type=whole(1, 4096), default=4, help="number of clips in the measured step")
    parser.add_argument("--gpu", default="", help="t4, p100, h100 or h200 (default): estimates the time on this GPU")
    options = parser.parse_args(_words(words))
    gpu_named(options.gpu or "h200")
    load_config(toml_file(options.config, CONFIGS, "RUN"), options.set)
    return options


def experiments_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of `experiments`; UserError for a comparison that does not exist."""
    parser = Parser(description="Compares arms over several seeds.")
    text = "configs/experiments/<grid>.toml, or its name without folder and .toml"
    parser.add_argument("grid", metavar="GRID", help=text)
    text = "runs at a time; they share the cores and GPUs"
    parser.add_argument("--jobs", type=whole(1, MAX_AT_ONCE), default=1, help=text)
    parser.add_argument("--anew", action="store_true", help="do not use kept results")
    options = parser.parse_args(_words(words))
    options.grid = existing_toml(toml_file(options.grid, EXPERIMENTS, "GRID"), "GRID")
    return options


def compare_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of `compare`, `names` among them; UserError for a run that does not exist."""
    parser = Parser(description="Compares runs that are trained and evaluated.")
    parser.add_argument("runs", metavar="RUNS", help="names of runs, separated by spaces")
    options = parser.parse_args(_words(words))
    options.names = list(dict.fromkeys(checked_name(word, "RUNS") for word in options.runs.split()))
    for name in options.names:
        refuse_unknown_run(RUNS / name, "RUNS")
    return options


def figures_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of `figures`; UserError for a run that does not exist."""
    parser = Parser(description="Writes the figures of an evaluated run for a paper or a talk.")
    parser.add_argument("run", metavar="RUN", help="the name of the run")
    options = parser.parse_args(_words(words))
    options.run = checked_name(options.run, "RUN")
    refuse_unknown_run(RUNS / options.run, "RUN")
    return options


def metrics_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of `metrics`; UserError for what is no folder."""
    parser = Parser(description="Scores anyone's predictions: folders of pictures against the true ones.")
    parser.add_argument("--pred", required=True, help="folder of drawn pictures, or of a folder for each clip")
    parser.add_argument("--truth", required=True, help="folder of true pictures with the same names")
    parser.add_argument("--protocol", help="'competition' (default for one clip), 'lab 2->10' or '1->15 best of 100'")
    parser.add_argument("--out", default="", help="JSON file for every number; without it nothing is written")
    options = parser.parse_args(_words(words))
    for variable in ("pred", "truth"):
        folder = given_path(getattr(options, variable))
        setattr(options, variable, folder)
        if not folder.is_dir():
            raise UserError(f"{variable.upper()}={folder} is not a folder; needed: a folder of pictures")
    options.out = given_path(options.out) if options.out else None
    if options.out and options.out.suffix.lower() != ".json":
        raise UserError(f"OUT={options.out}; needed: a file that ends in .json")
    return options


def report_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of `report`. `runs`: names, all if empty; `out`: a path or None. UserError for wrong ones."""
    parser = Parser(description="Writes a page with all runs and comparisons.")
    parser.add_argument("--markdown", nargs="*", metavar="RUN", help="print tables instead: these runs, or all")
    parser.add_argument("--runs", default="", help="names of runs, separated by spaces; without it: all runs")
    parser.add_argument("--out", default="", help="the page's file; reports/index.html without it")
    options = parser.parse_args(_words(words))
    options.runs = [checked_name(word, "RUNS") for word in options.runs.split()]
    for name in options.runs:
        refuse_unknown_run(RUNS / name, "RUNS")
    options.out = given_path(options.out) if options.out else None
    if options.out and options.out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"OUT={options.out}; needed: a file that ends in .html")
    return options


def bench_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of `bench`."""
    parser = Parser(description="Compares speed with plain loops.")
    parser.add_argument("--images", type=whole(1, 1_000_000), default=8000, help="pictures to pack (%(default)s)")
    parser.add_argument("--length", type=whole(2, 100_000), default=64, help="frames per rollout (%(default)s)")
    parser.add_argument("--repeats", type=whole(1, 1000), default=5, help="measured runs of each side (%(default)s)")
    return parser.parse_args(_words(words))


def gpu_check_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of `gpu-check`."""
    parser = Parser(description="Checks everything that needs a GPU.")
    parser.add_argument("--minutes", type=whole(1, 600), default=9, help="time for all parts (%(default)s)")
    return parser.parse_args(_words(words))


def verify_options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options of `verify`; a name that is not given is None."""
    parser = Parser(description="Checks what is kept against its hashes.")
    parser.add_argument("--dataset", default="", help="only this data set")
    parser.add_argument("--run", default="", help="only this run, and its csv")
    options = parser.parse_args(_words(words))
    options.dataset = checked_name(options.dataset, "DATASET") if options.dataset else None
    options.run = checked_name(options.run, "RUN") if options.run else None
    return options


class Command(NamedTuple):
    """One command. `words` come before the words of the user; `options` reads and checks them without torch."""

    module: str
    help: str
    words: tuple[str, ...] = ()
    options: Callable[[Sequence[str] | None], argparse.Namespace] | None = None


COMMANDS = {
    "data": Command("src.packing", "pack a data set: --source FILE --dataset NAME"),
    "download": Command("src.kaggle_client", "download a competition's zip", ("download",)),
    "train": Command("src.trainer", "train RUN, or resume it", (), train_options),
    "evaluate": Command("src.tester", "score RUN on the validation data", ("evaluate",), tester_options),
    "scores": Command("src.tester", "print the scores of RUN again", ("scores",), tester_options),
    "submission": Command("src.tester", "draw the test sequences, write the csv", ("submission",), tester_options),
    "check-csv": Command("src.submission", "check any csv before it is uploaded", ("check-csv",)),
    "submit": Command("src.kaggle_client", "upload the csv of RUN once and wait for the score", ("submit",)),
    "submissions": Command("src.kaggle_client", "list all submissions and their scores", ("submissions",)),
    "leaderboard": Command("src.kaggle_client", "show the leaderboard and your place", ("leaderboard",)),
    "kernel": Command("src.kaggle_client", "train RUN on Kaggle's GPU", ("kernel",)),
    "predict": Command("src.tester", "draw a clip with RUN from your own pictures", ("predict",), tester_options),
    "experiments": Command("src.experiments", "train every arm and seed of GRID", (), experiments_options),
    "compare": Command("src.compare", "compare trained RUNS", (), compare_options),
    "metrics": Command("src.measure", "score anyone's predictions", (), metrics_options),
    "report": Command("src.report", "write the page of all runs", (), report_options),
    "figures": Command("src.figures", "write the figures of RUN for a paper", (), figures_options),
    "cost": Command("src.cost", "estimate time and memory of RUN before it starts", (), cost_options),
    "bench": Command("src.benchmark", "measure the speed, compared with plain loops", (), bench_options),
    "gpu-check": Command("src.gpu_check", "check everything that needs a GPU", (), gpu_check_options),
    "verify": Command("src.verify", "check what is kept against its hashes", (), verify_options),
}
CODE = Path(__file__).resolve().parent.parent
HELP_OPTIONS = ("-h", "--help")


def main() -> None:
    """Reads `[--project FOLDER] COMMAND ...`, checks what can be checked at once, and runs the command."""
    words = sys.argv[1:]
    if words[:1] and words[0].partition("=")[0] == "--project":
        _enter(words)
    if not words or words[0] in HELP_OPTIONS:
        print(_overview())
        return
    name, *rest = words
    if name not in COMMANDS:
        raise UserError(f"there is no command {name}; {_suggestion(name)}")
    if not Path("configs").is_dir():
        raise UserError(f"{Path.cwd()} holds no configs/; go to the project's folder, or name it with --project FOLDER")
    command = COMMANDS[name]
    sys.argv = [f"pose-video {name}" if not command.words else "pose-video", *command.words, *rest]
    if command.options is not None:
        command.options(None)
    import_module(command.module).main()


def _enter(words: list[str]) -> None:
    """Removes `--project FOLDER` from the words and goes to that folder."""
    _, equals, folder = words.pop(0).partition("=")
    if not equals:
        if not words:
            raise UserError("--project needs a folder, the one that holds configs/")
        folder = words.pop(0)
    project = given_path(folder)
    if not (project / "configs").is_dir():
        raise UserError(f"--project {project} holds no configs/; needed: the folder of the project")
    os.chdir(project)
    others = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(CODE), *([others] if others else [])])  # for child processes


def _suggestion(name: str) -> str:
    return nearest(name, list(COMMANDS), "").replace("=", "")


def _overview() -> str:
    lines = [f"  {name:12} {command.help}" for name, command in COMMANDS.items()]
    first = (
        "usage: pose-video [--project FOLDER] COMMAND ...",
        "",
        "The words are those of the Make targets. FOLDER is the project's, by default the current one; paths are read",
        "from there. `pose-video COMMAND --help` lists the options.",
        "",
    )
    return "\n".join([*first, *lines])
