"""Pictures of every kind: valid ones are converted to the right pixels, damaged ones are refused with one line."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from src.base.console import UserError
from src.intake.facts import FRAME_SIZE
from src.intake.pictures import (
    Header,
    add_conversions,
    count_kinds,
    decode,
    image_size,
    read_header,
    say_conversions,
)
from tests.dance_images import png

SIZE = (32, 64)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _hand_made_png(
    width: int, height: int, *, depth: int = 8, colour_type: int = 2, pixels: bytes = b"", transparent: bytes = b""
) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    header += _chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


RNG = np.random.default_rng(4)
PIXELS = RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
GREYS, ALPHA = (RNG.integers(0, 256, SIZE, dtype=np.uint8) for _ in range(2))
ALPHA[0, :3] = (0, 255, 128)
DEEP = RNG.integers(0, 2**16, (*SIZE, 4), dtype=np.uint16)
ONE_COLOUR = np.where(RNG.random(SIZE)[..., None] < 0.5, PIXELS[0, 0], PIXELS[5, 7])


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Returns a transparent picture blended with white: alpha * colour + (1 - alpha) * 255."""
    share = alpha[..., None] / 255
    return np.rint(share * pixels + (1 - share) * 255)


def threefold(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=-1)


def deep_png(values: np.ndarray, colour_type: int, transparent: bytes = b"") -> bytes:
    """Returns a 16-bit PNG in colour. Pillow cannot write one."""
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    return _hand_made_png(*SIZE[::-1], depth=16, colour_type=colour_type, pixels=rows, transparent=transparent)


CONVERTED = {  # kind in words -> the file, its expected pixels
    "8-bit grey": (encoded(Image.fromarray(GREYS)), threefold(GREYS)),
    "1-bit grey": (encoded(Image.fromarray(GREYS > 99)), threefold(255 * (GREYS > 99).astype(np.uint8))),
    "8-bit grey with alpha": (
        encoded(Image.merge("LA", (Image.fromarray(GREYS), Image.fromarray(ALPHA)))),
        over_white(threefold(GREYS), ALPHA),
    ),
    "8-bit RGBA": (encoded(Image.fromarray(np.dstack([PIXELS, ALPHA]))), over_white(PIXELS, ALPHA)),
    "8-bit RGB with transparent colours": (
        encoded(Image.fromarray(ONE_COLOUR), transparency=tuple(PIXELS[0, 0].tolist())),
        np.where((PIXELS[0, 0] == ONE_COLOUR).all(axis=-1, keepdims=True), 255, ONE_COLOUR),
    ),
    "8-bit grey with transparent colours": (
        encoded(Image.fromarray(GREYS), transparency=int(GREYS[3, 3])),
        threefold(np.where(GREYS[3, 3] == GREYS, 255, GREYS)),
    ),
    "16-bit grey": (deep_png(DEEP[..., 0], 0), threefold(DEEP[..., 0] >> 8)),
    "16-bit RGB": (deep_png(DEEP[..., :3], 2), DEEP[..., :3] >> 8),
    "16-bit RGBA": (deep_png(DEEP, 6), over_white(DEEP[..., :3] >> 8, DEEP[..., 3] >> 8)),
    "16-bit grey with alpha": (deep_png(DEEP[..., :2], 4), over_white(threefold(DEEP[..., 0] >> 8), DEEP[..., 1] >> 8)),
    "16-bit grey with transparent colours": (
        deep_png(DEEP[..., 0], 0, transparent=struct.pack(">H", DEEP[2, 2, 0])),
        threefold(np.where(DEEP[..., 0] == DEEP[2, 2, 0], 255, DEEP[..., 0] >> 8)),
    ),
    "JPEG": (encoded(Image.fromarray(PIXELS).resize((64, 32)), "JPEG", quality=95), None),
    "grey JPEG": (encoded(Image.fromarray(GREYS), "JPEG"), None),
    "CMYK JPEG": (encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG"), None),
    "BMP": (encoded(Image.fromarray(PIXELS), "BMP"), PIXELS),
    "1-bit BMP": (encoded(Image.fromarray(GREYS > 99), "BMP"), threefold(255 * (GREYS > 99).astype(np.uint8))),
    "TIFF": (encoded(Image.fromarray(PIXELS), "TIFF"), PIXELS),
    "16-bit grey TIFF": (encoded(Image.fromarray(DEEP[..., 0]), "TIFF"), threefold(DEEP[..., 0] >> 8)),
    "RGBA TIFF": (encoded(Image.fromarray(np.dstack([PIXELS, ALPHA])), "TIFF"), over_white(PIXELS, ALPHA)),
    "WEBP": (encoded(Image.fromarray(PIXELS), "WEBP", lossless=True), PIXELS),
    "RGBA WEBP": (
        encoded(Image.fromarray(np.dstack([PIXELS, ALPHA])), "WEBP", lossless=True, exact=True),
        over_white(PIXELS, ALPHA),
    ),
    "grey GIF": (encoded(Image.fromarray(GREYS), "GIF"), threefold(GREYS)),
}


@pytest.mark.parametrize("kind", CONVERTED)
def test_what_can_be_meant_is_converted_and_named(kind: str) -> None:
    data, expected = CONVERTED[kind]
    assert read_header(data, "0.png") == Header(SIZE, kind)
    found = decode(data, "0.png", SIZE)
    assert (found.shape, found.dtype) == ((*SIZE, 3), np.uint8)
    if expected is None:
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(found - np.asarray(expected, dtype=np.float64)).max() <= 1
    if "alpha" not in kind and "RGBA" not in kind:
        np.testing.assert_array_equal(found, expected)


def test_a_palette_with_transparent_colours_lies_on_white() -> None:
    image = Image.fromarray((GREYS % 3).astype(np.uint8), mode="P")
    colours = np.array([[10, 20, 30], [200, 100, 0], [0, 0, 250]], dtype=np.uint8)
    image.putpalette(colours.tobytes())
    data = encoded(image, transparency=bytes([255, 0, 128]))
    kind = read_header(data, "0.png").kind
    assert kind is not None and kind.endswith("-bit palette with transparent colours")
    alpha = np.array([255, 0, 128])[GREYS % 3]
    assert np.abs(decode(data, "0.png", SIZE) - over_white(colours[GREYS % 3], alpha)).max() <= 1


def test_pictures_as_the_competition_has_them_are_not_called_converted() -> None:
    for mode in ("RGB", "P"):
        assert read_header(png(1, size=SIZE, mode=mode), "0.png") == Header(SIZE, None)


def test_a_camera_s_picture_that_lies_on_its_side_is_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    upright = np.zeros((48, 24, 3), np.uint8)
    upright[:24] = (250, 0, 0)
    for form in ("JPEG", "WEBP", "TIFF"):
        data = encoded(Image.fromarray(np.rot90(upright).copy()), form, quality=95, exif=exif)
        assert image_size(data, "0.jpg") == (48, 24)
        found = decode(data, "0.jpg", (48, 24)).astype(int)
        assert np.abs(found - upright)[:20].max() < 30 and np.abs(found - upright)[28:].max() < 30


def test_kinds_are_counted_and_said_in_one_line() -> None:
    kinds = [("a/2.jpg", "JPEG"), ("a/1.png", None), ("a/3.jpg", "JPEG"), ("b.png", "8-bit RGBA")]
    parts = count_kinds(kinds[:2]), count_kinds(kinds[2:])
    total = {"JPEG": (2, "a/2.jpg"), "8-bit RGBA": (1, "b.png")}
    assert add_conversions(*parts) == add_conversions(*reversed(parts)) == total == count_kinds(kinds)
    said: list[str] = []
    say_conversions(total, said.append)
    say_conversions({}, said.append)
    assert said == [
        "pictures converted to 8-bit RGB: 1 of 8-bit RGBA, such as b.png; 2 of JPEG, such as a/2.jpg; "
        "transparent pixels are blended with white"
    ]


def _animated(form: str = "PNG") -> bytes:
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    return encoded(frames[0], form, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_hand_made_png(64, 32, colour_type=5), "of an unknown colour type; needed"),
        (_hand_made_png(64, 32, depth=4), "4-bit of an unknown colour type; needed"),
        (_animated(), "is animated; needed: a picture as PNG.* without animation"),
        (_animated("GIF"), "is animated or has 2 pages; needed: a picture as PNG"),
        (_animated("WEBP"), "is animated or has 2 pages; needed"),
        (encoded(Image.fromarray(PIXELS[..., 0] / np.float32(9)), "TIFF"), "is a TIFF of the mode F; needed"),
        (b"", "is no picture of a known format.*needed"),
        (b"not found", "is no picture of a known format.*needed"),
        (b"\xff\xd8\xff" + b"no picture", "cannot be decoded .*needed"),
        (_hand_made_png(50_000, 50_000), r"has 50000 x 50000 pixels; needed: at most 25,000,000"),
    ],
    ids=range(10),
)
def test_what_cannot_be_meant_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=f"^train/7.png .*{message}"):
        image_size(data, "train/7.png")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_jpeg_that_is_cut_off_is_refused(share: float) -> None:
    data = encoded(Image.fromarray(PIXELS), "JPEG", quality=95)
    cut = data[: int(share * len(data))]
    with pytest.raises(UserError, match=r"0.jpg cannot be decoded .*needed: a whole picture file"):
        image_size(cut, "0.jpg")
        decode(cut, "0.jpg", SIZE)


def test_png_that_is_cut_off_or_changed_anywhere_is_refused() -> None:
    data = png(1, size=(32, 64))
    assert image_size(data, "whole") == (32, 64)
    for length in range(len(data)):
        with pytest.raises(UserError, match=r"is no picture of a known format|is damaged or cut off"):
            image_size(data[:length], "cut")
    for position in range(len(data)):
        with pytest.raises(UserError, match=r"is no picture of a known format|is damaged or cut off"):
            image_size(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :], "changed")


@pytest.mark.parametrize("pixels", [b"no zlib stream", zlib.compress(b"\0" * 100), zlib.compress(b"\x09" * 32 * 193)])
def test_pixels_that_cannot_be_decoded_are_refused(pixels: bytes) -> None:
    data = _hand_made_png(64, 32, pixels=pixels)
    assert image_size(data, "0.png") == (32, 64)
    with pytest.raises(UserError, match=r"0.png cannot be decoded .*needed: a whole picture file"):
        decode(data, "0.png", FRAME_SIZE)


def test_pixels_of_a_hand_made_png_come_out_unchanged() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*FRAME_SIZE, 3), dtype=np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # each row begins with its filter; 0 is no filter
    data = _hand_made_png(FRAME_SIZE[1], FRAME_SIZE[0], pixels=zlib.compress(rows))
    np.testing.assert_array_equal(decode(data, "0.png", FRAME_SIZE), pixels)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palette_is_read_as_its_colours(bits: int) -> None:
    indices = np.random.default_rng(bits).integers(0, 2**bits, FRAME_SIZE, dtype=np.uint8)
    colours = np.random.default_rng(9).integers(0, 256, (2**bits, 3), dtype=np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette(colours.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", bits=bits)
    assert image_size(file.getvalue(), "0.png") == FRAME_SIZE
    np.testing.assert_array_equal(decode(file.getvalue(), "0.png", FRAME_SIZE), colours[indices])


@pytest.mark.parametrize("size", [(40, 80), (72, 64), (16, 24), (256, 512), (96, 416)])
def test_resizing_is_antialiased_bilinear_as_in_torchvision(size: tuple[int, int]) -> None:
    data = png(3, size=size)
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(data)))).permute(2, 0, 1)
    expected = functional.resize(pixels.float(), list(FRAME_SIZE), antialias=True).permute(1, 2, 0).numpy()
    result = decode(data, "0.png", FRAME_SIZE)
    assert result.shape == (*FRAME_SIZE, 3)
    assert np.abs(result - np.rint(expected)).max() <= 1


def test_a_second_header_with_another_size_is_refused() -> None:
    """Pillow takes the size from the last header, so the first one says nothing about the memory that is needed."""
    small, large = (_hand_made_png(size, size, pixels=b"") for size in (8, 100_000))
    two = small[:33] + large[8:]
    with pytest.raises(UserError, match="has two headers"):
        read_header(two, "x.png")
