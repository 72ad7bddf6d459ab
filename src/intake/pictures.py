"""Picture files -> RGB pixels. What is no 8-bit RGB PNG is converted and counted. Damaged files are refused."""

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from src.base.console import UserError
from src.base.reading import read_bytes
from src.intake.facts import Size

MAX_IMAGE_PIXELS = 25_000_000
MAX_PICTURE_BYTES = 2**28
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the key in EXIF, and the values that exchange height and width
PNG = b"\x89PNG\r\n\x1a\n"  # the first bytes of the file
OTHERS = {  # first bytes -> format; Pillow reads these
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"RIFF": "WEBP",
}
MODES = {  # Pillow's modes that can be converted -> what to call them
    **{"1": "1-bit ", "L": "grey ", "LA": "grey with alpha ", "P": "palette ", "RGB": "", "RGBA": "RGBA ", "RGBX": ""},
    **{"CMYK": "CMYK ", "YCbCr": "", "I;16": "16-bit grey ", "I;16B": "16-bit grey "},
}
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # PNG's colour types
DEPTHS = {  # colour type -> bits that PNG allows
    GREY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGBA: (8, 16),
}
NAMES = {GREY: "grey", RGB: "RGB", PALETTE: "palette", GREY_ALPHA: "grey with alpha", RGBA: "RGBA"}
NEEDED = "needed: a picture as PNG, JPEG, BMP, GIF, TIFF or WebP"

OTHER_SIZE = " pixels, unlike the first"  # ends the kind of a picture whose size is not that of the first one
Conversions = dict[str, tuple[int, str]]  # kind of picture -> number of pictures, name of the first one


@dataclass(frozen=True)
class Header:
    """Size and kind of a picture.

    size: (height, width).
    kind: the kind in words. None for a PNG with 8-bit RGB or a palette, which needs no conversion.
    """

    size: Size
    kind: str | None


def read_header(data: bytes, name: str) -> Header:
    """Returns size and kind of a picture, from its content and not from its name. UserError if it cannot be used.

    This check comes before any pixels are unpacked.
    """
    header = _png_header(data, name) if data.startswith(PNG) else _other_header(data, name)
    height, width = header.size
    if not height * width:
        raise UserError(f"{name} has {height} x {width} pixels; {NEEDED}; copy or download it again")
    if height * width > MAX_IMAGE_PIXELS:
        raise UserError(f"{name} has {height} x {width} pixels; needed: at most {MAX_IMAGE_PIXELS:,}; scale it down")
    return header


def image_size(data: bytes, name: str) -> Size:
    """Returns (height, width) of a picture in pixels; UserError if it cannot be used."""
    return read_header(data, name).size


def _png_header(data: bytes, name: str) -> Header:
    """Returns size and kind of a PNG. It checks each chunk's checksum, because Pillow ignores wrong ones."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise UserError(
            f"{name} is damaged or cut off in its header; needed: the whole file; copy or download it again"
        )
    position = 8
    kinds: set[bytes] = set()
    while b"IEND" not in kinds:
        length = int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        stop = position + 8 + length
        if zlib.crc32(data[position + 4 : stop]) != int.from_bytes(data[stop : stop + 4]) or len(data) < stop + 4:
            raise UserError(
                f"{name} is damaged or cut off at byte {position}; needed: the whole file; copy or download it again"
            )
        if kind == b"IHDR" and kind in kinds:  # Pillow would take the size from the last one
            raise UserError(f"{name} has two headers; {NEEDED}; save it again")
        kinds.add(kind)
        position = stop + 4
    width, height, depth, colours = struct.unpack(">IIBB", data[16:26])
    if depth not in DEPTHS.get(colours, ()):
        raise UserError(f"{name} is {depth}-bit of an unknown colour type; {NEEDED}; save it again")
    if b"acTL" in kinds:
        raise UserError(f"{name} is animated; {NEEDED} without animation; save one of its frames")
    is_plain = colours == PALETTE or (colours == RGB and depth == 8)
    transparent = " with transparent colours" if b"tRNS" in kinds else ""
    kind_in_words = f"{depth}-bit {NAMES[colours]}{transparent}"
    return Header((height, width), None if is_plain and not transparent else kind_in_words)


def _other_header(data: bytes, name: str) -> Header:
    """Returns size and kind of another picture than PNG. The size is that of the picture turned by its orientation."""
    form = next((form for start, form in OTHERS.items() if data.startswith(start)), None)
    if form is None:
        raise UserError(
            f"{name} is no picture of a known format, by its content; {NEEDED}; convert it or copy it again"
        )
    with _decoding(name), Image.open(io.BytesIO(data), formats=(form,)) as image:
        width, height = image.size
        is_turned = form in ("JPEG", "WEBP") and image.getexif().get(ORIENTATION, 1) in TURNED
        mode, num_frames = image.mode, getattr(image, "n_frames", 1)
    if num_frames > 1 and form != "JPEG":  # cameras keep previews in a JPEG
        raise UserError(f"{name} is animated or has {num_frames} pages; {NEEDED} with one; save one of its frames")
    if mode not in MODES:
        raise UserError(f"{name} is a {form} of the mode {mode}; {NEEDED} with 8 bits a colour; save it as PNG")
    transparent = " with transparent colours" if form == "GIF" and "transparency" in image.info else ""
    kind = f"{MODES[mode]}{form}{transparent}"
    return Header((width, height) if is_turned else (height, width), kind)


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turns every error of Pillow into a UserError. Pillow raises errors of many types for a damaged picture."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        found = f"{name} cannot be decoded ({error})"
        raise UserError(f"{found}; needed: a whole picture file; copy or download it again") from error


def decode(data: bytes, name: str, size: Size) -> np.ndarray:
    """Returns the pixels (*size, 3) uint8 of a picture that `read_header` has accepted. It is resized if needed.

    Transparent pixels are blended with white. Of 16 bits the upper 8 are kept. Pillow's bilinear filter grows with the
    scale, so shrinking is antialiased.
    """
    with _decoding(name):
        image: Image.Image = Image.open(io.BytesIO(data), formats=("PNG", *set(OTHERS.values())))
        image.load()
        if not data.startswith(PNG):
            image = ImageOps.exif_transpose(image)
        if image.mode != "RGB" or "transparency" in image.info:
            image = _as_rgb(image, depth=data[24] if data.startswith(PNG) else 8)
        if image.size != size[::-1]:
            image = image.resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(image)


@dataclass(frozen=True)
class Picture:
    """A picture that the user gives: pixels (3, H, W) uint8, its size before resizing, and its kind as in `Header`."""

    name: str
    pixels: np.ndarray
    own_size: Size
    kind: str | None


def read_picture(path: Path, size: Size | None, name: str) -> Picture:
    """Returns the picture in a file, resized like training frames. UserError, with `name`, if it cannot be used.

    size: height and width of the result; None keeps the picture's own.
    """
    if not path.is_file():
        raise UserError(f"{name} is no file; {NEEDED}")
    data = read_bytes(path, MAX_PICTURE_BYTES)
    header = read_header(data, name)
    pixels = np.ascontiguousarray(decode(data, name, size or header.size).transpose(2, 0, 1))
    return Picture(name, pixels, header.size, header.kind)


def _as_rgb(image: Image.Image, *, depth: int) -> Image.Image:
    """Returns a picture of any mode as RGB. Transparent pixels are blended with white."""
    transparent = image.info.pop("transparency", None)
    if image.mode.startswith("I"):  # 16-bit grey; Pillow would clip its values instead of scaling them
        numbers = np.asarray(image).astype(np.int32)
        alpha = None if transparent is None else Image.fromarray(np.uint8(255) * (numbers != transparent))
        image = Image.fromarray((numbers >> 8).astype(np.uint8))
    elif transparent is None:
        alpha = image.getchannel("A") if "A" in image.getbands() else None
    elif image.mode == "P":
        image.info["transparency"] = transparent
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    else:  # one colour is transparent; of 16 bits Pillow has kept the upper 8
        # Pillow scales pixels of 2 and 4 bits to 0..255. It does not scale the transparent colour, so we do.
        full = {2: 85, 4: 17}.get(depth, 1)
        colour = (np.atleast_1d(transparent) >> (8 if depth == 16 else 0)) * full
        shown = np.asarray(image.convert("RGB"))
        one = Image.new(image.mode, (1, 1), tuple(map(int, colour)) if len(colour) > 1 else int(colour[0]))
        alpha = Image.fromarray(np.uint8(255) * (shown != np.asarray(one.convert("RGB"))).any(axis=-1))
    rgb = image.convert("RGB")
    if alpha is None:
        return rgb
    white = Image.new("RGB", rgb.size, (255, 255, 255))
    white.paste(rgb, mask=alpha)
    return white


def count_kinds(kinds: Iterable[tuple[str, str | None]]) -> Conversions:
    """Returns each converted kind with its number of pictures and the name of the first one.

    kinds: (name, kind) of each picture; kind is None for a picture that needs no conversion.
    """
    counted: Conversions = {}
    for name, kind in kinds:
        if kind is not None:
            count, first = counted.get(kind, (0, name))
            counted[kind] = (count + 1, first)
    return counted


def add_conversions(*parts: Conversions) -> Conversions:
    """Returns the sum of the counts. Of the names it keeps the first in alphabetical order, so order is irrelevant."""
    total: Conversions = {}
    for part in parts:
        for kind, (count, name) in part.items():
            before, first = total.get(kind, (0, name))
            total[kind] = (before + count, min(first, name))
    return total


def say_conversions(conversions: Conversions, say: Callable[[str], None]) -> None:
    """Says how many pictures of each kind were converted, with an example. Says nothing if none were."""
    sizes = {kind: each for kind, each in conversions.items() if kind.endswith(OTHER_SIZE)}
    for kind, (count, first) in sorted(sizes.items()):
        say(
            f"resized: {count:,} pictures of {kind.removesuffix(OTHER_SIZE)}, such as {first}; others have another size"
        )
    kinds = [
        f"{count:,} of {kind}, such as {first}" for kind, (count, first) in sorted(conversions.items() - sizes.items())
    ]
    if not kinds:
        return
    has_transparency = any("alpha" in kind or "RGBA" in kind or "transparent" in kind for kind in conversions)
    over_white = "; transparent pixels are blended with white" if has_transparency else ""
    say(f"pictures converted to 8-bit RGB: {'; '.join(kinds)}{over_white}")
