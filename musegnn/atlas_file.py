"""Read ``ATLAS.yaml`` strictly, or the same from Python.

There are no aliases, tags or repeated keys in the file; ``yes``, ``no``, ``on`` and ``off`` are text.
"""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from musegnn.config import AtlasConfig, GraphConfig
from musegnn.dataset_entries import SHEETS, expand_path, list_datasets
from musegnn.errors import ConfigError
from musegnn.text import one_line, read_text

MAX_YAML_BYTES = 1_000_000


class _StrictLoader(yaml.SafeLoader):
    """YAML without aliases, and with ``yes``, ``no``, ``on`` and ``off`` left as text."""

    def compose_node(self, parent: Any, index: Any) -> Any:  # PyYAML publishes no types for its nodes
        if self.check_event(yaml.events.AliasEvent):
            msg = "aliases (*name) are not allowed"
            raise ConfigError(msg, code="E301", where="YAML", fix="write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  as inherited
        keys = [key.value for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"repeated key {twice[0]!r}", node.start_mark)
        return super().construct_mapping(node, deep=deep)


_StrictLoader.yaml_implicit_resolvers = {
    letter: [(tag, regexp) for tag, regexp in rules if tag != "tag:yaml.org,2002:bool"]
    for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))


def load_atlas(path: Path | str, overrides: dict[str, Any] | None = None) -> AtlasConfig:
    """Return the configuration in ``ATLAS.yaml``, or of a sample sheet (CSV or TSV), with absolute paths.

    Dotted settings such as ``{"training.rounds": 20}`` in `overrides` replace those of the file.

    Raises
    ------
    ConfigError
        E300 to E302, when the file is missing, too large, not YAML, or does not fit the configuration.
    """
    path = Path(path)
    if not path.is_file():
        msg = "there is no such file"
        raise ConfigError(msg, code="E300", where=str(path), fix="name an atlas file such as examples/atlas/atlas.yaml")
    raw = path.read_bytes()
    if len(raw) > MAX_YAML_BYTES:
        msg = f"expected at most {MAX_YAML_BYTES} bytes, got {len(raw)}"
        raise ConfigError(msg, code="E301", where=str(path), fix="move long lists into files of their own")
    if path.suffix.casefold() in SHEETS:
        data: Any = {"datasets": path.resolve()}
    else:
        data = parse_yaml(raw, where=str(path))
    if not isinstance(data, dict):
        msg = "expected a mapping with the key `datasets`"
        raise ConfigError(msg, code="E302", where=str(path), fix="see examples/atlas/atlas.yaml")
    return _finish(apply_overrides(data, overrides or {}), path.resolve().parent, where=str(path))


def atlas(datasets: Any, *, base: Path | str = ".", **settings: Any) -> AtlasConfig:  # see the docstring
    """Describe an atlas in Python: AnnData objects, paths and settings, mixed.

    Parameters
    ----------
    datasets
        Mapping of names to datasets, list of datasets, path of a sample sheet, or a whole atlas as the file
        ``ATLAS.yaml`` has it, with the key ``datasets``. A dataset is an AnnData object, a path, or a mapping of
        settings (:class:`musegnn.config.DatasetConfig`) in which `path` is either.
    base
        Folder to which paths are relative.
    settings
        Settings of all datasets that say nothing else (``modality="scrna"``), and sections of the atlas
        (``graph={"n_genes": 2000}``, ``orthologs="orthologs.csv"``).

    Raises
    ------
    ConfigError
        E300 and E302, when paths or settings do not fit.

    Examples
    --------
    >>> found = atlas({"a": "a.h5ad", "b": {"path": "b.h5ad", "tissue": "liver"}}, modality="RNA", tissue="lung",
    ...               species="Homo sapiens", graph={"n_genes": 500})
    >>> [(d.name, d.modality, d.tissue, d.species) for d in found.datasets], found.graph.n_genes
    ([('a', 'scrna', 'lung', 'human'), ('b', 'scrna', 'liver', 'human')], 500)
    """
    whole = isinstance(datasets, dict) and "datasets" in datasets
    data: dict[str, Any] = dict(datasets) if whole else {"datasets": datasets}
    sections = AtlasConfig.model_fields.keys() | {"defaults"}
    own = {key: value for key, value in settings.items() if key not in sections}
    data |= {key: value for key, value in settings.items() if key in sections}
    data["defaults"] = (data.get("defaults") or {}) | own
    return _finish(data, Path(base).resolve(), where="atlas")


def parse_yaml(raw: bytes, *, where: str) -> Any:  # any YAML value
    """Read YAML without aliases, tags, repeated keys and words that turn into booleans; anything else is E301."""
    try:
        return yaml.load(raw, Loader=_StrictLoader)  # noqa: S506  a SafeLoader with fewer features
    except yaml.YAMLError as error:
        msg = f"not valid YAML ({one_line(error)})"
        raise ConfigError(msg, code="E301", where=where, fix="correct the line named") from None


def validate_atlas(data: dict[str, Any], *, where: str) -> AtlasConfig:
    """Turn plain data into a configuration; the error E302 names the settings that do not fit."""
    try:
        return AtlasConfig.model_validate(data)
    except ConfigError as error:
        raise ConfigError(error.message, code=error.code, where=where, fix=error.fix) from None


def apply_overrides(data: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of plain configuration data with dotted settings replaced."""
    copy = deepcopy(data)
    for dotted, value in overrides.items():
        _set_dotted(copy, dotted, value)
    return copy


def _set_dotted(data: dict[str, Any], dotted: str, value: object) -> None:
    *parents, last = dotted.split(".")
    node = data
    for key in parents:
        child = node.setdefault(key, {})
        if not isinstance(child, dict):
            msg = f"`{dotted}`: `{key}` is not a section"
            raise ConfigError(msg, code="E302", fix="use section.setting=value")
        node = child
    node[last] = value


def _finish(data: dict[str, Any], base: Path, *, where: str) -> AtlasConfig:
    """Return the configuration with all datasets written out and absolute paths."""
    found = validate_atlas(list_datasets(data, base, where=where), where=where)
    orthologs = expand_path(found.orthologs, base) if found.orthologs is not None else None
    return found.model_copy(update={"orthologs": orthologs, "graph": read_lists(found.graph, base)})


def read_lists(graph: GraphConfig, base: Path = Path()) -> GraphConfig:
    """Return the settings with the names in place of paths of gene lists, which are relative to `base`."""
    lists = {"genes": graph.genes, "mitochondrial": graph.mitochondrial}
    read = {name: read_genes(expand_path(path, base)) for name, path in lists.items() if isinstance(path, Path)}
    return graph.model_copy(update=read)


def read_genes(path: Path) -> tuple[str, ...]:
    """Read a gene list, one name or identifier per line or first in it, so that the configuration holds the names."""
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the gene list cannot be read ({one_line(error)})"
        raise ConfigError(msg, code="E300", where=str(path), fix="name a text file with one gene per line") from None
    names = [
        re.split(r"[,;\t]", line, maxsplit=1)[0].strip().strip("\"'") for line in lines if not line.startswith("#")
    ]
    return tuple(name for name in names if name)
