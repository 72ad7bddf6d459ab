"""A run -> a folder for `kaggle kernels push`: one script that trains and predicts on Kaggle's GPU.

`kernels push` uploads a single code file, so the tracked source travels inside it; the competition's data appears under
/kaggle/input there, and what the script leaves in /kaggle/working can be downloaded.
"""

import ast
import base64
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from src.base.console import UserError, say
from src.base.files import write_atomically
from src.base.provenance import commit
from src.competition.client import Patience, ask
from src.competition.errors import KaggleRefusal, redact
from src.config import load_config

TRACKED = ("src", "configs", "pyproject.toml", "LICENSE")
LARGEST_SCRIPT = 1_000_000  # bytes; Kaggle takes no larger code file
LONGEST_TITLE = 50  # characters; to a longer one Kaggle answers with "internal error"
TORCH = (2, 6)  # the oldest that will do
DISTRIBUTIONS = {"PIL": "pillow"}  # packages that are installed under another name than they are imported by
SCRIPT = '''"""Trains {run} and writes submissions/{run}.csv on Kaggle; written by src/competition/kernel.py."""

import base64
import importlib.metadata
import importlib.util
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGES = {packages!r}
COMMIT = {commit!r}
SOURCE = """{source}"""


def fitting() -> tuple[str, ...]:
    """What the trainer must be told: bfloat16 needs an Ampere GPU or a later one; Kaggle's T4 and P100 are older."""
    import torch

    if torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0):
        return ()
    print("no GPU with bfloat16: training in float32")
    return ("--set", "training.precision=float32")


def main(kaggle: Path = Path("/kaggle")) -> None:
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
    found = importlib.metadata.version("torch")
    if tuple(map(int, found.split(".")[:2])) < {torch}:
        sys.exit(f"error: torch {{found}} is installed, {torch[0]}.{torch[1]} is needed; choose the latest environment")
    places = (kaggle / "input/{slug}", kaggle / "input/competitions/{slug}")
    data = next((path for path in places if path.is_dir()), None)
    if data is None:
        sys.exit("error: the data of {slug} is not attached; add it under Input and run this again")
    work = kaggle / "working"
    zipfile.ZipFile(io.BytesIO(base64.b64decode(SOURCE))).extractall(work)
    for arguments in (
        ("src.packing", "--source", str(data), "--dataset", {dataset!r}),
        ("src.trainer", {config!r}, *fitting()),
        ("src.tester", "evaluate", {run!r}),
        ("src.tester", "submission", {run!r}),
    ):
        subprocess.run([sys.executable, "-m", *arguments], cwd=work, check=True)
    provenance = work / "submissions/{run}.json"  # the stages saw no git
    provenance.write_text(json.dumps(json.loads(provenance.read_text()) | {{"commit": COMMIT}}, indent=2))
    shutil.rmtree(work / "data")  # it is there already, as the input of this notebook


if __name__ == "__main__":
    main()
'''


def write_kernel(run: str, slug: str, folder: Path, user: str) -> str:
    """Writes the script and kernel-metadata.json into `folder` and returns the notebook's name, user/train-run."""
    config = f"configs/{run}.toml"
    title = re.sub(r"[^a-z0-9]+", " ", f"train {run}".lower()).strip()
    if len(title) > LONGEST_TITLE:
        raise UserError(
            f"the notebook's title {title!r} has {len(title)} characters, Kaggle takes {LONGEST_TITLE}; copy {config} "
            "to a shorter name"
        )
    files = tracked_files()
    if config not in files:
        raise UserError(
            f"{config} is not tracked by git, so it would not travel; `git add {config}`, then the same again"
        )
    contents = {name: Path(name).read_bytes() for name in files}
    script = SCRIPT.format(
        run=run,
        slug=slug,
        commit=commit(),
        torch=TORCH,
        packages=_packages(contents),
        source=_encoded(contents),
        dataset=load_config(Path(config)).dataset,
        config=config,
    )
    if len(script) > LARGEST_SCRIPT:
        raise UserError(
            f"the script has {len(script)} bytes, Kaggle takes {LARGEST_SCRIPT}; track fewer files in {TRACKED}"
        )
    name = f"{user}/{title.replace(' ', '-')}"
    metadata = {
        "id": name,
        "title": title,
        "code_file": "run.py",
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "machine_shape": "NvidiaTeslaT4",  # for the P100, the default, the image's torch has no kernels
        "enable_internet": True,  # for packages that Kaggle's image lacks
        "dataset_sources": [],
        "competition_sources": [slug],
        "kernel_sources": [],
        "model_sources": [],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "run.py", script.encode())
    write_atomically(folder / "kernel-metadata.json", (json.dumps(metadata, indent=2) + "\n").encode())
    return name


def push_kernel(folder: Path, slug: str, patience: Patience) -> None:
    """Uploads the folder, which starts the run; the client ends with exit code 0 even where Kaggle refuses it."""
    answer = redact(ask(slug, "kernels", "push", "--path", str(folder), patience=patience))
    told = " ".join(line for line in answer.splitlines() if not line.startswith("Warning:"))
    if "successfully pushed" not in told or "not valid" in told:
        raise KaggleRefusal(f"Kaggle did not take the notebook as it is: {told}", f"mend {folder} and push it again")
    say(told)


def tracked_files() -> list[str]:
    """Returns the tracked files that a run needs; their present content travels, committed or not."""
    command = ["git", "ls-files", "-z", "--", *TRACKED]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    files = [name for name in listed.stdout.split("\0") if name and Path(name).is_file()]
    if listed.returncode != 0 or not any(name.startswith("src/") for name in files):
        raise UserError("git tracks no file of src/ here; run this in the git checkout, after `git add src configs`")
    return files


def _encoded(contents: dict[str, bytes]) -> str:
    """Returns the files as a base64 zip in lines, the same text each time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, compresslevel=9)
    return base64.encodebytes(buffer.getvalue()).decode()


def _packages(contents: dict[str, bytes]) -> dict[str, str]:
    """Returns {module: package to install} for everything the source imports from outside."""
    modules = set()
    for name, content in contents.items():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse(content)):
                if isinstance(node, ast.Import):
                    modules |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    modules.add(node.module.partition(".")[0])
    return {module: DISTRIBUTIONS.get(module, module) for module in sorted(modules - {"src"} - sys.stdlib_module_names)}
