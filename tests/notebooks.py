"""Execute the notebooks of the documentation and store their outputs: ``python -m tests.notebooks [NOTEBOOK ...]``.

The outputs that readers see are those of this machine and these versions; `test_notebooks.py` executes them again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.count import ROOT

FOLDER = ROOT / "docs" / "notebooks"
TIMEOUT = 1200  # seconds for a cell


def execute(path: Path, cwd: Path = FOLDER) -> object:
    """Return the notebook with the outputs of its cells; an error in one is raised."""
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(path, as_version=4)
    client = NotebookClient(
        book, timeout=TIMEOUT, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(cwd)}}
    )
    client.execute()
    return book


def main(paths: list[Path]) -> None:
    """Execute notebooks and write them with their outputs."""
    import nbformat

    for path in paths:
        book = execute(path)
        book["metadata"] = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
        nbformat.write(book, path)
        print(f"{path}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")))
