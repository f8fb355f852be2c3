"""Files of text and of records: one file, or all such files below a folder."""

import codecs
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scalejax.config import Data
from scalejax.data.sources.records import RECORD_SUFFIXES, is_records, read_records
from scalejax.data.sources.source import TextSource
from scalejax.data.staging import Document
from scalejax.files import sha256

TEXT_SUFFIXES = (".txt", ".md")

# A document of a text file ends at the first blank line after this many characters.
DOCUMENT_CHARACTERS = 2_048

# A paragraph is cut after this many characters, so that a huge file without blank lines
# still becomes many documents.
LONGEST_PARAGRAPH = 65_536

# Bytes of a text file that are decoded at once.
BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class TextFiles(TextSource):
    """A file, or every file of text or records below a folder."""

    path: Path

    @property
    def licence(self) -> str:
        return "as of the files given"

    @property
    def attribution(self) -> str:
        return f"files at {self.name}"

    def fingerprint(self) -> str:
        """Hash of the files' content, and of what their paths say about it.

        The domain and the suffix of a file change what is read from it; the rest of its
        path does not, so a copy of a folder has the same fingerprint.
        """
        digest = hashlib.sha256()
        for path in self.files():
            digest.update(f"{self.domain(path)} {path.suffix} {_sha256(path)}\n".encode())
        return digest.hexdigest()

    def documents(self, data: Data, cache: Path) -> Iterator[Document]:
        for path in self.files():
            domain = self.domain(path)
            if is_records(path):
                yield from read_records(path, field=data.field, domain=data.domain, default=domain)
            else:
                yield from (Document(text, domain) for text in split_documents(decoded(path)))

    def files(self) -> list[Path]:
        """The files to read, sorted by path; ValueError for a folder without any."""
        if self.path.is_file():
            return [self.path]
        files = sorted(
            file
            for file in self.path.rglob("*")
            if (file.suffix in TEXT_SUFFIXES or is_records(file)) and file.is_file()
        )
        if not files:
            raise ValueError(
                f"the folder {self.name!r} has nothing to read; it must hold text "
                f"({', '.join(TEXT_SUFFIXES)}), records ({', '.join(RECORD_SUFFIXES)}), "
                "token ids (train.bin and val.bin) or prepared shards (manifest.json)"
            )
        return files

    def domain(self, path: Path) -> str:
        """The first folder below the source in which `path` lies, or else `text`."""
        parts = path.relative_to(self.path).parts if self.path.is_dir() else ()
        return parts[0] if len(parts) > 1 else "text"


def decoded(path: Path) -> Iterator[str]:
    """The text of a file, in blocks.

    Raises ValueError with the file, and with the byte for text that is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    # Bytes read before the current block.
    offset = 0
    try:
        with path.open("rb") as file:
            while True:
                block = file.read(BLOCK_BYTES)
                # The decoder keeps the first bytes of a character that a block cuts
                # off; the position in its error counts from there.
                unfinished, _ = decoder.getstate()
                try:
                    text = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    position = offset - len(unfinished) + error.start
                    raise ValueError(
                        f"{path} is not UTF-8 text: byte {position} is "
                        f"0x{error.object[error.start]:02x}; convert the file to UTF-8"
                    ) from error
                yield text
                if not block:
                    return
                offset += len(block)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def split_documents(blocks: Iterable[str]) -> Iterator[str]:
    """Group paragraphs into documents of at least DOCUMENT_CHARACTERS characters.

    `blocks` are consecutive pieces of the text. The last document may be shorter.

    >>> blocks = ["word " * 500 + "\\n\\n" + "end"]
    >>> [len(document) for document in split_documents(blocks)]
    [2500, 3]
    """
    document, size = [], 0
    for paragraph in _paragraphs(blocks):
        document.append(paragraph)
        size += len(paragraph)
        if size >= DOCUMENT_CHARACTERS:
            yield "\n\n".join(document)
            document, size = [], 0
    if size:
        yield "\n\n".join(document)


def _paragraphs(blocks: Iterable[str]) -> Iterator[str]:
    """Text between blank lines, in pieces of at most LONGEST_PARAGRAPH characters."""
    rest = ""
    for block in blocks:
        # The last piece has no blank line after it yet: it may go on in the next block.
        *paragraphs, rest = re.split(r"\n[ \t\r]*\n", rest + block)
        for paragraph in paragraphs:
            for start in range(0, len(paragraph), LONGEST_PARAGRAPH):
                yield paragraph[start : start + LONGEST_PARAGRAPH]
        while len(rest) > LONGEST_PARAGRAPH:
            yield rest[:LONGEST_PARAGRAPH]
            rest = rest[LONGEST_PARAGRAPH:]
    if rest:
        yield rest


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
