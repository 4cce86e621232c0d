"""What every code of an error or warning means. ``python -m musegnn.error_codes > docs/errors.md`` writes the page."""

from __future__ import annotations

from dataclasses import dataclass

# code | class, or WARNING | meaning | what to do
_TABLE = """
E101 | InputError | The HDF5 library crashes on a file, does not end, or takes too much memory. | Copy or write it anew.
E102 | InputError | The structure of a file is malformed. | Write the file anew from its source.
E105 | InputError | A part of a file or folder lies in another one. | Write the data itself into the file.
E110 | InputError | A name cannot be that of a dataset. | Use letters, digits, dots, dashes and underscores.
E120 | InputError | An array declares far more data than the file holds. | Write the file anew from its source.
E130 | StoreError | A reference, manifest or FORMAT.json of the store is missing or damaged. | Restore it from a copy.
E131 | StoreError | A file of a stored dataset is damaged. | Restore it from a copy, or build the dataset again.
E132 | StoreError | A file of a stored dataset is missing. | Restore it from a copy, or build the dataset again.
E133 | StoreError | A repair found no whole copy of what is damaged. | Give a copy of this store, or build it again.
E134 | StoreError | zarr lays arrays out otherwise than the format says. | Report this with the version of zarr.
E140 | WriteError | The disk or a quota is full. | Free space and run the same command again.
E141 | OSError | The system refuses to read or write a file. | Check the path, space and permissions.
E201 | InputError | Many values are fractions, as in normalised data. | Name the layer of raw counts.
E202 | InputError | Some values are fractions. | Round the counts.
E203 | InputError | Values are negative, as in scaled data. | Name the layer of raw counts.
E204 | InputError | Values are NaN or infinite. | Name the layer of raw counts.
E206 | InputError | Values lie above 2^24. | Check the counts: no cell holds so many copies of a gene.
E207 | InputError | Every count is zero. | Name the layer of raw counts.
E210 | InputError | Gene names occur more than once. | Set `gene_id_key`, or make the names unique.
E211 | InputError | Datasets of one species name genes by Ensembl identifiers and by symbols. | Use one kind of names.
E212 | InputError | An Ensembl identifier occurs in several versions. | Keep one row per gene.
E213 | InputError | A matrix holds genes of several genomes. | Split the file by genome.
E214 | InputError | Gene identifiers belong to another species than declared. | Correct `species`.
E215 | InputError | Datasets of one species spell the names of genes differently. | Spell them alike in all files.
E216 | InputError | The matrix is genes x cells. | Set `transpose: true`.
E218 | InputError | No column is a gene, but a peak or another feature. | Give gene expression or activities.
E219 | InputError | Gene names are numbers of rows, beside a column of identifiers. | Set `gene_id_key`.
E220 | InputError | There is no matrix of this name in the file. | Set `layer` to one of those listed.
E221 | InputError | There is no matrix X, and several others could be meant. | Set `layer` to one of those listed.
E222 | InputError | A file holds several modalities, tables or genomes. | Set `mod` to one of those listed.
E226 | InputError | A matrix by columns does not fit into memory. | Write the file with adata.X = adata.X.tocsr().
E230 | InputError | There is no such file, or no format that is read. | Correct `path`, or see docs/inputs.md.
E231 | InputError | A file is truncated or damaged. | Copy or download the file again.
E232 | InputError | A scratch file of split counts is damaged or missing. | Run the same command again.
E233 | InputError | Files of a matrix are missing, or several could be meant. | Keep those of a sample in one folder.
E234 | InputError | Sizes of a text matrix and its tables or lines differ. | Copy all files of one run again.
E235 | InputError | A line of a text matrix is no count of the kind that its header says. | Correct the line or header.
E237 | InputError | Another program has a file open for writing. | Close it there, or copy the file.
E238 | InputError | A filter of HDF5 is not installed. | pip install hdf5plugin.
E236 | InputError | An annotation of genes is of no use for these columns. | Give that of the genome of the peaks.
E240 | InputError | A name is not UTF-8. | Write the names as UTF-8.
E241 | InputError | A name holds a NUL character. | Correct the name.
E251 | InputError | There are too few cells for co-expression. | Leave the dataset out, or merge it with its replicates.
E252 | InputError | Two datasets hold the same cells or the same graph. | Leave one of the two out.
E253 | InputError | Too few genes are detected. | Lower graph.min_cells, or leave the dataset out.
E254 | InputError | qc.max_mito is set, but no gene is mitochondrial. | List such in graph.mitochondrial.
E255 | InputError | A column that the atlas file names is not in the file. | Name one of the columns listed.
E256 | InputError | A column does not group cells. | Name a column of labels.
E257 | InputError | A label cannot become part of a dataset name. | Rename the labels with letters and digits.
E258 | InputError | A dataset shares too few genes with the run that it is added to. | Check names of genes and species.
E260 | InputError | Coordinates of cells are missing or unusable. | Set `spatial_key`, or correct the coordinates.
E261 | InputError | Slides lie over one another in one coordinate system. | Make each slide a dataset of its own.
E262 | InputError | No spot is under tissue. | Correct or remove obs["in_tissue"].
E263 | InputError | A covariate is not numeric. | Name columns of obs with numbers.
E270 | NoEdgesError | An edge rule leaves a graph without edges. | Use a looser rule, more genes or more cells.
E271 | InputError | A function in memory was asked for too many genes. | Choose fewer with `genes`.
E272 | GraphError | An edge rule needs pairs that are not stored. | Use a stricter rule, or lower graph.z_store.
E273 | GraphError | Fewer than two genes can be selected. | Check graph.genes and the limits of quality control.
E275 | GraphError | Tasks of a build left no result. | Give a folder that all workers share, and run it again.
E276 | GraphError | Workers of the dask cluster died. | Give less --memory or fewer workers, and run it again.
E279 | InputError | The gene sets cannot be read. | Name a .gmt file.
E280 | InputError | A server refuses a file, or does not answer. | Check the URL and credentials, or download the file.
E290 | StoreError, RunError | The format version is not one that this program reads. | Update musegnn, or train again.
E291 | InputError | A file changed while it was read. | Start again when nothing writes it.
E292 | WriteError | A file cannot be written in this place. | Choose a folder that is writable.
E293 | StoreError, RunError | The folder holds something else than was asked for. | Name another folder.
E294 | StoreNotFoundError | There is no such store or dataset. | Build it, or see `musegnn store ls`.
E300 | ConfigError | The atlas file or gene list is missing or cannot be read. | Correct the path.
E301 | ConfigError | The atlas file is too large or not strict YAML. | Correct the line named.
E302 | ConfigError, InputError | A setting or option is unknown, or its value not allowed. | Correct the setting named.
E303 | ConfigError | Two settings or options contradict each other. | Change one of the two.
E304 | ConfigError | A species is not in the table of orthologs. | Spell `species` as in the table.
E305 | ConfigError | No cluster answers at this address. | Check the address, and that it runs.
E306 | ConfigError | The table of orthologs cannot be read. | Give a CSV with a header such as human,mouse.
E307 | ConfigError | The labels of a stored dataset differ from the atlas file. | Correct one of the two.
E308 | ConfigError | The device asked for, or enough of them, is not there. | Take another device or fewer actors.
E309 | ConfigError | Two processes use one GPU. | Start fewer processes, or bind each to its own GPU.
E310 | ConfigError | The memory does not suffice to build the graphs. | Give more --memory, or choose fewer genes.
E311 | ConfigError | A work folder holds files of another build. | Give each build an empty `work` folder.
E401 | RunError | This is not a run folder. | Name the folder given to --out.
E402 | RunError | The checkpoint belongs to other data or settings. | Use the store and configuration of the run.
E403 | CheckpointDamagedError | A checkpoint is damaged. | Train again into another folder if no older one is left.
E404 | RunError | The folder holds checkpoints of an earlier training. | Resume it, or choose another folder.
E405 | RunError | The run has not made this yet. | Finish it with the command that started it.
E406 | RunError | The embeddings are older than the newest checkpoint. | Finish the run.
E409 | RunError | status.json of a run is damaged. | Delete it; a running training writes it again.
E410 | NotFiniteError | A loss or gradient is not finite. | Lower the learning rates, or leave the dataset out.
E411 | RunError | The memory does not suffice to train. | Give more --memory, or change the settings named.
E412 | RunError | The vectors of a run are not made of maps alone, so that no dataset can be added. | Train it anew.
E413 | RunError | A run has a dataset of this name already. | Give another name.
E420 | InputError | There is no vector of this gene. | Choose one of the genes or datasets named.
E430 | MissingDependencyError | An optional package is not installed. | Install it as said.
E441 | PeerLostError | Another process of the training was lost. | Look for the error of the process that failed first.
E442 | RunError | Too few actors became ready. | See Ray's logs, or ask for fewer actors.
E443 | RunError | Several actors failed on the same dataset. | See the last failure, or leave the dataset out.
E444 | RunError | Newer processes have taken over this run. | Nothing: they go on with it.
E445 | RunError | Ray does not start on this machine. | Run it again, or give Ray more time to start.
E446 | RunError | Hosts differ in data, settings, versions or clock. | Make the host named like the others.
E447 | RunError | Two hosts of a cluster do not reach each other. | Open all TCP ports between the hosts.
E448 | RunError | A host does not see the files that the command sees. | Mount one shared folder under one path.
W205 | WARNING | All cells have the same number of counts. | Check that these are raw counts.
W208 | WARNING | Copies of genes on Y (PAR_Y) were added to their genes. | Nothing.
W209 | WARNING | Version suffixes of Ensembl identifiers were stripped. | Nothing.
W210 | WARNING | Repeated gene names, or numbers of rows, were replaced by identifiers. | Nothing.
W211 | WARNING | Gene names look like dates made by a spreadsheet. | Correct the names.
W212 | WARNING | Gene names start or end with a space. | Correct the names.
W213 | WARNING | The prefix of a genome was removed from gene names. | Nothing.
W214 | WARNING | The case of gene symbols is that of another species. | Check `species`.
W215 | WARNING | Two datasets share few genes, or none. | Check the names of genes.
W216 | WARNING | Gene names that join a symbol and an identifier were split. | Nothing.
W217 | WARNING | The matrix holds a part of the genes of raw, so that depths miss the others. | Set `layer: raw`.
W218 | WARNING | Columns that are not genes were left out. | Nothing.
W219 | WARNING | Genes are named by a column of symbols, as the index holds Ensembl identifiers. | Nothing.
W220 | WARNING | Two datasets spell the names of many genes differently. | Spell them alike in all files.
W221 | WARNING | Gene names are numbers of rows. | Write the names of genes into the file.
W222 | WARNING | Gene names lost first letters, as `str.lstrip` takes characters, not a prefix. | Restore the names.
W223 | WARNING | Genes of two datasets have the same names and other identifiers. | Check the names of genes.
W224 | WARNING | Counts of a dataset of the run are gone, so that the new one is not compared with them. | Nothing.
W226 | WARNING | The matrix is stored by columns, which takes longer. | Write the file with adata.X = adata.X.tocsr().
W229 | WARNING | Cells without counts were dropped. | Nothing.
W230 | WARNING | Most genes have no counts. | Give the filtered matrix.
W236 | WARNING | Duplicate entries of the sparse matrix were summed. | Nothing.
W241 | WARNING | Columns without a gene name were left out. | Name the genes.
W242 | WARNING | Peaks that are near no gene were left out. | Nothing.
W250 | WARNING | The median cell has few counts. | Give the filtered matrix.
W251 | WARNING | Labels with too few cells were left out. | Name a coarser column.
W252 | WARNING | Cells without a label in the column of `by` were left out. | Label them, or nothing.
W253 | WARNING | Two datasets share some cells. | Leave these out of one of the two.
W254 | WARNING | Many genes have a negative variance estimate. | See docs/building.md.
W255 | WARNING | The variance estimates of CS-CORE did not converge. | Check the counts.
W256 | WARNING | Fewer genes than asked for can be selected. | Nothing, or lower graph.n_genes.
W257 | WARNING | Kernels of SPARK-X were left out for these coordinates. | Check the coordinates.
W258 | WARNING | Edges were filled up with pairs that are expected by chance. | See docs/coexpression.md.
W259 | WARNING | Names of the gene list are of no gene detected. | Check the names.
W260 | WARNING | Spots that are not under tissue were left out. | Nothing.
W261 | WARNING | Spots of different labels lie over one another. | Set `by` where the labels are slides.
W270 | WARNING | The default rule leaves a graph without edges. | See E270.
W274 | WARNING | The graph is nearly complete. | Set edges.max_degree: 50.
W304 | WARNING | Species share no genes without a table of orthologs. | Set `orthologs`.
W305 | WARNING | No gene of a dataset is in the table of orthologs. | Use the names that the dataset has.
W311 | WARNING | Compiled kernels are kept in a temporary folder. | Name a lasting one in NUMBA_CACHE_DIR.
W501 | WARNING | The vectors of a dataset collapse. | See docs/evaluation.md.
W502 | WARNING | Anchor genes are memorised. | See docs/evaluation.md.
W503 | WARNING | Nothing aligns a dataset. | See docs/evaluation.md.
W504 | WARNING | An added dataset fits the run badly. | See docs/analysis.md.
"""


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the table: the code, the names of the classes that carry it, its meaning, and what to do."""

    code: str
    classes: tuple[str, ...]
    meaning: str
    fix: str


def codes() -> dict[str, Code]:
    """Return the table by code."""
    rows = [[cell.strip() for cell in line.split(" | ")] for line in _TABLE.strip().splitlines()]
    return {code: Code(code, tuple(classes.split(", ")), meaning, fix) for code, classes, meaning, fix in rows}


def page() -> str:
    """Return the table as the page docs/errors.md."""
    lines = [
        "# Codes of errors and warnings",
        "",
        "Written by `python -m musegnn.error_codes`. An error is one line, `error[CODE] where: what. Fix: action.`,",
        "which often names a more exact action than this table. Programs catch the classes of `musegnn.errors`, whose",
        "base is `MuseGNNError`; `NotFiniteError` and `PeerLostError` are kinds of `RunError`. Warnings have no class.",
        "",
        "| code | class | meaning | what to do |",
        "|---|---|---|---|",
    ]
    for row in codes().values():
        classes = ", ".join(f"`{name}`" for name in row.classes if name != "WARNING")
        lines.append(f"| {row.code} | {classes} | {row.meaning} | {row.fix} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
