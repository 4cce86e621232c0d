"""The choice of an implementation, and the checks that kernels share."""

from __future__ import annotations

import numpy as np
import pytest

from musegnn.kernels.validation import check_array, check_pointers, check_range, load_impl, resolve_impl

NAMES = ("fast", "plain")


def test_automatic_choice_is_the_first_that_takes_the_call() -> None:
    assert resolve_impl("auto", NAMES) == "fast"
    assert resolve_impl("auto", NAMES, {"fast": "takes floats"}) == "plain"
    assert resolve_impl("plain", NAMES) == "plain"


def test_a_named_implementation_is_refused_rather_than_replaced() -> None:
    with pytest.raises(TypeError, match=r"impl='fast' takes floats; available for this call: plain"):
        resolve_impl("fast", NAMES, {"fast": "takes floats"})
    with pytest.raises(ValueError, match="impl must be auto or one of fast, plain, got 'slow'"):
        resolve_impl("slow", NAMES)


def test_implementations_are_loaded_by_name() -> None:
    assert load_impl("moments", "auto").__name__ == "musegnn.kernels.moments.impl.numba"
    assert load_impl("moments", "reference").__name__ == "musegnn.kernels.moments.impl.reference"


def test_arrays_that_do_not_fit_are_refused() -> None:
    x = np.zeros((2, 3))
    check_array("x", x, (2, 3), np.float64)
    with pytest.raises(ValueError, match=r"x must have shape \(3, 2\), got \(2, 3\)"):
        check_array("x", x, (3, 2), np.float64)
    for wrong in (x.T, x.T.astype(np.float32)):
        with pytest.raises(TypeError, match="x must be float64 in C order"):
            check_array("x", wrong, (3, 2), np.float64)


@pytest.mark.parametrize("pointers", [[], [1, 2], [0, 3], [0, 3, 2]])
def test_pointers_must_rise_from_zero_to_the_number_of_entries(pointers: list[int]) -> None:
    with pytest.raises(ValueError, match=r"indptr must rise from 0 to the number of entries \(2\)"):
        check_pointers("indptr", np.array(pointers, dtype=np.int64), 2)


def test_numbers_out_of_range_are_refused() -> None:
    check_range("gene", np.array([], dtype=np.int64), 0, 0)
    check_range("gene", np.array([-1, 4]), -1, 5)
    for value in (-2, 5):
        with pytest.raises(ValueError, match=rf"gene must be in \[-1, 5\), got {value} to {value}"):
            check_range("gene", np.array([value]), -1, 5)
