import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from musegnn.ranking import count_at_least

numbers = st.one_of(st.sampled_from([0.0, -0.0, 0.5, -1.0]), st.floats(-2.0, 2.0, width=32))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_counts_are_those_of_comparing_every_value_with_every_bound(data):
    n_rows, n = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 40))
    masked = st.one_of(numbers, st.just(-np.inf))
    values = np.array(data.draw(st.lists(masked, min_size=n_rows * n, max_size=n_rows * n))).reshape(n_rows, n)
    row = np.sort(data.draw(st.lists(st.integers(0, n_rows - 1), max_size=8))).astype(np.int64)
    bound = np.array(data.draw(st.lists(numbers, min_size=len(row), max_size=len(row))))

    found = count_at_least(values, row, bound)

    expected = [(values[r] >= b).sum() for r, b in zip(row, bound, strict=True)]
    assert found.tolist() == expected


def test_counts_hold_where_values_differ_by_less_than_a_bin():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=3000), 0.3 + 1e-13 * rng.normal(size=3000)])[None]
    bound = np.concatenate([values[0, ::7], [0.3, np.nextafter(0.3, 1), 5.0, -5.0]])

    found = count_at_least(values, np.zeros(len(bound), np.int64), bound)

    assert (found == (values >= bound[:, None]).sum(axis=1)).all()
