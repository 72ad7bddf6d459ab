"""PNG and JPEG files -> RGB pixels. What can be meant is converted and counted, all else refused."""

import io
import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from src.base.console import UserError
from src.intake.facts import Size

MAX_IMAGE_PIXELS = 25_000_000
SUFFIXES = r"\.(?i:png|jpe?g)"  # of picture files, as a regular expression
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"  # how the files begin
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # PNG's colour types
DEPTHS = {  # bits that PNG allows, by colour type
    GREY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGBA: (8, 16),
}
NAMES = {GREY: "grey", RGB: "RGB", PALETTE: "palette", GREY_ALPHA: "grey with alpha", RGBA: "RGBA"}
NEEDED = "needed: a PNG or JPEG picture"
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error)  # what Pillow raises

Conversions = dict[str, tuple[int, str]]  # kind of picture -> how many there were, and the name of the first


@dataclass(frozen=True)
class Header:
    """What a picture is: (height, width), and its kind in words where it is not 8-bit RGB or palette already."""

    size: Size
    kind: str | None


def read_header(data: bytes, name: str) -> Header:
    """Returns what a picture is, told by its content and not by its name; UserError where it cannot be used.

    Nothing is unpacked before this.
    """
    if data.startswith(PNG):
        header = _png_header(data, name)
    elif data.startswith(JPEG):
        header = _jpeg_header(data, name)
    else:
        raise UserError(f"{name} is no PNG or JPEG file, whatever its name; {NEEDED}; convert it or copy it again")
    height, width = header.size
    if height * width > MAX_IMAGE_PIXELS:
        raise UserError(f"{name} has {height} x {width} pixels; needed: at most {MAX_IMAGE_PIXELS:,}; scale it down")
    return header


def image_size(data: bytes, name: str) -> Size:
    """Returns (height, width) of a picture in pixels; UserError where it cannot be used."""
    return read_header(data, name).size


def _png_header(data: bytes, name: str) -> Header:
    """Returns what a PNG is. Each part's checksum is verified here because Pillow reads past a wrong one."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise UserError(
            f"{name} is damaged or cut off in its header; needed: the whole file; copy or download it again"
        )
    position, kinds = 8, set()
    while b"IEND" not in kinds:
        length = int.from_bytes(data[position : position + 4])
        kind, stop = data[position + 4 : position + 8], position + 8 + length
        if zlib.crc32(data[position + 4 : stop]) != int.from_bytes(data[stop : stop + 4]) or len(data) < stop + 4:
            raise UserError(
                f"{name} is damaged or cut off at byte {position}; needed: the whole file; copy or download it again"
            )
        kinds.add(kind)
        position = stop + 4
    width, height, depth, colours = struct.unpack(">IIBB", data[16:26])
    if depth not in DEPTHS.get(colours, ()):
        raise UserError(f"{name} is {depth}-bit of unknown colours; {NEEDED}; save it anew")
    if b"acTL" in kinds:
        raise UserError(f"{name} is animated; {NEEDED} that stands still; save the one frame that is meant")
    is_plain = colours == PALETTE or (colours == RGB and depth == 8)
    transparent = " with transparent colours" if b"tRNS" in kinds else ""
    kind_in_words = f"{depth}-bit {NAMES[colours]}{transparent}"
    return Header((height, width), None if is_plain and not transparent else kind_in_words)


def _jpeg_header(data: bytes, name: str) -> Header:
    """Returns what a JPEG is; a camera's note that it lies on its side is heeded."""
    with _opened(data, name) as image:
        width, height = image.size
        lies = image.getexif().get(0x0112, 1) >= 5  # orientations that exchange height and width
        kind = {"L": "grey JPEG", "CMYK": "CMYK JPEG"}.get(image.mode, "JPEG")
    return Header((width, height) if lies else (height, width), kind)


def _opened(data: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    except UNREADABLE as error:
        raise _undecodable(name, error) from error


def _undecodable(name: str, error: Exception) -> UserError:
    return UserError(f"{name} cannot be decoded ({error}); needed: a whole PNG or JPEG file; copy or download it again")


def decode(data: bytes, name: str, size: Size) -> np.ndarray:
    """Returns the pixels (*size, 3) uint8 of a picture that `read_header` has passed, resized where it must be.

    Transparent pixels are laid over white, 16 bits are cut to the upper 8. Pillow's bilinear filter widens with the
    scale, so shrinking is antialiased.
    """
    image = _opened(data, name)
    try:
        image.load()
        if data.startswith(JPEG):
            image = ImageOps.exif_transpose(image)
    except UNREADABLE as error:
        raise _undecodable(name, error) from error
    if image.mode != "RGB" or "transparency" in image.info:
        image = _as_rgb(image, depth=data[24] if data.startswith(PNG) else 8)
    if image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image)


@dataclass(frozen=True)
class Picture:
    """A person's own picture: pixels (3, H, W) uint8; its size before it was resized and its kind, as in `Header`."""

    name: str
    pixels: np.ndarray
    own_size: Size
    kind: str | None


def read_picture(path: Path, size: Size, name: str) -> Picture:
    """Returns the picture in a file, resized as training frames are; UserError, which says `name`, for any other."""
    if not path.is_file():
        raise UserError(f"{name} is no file; {NEEDED}")
    data = path.read_bytes()
    header = read_header(data, name)
    pixels = np.ascontiguousarray(decode(data, name, size).transpose(2, 0, 1))
    return Picture(name, pixels, header.size, header.kind)


def _as_rgb(image: Image.Image, *, depth: int) -> Image.Image:
    """Returns a picture of any mode as RGB, over white where it is transparent."""
    transparent = image.info.pop("transparency", None)
    if image.mode.startswith("I"):  # 16-bit grey, whose numbers Pillow would clip instead of scale
        numbers = np.asarray(image).astype(np.int32)
        alpha = None if transparent is None else Image.fromarray(np.uint8(255) * (numbers != transparent))
        image = Image.fromarray((numbers >> 8).astype(np.uint8))
    elif transparent is None:
        alpha = image.getchannel("A") if "A" in image.getbands() else None
    elif image.mode == "P":
        image.info["transparency"] = transparent
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    else:  # one colour that is to be seen through; of 16 bits Pillow has kept the upper 8
        full = {2: 85, 4: 17}.get(depth, 1)  # Pillow spreads 2 and 4 bits over 0..255, but not this colour
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
    """Returns the kinds of (name, kind) pairs that were converted, each with its number and its first name."""
    counted: Conversions = {}
    for name, kind in kinds:
        if kind is not None:
            count, first = counted.get(kind, (0, name))
            counted[kind] = (count + 1, first)
    return counted


def add_conversions(*parts: Conversions) -> Conversions:
    """Returns the sum of such counts; the first name of a kind is the least, in whatever order the parts came."""
    total: Conversions = {}
    for part in parts:
        for kind, (count, name) in part.items():
            before, first = total.get(kind, (0, name))
            total[kind] = (before + count, min(first, name))
    return total


def say_conversions(conversions: Conversions, say: Callable[[str], None]) -> None:
    """Says in one line how many pictures of what kinds were converted, with an example of each; else nothing."""
    if not conversions:
        return
    kinds = [f"{count:,} of {kind}, such as {first}" for kind, (count, first) in sorted(conversions.items())]
    is_seen_through = any("alpha" in kind or "RGBA" in kind or "transparent" in kind for kind in conversions)
    over_white = "; what is transparent is laid over white" if is_seen_through else ""
    say(f"pictures converted to 8-bit RGB: {'; '.join(kinds)}{over_white}")
