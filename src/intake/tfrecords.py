"""Reads TensorFlow's TFRecord files without TensorFlow: framing, checksums, and the features of an Example.

A record consists of its length in 8 bytes, the checksum of these bytes, the data, and the checksum of the data. A
checksum is the CRC-32C, rotated right by 15 bits, plus a constant. All numbers are little-endian. An Example is a
protocol buffer. It holds features by name. Each feature is a list of byte strings, of floats or of integers.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np

from src.base.console import UserError

MASK = 0xA282EAD8
HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
MAX_RECORD_BYTES = 64 * 2**20
LENGTH_DELIMITED = 2  # wire type of a protocol buffer field that begins with its length
FIXED_BYTES = {1: 8, 5: 4}  # wire type -> length of the field


class TFRecord(NamedTuple):
    """The place of a record in its file, in bytes, and the checksum of its data that the file states."""

    number: int
    offset: int
    length: int
    checksum: int


def index_records(path: Path, begin: int = 0, size: int | None = None) -> Iterator[TFRecord]:
    """Yields the records of a file, or of `size` bytes of it from `begin` on, without reading their data.

    UserError if the file is cut off, if a record is empty, or if a length is damaged.
    """
    offset, end, number = begin, path.stat().st_size if size is None else begin + size, 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while offset < end:
            header = os.pread(descriptor, min(HEADER.size, end - offset), offset)
            place = f"{path}: record {number} at byte {offset}"
            if len(header) < HEADER.size:
                raise UserError(f"{place} is cut off; needed: the whole file; copy or download it again")
            length, checksum = HEADER.unpack(header)
            if checksum != masked_crc32c(header[:8]):
                raise UserError(f"{place} has a damaged length, or this is no TFRecord file; copy or download it again")
            if length > end - offset - HEADER.size - FOOTER.size:
                raise UserError(f"{place} is cut off; needed: the whole file; copy or download it again")
            if length > MAX_RECORD_BYTES:
                raise UserError(f"{place} has {length:,} bytes; needed: a clip, of {MAX_RECORD_BYTES:,} at most")
            if not length:
                raise UserError(f"{place} is empty; needed: a clip; copy or download the file again")
            footer = os.pread(descriptor, FOOTER.size, offset + HEADER.size + length)
            yield TFRecord(number, offset, length, *FOOTER.unpack(footer))
            offset += HEADER.size + length + FOOTER.size
            number += 1
    finally:
        os.close(descriptor)


def read_record(path: Path, record: TFRecord) -> bytes:
    """Returns the data of a record; UserError if the checksum does not match."""
    with path.open("rb") as file:
        file.seek(record.offset + HEADER.size)
        data = file.read(record.length)
    if len(data) != record.length or masked_crc32c(data) != record.checksum:
        place = f"{path}: record {record.number} at byte {record.offset}"
        raise UserError(f"{place} is damaged: wrong checksum; needed: the whole file; copy or download it again")
    return data


def parse_example(data: bytes) -> dict[str, memoryview]:
    """Returns the features of an Example by name. `byte_strings` or `floats` reads a feature.

    ValueError if the data are not a protocol buffer.
    """
    features: dict[str, memoryview] = {}
    for _, message in _fields(memoryview(data), 1):
        for _, entry in _fields(message, 1):
            parts = dict(_fields(entry, 1, 2))
            features[bytes(parts.get(1, b"")).decode()] = parts.get(2, memoryview(b""))
    return features


def byte_strings(feature: memoryview) -> list[memoryview]:
    """Returns the byte strings of a feature; an empty list if it holds numbers."""
    return [value for _, values in _fields(feature, 1) for _, value in _fields(values, 1)]


def floats(feature: memoryview) -> np.ndarray:
    """Returns the floats of a feature, (N,) float32; N is 0 if it holds no floats. They may be packed or not."""
    found = [bytes(value) for _, values in _fields(feature, 2) for _, value in _fields(values, 1)]
    return np.frombuffer(b"".join(found), dtype="<f4")


def masked_crc32c(data: bytes) -> int:
    """Returns the checksum that belongs to a record's data or length."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF


def _fields(message: memoryview, *wanted: int) -> Iterator[tuple[int, memoryview]]:
    """Yields (number, content) of the fields with the wanted numbers; ValueError if it is no protocol buffer."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            start = position
            _, position = _varint(message, start)
        elif kind == LENGTH_DELIMITED:
            length, start = _varint(message, position)
            position = start + length
        elif kind in FIXED_BYTES:
            start = position
            position += FIXED_BYTES[kind]
        else:
            raise ValueError(f"a field has the unknown wire type {kind}")
        if position > len(message):
            raise ValueError("a field ends beyond its message")
        if key >> 3 in wanted:
            yield key >> 3, message[start:position]


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Returns the varint that begins at a position, and the position after it. A varint has 7 bits per byte."""
    value = 0
    for shift in range(0, 70, 7):
        if position == len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number does not end")
