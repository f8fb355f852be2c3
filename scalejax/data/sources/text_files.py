"""Files of text and of records: one file, or all such files below a folder."""

import codecs
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scalejax.config import Data
from scalejax.data.progress import say
from scalejax.data.sources.corpus_files import TEXT_SUFFIXES, Corpus, CorpusFile, list_corpus
from scalejax.data.sources.records import (
    RECORD_SUFFIXES,
    OnError,
    is_records,
    raise_error,
    read_records,
)
from scalejax.data.sources.source import TextSource
from scalejax.data.staging import Document
from scalejax.files import sha256

# A document of a text file ends at the first blank line after this many characters.
DOCUMENT_CHARACTERS = 2_048

# A paragraph is cut after this many characters, so that a huge file without blank lines
# still becomes many documents.
LONGEST_PARAGRAPH = 65_536

# Lines end in a newline, with a carriage return before it in files from Windows, or in
# a carriage return alone in files from old Macs.
BLANK_LINE = re.compile(r"\n[ \t\r]*\n|\r[ \t]*\r(?!\n)")

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
        for file in self.corpus().files:
            held_out = " validation" if file.held_out else ""
            content = f"{file.domain} {file.path.suffix} {_sha256(file.path)}{held_out}\n"
            digest.update(content.encode())
        return digest.hexdigest()

    def documents(
        self, data: Data, cache: Path, on_error: OnError = raise_error
    ) -> Iterator[Document]:
        corpus = self.corpus()
        if corpus.unread:
            say(
                f"{self.name}: {len(corpus.unread):,} file(s) not read, because their names say "
                f"neither text nor records: {_first(corpus.unread)}"
            )
        if held_out := [file.path for file in corpus.files if file.held_out]:
            say(f"{self.name}: held out because of their names: {_first(held_out)}")
        if corpus.tests:
            say(f"{self.name}: left out because their names say test: {_first(corpus.tests)}")
        for file in corpus.files:
            has_text = False
            for document in self._read(file, data, on_error):
                has_text = has_text or bool(document.text.strip())
                yield document._replace(held_out=file.held_out)
            if not has_text:
                # Without the text that a name calls held out, other text would be.
                refuse = raise_error if file.held_out else on_error
                refuse(ValueError(f"{file.path} holds no text; get the file again, or remove it"))

    def _read(self, file: CorpusFile, data: Data, on_error: OnError) -> Iterator[Document]:
        """The documents of one file."""
        if is_records(file.path):
            yield from read_records(
                file.path,
                field=data.field,
                domain=data.domain,
                default=file.domain,
                on_error=on_error,
            )
        else:
            texts = split_documents(decoded(file.path))
            yield from (Document(text, file.domain) for text in texts)

    def corpus(self) -> Corpus:
        """The files to read, and those that are left out.

        Raises ValueError for a folder without any to read, and for a file that holds
        neither text nor records.
        """
        if self.path.is_file():
            _check_is_text(self.path)
            return Corpus([CorpusFile(self.path, "text", held_out=False)], [], [])
        corpus = list_corpus(self.path)
        if not corpus.files:
            raise ValueError(
                f"the folder {self.name!r} has nothing to read; it must hold text "
                f"({', '.join(TEXT_SUFFIXES)}), records ({', '.join(RECORD_SUFFIXES)}), "
                "token ids (train.bin and val.bin) or prepared shards (manifest.json)"
            )
        return corpus


def _first(paths: list[Path]) -> str:
    """The first five paths, as text."""
    return ", ".join(map(str, paths[:5]))


def _check_is_text(path: Path) -> None:
    """Raise ValueError for a file whose suffix says that it is not plain text."""
    if path.suffix not in ("", *TEXT_SUFFIXES) and not is_records(path):
        raise ValueError(
            f"{path} is a {path.suffix} file, which is not read as plain text; expected text "
            f"({', '.join(TEXT_SUFFIXES)}) or records ({', '.join(RECORD_SUFFIXES)}): write its "
            'texts to a .jsonl file, one {"text": ...} per line, or rename the file to .txt '
            "if all of it is text to train on"
        )


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
        *paragraphs, rest = re.split(BLANK_LINE, rest + block)
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
