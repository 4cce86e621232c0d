"""The recipe of docs/tasks/perturbations.md: vectors of a run as those that GEARS starts with."""

from __future__ import annotations

import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from musegnn.analysis.consensus import consensus
from musegnn.analysis.export import export
from tests.conftest import ROOT

RECIPE = ROOT / "docs" / "tasks" / "perturbations.md"
HIDDEN = 8


@pytest.fixture
def exported(make_atlas, tmp_path):
    """Write the consensus vectors, and return them by gene."""
    vectors = consensus(make_atlas(strange=False))
    export(vectors, tmp_path / "genes.npz", format="npz")
    return {name: vectors.X[k] for k, name in enumerate(vectors.obs_names)}


def recipe_step():
    """Return the lines of the recipe that read the file and set the vectors."""
    (code,) = re.findall(r"(?s)```python\n(.*?)```", RECIPE.read_text(encoding="utf-8"))
    places = [code.index(start) for start in ("known = ", "data = PertData", "genes = gears", "gears.train")]
    return code[places[0] : places[1]] + code[places[2] : places[3]]


def follow(model, genes, tmp_path, monkeypatch):
    """Run the step with a model in the place of GEARS's."""
    monkeypatch.chdir(tmp_path)
    names = {"np": np, "torch": torch, "gears": SimpleNamespace(model=model, gene_list=genes)}
    code = compile(recipe_step(), str(RECIPE), "exec")
    exec(code, names)
    assert names["dim"] == HIDDEN


def check(table, before, exported, genes):
    """Check that known genes have their vectors after a lookup, which limits norms, and the others what they had."""
    looked_up = table(torch.arange(len(genes))).detach().numpy()
    for k, gene in enumerate(genes):
        expected = exported.get(gene, before[k])
        np.testing.assert_allclose(looked_up[k], expected, atol=1e-6)


def test_a_table_of_vectors_with_limited_norms_takes_them_unchanged(exported, tmp_path, monkeypatch):
    genes = [*list(exported)[::3], "NOT_IN_THE_RUN"]
    table = torch.nn.Embedding(len(genes), HIDDEN, max_norm=True)
    with torch.no_grad():
        table.weight *= 0.1
    before = table.weight.detach().clone().numpy()
    model = torch.nn.Module()
    model.gene_emb = table
    follow(model, genes, tmp_path, monkeypatch)
    check(table, before, exported, genes)


def test_the_model_of_gears_takes_them_and_depends_on_them(exported, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gears = pytest.importorskip("gears.model", reason="needs cell-gears", exc_type=ImportError)
    genes = list(exported)[:12]
    ring = torch.tensor([range(12), [*range(1, 12), 0]])
    graph = {"G_coexpress": ring, "G_coexpress_weight": torch.ones(12), "G_go": ring, "G_go_weight": torch.ones(12)}
    layers = {"num_go_gnn_layers": 1, "num_gene_gnn_layers": 1}
    sizes = {"num_genes": 12, "num_perts": 12, "hidden_size": HIDDEN, "decoder_hidden_size": 4}
    torch.manual_seed(0)
    model = gears.GEARS_Model({"uncertainty": False, "no_perturb": False, "device": "cpu", **layers, **sizes, **graph})
    before = model.gene_emb.weight.detach().clone().numpy()
    cells = torch.rand(24, 1)
    batch = torch.arange(2).repeat_interleave(12)

    def predicted():
        return model.eval()(SimpleNamespace(x=cells, batch=batch, pert_idx=[[3], [-1]])).detach()

    random = predicted()
    follow(model, genes, tmp_path, monkeypatch)
    check(model.gene_emb, before, exported, genes)
    assert predicted().shape == random.shape == (2, 12)
    assert not torch.allclose(predicted(), random)
