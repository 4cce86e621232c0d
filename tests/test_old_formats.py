"""What an earlier state of the program wrote is still read, and still gives the same numbers; see data/README.md.

Through the public interface alone, so that these tests need no change when modules move.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest

import musegnn as mg

DATA = Path(__file__).with_name("data")
SUMS = json.loads((DATA / "sha256.json").read_text())
ROUNDS = {"closed_form": 0, "transformer": 2}


@pytest.fixture
def store():
    return mg.Store.open(DATA / "store")


@pytest.fixture
def copy(tmp_path):
    """Copy store and runs to where they may be changed."""
    for name in ("store", *ROUNDS):
        shutil.copytree(DATA / name, tmp_path / name)
    return tmp_path


def digest(array: np.ndarray) -> str:
    raw = "\n".join(array.tolist()).encode() if array.dtype.kind == "U" else np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(raw).hexdigest()


def assert_vectors(model, name, *, up_to_signs=False):
    """Compare vectors; `up_to_signs` where axes are eigenvectors found anew, whose signs the processor decides."""
    with np.load(DATA / f"{name}.npz") as expected:
        vectors = model.vectors()
        assert set(vectors) == set(expected)
        products = sum(np.sum(vectors[dataset] * expected[dataset], axis=0) for dataset in expected)
        signs = np.sign(products) if up_to_signs else 1.0
        for dataset in expected:
            np.testing.assert_allclose(vectors[dataset] * signs, expected[dataset], rtol=0, atol=1e-6)


def test_the_store_is_whole(store):
    assert store.datasets() == sorted(SUMS)
    assert store.verify() == []


@pytest.mark.parametrize("name", SUMS)
def test_the_store_is_read_as_it_was_written(store, name):
    record = store.read(name)
    assert {array: digest(attrgetter(array)(record)) for array in SUMS[name]} == SUMS[name]


def test_a_store_with_certainty_is_read_as_it_was_written():
    store, sums = mg.Store.open(DATA / "store_1.1"), json.loads((DATA / "sha256_1.1.json").read_text())
    assert store.datasets() == sorted(sums)
    assert store.verify() == []
    for name, arrays in sums.items():
        record = store.read(name)
        assert "genes.certainty" in arrays
        assert {array: digest(attrgetter(array)(record)) for array in arrays} == arrays
        assert 0.0 < record.genes.certainty.max() <= 1.0


def test_a_store_without_certainty_gives_vectors_without_it(store):
    assert all(store.read(name).genes.certainty is None for name in store.datasets())
    model = mg.MuSeGNN.load(DATA / "closed_form", store)
    assert "certainty" not in model.embeddings(layout=False).obs


def test_training_on_the_store_gives_the_same_vectors(store):
    config = mg.load_atlas(DATA / "closed_form" / "config.lock.yaml")
    assert_vectors(mg.MuSeGNN(store, config).train(), "closed_form", up_to_signs=True)


@pytest.mark.parametrize(("name", "rounds"), ROUNDS.items())
def test_a_run_gives_the_same_vectors(store, name, rounds):
    model = mg.MuSeGNN.load(DATA / name, store)
    assert model.rounds == rounds
    assert {row["round"] for row in model.history} == set(range(min(rounds, 1), rounds + 1))
    assert_vectors(model, name)


def test_a_run_goes_on(copy):
    run = copy / "transformer"
    config = mg.load_atlas(run / "config.lock.yaml", {"training.rounds": 3})
    model = mg.MuSeGNN(mg.Store.open(copy / "store"), config).train(run, resume=True)
    assert model.rounds == 3
    assert mg.MuSeGNN.load(run, model.store).rounds == 3


def number_as_older(checkpoints):
    """Write the version before into the manifest, with the manifest's own sum corrected."""
    (path,) = checkpoints.glob("round-*.json")
    body = json.loads(path.read_text())
    del body["sha256"]
    body["version"] -= 1
    body["sha256"] = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(body))


def lay_out_as_older(checkpoints):
    """Leave a folder per checkpoint, as the first version of the format had."""
    (path,) = checkpoints.glob("round-*.json")
    path.unlink()
    path.with_suffix("").mkdir()


@pytest.mark.parametrize("change", [number_as_older, lay_out_as_older])
def test_an_older_checkpoint_is_refused_by_name(copy, change):
    change(copy / "transformer" / "checkpoints")
    with pytest.raises(mg.MuseGNNError, match="version 1") as caught:
        mg.MuSeGNN.load(copy / "transformer", mg.Store.open(copy / "store"))
    assert caught.value.code == "E290"
    assert "train again" in caught.value.fix
