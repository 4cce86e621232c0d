"""The same training under Ray Train, for sites that run everything through it.

Ray Train starts the workers and, when one fails, starts all of them again from the newest checkpoint
(``FailureConfig``). :func:`musegnn.cluster.train.train_on_cluster` keeps the living ones and so goes on sooner; the
result has the same bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from musegnn.run_folder import RunFolder


def trainer_for(folder: RunFolder, *, workers: int, use_gpu: bool = False, **options: Any) -> Any:  # Ray's class
    """Return a ``TorchTrainer`` of Ray Train; its ``fit()`` leaves the result in the run folder.

    Parameters
    ----------
    folder
        Run folder; all nodes must see it, and its store, under the same path. Its newest checkpoint is restored.
    workers, use_gpu
        Number of workers, at most one per dataset, and whether each gets a GPU.
    options
        Options of ``ray.train.torch.TorchTrainer``, such as ``run_config`` with a ``FailureConfig``.
    """
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    return TorchTrainer(
        train_loop_per_worker,
        train_loop_config={"folder": str(folder.path)},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        **options,
    )


def train_loop_per_worker(config: Mapping[str, Any]) -> None:
    """Train as one of the workers that Ray Train has started; ``config["folder"]`` is the path of the run folder."""
    import ray.train
    from torch import distributed

    from musegnn.cluster.cost import dataset_costs
    from musegnn.cluster.placement import place_datasets
    from musegnn.data_store import Store
    from musegnn.run_folder import RunFolder
    from musegnn.training.spmd import train_as_rank

    folder = RunFolder.open(Path(config["folder"]))
    store = Store.open(folder.store_path())
    context = ray.train.get_context()
    placement = place_datasets(dataset_costs(store, folder.atlas()), context.get_world_size())
    group = distributed.distributed_c10d._get_default_group()
    device = ray.train.torch.get_device()
    backend: Any = group._get_backend(device)  # torch publishes no type
    train_as_rank(folder, store, backend, placement.owner, device=device, plan=placement.to_json())
