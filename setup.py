"""Map the top-level folders onto one import namespace, ``musegnn``.

``kernels``, ``cluster`` and ``data_store`` stay folders at the top of the repository and are
installed as ``musegnn.kernels``, ``musegnn.cluster`` and ``musegnn.data_store``: a top-level package
called ``kernels`` would collide with a published distribution. Metadata is in pyproject.toml.
"""

from pathlib import Path

from setuptools import setup

ROOTS = {
    "musegnn": "musegnn",
    "musegnn.kernels": "kernels",
    "musegnn.cluster": "cluster",
    "musegnn.data_store": "data_store",
}


def find_packages(name: str, folder: str) -> list[str]:
    """Name every package below one root folder."""
    here = Path(__file__).parent / folder
    inits = sorted(here.rglob("__init__.py"))
    return [".".join([name, *init.parent.relative_to(here).parts]) for init in inits]


setup(
    packages=[package for root in ROOTS.items() for package in find_packages(*root)],
    package_dir=ROOTS,
    package_data={
        "musegnn": ["py.typed", "analysis/report/assets/*"],
        "musegnn.data_store": ["FORMAT.md", "genes.tsv"],
    },
)
