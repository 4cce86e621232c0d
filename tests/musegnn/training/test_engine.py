"""The engine against plain PyTorch and PyG, joint autograd, and itself on several processes."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch_geometric.nn import GraphNorm, TransformerConv

from musegnn.atlas_file import validate_atlas
from musegnn.errors import RunError
from musegnn.training.comm import LocalComm
from musegnn.training.engine import Engine
from musegnn.training.overlap import Overlaps
from musegnn.training.prepare import fingerprint, make_model, prepare
from musegnn.training.schedule import draw_contrast, partners
from musegnn.training.torch_comm import TorchComm

PUBLISHED = {
    "model__embedding": "layers",
    "model__encoder": "transformer",
    "model__decoder": "mlp",
    "model__edge_features": False,
    "model__feature_dropout": 0.0,
    "training__published": {"sequential": True},
    "training__loss": {"reconstruction": 1.0, "alignment": 0.0, "n_contrast": 6},
    "evaluation__holdout_edges": 0.0,
    "evaluation__holdout_genes": 0.0,
}


class PublishedDataset(nn.Module):
    """One dataset of the published model, from PyG's layers; D2, D3, D4 are given by its group."""

    def __init__(self, width, dim, n_genes):
        super().__init__()
        self.conv = TransformerConv(width, dim, heads=4)
        self.norm = GraphNorm(4 * dim)
        self.decoder = nn.Sequential(
            nn.Linear(n_genes, n_genes), nn.Mish(), nn.Linear(n_genes, n_genes), nn.Mish(), nn.Linear(n_genes, n_genes)
        )


class PublishedGroup(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.first = TransformerConv(4 * dim, dim, heads=2)
        self.norm = GraphNorm(2 * dim)
        self.second = TransformerConv(2 * dim, dim, heads=1)
        self.residual = TransformerConv(4 * dim, dim, heads=1)


def weights(engine, unit):
    return {k.removeprefix("weight/"): v.clone() for k, v in engine.state(unit).items() if k.startswith("weight/")}


def own_layer(engine, name):
    """Return the weights of a dataset's own layer, which are all that it has of its own without maps."""
    found = weights(engine, f"dataset/{name}/layer")
    assert all(k.startswith("layer.") for k in found)
    return {k.removeprefix("layer."): v for k, v in found.items()}


def open_gates(model):
    """Let the layers correct the maps from the start, so that all weights have a gradient."""
    for unit in model.units.values():
        for name, parameter in unit.named_parameters():
            if name == "gate":
                nn.init.constant_(parameter, 0.7)


def decoder_names(state):
    """Name weights as Sequential does: layers with Mish between them are 0, 2 and 4."""
    return {f"{2 * int(k.split('.')[1])}.{k.split('.')[2]}": v for k, v in state.items()}


def published_ntxent(anchor, positive, exclude, temperature):
    vectors = torch.cat([anchor, positive])
    n, k = len(vectors), len(anchor)
    total = 0.0
    for a in range(n):
        p = (a + k) % n
        score = {
            b: functional.cosine_similarity(vectors[a], vectors[b], dim=0) / temperature for b in range(n) if b != a
        }
        below = torch.exp(score[p]) + sum(torch.exp(s) for b, s in score.items() if b != p and not exclude[a, b])
        total = total - torch.log(torch.exp(score[p]) / below)
    return total / n


def test_sequential_order_equals_a_plain_pyg_loop(atlas):
    """Three epochs of METHOD's loss and step order; decided differences: no diagonal, masked false negatives."""
    store, config = atlas(3, full_profile=True, **PUBLISHED)
    data = prepare(store, config)
    engine = Engine(make_model(data, config, dtype=torch.float64), config.training)
    graphs, dim, loss_config = data.graphs, config.model.dim, config.training.loss

    datasets, groups = [], {}
    for graph in graphs:
        dataset = PublishedDataset(store.records[graph.name].profile.shape[1], dim, graph.n_genes).double()
        layer = own_layer(engine, graph.name)
        dataset.conv.load_state_dict({k.removeprefix("conv."): v for k, v in layer.items() if k.startswith("conv.")})
        dataset.decoder.load_state_dict(decoder_names(weights(engine, f"dataset/{graph.name}/decoder")))
        datasets.append(dataset)
        groups.setdefault(graph.modality, PublishedGroup(dim).double())
    for modality, group in groups.items():
        group.load_state_dict(weights(engine, f"shared/layers/{modality}"))
    x = [torch.from_numpy(store.records[g.name].profile).double() for g in graphs]
    edge_index = [torch.from_numpy(np.stack([g.edges.indices, g.edges.rows]).astype(np.int64)) for g in graphs]

    def encode(i):
        dataset, group, edges = datasets[i], groups[graphs[i].modality], edge_index[i]
        h = functional.mish(dataset.norm(dataset.conv(x[i], edges)))
        return group.second(functional.mish(group.norm(group.first(h, edges))), edges) + group.residual(h, edges)

    layers = [p for d in datasets for p in [*d.conv.parameters(), *d.norm.parameters()]]
    optimizers = [
        torch.optim.Adam(layers, lr=config.training.lr_dataset),
        torch.optim.Adam([p for g in groups.values() for p in g.parameters()], lr=config.training.lr_shared),
        torch.optim.Adam([p for d in datasets for p in d.decoder.parameters()], lr=config.training.lr_decoder),
    ]
    overlaps = Overlaps(graphs)
    for epoch in (1, 2, 3):
        rows = engine.round(epoch)
        partner = partners(config.training.seed, epoch, len(graphs), "uniform")
        for i, graph in enumerate(graphs):
            j = int(partner[i])
            z_i, z_j = encode(i), encode(j)
            target = torch.zeros(graph.n_genes, graph.n_genes, dtype=torch.float64)
            target[edge_index[i][1], edge_index[i][0]] = 1.0
            off = ~torch.eye(graph.n_genes, dtype=torch.bool)
            logits = datasets[i].decoder(z_i @ z_i.T)
            bce = functional.binary_cross_entropy_with_logits(logits[off], target[off])
            overlap = overlaps.pair(i, j)
            cosine = functional.cosine_similarity(z_i[overlap.rows_i], z_j[overlap.rows_j])
            similarity = -(torch.from_numpy(overlap.weight) * cosine).mean()
            draw = draw_contrast(config.training.seed, epoch, (graph, graphs[j]), overlap, loss_config.n_contrast)
            anchor = torch.cat([z_i[draw.anchors_i], z_j[draw.anchors_j]])
            positive = torch.cat([z_i[draw.positives_i], z_j[draw.positives_j]])
            contrast = published_ntxent(anchor, positive, draw.exclude, loss_config.temperature)
            loss = bce + similarity + 0.01 * contrast
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            row = rows[i]
            assert row["partner"] == graphs[j].name
            found = [row[name] for name in ("reconstruction", "similarity", "contrast", "loss")]
            expected = [value.item() for value in (bce, similarity, contrast, loss)]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)

    for i, graph in enumerate(graphs):
        layer = own_layer(engine, graph.name)
        expected = {f"conv.{k}": v for k, v in datasets[i].conv.state_dict().items()}
        expected |= {f"norm.{k}": v for k, v in datasets[i].norm.state_dict().items()}
        assert_close(layer, expected, 1e-8)
        assert_close(
            decoder_names(weights(engine, f"dataset/{graph.name}/decoder")), datasets[i].decoder.state_dict(), 1e-8
        )
        np.testing.assert_allclose(engine.model.encode(i).detach(), encode(i).detach(), rtol=0, atol=1e-8)
    for modality, group in groups.items():
        assert_close(weights(engine, f"shared/layers/{modality}"), group.state_dict(), 1e-8)


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("share_by", [["modality"], [], ["modality", "tissue", "species"]])
@pytest.mark.parametrize(
    ("decoder", "part"),
    [("mlp", {}), ("mlp", {"training__row_block": 17}), ("inner", {}), ("pairwise", {"training__pairs": 30})],
)
def test_two_phases_equal_joint_autograd(atlas, n, share_by, decoder, part):
    store, config = atlas(
        n,
        model__share_by=share_by,
        model__decoder=decoder,
        training__loss={"contrast": 0.7, "similarity": 1.3},
        **part,
    )
    data = prepare(store, config)
    engine = Engine(make_model(data, config, dtype=torch.float64), config.training)
    open_gates(engine.model)
    taken = {}
    engine._step = taken.update
    engine.round(5)

    partner = partners(config.training.seed, 5, n)
    z = [engine.model.encode(i, round_=5) for i in range(n)]
    total = torch.zeros((), dtype=torch.float64)
    for i in range(n):
        losses = engine.objective.reconstruction(5, i, z[i])
        if partner[i] >= 0:
            losses |= engine.objective.comparison(5, i, int(partner[i]), z[i], z[partner[i]])
            assert losses.keys() == {"reconstruction", "similarity", "contrast", "alignment"}
        total = total + sum(getattr(config.training.loss, name) * loss for name, loss in losses.items())
    assert taken.keys() == engine.model.units.keys()
    for name, unit in engine.model.units.items():
        expected = torch.autograd.grad(total, list(unit.parameters()), retain_graph=True, allow_unused=True)
        for found, gradient in zip(taken[name], expected, strict=True):
            wanted = torch.zeros_like(found) if gradient is None else gradient
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("seed", range(8))
def test_two_phases_equal_joint_autograd_on_random_atlases(tmp_path, synthetic, seed):
    """Random datasets, groups, partners, losses; some pairs have no gene in common, some datasets do not take part."""
    random = np.random.default_rng(seed)
    n = int(random.integers(2, 6))
    records, datasets = {}, []
    for k in range(n):
        labels = {
            "modality": str(random.choice(["scrna", "spatial", "scatac"])),
            "tissue": str(random.choice(["lung", "brain"])),
            "species": str(random.choice(["human", "mouse"])),
        }
        records[f"d{k}"] = synthetic.make_record(
            f"d{k}", *labels.values(), n_genes=int(random.integers(15, 40)), seed=k
        )
        datasets.append({"name": f"d{k}", "path": "none.h5ad", **labels})
    loss = {name: float(random.choice([0.0, 0.3, 1.0])) for name in ("similarity", "contrast", "alignment")}
    training = {
        "loss": loss | {"n_contrast": 5},
        "round_size": None if random.random() < 0.5 else max(2, n - 1),
    }
    share_by = [name for name in ("modality", "tissue") if random.random() < 0.5]
    model = {
        "dim": 4,
        "embedding": str(random.choice(["maps", "layers"])),
        "encoder": "transformer",
        "share_by": share_by,
    }
    config = validate_atlas({"datasets": datasets, "model": model, "training": training}, where="test")
    data = prepare(synthetic.FakeStore(tmp_path, records), config)
    engine = Engine(make_model(data, config, dtype=torch.float64), config.training)
    open_gates(engine.model)
    taken = {}
    engine._step = taken.update
    rows = engine.round(3)

    partner = engine._partners(3)
    z = {i: engine.model.encode(i, round_=3) for i in partner}
    total = torch.zeros((), dtype=torch.float64)
    for i, j in partner.items():
        losses = engine.objective.reconstruction(3, i, z[i])
        if j >= 0:
            losses |= engine.objective.comparison(3, i, j, z[i], z[j])
        total = total + sum(getattr(config.training.loss, name) * value for name, value in losses.items())
    assert sum(row["loss"] for row in rows) == pytest.approx(total.item(), rel=1e-12)
    for name, gradients in taken.items():
        parameters = list(engine.model.units[name].parameters())
        expected = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
        for found, gradient in zip(gradients, expected, strict=True):
            wanted = torch.zeros_like(found) if gradient is None else gradient
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9, err_msg=name)
    assert {f"dataset/d{i}/layer" for i in partner} <= taken.keys()


def connect(group, owner, data, config, dtype):
    sizes = [graph.n_genes for graph in data.graphs]
    return TorchComm(group, owner, sizes, config.model.dim, dtype=dtype)


def train_on(owner, in_ranks, store, config, rounds, dtype=torch.float32):
    """Train on one gloo process group and give the engines and the rows in the order of the atlas."""

    def work(rank, group):
        owned = [i for i, o in enumerate(owner) if o == rank]
        data = prepare(store, config, owned=owned)
        comm = connect(group, owner, data, config, dtype)
        engine = Engine(make_model(data, config, owned=owned, dtype=dtype), config.training, comm=comm)
        return engine, [row for r in rounds for row in comm.gather(engine.round(r))]

    found = in_ranks(max(owner) + 1, work)
    names = [dataset.name for dataset in config.datasets]
    rows = sorted(found[0][1], key=lambda row: (row["round"], names.index(row["dataset"])))
    assert all(len(each) == len(rows) for _, each in found)
    return [engine for engine, _ in found], rows


@pytest.mark.parametrize(
    ("owner", "settings"),
    [
        ([0, 0, 0, 0], {}),
        ([0, 0, 1, 1], {}),
        ([1, 0, 1, 0], {}),
        ([2, 1, 2, 0], {}),
        ([0, 1, 2, 3], {}),
        ([1, 0, 1, 0], {"training__row_block": 7, "training__recompute": True}),
        ([0, 1, 2, 3], {"model__decoder": "pairwise", "training__pairs": 30}),
        ([2, 1, 0, 2], {"model__embedding": "layers"}),
        ([0, 1, 1, 0], {"training__round_size": 2}),
        ([0, 1, 2, 3], {"dtype": torch.float64, "model__share_by": ["modality", "tissue", "species"]}),
        ([1, 0, 1, 0], {"training__loss": {"similarity": 0.0, "contrast": 0.0, "alignment": 0.0}}),
    ],
)
def test_placement_changes_no_bit(atlas, in_ranks, owner, settings):
    dtype = settings.get("dtype", torch.float32)
    store, config = atlas(**{name: value for name, value in settings.items() if name != "dtype"})
    data = prepare(store, config)
    alone = Engine(make_model(data, config, dtype=dtype), config.training)
    rounds = (1, 2, 3)
    alone_rows = [row for r in rounds for row in alone.round(r)]

    engines, rows = train_on(owner, in_ranks, store, config, rounds, dtype)

    assert rows == alone_rows
    for engine in engines:
        for unit in engine.model.units:
            found, expected = engine.state(unit), alone.state(unit)
            assert found.keys() == expected.keys()
            assert all(found[k].equal(expected[k]) for k in expected), unit


ONLY_ON_CPUS = {"losses.py", "reconstruction.py"}  # `grad.device.type == "cpu" and grad.item() == 1.0`


@pytest.fixture
def reads(monkeypatch):
    """Return the places at which numbers of tensors are read, as a GPU has to finish its work for each."""
    found = []

    def watched(name):
        read = getattr(torch.Tensor, name)

        def count(self, *arguments, **named):
            place = sys._getframe(1)
            path = Path(place.f_code.co_filename)
            if path.parent.name in {"training", "model"} and path.name not in ONLY_ON_CPUS:
                found.append(f"{path.name}:{place.f_lineno} {place.f_code.co_name}")
            return read(self, *arguments, **named)

        monkeypatch.setattr(torch.Tensor, name, count)

    for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__"):
        watched(name)
    return found


def test_a_round_reads_numbers_of_the_device_two_times(atlas, reads):
    store, config = atlas(training__checkpoint_every=10, training__rounds=20)
    data = prepare(store, config)
    engine = Engine(make_model(data, config), config.training)
    engine.round(1)
    reads.clear()
    engine.round(2)
    assert len(reads) == 2, reads


def test_a_round_of_two_processes_reads_numbers_three_times_in_each(atlas, in_ranks, reads):
    store, config = atlas(training__checkpoint_every=10, training__rounds=20)
    owner, begin, end = [1, 0, 1, 0], threading.Barrier(2, reads.clear), threading.Barrier(2)

    def work(rank, group):
        owned = [i for i, o in enumerate(owner) if o == rank]
        data = prepare(store, config, owned=owned)
        comm = connect(group, owner, data, config, torch.float32)
        engine = Engine(make_model(data, config, owned=owned), config.training, comm=comm)
        engine.round(1)
        begin.wait(60)
        engine.round(2)
        end.wait(60)
        return list(reads)

    found = in_ranks(2, work)[0]
    assert len(found) <= 2 * 3, found


def test_a_process_keeps_the_records_it_owns_and_knows_the_rest(atlas):
    store, config = atlas()
    whole, part = prepare(store, config), prepare(store, config, owned=[2, 0])

    assert list(part.records) == list(part.edges) == ["lung.a", "brain"]
    for mine, other in zip(part.graphs, whole.graphs, strict=True):
        np.testing.assert_array_equal(mine.trainable, other.trainable)
        near, same = mine.neighbours, other.neighbours
        np.testing.assert_array_equal(near.positive.toarray(), same.positive.toarray())
    assert part.anchors == whole.anchors
    assert [g.name for g in part.graphs] == [g.name for g in whole.graphs]
    assert fingerprint(part, config) == fingerprint(whole, config)
    one, other = make_model(whole, config), make_model(part, config, owned=[0, 2])
    assert other.encode(2).equal(one.encode(2))


@pytest.mark.parametrize("decoder", ["mlp", "pairwise"])
def test_recomputation_changes_no_bit(atlas, decoder):
    engines = []
    for recompute in (False, True):
        store, config = atlas(model__decoder=decoder, training__recompute=recompute)
        data = prepare(store, config)
        engine = Engine(make_model(data, config), config.training)
        rows = [engine.round(round_) for round_ in (1, 2, 3)]
        engines.append((engine, rows, fingerprint(data, config)))
    (kept, kept_rows, kept_print), (again, again_rows, again_print) = engines
    assert kept_rows == again_rows
    assert kept_print == again_print
    for unit in kept.model.units:
        state, other = kept.state(unit), again.state(unit)
        assert state.keys() == other.keys()
        assert all(state[k].equal(other[k]) for k in state), unit


@pytest.mark.parametrize("n", [2, 5])
def test_datasets_computed_at_a_time_change_no_bit_and_no_order(atlas, n):
    store, config = atlas(training__checkpoint_every=2, training__threads=1)
    engines = []
    for at_a_time in (1, n):
        data = prepare(store, config)
        engine = Engine(make_model(data, config), config.training, at_a_time=at_a_time)
        rows = [engine.round(round_) for round_ in (1, 2, 3)]
        engines.append((engine, rows))
    (alone, alone_rows), (together, together_rows) = engines
    assert alone_rows == together_rows
    assert alone.watched == together.watched != []
    for unit in alone.model.units:
        state, other = alone.state(unit), together.state(unit)
        assert all(state[k].equal(other[k]) for k in state), unit


def test_several_processes_refuse_sequential_order(atlas):
    store, config = atlas(2, training__published={"sequential": True})
    data = prepare(store, config)
    comm = LocalComm()
    comm.size = 2
    with pytest.raises(ValueError, match="sequential"):
        Engine(make_model(data, config, owned=[0]), config.training, comm=comm)


@pytest.mark.parametrize("sequential", [False, True])
def test_numbers_that_are_not_finite_stop_the_round_before_any_step(atlas, sequential):
    store, config = atlas(2, training__published={"sequential": sequential}, model__embedding="layers")
    store.records["lung.a"].profile[3, 2] = np.nan
    data = prepare(store, config)
    engine = Engine(make_model(data, config), config.training)
    before = {unit: engine.state(unit) for unit in engine.model.units}
    copies = {unit: {k: v.clone() for k, v in state.items()} for unit, state in before.items()}
    with pytest.raises(RunError, match=r"E410.*round 1.*lung\.a"):
        engine.round(1)
    for unit, state in copies.items():
        after = engine.state(unit)
        assert after.keys() == state.keys()
        assert all(after[k].equal(state[k]) for k in state)


def test_losses_without_weight_are_not_computed(atlas):
    store, config = atlas(2, training__loss={"reconstruction": 0.0, "similarity": 0.0, "alignment": 0.0})
    engine = Engine(make_model(prepare(store, config), config), config.training)
    row = engine.round(1)[0]
    assert row.keys() == {"round", "dataset", "partner", "loss", "contrast", "n_shared"}
    assert not [k for k in engine.state("dataset/lung.a/decoder") if k.startswith("adam")]
    assert [k for k in engine.state("dataset/lung.a/layer") if k.startswith("adam")]


def test_state_of_another_model_is_refused(atlas):
    store, config = atlas(2)
    engine = Engine(make_model(prepare(store, config), config), config.training)
    state = engine.state("shared/layers/scrna")
    state["weight/norm.bias"] = torch.zeros(3)
    with pytest.raises(RunError, match=r"E402.*shared/layers/scrna"):
        engine.load_state("shared/layers/scrna", state)
