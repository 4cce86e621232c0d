"""The decoders against their plain definitions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from musegnn.model.decoder import InnerDecoder, MLPDecoder, PairwiseDecoder, SymmetricDecoder, make_decoder, score_pairs

N, DIM = 23, 4


def vectors() -> torch.Tensor:
    return torch.randn(N, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_mlp_equals_three_linear_layers_on_the_rows_of_the_products() -> None:
    decoder = MLPDecoder(N).double()
    decoder.reset_parameters(torch.Generator().manual_seed(1))
    plain = nn.Sequential(nn.Linear(N, N), nn.Mish(), nn.Linear(N, N), nn.Mish(), nn.Linear(N, N)).double()
    names = {"0": "layers.0", "2": "layers.1", "4": "layers.2"}
    state = decoder.state_dict()
    plain.load_state_dict({f"{k}.{p}": state[f"{v}.{p}"] for k, v in names.items() for p in ("weight", "bias")})
    z_ours, z_plain = vectors().requires_grad_(), vectors().requires_grad_()
    ours, want = decoder(z_ours), plain(z_plain @ z_plain.T)
    torch.testing.assert_close(ours, want, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(want)
    (ours * weight).sum().backward()
    (want * weight).sum().backward()
    torch.testing.assert_close(z_ours.grad, z_plain.grad, rtol=1e-10, atol=1e-10)
    for k, v in names.items():
        for p in ("weight", "bias"):
            got = decoder.get_parameter(f"{v}.{p}").grad
            torch.testing.assert_close(got, plain.get_parameter(f"{k}.{p}").grad, rtol=1e-10, atol=1e-10)


def made(kind: str) -> nn.Module:
    decoder = make_decoder(kind, N, dim=DIM).double()
    decoder.reset_parameters(torch.Generator().manual_seed(1))
    return decoder


@pytest.mark.parametrize("kind", ["mlp", "inner", "signed", "pairwise"])
def test_row_block_gives_the_rows_of_the_whole(kind: str) -> None:
    decoder = made(kind)
    rows = torch.tensor([3, 0, 22])
    torch.testing.assert_close(decoder.row_block(vectors(), rows), decoder(vectors())[rows], rtol=1e-12, atol=1e-12)


def test_signed_is_a_parabola_of_the_inner_product() -> None:
    decoder, z = made("signed"), vectors()
    s = z @ z.T / DIM
    torch.testing.assert_close(decoder(z), s + s**2 - 2.0, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        decoder.weight.copy_(torch.tensor([0.0, 0.3]))
    strongest = decoder(z).fill_diagonal_(-9.0).argmax()
    assert strongest == s.abs().fill_diagonal_(0.0).argmax()


def test_pairwise_is_a_perceptron_on_products() -> None:
    decoder, z = made("pairwise"), vectors()
    hidden, out = decoder.hidden, decoder.out
    products = z[:, None, :] * z[None, :, :]
    inside = functional.mish(products @ hidden.weight.T + hidden.bias)
    want = products @ decoder.direct + (inside @ out.weight.T).squeeze(2) + out.bias
    torch.testing.assert_close(decoder(z), want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(decoder(z), decoder(z).T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["inner", "signed", "pairwise"])
def test_pairs_are_entries_of_the_whole(kind: str) -> None:
    decoder, z = made(kind), vectors()
    rows, columns = torch.tensor([0, 3, 22, 5]), torch.tensor([1, 3, 0, 7])
    torch.testing.assert_close(decoder.pairs(z, rows, columns), decoder(z)[rows, columns], rtol=1e-12, atol=1e-12)
    assert isinstance(decoder, SymmetricDecoder)
    assert not isinstance(made("mlp"), SymmetricDecoder)


@pytest.mark.parametrize("limit", [N, 4])
@pytest.mark.parametrize("kind", ["mlp", "inner", "signed", "pairwise"])
def test_scores_are_means_of_both_directions_however_rows_are_cut(kind: str, limit: int, monkeypatch) -> None:
    monkeypatch.setattr("musegnn.model.decoder.SCORE_ROWS", limit)
    decoder, z = made(kind), vectors()
    rows, columns = torch.tensor([0, 3, 22, 5, 0]), torch.tensor([1, 3, 0, 7, 22])
    whole = decoder(z)
    want = (whole[rows, columns] + whole[columns, rows]) / 2
    torch.testing.assert_close(score_pairs(decoder, z, rows, columns), want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(score_pairs(decoder, z, columns, rows), want, rtol=1e-12, atol=1e-12)


def test_inner_is_symmetric_and_scaled() -> None:
    decoder = InnerDecoder(N).double()
    z = vectors()
    with torch.no_grad():
        decoder.scale.fill_(2.0)
        decoder.bias.fill_(-1.0)
    torch.testing.assert_close(decoder(z), 2 * z @ z.T - 1)
    torch.testing.assert_close(decoder(z), decoder(z).T, rtol=1e-13, atol=1e-13)
    decoder.reset_parameters()
    torch.testing.assert_close(decoder(z), z @ z.T)


def test_reset_is_a_function_of_the_generator() -> None:
    decoder = MLPDecoder(N)
    decoder.reset_parameters(torch.Generator().manual_seed(1))
    first = decoder(vectors().float())
    decoder.reset_parameters(torch.Generator().manual_seed(1))
    assert torch.equal(first, decoder(vectors().float()))


def test_cost_counts_multiply_adds() -> None:
    assert MLPDecoder(10).cost(10, 3) == 10 * 10 * 3 + 10 * 10 * 3 + 2 * 1000
    assert InnerDecoder(10).cost(4, 3) == 120
    assert PairwiseDecoder(10, 3, 5).cost(4, 3) == 4 * 10 * (5 * 3 + 5 + 3)


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="decoder must be one of"):
        make_decoder("outer", 3, dim=2)
