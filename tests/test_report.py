"""The page: it is complete, needs no other files, and reports everything that is missing or damaged."""

import base64
import errno
import io
import json
import os
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from src import report
from src.base.console import UserError
from src.report import markdown, write_report
from src.reporting import comparison, results
from src.reporting import page as page_module
from src.reporting.comparison import write_comparison
from src.reporting.results import read_runs
from src.submission import Provenance
from src.training.log import LOG_NAMES
from tests.comparisons import small_comparison
from tests.conftest import tiny_config
from tests.run_folders import BASELINES, log_rows, noise_clip, write_run

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Parses the page: `text` is the visible text, `tables` the text of the cells. Wrongly nested tags fail."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.folder, self.open, self.ids, self.links, self.pictures, self.text = path.parent, [], [], [], [], ""
        self.scripts: list[dict[str, str | None]] = []
        self.in_scripts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    @property
    def own_source(self) -> str:
        """The source without scripts and their data."""
        return re.sub(r"<script.*?</script>", "", self.source, flags=re.DOTALL)

    @property
    def player(self) -> Any:
        """What the player shows."""
        (data,) = [text for text, attributes in zip(self.in_scripts, self.scripts, strict=True) if attributes.get("id")]
        return json.loads(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.scripts += [values] if tag == "script" else []
        self.links += [values["href"]] if "href" in values else []
        self.pictures += [values["src"]] if "src" in values else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.in_scripts.append(data)
        elif self.open[-1:] != ["style"]:
            self.text += data
        if {"th", "td"} & set(self.open):
            self.tables[-1][-1][-1] += data


@pytest.fixture(autouse=True)
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the figures of comparisons by an empty picture, because each takes a second."""
    empty = Image.new("RGB", (4, 2))
    monkeypatch.setattr(comparison, "plot_bands", lambda paths, panels, xlabel: empty.save(paths[0]))


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], Page]:
    """Writes the page from the runs, submissions and reports in the test's folder, and parses it."""
    return lambda: Page(write_report(*(tmp_path / name for name in ("runs", "submissions", "reports"))))


def provenance(run: str) -> Provenance:
    sha = "f" * 64
    return Provenance(
        run=run, csv_sha256=sha, num_rows=24, num_sequences=2, created="2026-01-02T03:04:05+00:00", commit=None,
        dataset="tiny", dataset_fingerprint="ab", config_sha256=sha, checkpoint_sha256=sha, checkpoint_step=10,
        local_score=24.75, seed=5,
    )  # fmt: skip


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path, make: Callable[[], Page]) -> None:
    for name in ("one", "two & <b>three", "50% off?#1", "<script>"):
        write_run(tmp_path / "runs" / name)
    runs = read_runs(tmp_path / "runs")
    (tmp_path / "reports").mkdir()
    write_comparison(small_comparison(runs[:1]), {"plain": runs[:1]}, tmp_path / "reports")
    page = make()
    assert len(page.ids) == len(set(page.ids))
    assert {unquote(link) for link in page.links} <= {f"#{name}" for name in page.ids}
    assert len(page.pictures) == 2 and all(picture.startswith("data:image/png;base64,") for picture in page.pictures)
    assert all(set(attributes) <= {"type", "id"} for attributes in page.scripts)  # no script has a source
    assert not re.search(r"@import|url\(|<link|srcset|<iframe", page.own_source)
    assert "two & <b>three" in page.text and "<b>" not in page.own_source
    assert list((tmp_path / "reports").glob("*.html")) == [tmp_path / "reports" / "index.html"]


def test_the_player_has_the_frames_and_the_curves_of_the_runs(tmp_path: Path, make: Callable[[], Page]) -> None:
    for name, score in (("low", 24.0), ("high", 26.0)):
        write_run(tmp_path / "runs" / name, score=score)
    content = make().player
    assert [run["name"] for run in content["runs"]] == ["high", "low"]
    (clip,) = content["runs"][0]["clips"]
    assert (clip["frames"], clip["height"], clip["width"], clip["scored"]) == (12, 6, 10, [1, 11])
    assert clip["layers"]["drawn"]["psnr"] == [None, *[26.0] * 11]
    assert clip["baselines"] == {"median frame": [None, *[19.5] * 11]}
    expected = noise_clip(26.0).layers
    for name, layer in clip["layers"].items():
        data = content["sprites"][layer["sprite"]].removeprefix("data:image/webp;base64,")
        picture = np.array(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        pixels = picture.reshape(6, 10, 12, 3)  # a frame has fewer pixels than a picture may have rows
        assert (pixels == expected[name].permute(2, 3, 0, 1).numpy()).all()
    shared = {run["clips"][0]["layers"]["true"]["sprite"] for run in content["runs"]}
    assert len(shared) == 1 and len(content["sprites"]) == 2 + 2 * 2  # true and pose are stored once


def test_what_would_make_the_page_too_large_is_left_out_and_said(
    tmp_path: Path, make: Callable[[], Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, score in (("low", 24.0), ("high", 26.0)):
        write_run(tmp_path / "runs" / name, score=score)
    folder = tmp_path / "runs" / "high" / "clips"
    sizes = [(folder / f"0-{number}.webp").stat().st_size for number in range(4)]
    monkeypatch.setattr(page_module, "MAX_SPRITE_BYTES", sum(sizes[:3]) + sizes[3] // 2)
    page = make()
    (high,) = page.player["runs"]
    assert [sorted(clip["layers"]) for clip in high["clips"]] == [["drawn", "pose", "true"]]
    for layer, run in (("sample 1", "high"), ("drawn", "low")):
        note = f'{layer} is not in the player, because the page would be too large; to see it: make report RUNS="{run}"'
        assert note in page.text


def test_comparisons_whose_runs_are_not_here_have_a_page_of_their_own(tmp_path: Path, make: Callable[[], Page]) -> None:
    write_run(tmp_path / "runs" / "mine")
    write_run(tmp_path / "elsewhere" / "theirs")
    theirs = read_runs(tmp_path / "elsewhere")
    (tmp_path / "reports").mkdir()
    write_comparison(small_comparison(theirs), {"plain": theirs}, tmp_path / "reports")
    page = make()
    assert "A small comparison" not in page.text and "published.html" in page.links
    published = Page(tmp_path / "reports" / "published.html")
    assert "A small comparison" in published.text and published.links == ["index.html"]


def test_a_page_of_chosen_runs(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        write_run(tmp_path / "runs" / name)
    folders = [tmp_path / name for name in ("runs", "submissions", "reports")]
    page = Page(write_report(*folders, chosen=["three", "one"], out=tmp_path / "pages" / "mine.html"))
    assert [name for name in page.ids if name.startswith("run-")] == ["run-three", "run-one"]
    assert not (tmp_path / "reports" / "index.html").exists()
    with pytest.raises(UserError, match="no run four; there are: one, three, two"):
        write_report(*folders, chosen=["four"])


def test_every_damage_is_reported(tmp_path: Path, make: Callable[[], Page]) -> None:
    runs = tmp_path / "runs"
    (write_run(runs / "unread") / "config.json").write_text("{")
    (write_run(runs / "untested") / "scores.json").unlink()
    (runs / "bare").mkdir()
    spoiled = write_run(runs / "spoiled")
    (spoiled / "clips" / "0-1.webp").write_bytes(b"RIFF")
    (write_run(runs / "unclipped") / "clips" / "clips.json").unlink()
    submissions = tmp_path / "submissions"
    submissions.mkdir()
    provenance("fine").save(submissions / "fine.json")
    (submissions / "broken.json").write_text('{"run": "broken"}')
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "grid.json").write_text("{")
    page = make()
    for expected in (
        "config.json cannot be read",
        "make evaluate RUN=untested",
        "config.json is missing",
        "log.jsonl is missing",
        "make evaluate RUN=bare",
        "0-1.webp has changed since it was written; make evaluate RUN=spoiled",
        "unclipped/clips/clips.json does not exist; make evaluate RUN=unclipped",
        "broken.json",
        "grid.json is damaged",
        "24.75",
        "not evaluated",
    ):
        assert expected in page.text, expected
    assert {f"run-{name}" for name in ("unread", "untested", "bare", "spoiled")} <= set(page.ids)


def test_an_empty_folder_gives_a_page_that_says_so(make: Callable[[], Page]) -> None:
    page = make()
    assert "There are no runs yet. To train one: make train" in page.text
    assert "There are no submissions yet" in page.text


def test_numbers_stand_beside_their_protocol(tmp_path: Path, make: Callable[[], Page]) -> None:
    write_run(tmp_path / "runs" / "one", score=24.5)
    page = make()
    assert (
        page.text.count("free rollout of 12 frames of tiny; data abababababab") == 2
    )  # below the table, and in the section of the run
    assert "24.50" in page.text and "median frame" in page.text


PUSHING = {"score_prior_mean": 21.5, "score_single": 20.25, "score_best_of_n": 22.75, "score_shuffled_actions": 17.125}
PUSHING |= {"score_shuffled_conditions": 16.375, "psnr_by_protocol": {}, "ssim_by_frame": []}
PUSHING |= {"system": "pushing", "num_given": 2, "num_clips": 3, "scored_frames": [2, 11]}
PUSHING |= {"baselines": {name: {"score": score, "mean_ssim": 0.8125} for name, score in BASELINES.items()}}
NUMBERS = {  # heading: the number in ROLLOUT or scores() of run_folders.py, or as changed in this file
    "dance": {
        "mean PSNR": "24.00",
        "PSNR 1-10": "30.00",
        "PSNR 100": "26.50",
        "posterior minus prior (dB)": "+0.25",
        "drift (dB)": "-0.75",
        "prior's mean (dB)": "20.50",
        "one sample (dB)": "18.50",
        "mean of samples (dB)": "19.50",
        "between samples (dB)": "40.00",
        "of vague poses (dB)": "35.00",
    },
    "pushing": {
        "prior's mean (dB)": "21.50",
        "one sample (dB)": "20.25",
        "best of n (dB)": "22.75",
        "others' actions (dB)": "17.12",
        "others' conditions (dB)": "16.38",
    },
}


@pytest.mark.parametrize("system", NUMBERS)
def test_each_column_has_its_number(tmp_path: Path, make: Callable[[], Page], system: str) -> None:
    model, changes = {"dance": ("reference_cvae", {"drift_db": -0.75}), "pushing": ("svg", PUSHING)}[system]
    config = tiny_config(model)
    write_run(tmp_path / "runs" / "one", score=24.5, config=config, **changes)
    (write_run(tmp_path / "runs" / "untested", config=config) / "scores.json").unlink()
    header, one, *baselines, untested = make().tables[0]
    common = {"data set": config.dataset, "model": model, "epochs": "5", "clips/s": "4", "seed": "5"}
    scored = {
        "parameters": "1.586 M",
        "score (dB)": "24.50",
        "SSIM": "0.812",
        "best baseline (dB)": "median frame, 19.50",
    }
    scored |= {"over baseline (dB)": "+5.00", "commit": "0123456789ab", "protocol": "[1]"} | NUMBERS[system]
    assert dict(zip(header, one, strict=True)) == {"run": "one"} | common | scored
    expected = {"run": "untested *"} | common | dict.fromkeys(scored, "-") | {"score (dB)": "not evaluated"}
    assert dict(zip(header, untested, strict=True)) == expected
    names = [dict(zip(header, row, strict=True)) for row in baselines]
    assert [(row["run"], row["score (dB)"], row["seed"]) for row in names] == [
        ("median frame", "19.50", "-"),
        ("first frame", "18.25", "-"),
    ]


def test_a_comparison_comes_last_and_links_to_the_runs_on_the_page(tmp_path: Path, make: Callable[[], Page]) -> None:
    for name in ("stays", "goes"):
        write_run(tmp_path / "runs" / name)
    runs = read_runs(tmp_path / "runs")
    (tmp_path / "reports").mkdir()
    write_comparison(small_comparison(runs), {"plain": runs}, tmp_path / "reports")
    (tmp_path / "runs" / "goes").rename(tmp_path / "elsewhere")
    page = make()
    places = [page.ids.index(name) for name in ("runs", "run-stays", "comparisons", "submissions", "log")]
    assert places == sorted(places) and "run-goes" not in page.ids
    assert [link for link in page.links if "run-" in link] == ["#run-stays"] * 2
    assert "Runs: goes, stays" in page.text and "standard deviation over seeds 0, 1" in page.text
    write_comparison(small_comparison(runs[:1]), {"plain": runs[:1]}, tmp_path / "reports")
    assert "standard deviation" not in make().text


def test_every_name_of_the_log_is_explained() -> None:
    assert log_rows(1)[0].keys() <= LOG_NAMES.keys() and all(LOG_NAMES.values())


def test_markdown_of_chosen_runs_and_of_everything(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / "runs" / name)
    runs = read_runs(tmp_path / "runs")
    (tmp_path / "reports").mkdir()
    write_comparison(small_comparison(runs), {"plain": runs}, tmp_path / "reports")
    (tmp_path / "reports" / "speed.json").write_text(json.dumps({"frames_per_s": 3}))
    everything = markdown(tmp_path / "runs", tmp_path / "reports", [])
    assert "| one |" in everything and "| two |" in everything and "| plain |" in everything
    chosen = markdown(tmp_path / "runs", tmp_path / "reports", ["two"])
    assert "| one |" not in chosen and "| two |" in chosen and "plain" not in chosen
    with pytest.raises(UserError, match="no run three; there are: one, two"):
        markdown(tmp_path / "runs", tmp_path / "reports", ["three"])


def test_the_commands(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Callable[..., tuple[int, str]],
    capsys: pytest.CaptureFixture,
) -> None:
    write_run(tmp_path / "runs" / "one")
    monkeypatch.chdir(tmp_path)
    assert outcome(report.main) == (0, "")
    assert (tmp_path / "reports" / "index.html").is_file()
    monkeypatch.setattr("sys.argv", ["command", "--markdown", "one"])
    report.main()
    assert capsys.readouterr().out.startswith("| run | data set |")
    code, text = outcome(report.main, "--markdown", "two")
    assert code == 2 and "there is no run two" in text


@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        (lambda run: (run / "log.jsonl").write_text("".join((run / "log.jsonl").read_text())), ""),
        (lambda run: (run / "log.jsonl").write_text('{"epoch": 1, "step": "a"}\n'), "log.jsonl is damaged in line 1"),
        (lambda run: (run / "log.jsonl").write_text("[" * 9999 + "\n"), "log.jsonl is damaged in line 1"),
        (lambda run: (run / "log.jsonl").write_text('{"epoch": 2, "step": 4}\n' * 2), "line 2: epoch 2 comes after"),
        (lambda run: (run / "log.jsonl").write_text('{"epoch": 2, "step": 5}\n'), "step 5 does not belong to epoch 2"),
        (lambda run: (run / "log.jsonl").write_text('{"epoch": 99, "step": 198}\n'), "log.jsonl has 99 epochs, config"),
        (lambda run: (run / "config.json").write_text('{"seed": ' + "9" * 5000 + "}"), "config.json is damaged"),
        (lambda run: (run / "scores.json").write_text('{"system": {}}'), "scores.json does not name its system"),
        (
            lambda run: (run / "scores.json").write_text('{"system": "dance", "score": []}'),
            "scores.json cannot be read",
        ),
        (lambda run: (run / "clips" / "clips.json").write_text("[]"), "clips.json is damaged"),
        (lambda run: (run / "clips" / "0-0.webp").write_bytes(b""), "0-0.webp has changed since it was written"),
    ],
)
def test_one_bad_file_is_named_and_stops_nothing(
    tmp_path: Path, make: Callable[[], Page], spoil: Callable[[Path], object], note: str
) -> None:
    write_run(tmp_path / "runs" / "good")
    spoil(write_run(tmp_path / "runs" / "bad"))
    page = make()
    assert "run-good" in page.ids and "run-bad" in page.ids
    assert note in page.text


def test_a_folder_that_cannot_be_named_is_left_out(tmp_path: Path, make: Callable[[], Page]) -> None:
    write_run(tmp_path / "runs" / "good")
    for name in (b"\xff\xfe", b"two\nlines"):
        (tmp_path / "runs" / os.fsdecode(name)).mkdir()
    page = make()
    assert "run-good" in page.ids
    assert page.text.count("is left out, because its name cannot be printed") == 2


def test_a_run_that_cannot_be_read_is_named(
    tmp_path: Path, make: Callable[[], Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("good", "bad"):
        write_run(tmp_path / "runs" / name)
    read = results.read_scores

    def refused(path: Path) -> object:
        if path.parent.name == "bad":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(results, "read_scores", refused)
    page = make()
    assert "run-good" in page.ids and "run-bad" in page.ids and "scores.json: permission denied" in page.text


@pytest.mark.parametrize("name", ["read_clips", "read_sprite"])
def test_clips_that_the_system_refuses_to_read_are_named(
    tmp_path: Path, make: Callable[[], Page], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for run in ("good", "bad"):
        write_run(tmp_path / "runs" / run, score=24.0 if run == "good" else 25.0)
    read = getattr(page_module, name)

    def refused(folder: Path, *others: object) -> object:
        if folder.name == "bad":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder / "clips"))
        return read(folder, *others)

    monkeypatch.setattr(page_module, name, refused)
    page = make()
    assert [run["name"] for run in page.player["runs"]] == ["good"]
    assert "run-bad" in page.ids and "bad/clips: permission denied" in page.text


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["arms"]["plain"].pop("score"),
        lambda table: table["arms"].pop("plain"),
        lambda table: table["comparisons"].update(other=["nobody"]),
        lambda table: table["runs"][0].update(arm="nobody"),
        lambda table: table["arms"]["plain"]["score"].update(count=-1),
        lambda table: table.update(seeds="many"),
    ],
)
def test_a_comparison_that_does_not_fit_together_is_named(
    tmp_path: Path, make: Callable[[], Page], change: Callable[[Any], object]
) -> None:
    write_run(tmp_path / "runs" / "good")
    runs = read_runs(tmp_path / "runs")
    (tmp_path / "reports").mkdir(exist_ok=True)
    write_comparison(small_comparison(runs), {"plain": runs}, tmp_path / "reports")
    (path,) = (tmp_path / "reports").glob("*.json")
    table = json.loads(path.read_text())
    del table["checksum"]
    change(table)
    path.write_text(json.dumps(table))
    page = make()
    assert "run-good" in page.ids
    assert f"{path.name} cannot be read" in page.text and "`make experiments` writes it again" in page.text
