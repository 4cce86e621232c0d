"""Node features: projection, scaling and dropout."""

from __future__ import annotations

import numpy as np
import torch

from musegnn.model.features import GAIN, DatasetMaps, NodeFeatures, Projection, dropout_mask
from musegnn.model.relational_features import Relations


def test_projected_relations_are_a_shared_linear_map():
    projection = Projection(5, 3)
    projection.reset_parameters(torch.Generator().manual_seed(0))
    values = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    related = Relations(values=values, columns=np.array([1, 4, 6, 9]), genes=np.array([2, 0]))
    profile = np.zeros((4, 2), dtype=np.float32)
    features = NodeFeatures(profile=profile, related=related, n_cells=10, dtype=torch.float64)
    weight = GAIN * projection.weight.detach().double().numpy()[[1, 4, 6, 9]]
    found = features.project(projection.double()).detach()
    np.testing.assert_allclose(found, values.astype(np.float64) @ weight, atol=1e-6)
    keep = torch.tensor([0.0, 2.0, 0.0, 2.0], dtype=torch.float64)
    dropped = features.project(projection, keep).detach()
    np.testing.assert_allclose(dropped, (values * [0, 2, 0, 2]) @ weight, atol=1e-6)


def test_relations_of_unit_norm_start_with_unit_variance():
    projection = Projection(400, 64)
    projection.reset_parameters(torch.Generator().manual_seed(0))
    rows = np.random.default_rng(0).normal(size=(50, 800))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    x = projection(torch.tensor(rows, dtype=torch.float32), torch.arange(800)).detach()
    assert abs(float(x.var()) - 1) < 0.1


def test_the_profile_is_scaled_to_its_fan_in():
    """A layer drawn for the compressed width gives the profile the variance that it has alone, as wide as all cells."""
    profile = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    features = NodeFeatures(profile=profile, n_cells=1000, dtype=torch.float64)
    np.testing.assert_allclose(
        (features.profile.numpy() ** 2).sum(1) / (3 * 40), (profile**2).sum(1) / (3 * 1000), rtol=1e-5
    )


def test_maps_give_unit_rows_side_by_side_centred_over_genes():
    random = np.random.default_rng(0)
    maps = DatasetMaps(7, 3, 2, 4).double()
    maps.reset_parameters(torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps.align.copy_(torch.tensor([[1.0, 2.0], [0.0, 3.0], [2.0, 1.0], [0.0, 1.0]]))
    profile, projected = (torch.from_numpy(random.normal(size=(9, width))) for width in (7, 4))
    found = maps(profile, projected).detach().numpy()
    for part, x in ((found[:, :3], profile @ maps.own.detach()), (found[:, 3:], projected @ maps.align.detach())):
        y = x.numpy() - x.numpy().mean(axis=0)
        np.testing.assert_allclose(part, y / np.linalg.norm(y, axis=1, keepdims=True), atol=1e-12)


def test_a_whole_profile_is_left_as_it_is():
    profile = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    features = NodeFeatures(profile=profile, n_cells=40, dtype=torch.float32)
    np.testing.assert_array_equal(features.profile, profile)
    assert features.values is None


def test_what_is_dropped_is_a_function_of_the_generator():
    like = torch.ones(1, dtype=torch.float64)
    one, two = (dropout_mask((100, 50), 0.25, torch.Generator().manual_seed(3), like) for _ in range(2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert one.dtype == torch.float64
    assert set(one.unique().tolist()) == {0.0, 1 / 0.75}
    assert abs(float((one == 0).double().mean()) - 0.25) < 0.03
    assert dropout_mask((3,), 0.0, torch.Generator(), like) is None
