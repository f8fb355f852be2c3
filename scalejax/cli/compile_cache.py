"""A cache of compiled programs on disk, so that commands start faster."""

import os
from pathlib import Path


def enable() -> None:
    """Make jax store compiled programs in the user's cache folder.

    The program of a fit takes seconds to compile and 50 ms to load. Call this before
    jax is imported: jax reads the settings from environment variables, and worker
    processes inherit those. Settings that the user has made are kept.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scalejax" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.01")
