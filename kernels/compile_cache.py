"""Where numba keeps the compiled kernels, on machines that let neither the installation nor the home be written."""

from __future__ import annotations

import importlib.util
import logging
import os
import stat
import sys
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)

VARIABLE = "NUMBA_CACHE_DIR"


def ensure_cache() -> str | None:
    """Name a temporary folder in ``NUMBA_CACHE_DIR`` where numba would find none, which it takes as an error.

    Called before the first kernel is imported. Processes started later inherit the variable.

    Returns
    -------
    str or None
        The temporary folder, also where an earlier process named it; ``None`` where numba has a lasting place.
    """
    temporary = Path(tempfile.gettempdir()) / f"musegnn-numba-{os.getuid()}" if hasattr(os, "getuid") else None
    named = os.environ.get(VARIABLE)
    if temporary is None or _has_place(named):
        return named if named and Path(named).parent == Path(tempfile.gettempdir()) else None
    folder = str(temporary) if _make_private(temporary) else tempfile.mkdtemp(prefix="musegnn-numba-")
    os.environ[VARIABLE] = folder
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = folder
    logger.warning(
        "W311: neither the installation nor the home can be written, so compiled kernels are kept in %s; "
        "name a lasting folder in %s",
        folder,
        VARIABLE,
    )
    return folder


def _has_place(named: str | None) -> bool:
    """Return whether numba can write to the folder named, to the user's cache, or beside all compiled functions."""
    if named:
        return _is_writable(Path(named))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "numba")
    if sys.platform == "darwin":
        cache = Path("~/Library/Caches/numba").expanduser()
    if _is_writable(cache):
        return True
    # Libraries of compiled functions, such as pynndescent, lie beside numba.
    numba = importlib.util.find_spec("numba")
    folders = [
        *Path(__file__).parent.glob("*/impl"),
        *([Path(numba.origin).parent.parent] if numba and numba.origin else []),
    ]
    return all(_is_writable(folder / "__pycache__") for folder in folders)


def _is_writable(folder: Path) -> bool:
    """Return whether a folder is writable, or can be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _make_private(folder: Path) -> bool:
    """Make a folder of this user alone, and return whether it is one: code is loaded from it."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
