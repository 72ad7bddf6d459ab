"""A source's layout decides its system. Sources with no layout or two, and options of another layout, are refused."""

from pathlib import Path

import pytest

from src.base.console import UserError
from src.intake.dance import DanceContent
from src.intake.layouts import read_content
from src.intake.pushing import PushingContent
from src.intake.sources import open_source
from tests.dance_images import dance_names, png, write_folder, write_zip
from tests.pushing_clips import pushing_files, write_records

RECORDS = {"train/traj_0_to_1.tfrecords": [0, 1], "test/traj_0_to_0.tfrecords": [2]}


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Returns one source of each layout."""
    dance = dict.fromkeys(dance_names(), png(0))
    return {
        "dance": write_zip(tmp_path / "dance.zip", dance),
        "pushing": write_zip(tmp_path / "pushing.zip", pushing_files()),
        "records": write_records(tmp_path / "records", RECORDS),
    }


def test_layout_tells_the_system(folders: dict[str, Path]) -> None:
    dance = read_content(open_source(folders["dance"]), test_length=5, cuts=(3,))
    assert isinstance(dance, DanceContent)
    assert (dance.request.source.kind, dance.request.source.name) == ("zip", "dance.zip")
    assert (dance.request.cuts, dance.request.test_length) == ((3,), 5)
    for name, options, kind, camera in (
        ("pushing", {}, "zip", None),
        ("records", {}, "records", "main"),
        ("records", {"camera": "aux1"}, "records", "aux1"),
    ):
        pushing = read_content(open_source(folders[name]), **options)
        assert isinstance(pushing, PushingContent)
        assert (pushing.request.source.kind, pushing.request.camera) == (kind, camera)


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        ("dance", {"camera": "main"}, r"CAMERA has no effect: .*dance.zip holds .*\(dance\); needed: .*tfrecords"),
        ("pushing", {"camera": "aux1"}, "CAMERA has no effect: .*pushing.zip holds .*leave CAMERA out"),
        ("pushing", {"cuts": ()}, "CUTS has no effect: .*leave CUTS out"),
        ("records", {"test_length": 30}, "--test-length has no effect"),
    ],
)
def test_option_of_another_layout_is_refused(
    folders: dict[str, Path], layout: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_content(open_source(folders[layout]), **options)


STRANGE = {
    "neither": (
        ["readme.txt", "train/0.png"],
        r"no data set; needed, .*train/train_img.*\(dance\), or .*traj_A_to_B/N/.*\(pushing\), or .*\.tfrecords",
    ),
    "nothing": ([], "holds no data set"),
    "litter": (["__MACOSX/train/train_img/._0.png"], "holds no data set"),
    "archive": (["sub/data.ZIP", "readme.txt"], "/sub/data.ZIP is no zip or tar file; needed: a whole .zip or .tar"),
    "two systems": (
        ["train/train_img/0.png", "train/traj_0_to_1/0/0.png"],
        r"two data sets, .*\(dance\) and .*pushing",
    ),
    "two forms": (
        ["softmotion30_44k/train/traj_0_to_1.tfrecords", "processed/train/traj_0_to_1/0/0.png"],
        "two data sets, .* give the folder of one of them",
    ),
}


@pytest.mark.parametrize("case", STRANGE)
def test_what_is_no_single_data_set_is_refused(tmp_path: Path, case: str) -> None:
    names, message = STRANGE[case]
    folder = write_folder(tmp_path, dict.fromkeys(names, b""))
    with pytest.raises(UserError, match=message) as caught:
        read_content(open_source(folder))
    assert "\n" not in str(caught.value)
