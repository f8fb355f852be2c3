"""Table files: Parquet, JSON, JSON lines, and text with any common separator."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from pandas import DataFrame

SEPARATORS = ",;\t|"

# A table is separated by runs of spaces when it uses none of SEPARATORS.
SPACES = r"\s+"

# Lines that are read to find out which separator and decimal mark a file uses.
LINES_LOOKED_AT = 1000

# The first bytes of compressed files.
DECOMPRESS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
}

# The byte-order mark of UTF-32 begins with that of UTF-16, so it comes first.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

POINT_NUMBER = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
COMMA_NUMBER = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
# 1,000 may be a thousand, or one with three decimals.
AMBIGUOUS_NUMBER = re.compile(r"[+-]?\d{1,3},\d{3}")
GROUPED_NUMBER = re.compile(r"[+-]?\d{1,3}(,\d{3}){2,}")


def read_file(path: Path) -> "DataFrame":
    """Read a table file. The content decides how it is read, not the file's name.

    Raises ValueError for a file that is no table.
    """
    content = path.read_bytes()
    kind = "Parquet" if content.startswith(b"PAR1") else "text"
    try:
        if kind == "Parquet":
            return read_parquet(io.BytesIO(content))
        text = _decode(content)
        kind = "JSON" if text.lstrip()[:1] in ("[", "{") else "CSV"
        return _read_json(text) if kind == "JSON" else _read_text(text)
    # ValueError includes the errors of pandas, of JSON and of a wrong encoding.
    except (ValueError, csv.Error, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as {kind}: {str(error).strip()}; expected a table as CSV, TSV, "
            "JSON, JSON lines or Parquet"
        ) from error


def read_parquet(source: Path | BinaryIO, columns: Sequence[str] | None = None) -> "DataFrame":
    """Read Parquet, or some columns of it. Raises ValueError when it is damaged."""
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(source, columns=columns and list(columns))
        # Text that is not UTF-8 would otherwise raise where it is used, without the
        # name of its file.
        table.validate(full=True)
        return table.to_pandas()
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


def _decode(content: bytes) -> str:
    for magic, decompress in DECOMPRESS.items():
        if content.startswith(magic):
            content = decompress(content)
            break
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding)
    # UTF-16 without a byte-order mark: every second byte of ASCII text is zero.
    if b"\0" in content[:2]:
        return content.decode("utf-16-be" if content[0] == 0 else "utf-16-le")
    if b"\0" in content[:1000]:
        raise ValueError("it is a binary file")
    return content.decode("utf-8")


def _read_json(text: str) -> "DataFrame":
    """Read records, columns, the layouts of pandas and wandb, or JSON lines."""
    import pandas as pd

    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        # A single line that fails is one broken object, not a file of JSON lines.
        if len(lines) < 2 or "Extra data" not in error.msg:
            raise
        content = [json.loads(line) for line in lines]
    if isinstance(content, dict):
        if {"columns", "data"} <= content.keys():
            return pd.DataFrame(content["data"], columns=content["columns"])
        lists = [value for value in content.values() if _is_records(value)]
        if len(lists) != 1:
            return pd.DataFrame(content)
        content = lists[0]
    if not _is_records(content):
        raise ValueError("it holds no list of objects, one per run")
    # Nested objects become columns such as config.learning_rate.
    return pd.json_normalize(content)


def _is_records(content: Any) -> bool:
    is_list = isinstance(content, list) and len(content) > 0
    return is_list and all(isinstance(record, dict) for record in content)


def _read_text(text: str) -> "DataFrame":
    import pandas as pd

    lines, comments = [], []
    for line in text.splitlines():
        if line.startswith("#"):
            comments.append(line.lstrip("# "))
        elif line.strip():
            lines.append(line)
    separator = _separator(lines[:LINES_LOOKED_AT])
    # numpy.savetxt writes the names of the columns as a comment.
    if lines and comments and _is_header(comments[-1], lines[0], separator):
        lines.insert(0, comments[-1])
    frame = pd.read_csv(
        io.StringIO("\n".join(lines)),
        sep=separator,
        decimal="," if _has_decimal_commas(lines[1:LINES_LOOKED_AT], separator) else ".",
        skipinitialspace=True,
    )
    names, *rows = (_fields(line, separator) for line in lines[:2])
    if rows and len(rows[0]) > len(names):
        _check_row_names(frame, is_quoted=lines[1].startswith('"'))
    if len(names) == len(frame.columns):
        # pandas calls the second of two columns named loss "loss.1". Under their own
        # names the two are seen, and refused.
        frame.columns = [x or y for x, y in zip(names, frame.columns, strict=True)]
    return frame


def _check_row_names(frame: "DataFrame", is_quoted: bool) -> None:
    """Raise ValueError unless the first fields of the rows are names, as R writes them.

    pandas takes them for names wherever rows have more fields than the header. In other
    tables every value then moves to the column before its own.

    is_quoted: whether the rows begin with a quotation mark, as R's do.
    """
    are_text = is_quoted or frame.index.dtype.kind == "O"
    if frame.index.nlevels > 1 or not are_text or frame.iloc[:, -1].isna().all():
        raise ValueError(
            "its rows have more fields than its header; remove separators at the ends of lines, "
            'and write 1,234 as 1234 or "1,234"'
        )


def _fields(line: str, separator: str) -> list[str]:
    if separator == SPACES:
        return line.split()
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _separator(lines: list[str]) -> str:
    """Return the separator that splits the header and a row into as many fields."""
    best, most = ",", 1
    for separator in (*SEPARATORS, SPACES):
        # Spaces inside of names and values do not count where there is a separator.
        if separator == SPACES and most > 1:
            break
        counts = [len(_fields(line, separator)) for line in lines]
        if counts and counts[0] > most and counts[0] in counts[1:]:
            best, most = separator, counts[0]
    return best


def _is_header(comment: str, first: str, separator: str) -> bool:
    names, values = _fields(comment, separator), _fields(first, separator)
    numbers = [_is_number(value) for value in values]
    return len(names) == len(values) and all(numbers) and not any(map(_is_number, names))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _has_decimal_commas(rows: list[str], separator: str) -> bool:
    """Whether the numbers of a table have decimal commas."""
    if separator == ",":
        return False
    fields = [field.strip() for row in rows for field in _fields(row, separator)]
    commas = [field for field in fields if COMMA_NUMBER.fullmatch(field)]
    other = any(POINT_NUMBER.fullmatch(x) or GROUPED_NUMBER.fullmatch(x) for x in fields)
    if not commas or other:
        return False
    # Semicolons come from spreadsheets whose decimal mark is the comma.
    return separator == ";" or not all(map(AMBIGUOUS_NUMBER.fullmatch, commas))
