"""Files of records, one document each; errors name the file and the line."""

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from scalejax.data.progress import say
from scalejax.data.shards import Contents
from scalejax.data.staging import Document

# `.json.gz` is how C4 names its JSON lines.
RECORD_SUFFIXES = (
    ".jsonl",
    ".jsonl.gz",
    ".jsonl.zst",
    ".json.gz",
    ".parquet",
    ".array_record",
)

# Bytes of the longest record that is read. A longer one is a whole corpus in one line
# by mistake, and would fill the memory.
LONGEST_RECORD = 20_000_000


def is_records(path: Path) -> bool:
    """Whether the file's name ends with one of RECORD_SUFFIXES."""
    return path.name.endswith(RECORD_SUFFIXES)


# What is called with the error of a record that cannot be used. When it returns, the
# record is left out.
OnError = Callable[[ValueError], None]


def raise_error(error: ValueError) -> None:
    """Raise the error: the first record that cannot be used ends the reading."""
    raise error


class UnusableRecords:
    """Records of a corpus that cannot be used: an error, or skipped and counted."""

    def __init__(self, *, skip: bool):
        self.skip = skip
        self.count = 0

    def handle(self, error: ValueError) -> None:
        """Count a record that cannot be used; raise ValueError if none is skipped."""
        if not self.skip:
            raise ValueError(
                f"{error}. To leave out every record that cannot be used, set "
                "Data.skip_bad=True (--skip-bad)"
            ) from error
        if not self.count:
            say(f"skipping records that cannot be used; the first of them: {error}")
        self.count += 1

    def counted(self, contents: Contents) -> Contents:
        """The description of a corpus, with the number of records that were skipped."""
        if self.count:
            say(f"skipped {self.count:,} record(s) that cannot be used")
        return {**contents, "records_skipped": self.count}


def read_records(
    path: Path,
    *,
    field: str,
    domain: str,
    default: str,
    on_error: OnError = raise_error,
) -> Iterator[Document]:
    """The documents of a file of records, one at a time.

    `field` names the field that holds the text of a record. `domain` names the field
    that holds its domain; with an empty `domain`, every document gets the domain
    `default`.

    Raises ValueError with file and line (or row) for a record that is not an object,
    lacks a field, names no domain, or has an empty text or one longer than
    LONGEST_RECORD, unless `on_error` returns; and for a compressed file that is
    damaged.
    """
    if path.name.endswith(".parquet"):
        # Only the columns that are needed: `meta.set` is a field of the column `meta`.
        records = _parquet_rows(path, [name.split(".")[0] for name in (field, domain) if name])
    elif path.name.endswith(".array_record"):
        records = _array_records(path, on_error)
    else:
        records = json_lines(path, on_error)
    return documents(records, field=field, domain=domain, default=default, on_error=on_error)


def documents(
    records: Iterable[tuple[str, object]],
    *,
    field: str,
    domain: str,
    default: str,
    on_error: OnError,
) -> Iterator[Document]:
    """Check (place, record) pairs and turn them into documents.

    `place` says where a record comes from, for instance its file and line; every error
    message starts with it. The other arguments and errors are those of `read_records`.
    """
    for place, record in records:
        if not isinstance(record, Mapping):
            raise ValueError(
                f"{place} is {type(record).__name__}, not a dict of fields; for a dataset with "
                "splits, pass one split"
            )
        try:
            text = _text(record, field, place)
            label = _domain(record, domain, place) if domain else default
        except ValueError as error:
            on_error(error)
        else:
            yield Document(text, label)


def _text(record: Mapping[str, object], field: str, place: str) -> str:
    """The text of a record, checked."""
    text = _field(record, field, place, "Data.field")
    if not isinstance(text, str):
        raise ValueError(
            f"{place}: the field {field!r} holds {type(text).__name__}, not text; set "
            "Data.field to a field that holds text"
        )
    if not text.strip():
        raise ValueError(f"{place}: the document is empty; remove this record")
    if len(text) > LONGEST_RECORD:
        raise ValueError(_too_long(place))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # JSON may spell one half of a surrogate pair, which is not a character.
        raise ValueError(
            f"{place}: the text holds half a character, U+{ord(text[error.start]):04X}; "
            "repair the text or remove this record"
        ) from error
    return text


def _domain(record: Mapping[str, object], field: str, place: str) -> str:
    """The domain of a record, checked: a name that `Data.mixture` can give."""
    value = _field(record, field, place, "Data.domain")
    # The text of a list or an object would make a domain of nearly every document, and
    # null would be a domain called None.
    if not isinstance(value, (str, int)) or not str(value).strip():
        shown = "no text" if isinstance(value, str) else type(value).__name__
        raise ValueError(
            f"{place}: the field {field!r} holds {shown}, not the name of a domain; set "
            "Data.domain to a field that holds text, or repair this record"
        )
    # `Data.mixture` names domains without blanks around them.
    return str(value).strip()


def _field(record: Mapping[str, object], name: str, place: str, option: str) -> object:
    """The field `name` of a record.

    `a.b` is the field b of the field a, unless there is a field called `a.b`. `option`
    is the setting that gave the name; the error message asks to change it.
    """
    value: object = record
    for part in [name] if name in record else name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            fields = ", ".join(map(str, record)) or "none"
            raise ValueError(
                f"{place}: no field {name!r}; the fields are {fields}; set {option} to one of them"
            )
        value = value[part]
    return value


def json_lines(
    path: Path, on_error: OnError = raise_error
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """(place, object) for every line of a .jsonl file, plain or compressed (.gz, .zst).

    `place` is the file and the line. Blank lines at the end of the file are no records.
    Raises ValueError starting with the place for a line that is not one JSON object in
    UTF-8 and for a byte-order mark, unless `on_error` returns; and for a damaged
    file.
    """
    # Whether a blank line is inside the file is known at the next line that is not.
    blank: list[int] = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            blank.append(number)
            continue
        for earlier in blank:
            on_error(ValueError(f"{path}, line {earlier} is blank; remove the line"))
        blank = []
        place = f"{path}, line {number}"
        try:
            record = _json_object(line, place)
        except ValueError as error:
            on_error(error)
        else:
            yield place, record


def _json_object(line: bytes, place: str) -> Mapping[str, object]:
    """The JSON object in a line of a file."""
    if line.startswith(b"\xef\xbb\xbf"):
        raise ValueError(
            f"{place} begins with a byte-order mark; save the file as UTF-8 without one"
        )
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{place} is not UTF-8 text: byte {error.start} of the line is "
            f"0x{line[error.start]:02x}; convert the file to UTF-8"
        ) from error
    try:
        record = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{place} is not JSON ({error}); {_remedy(line, text)}") from error
    except RecursionError as error:
        raise ValueError(
            f"{place} is not JSON that can be read: its brackets are nested too deeply; "
            "remove the line"
        ) from error
    if not isinstance(record, dict):
        raise ValueError(
            f"{place} is {type(record).__name__}, not an object like "
            '{"text": "..."}; write one object per line'
        )
    return record


def _remedy(line: bytes, text: str) -> str:
    """What to do about a line that is not JSON."""
    # Some writers separate records by U+2028. It may also be part of a string, which is
    # why only newlines separate lines here.
    if "}\u2028" in text:
        return "its records are separated by U+2028: separate them by newlines"
    # Only the last line of a file can lack its newline.
    if not line.endswith(b"\n"):
        return "the file ends within this line: get the file again, or remove the line"
    return "repair the line, or remove it"


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file; of a damaged one, those before the damage."""
    number = 0
    if not path.exists():
        raise ValueError(
            f"{path} does not exist in {Path.cwd()}; give the path of a file of records"
        )
    try:
        with _open(path) as file:
            # The limit keeps a huge line from filling the memory before it is refused.
            while line := file.readline(LONGEST_RECORD + 1):
                number += 1
                if len(line) > LONGEST_RECORD:
                    raise ValueError(_too_long(f"{path}, line {number}"))
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read beyond line {number} ({error}): it is damaged or cut "
            "short; get the file again"
        ) from error


def _open(path: Path) -> BinaryIO:
    """The uncompressed bytes of a plain, .gz or .zst file."""
    if path.name.endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.name.endswith(".zst"):
        import pyarrow

        stream = pyarrow.input_stream(str(path), compression="zstd")
        return cast(BinaryIO, io.BufferedReader(stream, 2**20))
    return path.open("rb")


def _parquet_rows(path: Path, columns: list[str]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """(place, row) for the rows of a Parquet file; only `columns` are read."""
    import pyarrow
    from pyarrow import parquet

    row = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            # When a column is missing, read them all: the error lists the record's
            # fields.
            chosen = columns if set(columns) <= set(names) else names
            for batch in file.iter_batches(batch_size=1_024, columns=chosen):
                for record in batch.to_pylist():
                    row += 1
                    yield f"{path}, row {row}", record
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} cannot be read beyond row {row} ({reason}): it is damaged or not a "
            "Parquet file; get the file again"
        ) from error


def _array_records(path: Path, on_error: OnError) -> Iterator[tuple[str, Mapping[str, object]]]:
    """(place, object) for the records of an ArrayRecord file, JSON in UTF-8."""
    try:
        from array_record.python import (  # pyright: ignore[reportMissingImports]
            array_record_data_source as array_record,
        )
    except ImportError as error:
        raise ValueError(
            f"{path}: ArrayRecord files need the package array_record; run "
            "`pip install array_record`"
        ) from error
    with array_record.ArrayRecordDataSource(str(path)) as source:
        for number in range(len(source)):
            place = f"{path}, record {number}"
            try:
                record = _json_object(source[number], place)
            except ValueError as error:
                on_error(error)
            else:
                yield place, record


def _too_long(place: str) -> str:
    return f"{place}: the record is longer than {LONGEST_RECORD:,} bytes; cut it into documents"
