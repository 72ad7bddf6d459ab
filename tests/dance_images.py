"""Small data sets in the competition's layout, made of noise, to be packed by tests."""

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def png(key: int, *, size: tuple[int, int] = (40, 80), mode: str = "RGB") -> bytes:
    """A PNG of `size` (height, width) with smooth noise that depends on `key`."""
    height, width = size
    blocks = np.random.default_rng(key).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(file, "PNG")
    return file.getvalue()


def dance_names(
    *, num_train: int = 7, num_val: int = 4, num_tests: int = 2, test_length: int = 5, name: str = "{}.png"
) -> list[str]:
    """Names of the files of a whole data set; `name` is how a number becomes one."""
    numbers = {"train": num_train, "val": num_val}
    names = [
        f"{part}/{part}_{kind}/{name.format(number)}"
        for part, count in numbers.items()
        for kind in ("img", "label")
        for number in range(count)
    ]
    names += [f"test/test_img/{k}/first.png" for k in range(num_tests)]
    return names + [f"test/test_label/{k}/{name.format(n)}" for k in range(num_tests) for n in range(test_length)]


def dance_files(names: list[str] | None = None, *, size: tuple[int, int] = (40, 80)) -> dict[str, bytes]:
    """File name -> content of a data set; every picture is another."""
    return {name: png(key, size=size) for key, name in enumerate(dance_names() if names is None else names)}


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    """Writes the files below the folder, and returns it."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(path: Path, files: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> Path:
    """Writes the files into a zip, and returns its path."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path
