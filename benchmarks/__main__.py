"""``python -m benchmarks [CASE ...] [--quick] [--json FILE]``.

Without a case, all of them. Exit code 0 whether goals are met or not, 1 when a correctness gate fails.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.registry import load_cases
from benchmarks.run import run_cases


def main(arguments: list[str] | None = None) -> int:
    """Run the cases named on the command line."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads would count as CPU time
    cases = load_cases()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("case", nargs="*", choices=[*cases, []], help=f"one of {', '.join(cases)}; none: all")
    parser.add_argument("--quick", action="store_true", help="small shapes, within two minutes on two cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    options = parser.parse_args(arguments)
    chosen = [cases[name] for name in options.case or cases]
    return run_cases(chosen, quick=options.quick, json_path=options.json)


if __name__ == "__main__":
    sys.exit(main())
