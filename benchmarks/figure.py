"""Draw the README's figure from a finished run: ``python -m benchmarks.figure RUN FILE.png``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from anndata import read_h5ad

from musegnn.analysis.figure import draw_figure


def main(run: str, file: str) -> None:
    """Draw one run."""
    folder = Path(run)
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    draw_figure(Path(file), read_h5ad(folder / "embeddings.h5ad"), evaluation, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
