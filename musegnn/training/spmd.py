"""Training as one of several processes that something else has started, such as torchrun or Ray Train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from musegnn.errors import ConfigError
from musegnn.graph import PartnerFile
from musegnn.training.checkpoint import announce, newest_group_epoch
from musegnn.training.genes import check_orthologs
from musegnn.training.partner_files import count_anchors, partner_path, write_partner
from musegnn.training.prepare import Prepared, prepare_dataset, refuse_copies
from musegnn.training.torch_comm import TorchComm
from musegnn.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from musegnn.config import AtlasConfig
    from musegnn.data_store import Store
    from musegnn.graph import AtlasGraph
    from musegnn.run_folder import RunFolder
    from musegnn.training.prepare import PreparedDataset


def prepare_together(
    store: Store,
    config: AtlasConfig,
    group: Any,  # torch publishes no type for backends
    owner: Sequence[int],
    run: Path,
    *,
    device: torch.device | str = "cpu",
    known: dict[int, PreparedDataset] | None = None,
) -> tuple[Prepared, TorchComm]:
    """Prepare the datasets of this process, and agree with the others on all else; all processes call this together.

    Each process reads its own datasets alone and writes what their partners need of them into the run folder. Digests
    and sizes are gathered; the anchor genes are counted by the process of rank 0.

    Parameters
    ----------
    group
        A backend of ``torch.distributed``: gloo between CPUs, NCCL between GPUs.
    owner
        Rank that owns each dataset, shape (T,).
    run
        Run folder.
    known
        Datasets of this run that this process has prepared before, by place in the atlas; afterwards those it owns.

    Raises
    ------
    InputError, ConfigError
        As :func:`musegnn.training.prepare.prepare`.
    RunError
        E446 when a file of another process does not come into sight.
    """
    rank, datasets = group.rank(), config.datasets
    if any(dataset.added for dataset in datasets):
        msg = "datasets with `added` are placed in one process"
        raise ConfigError(msg, code="E303", where="datasets.added", fix="train in one process")
    owned = [i for i, r in enumerate(owner) if r == rank]
    orthologs = check_orthologs(config)
    own = {} if known is None else known
    for i in set(own).difference(owned):
        del own[i]
    for i in owned:
        if i not in own:  # kept at once, since a group may break while it loads
            own[i] = prepare_dataset(store, config, datasets[i], orthologs)
        write_partner(partner_path(run, datasets[i].name, own[i].digest), own[i].graph)
    first = TorchComm(group, owner, [0] * len(owner), config.model.dim, device=device)  # for records alone
    rows = first.gather(
        [{"i": i, "n": d.graph.n_genes, "digest": d.digest, "pairs": d.pairs_digest} for i, d in own.items()]
    )
    rows = sorted(rows, key=lambda row: int(row["i"]))
    refuse_copies(config, [row["pairs"] for row in rows])
    graphs: list[AtlasGraph] = []
    for dataset, row in zip(datasets, rows, strict=True):
        away = PartnerFile(
            name=dataset.name,
            modality=dataset.modality,
            tissue=dataset.tissue,
            species=dataset.species,
            n_genes=row["n"],
            path=partner_path(run, dataset.name, row["digest"]),
        )
        graphs.append(own[row["i"]].graph if row["i"] in own else away)
    digests = [row["digest"] for row in rows]
    data = Prepared(
        records={datasets[i].name: own[i].record for i in owned},
        edges={datasets[i].name: own[i].edges for i in owned},
        graphs=graphs,
        anchors=count_anchors(first, run, digests, [own[i].graph for i in owned]),
        digests=digests,
    )
    comm = TorchComm(group, owner, [graph.n_genes for graph in graphs], config.model.dim, device=device)
    return data, comm


def train_as_rank(
    folder: RunFolder,
    store: Store,
    group: Any,  # torch publishes no type for backends
    owner: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    plan: dict[str, Any] | None = None,  # JSON
) -> int:
    """Train the datasets of this process until all rounds are done; return their number. All processes call this.

    Parameters
    ----------
    folder
        The run folder, the same for all, whose newest checkpoint is restored.
    group
        A backend of ``torch.distributed``: gloo between CPUs, NCCL between GPUs.
    owner
        Rank that owns each dataset, the same for all, shape (T,).
    plan
        JSON that is recorded in checkpoints.

    Raises
    ------
    RunError
        As :meth:`musegnn.training.trainer.Trainer.run`.
    """
    config = folder.atlas()
    rank = group.rank()
    data, comm = prepare_together(store, config, group, owner, folder.path, device=device)
    checkpoints = folder.path / "checkpoints"
    mine = newest_group_epoch(checkpoints) + 1
    group_epoch = max(int(row["group_epoch"]) for row in comm.gather([{"group_epoch": mine}]))
    if rank == 0:
        announce(checkpoints, group_epoch)
    trainer = Trainer(data, config, comm=comm, owner=owner, device=device, plan=plan, group_epoch=group_epoch)
    trainer.restore(folder.path)
    trainer.run(folder.path)
    return trainer.rounds
