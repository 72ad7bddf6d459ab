"""Small data sets of robot pushing made of noise, as folders and as TFRecord files, to be packed by tests."""

import io
import struct
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

FOLDERS = {  # split -> the clips' folders in numerical order, which is not that of the alphabet
    "train": ("traj_2_to_9/8", "traj_2_to_9/9", "traj_2_to_9/10", "traj_10_to_11/0", "traj_10_to_11/1"),
    "validate": ("traj_0_to_1/0", "traj_0_to_1/1"),
    "test": ("traj_0_to_1/0", "traj_0_to_1/1"),
}
NAMES = tuple(f"{split}/{folder}" for split, folders in FOLDERS.items() for folder in folders)
KEYS = {name: key for key, name in enumerate(NAMES)}


@cache
def clip(key: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames (30, 64, 64, 3) uint8, actions (30, 4) and positions (30, 3) float32 of clip `key`, all different."""
    rng = np.random.default_rng(key)
    blocks = rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    actions, positions = (rng.standard_normal((30, columns)).astype(np.float32) for columns in (4, 3))
    return blocks.repeat(8, axis=1).repeat(8, axis=2), actions, positions


def png(pixels: np.ndarray, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "PNG")
    return file.getvalue()


def table(rows: np.ndarray) -> bytes:
    """A table as a csv file without a header, whose digits bring float32 back."""
    return "".join(",".join(repr(float(number)) for number in row) + "\n" for row in rows).encode()


@cache
def clip_files(key: int) -> dict[str, bytes]:
    """File name -> content of a clip's folder."""
    frames, actions, positions = clip(key)
    files = {f"{number}.png": png(frame) for number, frame in enumerate(frames)}
    return files | {"actions.csv": table(actions), "endeffector_positions.csv": table(positions)}


def pushing_files(top: str = "") -> dict[str, bytes]:
    """File name -> content of a data set."""
    return {f"{top}{name}/{file}": data for name in NAMES for file, data in clip_files(KEYS[name]).items()}


def expected_arrays(keys: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """The arrays that packing makes of the clips of each split."""
    arrays = {}
    for split, of_split in keys.items():
        clips = [clip(key) for key in of_split]
        arrays[f"{split}_frames"] = np.stack([np.moveaxis(frames, 3, 1) for frames, _, _ in clips])
        arrays[f"{split}_conditions"] = np.stack([np.hstack([actions, positions]) for _, actions, positions in clips])
    return arrays


def divided(register: int) -> int:
    """The register after eight steps of the division by CRC-32C's polynomial, lowest bit first."""
    for _ in range(8):
        register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register


DIVIDED = [divided(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    """CRC-32C by its definition; all bits are inverted before and after."""
    register = 0xFFFFFFFF
    for byte in data:
        register = register >> 8 ^ DIVIDED[(register ^ byte) & 0xFF]
    return register ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def framed(data: bytes) -> bytes:
    """A record: length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(crc32c(length))) + data + struct.pack("<I", masked(crc32c(data)))


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def message(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer that holds bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(features: dict[str, bytes | np.ndarray]) -> bytes:
    """An Example; byte strings become lists of one, arrays lists of floats."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = message(1, message(1, value))
        else:
            feature = message(2, message(1, value.astype("<f4").tobytes()))
        entries += message(1, message(1, name.encode()) + message(2, feature))
    return message(1, entries)


def clip_features(key: int) -> dict[str, bytes | np.ndarray]:
    """The features of a clip as BAIR's files have them; the second camera sees the negative."""
    frames, actions, positions = clip(key)
    features: dict[str, bytes | np.ndarray] = {}
    for t in range(30):
        features[f"{t}/image_main/encoded"] = frames[t].tobytes()
        features[f"{t}/image_aux1/encoded"] = (255 - frames[t]).tobytes()
        features[f"{t}/action"], features[f"{t}/endeffector_pos"] = actions[t], positions[t]
    return features


@cache
def clip_record(key: int) -> bytes:
    return framed(example(clip_features(key)))


def write_records(folder: Path, files: dict[str, list[int]]) -> Path:
    """Writes files of the clips with these keys, and returns the folder."""
    for name, keys in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"".join(clip_record(key) for key in keys))
    return folder
