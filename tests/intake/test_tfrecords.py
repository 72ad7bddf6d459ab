"""TFRecords: checksums follow their definition, hand-written Examples are read, and errors name the place of damage."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.base.console import UserError
from src.intake.tfrecords import (
    byte_strings,
    floats,
    index_records,
    masked_crc32c,
    parse_example,
    read_record,
)
from tests import pushing_clips
from tests.pushing_clips import example, framed, message, varint

DATA = (b"first record", b"a second one, longer", bytes(range(200)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "traj_0_to_2.tfrecords"
    path.write_bytes(b"".join(map(framed, DATA)))
    return path


@pytest.mark.parametrize(
    ("data", "value"),  # from RFC 3720, B.4, and the check value in CRC catalogues
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ],
)
def test_checksum_has_the_published_values(data: bytes, value: int) -> None:
    assert pushing_clips.crc32c(data) == value
    assert masked_crc32c(data) == pushing_clips.masked(value)


@given(st.binary(max_size=40), st.integers(1, 150))
def test_checksum_is_that_of_the_definition(data: bytes, times: int) -> None:
    assert masked_crc32c(data * times) == pushing_clips.masked(pushing_clips.crc32c(data * times))


def test_records_are_read_back(path: Path) -> None:
    records = list(index_records(path))
    assert [(record.number, record.offset, record.length) for record in records] == [
        (0, 0, 12),
        (1, 28, 20),
        (2, 64, 200),
    ]
    assert [read_record(path, record) for record in records] == list(DATA)
    path.write_bytes(b"")
    assert list(index_records(path)) == []


@given(st.data())
def test_no_damaged_byte_and_no_cut_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole, starts = b"".join(map(framed, DATA)), (0, 28, 64)
    place = data.draw(st.integers(1, len(whole) - 1).filter(lambda place: place not in starts))
    number = sum(place >= start for start in starts) - 1
    bent = bytearray(whole)
    bent[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "bent.tfrecords"
    for content in (bytes(bent), whole[:place]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"bent.tfrecords: record {number} at byte {starts[number]} ") as caught:
            for record in index_records(path):
                read_record(path, record)
        assert "\n" not in str(caught.value)


def test_an_empty_record_is_named(path: Path) -> None:
    path.write_bytes(framed(DATA[0]) + framed(b""))
    with pytest.raises(UserError, match="record 1 at byte 28 is empty; needed: a clip"):
        list(index_records(path))


def test_features_are_read_however_they_are_written() -> None:
    packed = example({"a": b"\x00\xff", "b": np.float32([1.5, -2, 3]), "ü": b""})
    features = parse_example(packed)
    assert features.keys() == {"a", "b", "ü"}
    assert [bytes(value) for value in byte_strings(features["a"])] == [b"\x00\xff"]
    np.testing.assert_array_equal(floats(features["b"]), np.float32([1.5, -2, 3]))
    assert floats(features["a"]).size == len(byte_strings(features["b"])) == 0
    singly = b"".join(varint(1 << 3 | 5) + struct.pack("<f", number) for number in (1.5, -2))
    others = varint(7 << 3 | 0) + varint(300) + varint(9 << 3 | 1) + bytes(8)  # fields of later versions
    entry = others + message(1, b"c") + message(2, others + message(2, singly))
    again = parse_example(others + message(1, message(1, entry)) + message(1, message(1, message(1, b"empty"))))
    np.testing.assert_array_equal(floats(again["c"]), np.float32([1.5, -2]))
    assert byte_strings(again["empty"]) == []


@pytest.mark.parametrize("data", [b"\x0a\x05abc", b"\x0a", b"\x0b\x00", b"\xff" * 11, b"\x0a\x02\x0d\x00", b"\x0d\x00"])
def test_what_is_no_protocol_buffer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"field|number"):
        parse_example(data)
