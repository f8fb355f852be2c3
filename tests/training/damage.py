"""Damage to a checkpoint, done where it matters: to the bytes of its largest array.

Orbax writes a step as a database of a few files. How it cuts the arrays into files, and
how many bytes of them belong to versions that were replaced, differs from save to save.
A byte in the middle of the largest file may therefore be one that nobody reads.
"""

from pathlib import Path

import tensorstore


def largest_array(step_folder: Path) -> tuple[Path, int, int]:
    """The file that holds the largest array, and the array's place and length in it."""
    store = tensorstore.KvStore.open(f"file://{step_folder.absolute()}/|ocdbt:").result()
    values = [bytes(store.read(key).result().value) for key in store.list().result()]
    largest = max(values, key=len)
    for path in step_folder.rglob("*"):
        if path.is_file() and (start := path.read_bytes().find(largest)) >= 0:
            return path, start, len(largest)
    raise AssertionError(f"no file below {step_folder} holds its largest array")


def file_of_largest_array(step_folder: Path) -> Path:
    return largest_array(step_folder)[0]


def cut_largest_array(step_folder: Path) -> None:
    """Cut the file in the middle of its array, as a full disk does."""
    path, start, length = largest_array(step_folder)
    path.write_bytes(path.read_bytes()[: start + length // 2])


def flip_a_bit(step_folder: Path) -> None:
    """Change one bit in the middle of the array."""
    path, start, length = largest_array(step_folder)
    content = bytearray(path.read_bytes())
    content[start + length // 2] ^= 0x10
    path.write_bytes(bytes(content))
