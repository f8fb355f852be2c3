"""Laws by their name, or from a Python file of the user's own."""

import runpy
from pathlib import Path

from scalejax import laws
from scalejax.laws.law import Law


def find_law(text: str) -> Law:
    """Return the law of a name such as chinchilla, or of FILE.py:NAME.

    NAME is a law, or a function without arguments that returns one.

    Raises FileNotFoundError, or ValueError for a file that cannot be run and for a name
    that is no law.
    """
    file, _, name = text.rpartition(":")
    if not file.endswith(".py"):
        if text.endswith(".py"):
            raise ValueError(f"--law {text} names no law in the file; give {text}:NAME")
        return laws.named(text)
    if not Path(file).is_file():
        raise FileNotFoundError(f"there is no file {file}; give --law NAME or FILE.py:NAME")
    try:
        names = runpy.run_path(file, run_name=Path(file).stem)
        found = names.get(name)
        law = found() if callable(found) and not isinstance(found, Law) else found
    # Any exception is a mistake in the file, and so is a call of sys.exit.
    except (Exception, SystemExit) as error:
        raise ValueError(f"{file} cannot be run: {type(error).__name__}: {error}") from error
    if not isinstance(law, Law):
        found_laws = [key for key, value in names.items() if isinstance(value, Law)]
        raise ValueError(
            f"`{name}` in {file} must be a law; it is {type(law).__name__}. "
            f"The file's laws are: {', '.join(found_laws) or 'none'}"
        )
    return law
