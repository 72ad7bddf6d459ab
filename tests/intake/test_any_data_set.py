"""Random data sets with random names, kinds of pictures, litter and containers: the same arrays, or one line."""

import io
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image

from src.base.console import UserError
from src.intake.layouts import read_content
from src.intake.sources import open_source
from tests.packers import PACKERS, Files

SIZE = (8, 16)
NAMES = ("{}.png", "{:05}.PNG", "frame_{}.jpg", "take1_{:03}.jpeg", "Bild ({}).png", "d_{:012}_rendered.png", "{}.webp")
LITTER = (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/0-checkpoint.png", "@eaDir/0.png")
LITTER += ("0.png:Zone.Identifier", ".gitkeep", "__MACOSX/._0.png", "notes.txt", "keypoints.json")
FAULTS = ("", "", "", "cut off", "no picture", "two of a number", "no number", "hole in a test", "another shape")


def saved(pixels: np.ndarray, kind: str) -> bytes:
    """A picture in a kind of file that loses nothing."""
    image = Image.fromarray(pixels)
    if kind == "palette":
        colours, places = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
        image = Image.fromarray(places.reshape(SIZE).astype(np.uint8), mode="P")
        image.putpalette(colours.tobytes())
    file = io.BytesIO()
    mode = {"RGBA": "RGBA", "grey": "L", "grey with alpha": "LA"}.get(kind)
    form = kind if kind in ("BMP", "TIFF", "WEBP") else "PNG"
    (image.convert(mode) if mode else image).save(file, form, lossless=True)
    return file.getvalue()


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[Files, dict[str, np.ndarray], str]:
    """Files, the arrays that they must become, and a fault that was put in, "" for none."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    is_grey = draw(st.booleans())
    kinds = ["PNG", "RGBA", "palette", "BMP", "TIFF", "WEBP", *(["grey", "grey with alpha"] if is_grey else [])]
    names = draw(st.lists(st.sampled_from(NAMES), min_size=6, max_size=6))
    kind = draw(st.lists(st.sampled_from(kinds), min_size=6, max_size=6))
    top = draw(st.sampled_from(("", "lab/", "my data (1)/a.b/")))
    files: Files = {}
    arrays: dict[str, np.ndarray] = {}

    def fill(folder: str, array: str, count: int, first: int, which: int) -> None:
        pixels = rng.integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)
        if is_grey:
            pixels[...] = pixels[..., :1]
        for number, picture in enumerate(pixels):
            files[f"{top}{folder}/{names[which].format(first + number)}"] = saved(picture, kind[which])
        arrays[array] = np.concatenate(
            [arrays.get(array, np.zeros((0, 3, *SIZE), np.uint8)), np.moveaxis(pixels, 3, 1)]
        )

    for index, part in enumerate(("train", "val")):
        for take in draw(st.sampled_from(([""], ["/a"], ["/take2", "/take10"]))):
            count, first = draw(st.integers(2, 4)), draw(st.integers(0, 1))
            fill(f"{part}/{part}_img{take}", f"{part}_frames", count, first, 2 * index)
            fill(f"{part}/{part}_label{take}", f"{part}_poses", count, draw(st.integers(0, 1)), 2 * index + 1)
    num_tests, length, first = draw(st.integers(0, 2)), draw(st.integers(2, 3)), draw(st.integers(0, 1))
    for test in range(num_tests):
        fill(f"test/test_img/{test}", "test_frames", 1, 0, 4)
        fill(f"test/test_label/{test}", "test_poses", length, first, 5)
    folders = sorted({name.rpartition("/")[0] for name in files})
    for litter in draw(st.lists(st.sampled_from(LITTER), max_size=3)):
        files[f"{draw(st.sampled_from(folders))}/{litter}"] = b"left by another program"
    fault = draw(st.sampled_from(FAULTS))
    return files, arrays, fault if _spoil(files, fault, top, names[1]) else ""


def _spoil(files: Files, fault: str, top: str, form: str) -> bool:
    """Puts a fault into the files, if they have a place for it."""
    some = next(name for name in files if name.startswith(f"{top}train/train_label"))
    folder, _, file = some.rpartition("/")
    if fault == "cut off":
        files[some] = files[some][:30]
    elif fault == "no picture":
        files[some] = b"<html>Please log in</html>"
    elif fault == "two of a number":
        files[f"{folder}/0{file}" if file[0].isdigit() else f"{folder}/{file.replace('.', '.0.')}"] = files[some]
        files[f"{folder}/{file.rpartition('.')[0]}.tif"] = files[some]
    elif fault == "no number":
        files[f"{folder}/cover.png"] = files[some]
    elif fault == "hole in a test":
        poses = [name for name in files if name.startswith(f"{top}test/test_label/1") and name.endswith("g")]
        if not poses or len(poses) < 2:
            return False
        del files[poses[0]]
    elif fault == "another shape":
        files[some] = saved(np.zeros((*SIZE[::-1], 3), np.uint8), "PNG")
    return bool(fault)


def packed(path: Path) -> dict[str, np.ndarray]:
    """The arrays that a source becomes, without the disk and the processes of packing."""
    content = read_content(open_source(path), frame_size=SIZE)
    arrays: dict[str, list[np.ndarray]] = {}
    for chunk in content.chunks():
        for piece in chunk.pieces(content.source):
            arrays.setdefault(piece.array, []).append(piece.numbers)
    return {name: np.concatenate(parts) for name, parts in arrays.items()}


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(data=data_sets(), way=st.sampled_from(sorted(PACKERS)))
def test_any_data_set_becomes_its_arrays_or_is_refused_in_one_line(
    data: tuple[Files, dict[str, np.ndarray], str], way: str
) -> None:
    files, expected, fault = data
    event(fault or "packed")
    with tempfile.TemporaryDirectory() as folder:
        path = PACKERS[way](Path(folder), files)
        try:
            found = packed(path)
        except UserError as error:
            assert fault and "\n" not in str(error) and ";" in str(error), (fault, str(error))
            return
    assert not fault, f"{fault} is not noticed"
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=f"{way}: {name}")
