"""Observation terms by hand: offset, scale, clip, in this order."""

import numpy as np
import pytest

from sim2real.errors import SpecError
from sim2real.runtime.observation import ObservationHistory, encode_observation
from sim2real.runtime.spec import ObservationTerm

HEIGHT = ObservationTerm(name="height", components=("left", "right"), unit="m", frame="world", scale=4.0, offset=0.5,
                         clip=3.0)  # fmt: skip


def test_a_term_is_shifted_then_scaled_then_clipped():
    measured = np.array([[0.5, 0.75], [1.25, 2.0], [-0.25, -9.0]])
    expected = [[0.0, 1.0], [3.0, 3.0], [-3.0, -3.0]]
    got = encode_observation(HEIGHT, {"height": measured})
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)


def test_the_offset_is_in_the_signals_unit():
    plain = HEIGHT.model_copy(update={"offset": 0.0})
    value = np.array([[0.6, 0.7]])
    shifted = encode_observation(HEIGHT, {"height": value})
    np.testing.assert_allclose(encode_observation(plain, {"height": value}) - shifted, 4.0 * 0.5, atol=1e-6)


def test_a_wild_measurement_stays_within_the_clip_in_all_of_the_history():
    history = ObservationHistory((HEIGHT.model_copy(update={"history": 2}),), 1)
    history.reset({"height": np.array([[1e6, 0.5]])})
    np.testing.assert_array_equal(history.observation(), [[3.0, 0.0, 3.0, 0.0]])
    history.push({"height": np.array([[0.5, -1e6]])})
    np.testing.assert_array_equal(history.observation(), [[3.0, 0.0, 0.0, -3.0]])


def test_a_signal_that_is_missing_or_of_another_width_is_named():
    with pytest.raises(SpecError, match="'height' is not among the signals"):
        encode_observation(HEIGHT, {"depth": np.zeros((1, 2))})
    with pytest.raises(SpecError, match=r"'height' needs shape \[N, 2\]"):
        encode_observation(HEIGHT, {"height": np.zeros((1, 3))})
