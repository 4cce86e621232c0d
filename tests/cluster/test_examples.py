"""The examples of `examples/cluster`: they parse, and their commands run on a cluster of two nodes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from musegnn.api import MuSeGNN
from musegnn.cli import app
from musegnn.training.checkpoint import manifests

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "cluster"


def commands():
    """Return every musegnn command of the examples, as words."""
    slurm = (EXAMPLES / "slurm.sh").read_text()
    job = yaml.safe_load((EXAMPLES / "kuberay.yaml").read_text())
    up = (EXAMPLES / "ray-up.yaml").read_text()
    return {
        "slurm": shlex.split(re.search(r"-- \\\n\s*(musegnn .*)", slurm)[1]),
        "kuberay": shlex.split(job["spec"]["entrypoint"]),
        "ray up": shlex.split(re.search(r"ray exec ray-up.yaml '(musegnn [^']*)'", up)[1]),
    }


@pytest.mark.parametrize("name", ["slurm", "kuberay", "ray up"])
def test_commands_are_those_of_the_command_line(name):
    words = commands()[name]
    assert words[:2] == ["musegnn", "train"]
    function, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert function.__name__ == "train"
    assert bound.arguments["cluster"].address == "auto"
    assert bound.arguments["cluster"].actors >= 2


def test_the_slurm_script_is_shell_and_asks_for_what_it_uses():
    path = EXAMPLES / "slurm.sh"
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True).stderr == ""
    text = path.read_text()
    options = dict(re.findall(r"#SBATCH --([a-z-]+)=(\S+)", text))
    actors = int(re.search(r"--actors (\d+)", text)[1])
    assert int(options["nodes"]) * int(options["gpus-per-node"]) == actors
    assert "ray symmetric-run" in text
    shown = subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "symmetric-run", "--help"], capture_output=True, text=True
    )
    assert "--min-nodes" in shown.stdout
    assert "--address" in shown.stdout


def test_all_start_ray_with_the_same_settings():
    found = {}
    for name in ("slurm.sh", "kuberay.yaml", "ray-up.yaml"):
        text = (EXAMPLES / name).read_text()
        pairs = re.findall(r"\b(RAY_\w+)(?:=|, value: \"?)([\w.]+)", text)
        found[name] = {key: value for key, value in pairs if "TOKEN" not in key}
    assert found["slurm.sh"] == found["kuberay.yaml"] == found["ray-up.yaml"]
    assert int(found["slurm.sh"]["RAY_health_check_failure_threshold"]) >= 20


def test_the_kuberay_job_has_a_gpu_for_each_actor_and_spare():
    job = yaml.safe_load((EXAMPLES / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    _, bound, _ = app.parse_args(commands()["kuberay"][1:], exit_on_error=False, print_error=False)
    cluster = bound.arguments["cluster"]
    (container,) = group["template"]["spec"]["containers"]
    gpus = int(container["resources"]["limits"]["nvidia.com/gpu"])
    assert group["replicas"] * gpus == cluster.actors + cluster.spares
    settings = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert settings["RAY_AUTH_MODE"] == "token"
    mounts = [entry["mountPath"] for entry in container["volumeMounts"]]
    assert any(str(bound.arguments["out"]).startswith(mount) for mount in mounts)


def test_the_ray_up_file_has_a_head_and_workers():
    up = yaml.safe_load((EXAMPLES / "ray-up.yaml").read_text())
    assert up["provider"]["type"] == "local"
    _, bound, _ = app.parse_args(commands()["ray up"][1:], exit_on_error=False, print_error=False)
    assert bound.arguments["cluster"].actors == 1 + len(up["provider"]["worker_ips"])
    assert any("ray start --head" in command for command in up["head_start_ray_commands"])


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["slurm", "kuberay", "ray up"])
def test_commands_run_on_two_nodes(name, two_nodes, cluster_run, tmp_path):
    """With paths and CPUs of this machine, fewer actors, and RAY_ADDRESS, where `auto` looks."""
    store, config = cluster_run
    atlas = tmp_path / "atlas.yaml"
    atlas.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
    paths = {"STORE": str(store.path), "ATLAS": str(atlas), "RUN": str(tmp_path / "run")}
    paths |= {"/data/store.zarr": paths["STORE"], "/data/atlas.yaml": paths["ATLAS"], "/data/run": paths["RUN"]}
    fewer = {"--actors": "2", "--min-actors": "1", "--spares": "0", "--device": "cpu"}
    words = [paths.get(word.removeprefix("$"), word) for word in commands()[name]]
    words = [fewer.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": two_nodes}
    command = [sys.executable, "-m", "musegnn", *words[1:], "--quiet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]

    MuSeGNN(store, config).train(tmp_path / "alone")
    digests = [
        {n: shard.sha256 for n, shard in manifests(tmp_path / run / "checkpoints")[0].units.items()}
        for run in ("run", "alone")
    ]
    assert digests[0] == digests[1]
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.fixture(scope="module")
def two_nodes():
    """Start two Ray nodes on this machine and give their address."""
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 100 * 2**20, "num_cpus": 1}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    cluster.add_node(**small)
    cluster.wait_for_nodes()
    yield cluster.address
    cluster.shutdown()
