"""The configuration: frozen, typed objects read from ``ATLAS.yaml``.

Everything that changes a result is here and is written to ``config.lock.yaml`` of the run. Unknown keys are
refused, so a typing mistake cannot become a silent default.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic.functional_validators import BeforeValidator

from musegnn.aliases import modality_name, species_name
from musegnn.data_store.location import path_or_url
from musegnn.removed_settings import REMOVED, without_switches
from musegnn.setting_errors import setting_error

if TYPE_CHECKING:
    from anndata import AnnData
    from pydantic import ModelWrapValidatorHandler

Modality = Literal["scrna", "scatac", "spatial"]
ShareKey = Literal["modality", "tissue", "species"]
DecoderKind = Literal["mlp", "inner", "signed", "pairwise"]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
IN_MEMORY = Path("<memory>")  # the `path` of a dataset whose counts are an AnnData object
SHOWN = 10


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    section: ClassVar[str] = ""

    def __init__(self, **settings: Any) -> None:  # whatever the fields of the section take
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise setting_error(error, type(self)) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # sections inside others are validated as before

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:  # as pydantic's, but for the error
        """Make the section from plain data; ``ConfigError`` E302 names what does not fit."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise setting_error(error, cls) from None

    @model_validator(mode="before")
    @classmethod
    def _drop_removed(cls, data: Any) -> Any:
        """Drop the settings of an earlier version that hold their default."""
        removed = REMOVED.get(cls.section, {})
        if not isinstance(data, dict) or removed.keys().isdisjoint(data):
            return data
        for key in removed.keys() & data.keys():
            default, instead = removed[key]
            if data[key] != default:
                msg = f"`{cls.section}.{key}` was removed and is accepted with {default!r} alone: {instead}"
                raise ValueError(msg)
        return {key: value for key, value in data.items() if key not in removed}


class DatasetConfig(_Section):
    """One dataset: a matrix of raw counts, cells x genes.

    Attributes
    ----------
    name, path
        Unique name of letters, digits, dots, dashes and underscores; its file, folder or URL.
        From Python `path` may be an AnnData object, which is then read in memory (`adata`).
    modality, tissue, species
        What was measured, where, and in which organism (``human``, ``mouse``, ...). Other usual words, such as ``rna``,
        ``Visium`` and ``Homo sapiens``, mean the same (:mod:`musegnn.aliases`).
    layer
        Where the raw counts are: ``None`` for ``X``, else a name in ``layers``, or ``raw`` for ``raw.X``.
    mod, transpose, annotation
        Modality of MuData (or genome of 10x version 2) where there are several; whether the matrix is genes x cells;
        GTF, GFF or BED file of genes, by which counts of peaks are summed.
    gene_id_key
        Column of ``var`` with gene identifiers, used where gene names are not unique; ``None`` for ``var_names``.
    gene_name_key
        Column of ``var`` with the names by which genes are matched; ``None``: ``var_names``, or, where these are
        Ensembl identifiers, the usual column of symbols if there is one.
    spatial_key, condition
        Entry of ``obsm`` with coordinates (spatial data only); free label, e.g. ``healthy``, carried into the results.
    by, stratum
        Column of ``obs``, such as ``cell_type``, and the one label of it whose cells are used. Without `stratum` every
        label becomes a dataset of its own, called ``NAME.LABEL``, with the label as `condition`.
    added
        Whether it is placed in the space of those before it, which are trained without it (`musegnn add`).
    """

    section: ClassVar[str] = "datasets"
    name: str = Field(pattern=NAME_PATTERN)
    path: Annotated[Path | str, BeforeValidator(path_or_url)]
    modality: Modality
    tissue: str = Field(min_length=1)
    species: str = Field(min_length=1)
    layer: str | None = None
    mod: str | None = None
    transpose: bool = False
    annotation: Path | None = None
    gene_id_key: str | None = None
    gene_name_key: str | None = None
    spatial_key: str = "spatial"
    condition: str | None = None
    by: str | None = None
    stratum: str | None = None
    added: bool = False
    _adata: Any = PrivateAttr(default=None)  # AnnData, which takes long to import

    @property
    def adata(self) -> AnnData | None:
        """The AnnData object that holds the counts, where they are in memory."""
        held: AnnData | None = self._adata
        return held

    @model_validator(mode="wrap")
    @classmethod
    def _hold_counts(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Keep an AnnData object given as `path` or `adata` beside the settings, which stay plain text."""
        adata = None
        if isinstance(data, dict):
            adata = next((data[key] for key in ("adata", "path") if hasattr(data.get(key), "obs_names")), None)
        if adata is None:
            return handler(data)
        dataset = handler({key: value for key, value in data.items() if key != "adata"} | {"path": IN_MEMORY})
        dataset._adata = adata
        return dataset

    @field_validator("modality", mode="before")
    @classmethod
    def _know_modality(cls, text: Any) -> Any:  # what the caller gave
        return modality_name(text) if isinstance(text, str) else text

    @field_validator("species")
    @classmethod
    def _know_species(cls, text: str) -> str:
        return species_name(text)

    @model_validator(mode="after")
    def _a_stratum_needs_a_column(self) -> Self:
        if self.stratum is not None and self.by is None:
            msg = "`stratum` needs `by`, the column of obs that holds it"
            raise ValueError(msg)
        return self


class QCConfig(_Section):
    """Which cells are used. All bounds are inclusive, ``None``: no bound; cells without counts are always dropped.

    Attributes
    ----------
    min_counts, min_genes, max_genes, max_mito
        Bounds on a cell's total count, its number of detected genes, and its share of mitochondrial counts.
    """

    section: ClassVar[str] = "graph.qc"
    min_counts: int = Field(default=1, ge=1)
    min_genes: int = Field(default=0, ge=0)
    max_genes: int | None = Field(default=None, ge=1)
    max_mito: float | None = Field(default=None, ge=0.0, le=1.0)


class EdgeConfig(_Section):
    """Which gene pairs are edges. Rules re-apply to the stored z without another pass over the counts.

    Attributes
    ----------
    rule
        What makes a pair an edge:

        * ``default``: Benjamini-Hochberg at ``fdr`` and the effect floor ``abs(z) >= 2.807 sqrt(max(1, n/3000))``:
          what the published rule finds with these n cells, or with 3000 of them where there are more. Where that
          leaves edges, but fewer than two per gene, the strongest pairs with p below 0.005 fill up to two;
        * ``pvalue``: two-sided p below ``p_value``, as published;
        * ``bh``, ``by``: false discovery rate alone;
        * ``top_k``: of those of ``bh``, the ``degree`` strongest of each gene; hubs may have more (see `max_degree`);
        * ``min_abs_est``: of those of ``bh``, the pairs whose estimate is at least ``min_abs_est`` in magnitude, in
          (0, 1]. Genes with a negative variance estimate have no estimate and so no edges: most of binarised scATAC;
        * ``shared_axes``: of the stored pairs, those that the leading axes of all z explain best, ``degree`` per gene
          on average (for scATAC, where single pairs are weak; see ``docs/coexpression.md``).
    degree
        Edges per gene of ``top_k`` and ``shared_axes``; ``None``: 50 and 10.
    sign
        ``both``, or ``positive`` to drop negative edges.
    max_degree
        Largest number of edges per gene, the strongest first (an edge stays when either end keeps it); ``None``: all.
    """

    section: ClassVar[str] = "edges"
    rule: Literal["default", "pvalue", "bh", "by", "top_k", "min_abs_est", "shared_axes"] = "default"
    fdr: float = Field(default=0.05, gt=0.0, lt=1.0)
    p_value: float = Field(default=0.005, gt=0.0, lt=1.0)
    degree: int | None = Field(default=None, ge=1)
    min_abs_est: float = Field(default=0.1, gt=0.0, le=1.0)
    sign: Literal["both", "positive"] = "both"
    max_degree: int | None = Field(default=None, ge=1)


class GraphConfig(_Section):
    """How a co-expression graph is built from counts.

    Attributes
    ----------
    n_genes, min_cells
        Number of genes to select per dataset, and of cells in which a gene must be detected.
    selection
        ``auto``: ``svg`` for spatial data, else ``hvg``; ``hvg``: largest variance of the residuals of `residuals`;
        ``svg``: smallest SPARK-X p-value; ``all``: every gene in `min_cells` cells; ``list``: those of `genes`.
    genes
        Names or identifiers for ``selection: list``, or the path of a file with one per line. A dataset's missing genes
        are left out there and counted in a warning.
    select_by
        Which datasets choose genes together (:mod:`musegnn.coexpression.shared_selection`): each by itself
        (``dataset``), or those of one ``tissue`` and species; ``auto``: those of a tissue where there are several
        conditions, strata included, as these are there to be compared.
    drop_mitochondrial
        Leave mitochondrial genes out before depths are summed, as the method does.
    mitochondrial
        Names or identifiers of mitochondrial genes, or the path of a file with one per line, besides those that are
        known: symbols with ``MT-`` in any spelling, Ensembl identifiers of human and mouse, and genes that columns of
        ``var`` such as ``mt`` or ``chromosome`` mark.
    residuals
        Model behind residual variances and profiles: ``sctransform`` (v2) or ``pearson`` (analytic, theta 100).
    covariates
        Columns of ``obs`` with numbers that SPARK-X takes out of the coordinates.
    z_store
        Smallest ``abs(z)`` of the pairs that are stored.
    profile_rank
        Number of leading directions to which residual profiles are compressed, for many genes; ``None``: compressed
        without loss to at most as many columns as genes.
    seed
        Seed of the genes that sctransform fits one by one, where there are more than 2000, and of the compression.
    """

    section: ClassVar[str] = "graph"
    n_genes: int = Field(default=1000, ge=2)
    selection: Literal["auto", "hvg", "svg", "all", "list"] = "auto"
    genes: tuple[str, ...] | Path | None = None
    select_by: Literal["auto", "dataset", "tissue"] = "auto"
    min_cells: int = Field(default=5, ge=1)
    drop_mitochondrial: bool = True
    mitochondrial: tuple[str, ...] | Path | None = None
    residuals: Literal["sctransform", "pearson"] = "sctransform"
    covariates: tuple[str, ...] = ()
    z_store: float = Field(default=1.96, ge=0.0)
    profile_rank: int | None = Field(default=None, ge=2)
    seed: int = 0
    qc: QCConfig = QCConfig()

    @model_validator(mode="before")
    @classmethod
    def _read_earlier_profile(cls, data: Any) -> Any:
        """Read files of earlier versions, where `profile_rank` only counted with ``profile: randomized``."""
        if not isinstance(data, dict) or data.get("profile") not in ("gram", "randomized"):
            return data
        rank = data.get("profile_rank", 256) if data["profile"] == "randomized" else None
        return {key: value for key, value in data.items() if key != "profile"} | {"profile_rank": rank}

    @model_validator(mode="after")
    def _a_list_goes_with_its_selection(self) -> Self:
        if (self.selection == "list") != (self.genes is not None):
            msg = "`genes` and `selection: list` need each other"
            raise ValueError(msg)
        return self


class ModelConfig(_Section):
    """The encoder and the decoder.

    Attributes
    ----------
    dim
        Dimension of the embedding.
    embedding
        What a gene's vector is made of:

        * ``maps``: two linear maps side by side, half of `dim` each, as unit vectors: one of each dataset from its
          residual profile (generalised canonical correlation with the other datasets), and one that all datasets share
          from the gene's co-expression with anchor genes (a discriminant). Both are in closed form
          (:mod:`musegnn.training.initialize`); an `encoder` adds a correction to them.
        * ``layers``: what the `encoder` makes of the residual profile, as published.
    heads_dataset, heads_shared, head_dim
        Attention heads of the dataset layer and of the first shared layer; width of each head, which divides `dim`
        (``None``: the largest divisor of `dim` that is at most 32).
    encoder
        ``transformer``: the layers of the method; ``none``: the maps alone.
    edge_features
        Use the estimate and the scaled z in attention; off reproduces the published binary graphs.
    share_by
        Which datasets share the modality layers: those that agree in all of these.
    decoder
        ``mlp``: rows of ``z z'`` through a three-layer perceptron, as published, with 3 N^2 weights per dataset;
        ``inner``: a scaled inner product; ``signed``: a quadratic of the inner product, for edges of both signs;
        ``pairwise``: a small perceptron on the products of two genes' vectors, for more than about 4000 genes (with
        ``training.pairs``).
    feature_dropout
        Dropout on node features while training: entries of the profile, whole anchor genes of the relations.
    """

    section: ClassVar[str] = "model"
    dim: int = Field(default=96, ge=2)
    embedding: Literal["maps", "layers"] = "maps"
    heads_dataset: int = Field(default=4, ge=1)
    heads_shared: int = Field(default=2, ge=1)
    head_dim: int | None = Field(default=None, ge=1)
    encoder: Literal["transformer", "none"] = "none"
    edge_features: bool = True
    share_by: tuple[ShareKey, ...] = ("modality",)
    decoder: DecoderKind = "signed"
    feature_dropout: Probability = 0.5

    @property
    def head_width(self) -> int:
        """Width of each attention head."""
        return self.head_dim or max(width for width in range(1, 33) if self.dim % width == 0)

    @property
    def edge_dim(self) -> int | None:
        """Edge features of the layers: the estimate and the scaled z, or none."""
        return 2 if self.edge_features else None

    @property
    def has_maps(self) -> bool:
        """Whether vectors are made of the two maps."""
        return self.embedding == "maps"

    @property
    def is_closed_form(self) -> bool:
        """Whether maps, without layers, and decoder have closed forms."""
        return self.has_maps and self.encoder == "none" and self.decoder in ("signed", "inner")

    @property
    def shared_width(self) -> int:
        """Columns of the map that all datasets share; 0 without maps."""
        return self.dim // 2 if self.has_maps else 0

    @property
    def projected_width(self) -> int:
        """Columns of the shared map before each dataset's alignment: of two ridges, of which `shared_width` remain."""
        return 2 * self.shared_width

    @property
    def own_width(self) -> int:
        """Columns of the map of each dataset; 0 without maps."""
        return self.dim - self.shared_width if self.has_maps else 0

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.dim % self.head_width:
            msg = f"`head_dim` must divide `dim`, got {self.head_width} and {self.dim}"
            raise ValueError(msg)
        if self.encoder == "none" and not self.has_maps:
            msg = "`encoder: none` leaves no embedding with `embedding: layers`"
            raise ValueError(msg)
        return self


class LossConfig(_Section):
    """Weights and settings of the losses.

    Attributes
    ----------
    reconstruction, similarity, contrast, alignment
        Weights of: edge reconstruction (BCE); weighted cosine of shared genes; contrast of the other genes with a
        positive neighbour each; contrast of shared genes between the two datasets (0 in the published method).
    temperature, n_contrast
        Temperature of both contrasts; genes drawn per dataset and round for the first.
    """

    section: ClassVar[str] = "training.loss"
    reconstruction: float = Field(default=0.1, ge=0.0)
    similarity: float = Field(default=1.0, ge=0.0)
    contrast: float = Field(default=0.01, ge=0.0)
    alignment: float = Field(default=1.0, ge=0.0)
    temperature: float = Field(default=0.07, gt=0.0)
    n_contrast: int = Field(default=100, ge=1)


class PublishedSwitches(_Section):
    """What the published code does otherwise and no other setting says; see ``PUBLISHED``.

    Attributes
    ----------
    sequential
        One step per dataset in the listed order, each with a partner drawn on its own; else every module steps once
        per round, on gradients summed over datasets.
    false_negatives, diagonal
        Leave true positive neighbours and repeats of a gene among the negatives of the contrast; count each gene's pair
        with itself as a non-edge of the reconstruction.
    """

    section: ClassVar[str] = "training.published"
    sequential: bool = False
    false_negatives: bool = False
    diagonal: bool = False


class TrainingConfig(_Section):
    """The rounds.

    Attributes
    ----------
    rounds
        Number of rounds of gradient descent, in each of which every dataset is once the subject (an epoch); 0: vectors
        are those of the maps in closed form.
    lr_dataset, lr_shared, lr_decoder
        Adam learning rates of dataset layers, shared modules and decoders.
    seed
        Seed of weights, partners and draws.
    checkpoint_every
        Rounds between checkpoints.
    device
        Where to train and evaluate; ``auto``: CUDA where this machine, or the cluster, has GPUs. Bits repeat on CPUs.
    threads
        Torch threads per dataset, of which four at a time are computed where cores allow. May change the last bit.
    row_block, pairs
        What is decoded per dataset in a round; ``None``: all. `row_block`: rows of the graph, in turns, each once in
        N / `row_block` rounds; `pairs`: so many edges and as many non-edges, not for ``mlp``. The loss is an
        unbiased estimate of that of all rows or pairs.
    round_size
        Number of datasets that take part in a round, in turns, compared among themselves; ``None``: all.
    recompute
        Encode again for the backward pass instead of keeping intermediate results: less memory, more time, bitwise
        identical results.
    """

    section: ClassVar[str] = "training"
    rounds: int = Field(default=0, ge=0)
    lr_dataset: float = Field(default=1e-4, gt=0.0)
    lr_shared: float = Field(default=3e-4, gt=0.0)
    lr_decoder: float = Field(default=1e-3, gt=0.0)
    seed: int = 0
    checkpoint_every: int = Field(default=10, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1)
    row_block: int | None = Field(default=None, ge=1)
    pairs: int | None = Field(default=None, ge=1)
    round_size: int | None = Field(default=None, ge=2)
    recompute: bool = False
    loss: LossConfig = LossConfig()
    published: PublishedSwitches = PublishedSwitches()

    @model_validator(mode="after")
    def _one_way_to_sample(self) -> Self:
        if self.row_block is not None and self.pairs is not None:
            msg = "`row_block` and `pairs` are two ways to decode a part: choose one"
            raise ValueError(msg)
        if self.pairs is not None and self.published.diagonal:
            msg = "`pairs` never draws the diagonal"
            raise ValueError(msg)
        return self


class EvaluationConfig(_Section):
    """What is held out.

    Attributes
    ----------
    holdout_edges, holdout_genes
        Share of each graph's edges hidden from training, with as many degree-matched non-edges; share of genes, chosen
        once for all datasets, that take no part in similarity, contrast and alignment.
    seed
        Seed of the hold-outs; kept apart from the training seed so that seeds are compared on one task.
    """

    section: ClassVar[str] = "evaluation"
    holdout_edges: Probability = 0.05
    holdout_genes: Probability = 0.2
    seed: int = 0


PUBLISHED: dict[str, Any] = {
    "edges": {"rule": "pvalue"},
    "model": {
        "dim": 32,
        "embedding": "layers",
        "encoder": "transformer",
        "edge_features": False,
        "share_by": ["modality", "tissue"],
        "decoder": "mlp",
        "feature_dropout": 0.0,
    },
    "training": {
        "rounds": 2000,
        "lr_dataset": 1e-4,
        "lr_shared": 1e-4,
        "lr_decoder": 1e-3,
        "loss": {"reconstruction": 1.0, "similarity": 1.0, "contrast": 0.01, "alignment": 0.0},
        "published": {"sequential": True, "false_negatives": True},
    },
}
"""The settings of the published code, but for its self-loops."""


class AtlasConfig(_Section):
    """A whole atlas: datasets and settings, as read from ``ATLAS.yaml``.

    Attributes
    ----------
    datasets
        The datasets, in the order that the published code's steps follow.
    orthologs
        CSV with one column of gene names per species; genes of one row count as the same gene. Without it datasets of
        different species share no genes.
    published
        Take what is not set here from the published recipe ``PUBLISHED`` instead of this project's defaults.
    """

    published: bool = False
    datasets: tuple[DatasetConfig, ...] = Field(min_length=1)
    orthologs: Path | None = None
    graph: GraphConfig = GraphConfig()
    edges: EdgeConfig = EdgeConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _take_from_the_recipe(cls, data: Any) -> Any:  # what the caller gave
        if not isinstance(data, dict) or data.get("published") is not True:
            return data
        return _under(without_switches(data), PUBLISHED)

    @field_validator("datasets")
    @classmethod
    def _names_are_unique(cls, datasets: tuple[DatasetConfig, ...]) -> tuple[DatasetConfig, ...]:
        names = [d.name for d in datasets]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            msg = f"dataset names must be unique, got twice: {', '.join(twice)}"
            raise ValueError(msg)
        return datasets

    @model_validator(mode="after")
    def _all_parts_can_be_fitted(self) -> Self:
        kind, training, added = self.model.decoder, self.training, [d.added for d in self.datasets]
        if training.pairs is not None and kind == "mlp":
            msg = "the `mlp` decoder scores whole rows: use `training.row_block`, or another `model.decoder`"
            raise ValueError(msg)
        if training.rounds == 0 and kind in ("mlp", "pairwise"):
            msg = f"rounds fit the `{kind}` decoder: set `training.rounds`, or `model.decoder` to signed or inner"
            raise ValueError(msg)
        if any(added) and (added[0] or added != sorted(added) or not self.model.is_closed_form):
            msg = "`added` needs datasets without it before, `model.encoder: none` and a `signed` or `inner` decoder"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _z_store_serves_the_rule(self) -> Self:
        if self.edges.rule == "pvalue" and -NormalDist().inv_cdf(0.5 * self.edges.p_value) < self.graph.z_store:
            msg = f"edges.p_value={self.edges.p_value} needs pairs below graph.z_store={self.graph.z_store}"
            raise ValueError(msg)
        return self

    def __repr__(self) -> str:
        lines = [f"AtlasConfig: {len(self.datasets)} datasets"]
        for d in self.datasets[:SHOWN]:
            place = "in memory" if d.path == IN_MEMORY else str(d.path)
            lines.append(f"  {d.name}: {d.modality}, {d.tissue}, {d.species}; {place}")
        if len(self.datasets) > SHOWN:
            lines.append(f"  and {len(self.datasets) - SHOWN} more")
        changed = _changed(self.model_dump(exclude={"datasets"}, exclude_defaults=True))
        return "\n".join([*lines, "  settings: " + (", ".join(changed) or "defaults")])

    __str__ = __repr__

    def to_yaml(self) -> str:
        """Write the complete configuration, defaults included, as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _changed(settings: dict[str, Any], prefix: str = "") -> list[str]:
    """Return settings as ``section.name=value``."""
    lines = []
    for key, value in settings.items():
        lines += _changed(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}={value}"]
    return lines


def _under(data: dict[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
    """Return settings with those of a recipe where they say nothing."""
    result = dict(data)
    for key, value in recipe.items():
        if key not in result:
            result[key] = deepcopy(value)
        elif isinstance(value, dict) and isinstance(result[key], dict):
            result[key] = _under(result[key], value)
    return result
