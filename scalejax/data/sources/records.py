"""Records from files: one text a record, read as a stream, every error with its file and line."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

LONGEST_RECORD = 20_000_000  # bytes of one record: longer ones are whole files by mistake, and would fill the memory
RECORD_SUFFIXES = (
    ".jsonl",
    ".jsonl.gz",
    ".jsonl.zst",
    ".json.gz",
    ".parquet",
    ".array_record",
)  # C4's json.gz holds JSON lines


class Document(NamedTuple):
    """One document."""

    text: str
    """As it stands in the source."""
    domain: str
    """Where it comes from, for losses and mixtures by domain."""


def is_records(path: Path) -> bool:
    """Whether the name of a file says that it holds records."""
    return path.name.endswith(RECORD_SUFFIXES)


def read_records(path: Path, *, field: str, domain: str, default: str) -> Iterator[Document]:
    """The documents in a .jsonl (plain, .gz, .zst), .parquet or .array_record file, one at a time.

    `domain` is the field of a record that holds its domain; empty: all are of the domain `default`. Raises ValueError with file
    and line (or row) for a record that is no object, lacks a field, or whose text is empty or longer than LONGEST_RECORD, and
    for compressed files that are damaged or cut short.
    """
    if path.name.endswith(".parquet"):
        records = _parquet(path, [name.split(".")[0] for name in (field, domain) if name])
    elif path.name.endswith(".array_record"):
        records = _array_record(path)
    else:
        records = json_lines(path)
    return documents(records, field=field, domain=domain, default=default)


def documents(
    records: Iterable[tuple[str, Mapping[str, Any]]], *, field: str, domain: str, default: str
) -> Iterator[Document]:
    """Checked documents out of (place, record) pairs; `place` begins every error."""
    for place, record in records:
        if not isinstance(record, Mapping):
            raise ValueError(
                f"{place} is {type(record).__name__}, not a dict of fields; of a dataset in splits, give one split"
            )
        text = _value(record, field, place, "Data.field")
        if not isinstance(text, str):
            raise ValueError(
                f"{place}: the field {field!r} holds {type(text).__name__}, not text; set Data.field to one that does"
            )
        if not text.strip():
            raise ValueError(f"{place}: the document is empty; remove this record")
        if len(text) > LONGEST_RECORD:
            raise ValueError(_too_long(place))
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{place}: the text holds half a character, U+{ord(text[error.start]):04X}; repair the text or remove this record"
            ) from error
        yield Document(
            text, str(_value(record, domain, place, "Data.domain")) if domain else default
        )


def _value(record: Mapping[str, Any], name: str, place: str, option: str) -> Any:
    """The field `name` of a record; `a.b` is field b of field a, unless there is a field called `a.b`."""
    found: Any = record
    for part in [name] if name in record else name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            fields = ", ".join(map(str, record)) or "none"
            raise ValueError(
                f"{place}: no field {name!r}; the fields are {fields}; set {option} to one of them"
            )
        found = found[part]
    return found


def json_lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, object) of every line of a .jsonl file (plain, .gz, .zst); `place` is its file and line.

    Raises ValueError with the place for a line that is not one JSON object in UTF-8, a byte-order mark, and a damaged file.
    """
    for number, line in enumerate(_lines(path), start=1):
        yield f"{path}, line {number}", _object(line, f"{path}, line {number}")


def _object(line: bytes, place: str) -> Mapping[str, Any]:
    """One JSON object. Lines end at the newline alone: U+2028 and the like are part of a string."""
    if line.startswith(b"\xef\xbb\xbf"):
        raise ValueError(
            f"{place} begins with a byte-order mark; save the file as UTF-8 without one"
        )
    if not line.strip():
        raise ValueError(f"{place} is blank; remove it")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{place} is not UTF-8 text: byte {error.start} of the line is 0x{line[error.start]:02x}; convert the file first"
        ) from error
    try:
        record = json.loads(text)
    except ValueError as error:
        ended = (
            "repair the line, or remove it"
            if line.endswith(b"\n")
            else "the file ends within this line: get it again, or remove the line"
        )
        between = (
            "; records are parted by U+2028: part them by newlines" if "}\u2028" in text else ""
        )
        raise ValueError(f"{place} is not JSON ({error}){between or f'; {ended}'}") from error
    except RecursionError as error:
        raise ValueError(
            f"{place} is not JSON that can be read: brackets are nested too deep; remove the line"
        ) from error
    if not isinstance(record, dict):
        raise ValueError(
            f'{place} is {type(record).__name__}, not an object like {{"text": ".."}}; write one object a line'
        )
    return record


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of a plain, .gz or .zst file; of a damaged one, the lines before the damage and then an error."""
    number = 0
    try:
        with _open(path) as file:
            while line := file.readline(LONGEST_RECORD + 1):
                number += 1
                if len(line) > LONGEST_RECORD:
                    raise ValueError(_too_long(f"{path}, line {number}"))
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read beyond line {number} ({error}): damaged or cut short; get the file again"
        ) from error


def _open(path: Path) -> BinaryIO:
    if path.name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.name.endswith(".zst"):
        import io

        import pyarrow

        return cast(
            BinaryIO, io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"), 2**20)
        )
    return path.open("rb")


def _parquet(path: Path, columns: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    row = 0
    try:
        with parquet.ParquetFile(path) as file:
            known = [name for name in columns if name in file.schema_arrow.names]
            if len(known) < len(columns):  # the whole record, so that the error can name its fields
                known = file.schema_arrow.names
            for batch in file.iter_batches(batch_size=1_024, columns=known):
                for record in batch.to_pylist():
                    row += 1
                    yield f"{path}, row {row}", record
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} cannot be read beyond row {row} ({reason}): damaged or no Parquet; get the file again"
        ) from error


def _array_record(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Records of an ArrayRecord file, as grain reads them: JSON objects in UTF-8."""
    try:
        from array_record.python import array_record_data_source as reader  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            f"{path}: ArrayRecord files need the package `array_record`: pip install array_record"
        ) from error
    with reader.ArrayRecordDataSource(str(path)) as source:
        for number in range(len(source)):
            yield f"{path}, record {number}", _object(source[number], f"{path}, record {number}")


def _too_long(place: str) -> str:
    return f"{place}: the record is longer than {LONGEST_RECORD:,} bytes; cut it into documents"
