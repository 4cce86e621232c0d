"""Training as one of several processes that something else has started, such as torchrun or Ray Train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from musegnn.training.checkpoint import announce, newest_group_epoch
from musegnn.training.prepare import prepare
from musegnn.training.torch_comm import TorchComm
from musegnn.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from musegnn.config import AtlasConfig
    from musegnn.data_store import Store
    from musegnn.run_folder import RunFolder
    from musegnn.training.prepare import Prepared


def connect(
    group: Any,  # torch publishes no type for backends
    owner: Sequence[int],
    data: Prepared,
    config: AtlasConfig,
    *,
    device: torch.device | str = "cpu",
) -> TorchComm:
    """Return the communication of a process group; the parameters are those of :func:`train_as_rank`."""
    return TorchComm(
        group,
        owner,
        [graph.n_genes for graph in data.graphs],
        config.model.dim,
        device=device,
    )


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
    data = prepare(store, config, owned=[i for i, r in enumerate(owner) if r == rank])
    comm = connect(group, owner, data, config, device=device)
    checkpoints = folder.path / "checkpoints"
    mine = newest_group_epoch(checkpoints) + 1
    group_epoch = max(int(row["group_epoch"]) for row in comm.gather([{"group_epoch": mine}]))
    if rank == 0:
        announce(checkpoints, group_epoch)
    trainer = Trainer(data, config, comm=comm, owner=owner, device=device, plan=plan, group_epoch=group_epoch)
    trainer.restore(folder.path)
    trainer.run(folder.path)
    return trainer.rounds
