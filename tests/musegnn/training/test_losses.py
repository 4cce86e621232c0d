"""The losses against independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss
from scipy import sparse
from torch.nn import functional

from musegnn.training.losses import alignment, edge_bce, edge_target, ntxent, similarity

F64 = torch.float64


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def adjacency(n: int, density: float, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n, n)) < density, 1)
    csr = sparse.csr_matrix(upper | upper.T)
    dense = torch.from_numpy(csr.toarray()).to(F64)
    return dense, torch.from_numpy(csr.indptr.astype(np.int64)), torch.from_numpy(csr.indices.astype(np.int64))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    n=st.integers(1, 12),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    n_held_out=st.integers(0, 8),
    diagonal=st.booleans(),
)
def test_edge_bce_equals_torch_on_the_entries_that_take_part(
    seed: int, n: int, density: float, n_held_out: int, diagonal: bool
) -> None:
    dense, rowptr, col = adjacency(n, density, seed)
    rng = np.random.default_rng(seed)
    rows, cols = (torch.from_numpy(rng.integers(0, n, n_held_out)) for _ in range(2))
    keep = torch.ones(n, n, dtype=torch.bool)
    keep[rows, cols] = keep[cols, rows] = False
    if not diagonal:
        keep.fill_diagonal_(False)
    ours, theirs = (rand(n, n, seed=seed).mul_(5).requires_grad_() for _ in range(2))
    got = edge_bce(ours, edge_target(rowptr, col, (rows, cols), include_diagonal=diagonal))
    (3 * got).backward()
    if not keep.any():
        assert got == 0
        assert not ours.grad.any()
        return
    want = functional.binary_cross_entropy_with_logits(theirs[keep], dense[keep])
    (3 * want).backward()
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


def test_edge_bce_is_finite_for_extreme_logits() -> None:
    _, rowptr, col = adjacency(6, 0.5, 0)
    logits = torch.full((6, 6), 200.0).fill_diagonal_(-200.0).requires_grad_()
    loss = edge_bce(logits, edge_target(rowptr, col))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_edge_bce_leaves_its_argument_unchanged() -> None:
    _, rowptr, col = adjacency(6, 0.5, 0)
    logits = rand(6, 6)
    before = logits.clone()
    edge_bce(logits, edge_target(rowptr, col))
    assert torch.equal(logits, before)


@pytest.mark.parametrize("overwrite", [False, True])
def test_blocks_of_rows_add_up(overwrite: bool) -> None:
    dense, rowptr, col = adjacency(9, 0.3, 1)
    target = edge_target(rowptr, col, (torch.tensor([1, 5]), torch.tensor([4, 5])))
    keep = ~torch.eye(9, dtype=torch.bool)
    keep[[1, 4], [4, 1]] = False
    logits = rand(9, 9).requires_grad_()
    want = functional.binary_cross_entropy_with_logits(logits[keep], dense[keep])
    (expected,) = torch.autograd.grad(3 * want, logits)
    order = torch.tensor([4, 0, 8, 1, 2, 7, 3, 6, 5])
    parts = [edge_bce(logits[rows] * 1.0, target, rows, overwrite=overwrite) for rows in order.split(4)]
    torch.testing.assert_close(sum(parts), want, rtol=1e-12, atol=1e-12)
    (found,) = torch.autograd.grad(3 * sum(parts), logits)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_edge_bce_refuses_other_shapes() -> None:
    _, rowptr, col = adjacency(6, 0.5, 0)
    with pytest.raises(ValueError, match=r"logits must have shape \(6, 6\)"):
        edge_bce(rand(6, 5), edge_target(rowptr, col))


def test_similarity_by_hand() -> None:
    z_i = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=F64)
    z_j = torch.tensor([[3.0, 0.0], [0.0, -1.0], [1.0, -1.0]], dtype=F64)
    weight = torch.tensor([0.5, 0.25, 0.9], dtype=F64)
    assert float(similarity(z_i, z_j, weight)) == pytest.approx(-0.25 / 3)


def test_similarity_without_shared_genes_or_weight_is_zero() -> None:
    z = rand(0, 4).requires_grad_()
    loss = similarity(z, rand(0, 4), torch.zeros(0, dtype=F64))
    loss.backward()
    assert loss == 0
    assert similarity(rand(3, 4), rand(3, 4), torch.zeros(3, dtype=F64)) == 0


@pytest.mark.parametrize(("n_pairs", "temperature"), [(1, 0.07), (2, 0.5), (40, 0.07)])
def test_ntxent_equals_pytorch_metric_learning(n_pairs: int, temperature: float) -> None:
    ours = [rand(n_pairs, 6, seed=s).requires_grad_() for s in (1, 2)]
    theirs = [part.detach().clone().requires_grad_() for part in ours]
    got = ntxent(*ours, temperature)
    want = SelfSupervisedLoss(NTXentLoss(temperature=temperature), symmetric=True)(*theirs)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    for loss in (got, want):
        loss.backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-9, atol=1e-11)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), n_pairs=st.integers(1, 6))
def test_ntxent_with_exclusions_equals_the_sum_written_out(seed: int, n_pairs: int) -> None:
    anchor, positive = rand(n_pairs, 3, seed=seed), rand(n_pairs, 3, seed=seed + 1)
    exclude = torch.from_numpy(np.random.default_rng(seed).random((2 * n_pairs, 2 * n_pairs)) < 0.4)
    z = functional.normalize(torch.cat([anchor, positive]), dim=1)
    e = torch.exp(z @ z.T / 0.3)
    terms = []
    for a in range(2 * n_pairs):
        p = (a + n_pairs) % (2 * n_pairs)
        negatives = sum(float(e[a, n]) for n in range(2 * n_pairs) if n not in (a, p) and not exclude[a, n])
        terms.append(-np.log(float(e[a, p]) / (float(e[a, p]) + negatives)))
    assert float(ntxent(anchor, positive, 0.3, exclude)) == pytest.approx(np.mean(terms), rel=1e-9, abs=1e-12)


def test_ntxent_of_nothing_is_zero_and_has_a_gradient() -> None:
    z = rand(0, 4).requires_grad_()
    loss = ntxent(z, rand(0, 4), 0.1)
    loss.backward()
    assert loss == 0


def test_alignment_is_cross_entropy_in_both_directions() -> None:
    z_i, z_j = rand(9, 5, seed=1), rand(9, 5, seed=2)
    scores = functional.normalize(z_i, dim=1) @ functional.normalize(z_j, dim=1).T / 0.2
    match = torch.arange(9)
    want = sum(functional.cross_entropy(s, match) for s in (scores, scores.T)) / 2
    torch.testing.assert_close(alignment(z_i, z_j, 0.2), want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(alignment(z_j, z_i, 0.2), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_shared", [0, 1])
def test_alignment_of_at_most_one_gene_is_zero(n_shared: int) -> None:
    z = rand(n_shared, 4).requires_grad_()
    loss = alignment(z, rand(n_shared, 4, seed=1), 0.2)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_losses_are_invariant_to_the_length_of_vectors() -> None:
    a, b, w = rand(7, 4), rand(7, 4, seed=1), torch.ones(7, dtype=F64)
    for loss in (lambda x, y: similarity(x, y, w), lambda x, y: ntxent(x, y, 0.1), lambda x, y: alignment(x, y, 0.1)):
        torch.testing.assert_close(loss(a, b), loss(3 * a, 0.1 * b))


@pytest.mark.parametrize("loss", [ntxent, alignment])
def test_pair_losses_refuse_what_does_not_fit(loss: object) -> None:
    with pytest.raises(ValueError, match="one shape"):
        loss(rand(3, 4), rand(2, 4), 0.1)
    with pytest.raises(ValueError, match="temperature must be positive"):
        loss(rand(3, 4), rand(3, 4), 0.0)
    with pytest.raises(ValueError, match="exclude must have shape"):
        ntxent(rand(3, 4), rand(3, 4), 0.1, torch.zeros(3, 3, dtype=torch.bool))
