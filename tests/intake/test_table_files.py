"""Tables as pandas, numpy, R and Excel write them: what is certain is read, the rest is refused with its place."""

import io

import numpy as np
import pandas as pd
import pytest

from src.base.console import UserError
from src.intake.tables import parse_table

ROWS = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
FRAME = pd.DataFrame(ROWS, columns=["dx", "dy", "dz", "open"])


def by_numpy(**options: str) -> bytes:
    file = io.BytesIO()
    np.savetxt(file, ROWS, **options)
    return file.getvalue()


def by_pandas(frame: pd.DataFrame = FRAME, **options: object) -> bytes:
    return frame.to_csv(**options).encode()


WRITTEN = {  # how it was written -> what it is, and what is said of it
    "plain": (by_pandas(header=False, index=False), ()),
    "pandas": (by_pandas(index=False), ("a header",)),
    "pandas, all": (by_pandas(), ("a header", "an index")),
    "pandas, no names": (by_pandas(pd.DataFrame(ROWS)), ("a header", "an index")),
    "pandas, no names, no index": (by_pandas(pd.DataFrame(ROWS), index=False), ("a header",)),
    "pandas, from 1": (by_pandas(pd.DataFrame(ROWS, index=range(1, 7))), ("a header", "an index")),
    "R": (by_pandas(quoting=2), ("a header", "an index")),
    "R, write.table": (
        b"\n".join([b"dx dy dz open", *by_pandas(sep=" ", header=False).splitlines()]),
        ("spaces", "a header", "an index"),
    ),
    "German Excel": (
        b"\xef\xbb\xbf" + by_pandas(sep=";", decimal=",", index=False),
        ("a byte order mark", "semicolons", "a header"),
    ),
    "Excel's Unicode text": (
        FRAME.to_csv(sep="\t", index=False).encode("utf-16"),
        ("a byte order mark", "tabs", "a header"),
    ),
    "numpy": (by_numpy(), ("spaces",)),
    "numpy, header": (by_numpy(header="dx dy dz open", delimiter=","), ("comments",)),
    "Windows": (by_numpy(delimiter=",", newline="\r\n") + b"\r\n", ()),
    "old Mac": (by_numpy(delimiter=",", newline="\r"), ()),
    "comma at the end": (by_pandas(header=False, index=False).replace(b"\n", b",\n"), ()),
}


@pytest.mark.parametrize("way", WRITTEN)
def test_a_table_is_the_same_however_it_is_written(way: str) -> None:
    data, others = WRITTEN[way]
    found, said = parse_table(data, "a.csv", 6)
    np.testing.assert_allclose(found, ROWS, rtol=1e-6)
    assert (found.dtype, said) == (np.float32, others)


REFUSED = {
    "one line more": (b"1,2\n3,4\n5,6\n", "holds 3 lines of 2 numbers; needed: 2 lines"),
    "one line less": (b"1,2\n", "holds 1 lines of 2 numbers"),
    "header in place of a line": (b"a,b\n1,2\n", "line 1 column 1 holds 'a', which is not a number"),
    "Python's own": (b"1_0,2\n3,4\n", "line 1 column 1 holds '1_0'"),
    "missing": (b"1,2\n3,\n", "line 2 column 2 holds '', which is not a number"),
    "NaN": (b"1,2\nnan,4\n", "line 2 column 1 holds 'nan'"),
    "ragged": (b"1,2\n3,4,5\n", "holds 2 lines of 2 or 3 numbers; needed: .*the same count in each"),
    "too large": (b"1,2\n3,1e39\n", "holds NaN or a number too large for float32"),
    "empty": (b"", "holds 0 lines of no numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_certain_is_refused_with_its_place(case: str) -> None:
    data, message = REFUSED[case]
    with pytest.raises(UserError, match=f"^a.csv {message}") as caught:
        parse_table(data, "a.csv", 2)
    assert "\n" not in str(caught.value)
