"""The table of ended episodes and weights of advantages, by hand."""

import numpy as np
import pytest
import torch

from sim2real.learn.buffers import EpisodeTable
from sim2real.learn.rsl_rl import weigh
from sim2real.tasks.env import EndedEpisodes

RUNNING = np.arange(12.0).reshape(4, 3)  # physics of four robots whose episodes go on


def ended(env_ids, lengths, first=0):
    """Episodes whose figures say whose they are: the n-th has parameters [n, n, n], return 10 n."""
    numbers = first + np.arange(len(env_ids))
    return EndedEpisodes(
        np.array(env_ids),
        np.repeat(numbers[:, None].astype(float), 3, axis=1),
        10.0 * numbers,
        numbers % 2 == 0,
        np.array(lengths),
    )


def test_a_table_of_episodes_by_hand():
    table = EpisodeTable.of([(1, ended([0, 2], [9, 2])), (4, ended([2], [3], first=2))], RUNNING[:3])
    np.testing.assert_array_equal(table.steps, [1, 1, 4])
    np.testing.assert_array_equal(table.columns, [0, 2, 2])
    np.testing.assert_array_equal(table.params, [[0, 0, 0], [1, 1, 1], [2, 2, 2]])
    np.testing.assert_array_equal(table.returns, [0, 10, 20])
    np.testing.assert_array_equal(table.success, [True, False, True])
    np.testing.assert_array_equal(table.lengths, [9, 2, 3])
    # Steps down, robots across. The first episode began before the rollout; the second robot's has not ended.
    rows = table.rows_of_steps(6, 3)
    np.testing.assert_array_equal(rows, [[0, -1, 1], [0, -1, 1], [-1, -1, 2], [-1, -1, 2], [-1, -1, 2], [-1, -1, -1]])
    # What a method makes of it: a number of every step's episode, of those that go on as well.
    numbers = table.of_steps(6, table.returns, np.array([-1.0, -2.0, -3.0]))
    np.testing.assert_array_equal(numbers[0], [0.0, -2.0, 10.0])
    np.testing.assert_array_equal(numbers[3], [-1.0, -2.0, 20.0])
    np.testing.assert_array_equal(numbers[5], [-1.0, -2.0, -3.0])
    np.testing.assert_array_equal(table.running, RUNNING[:3])


def test_tables_of_workers_side_by_side_by_hand():
    first = EpisodeTable.of([(0, ended([3], [1]))], RUNNING)
    empty = EpisodeTable.of([], RUNNING)
    third = EpisodeTable.of([(2, ended([0, 1], [5, 6], first=1))], RUNNING)
    table = EpisodeTable.merge([first, empty, third], 4)
    np.testing.assert_array_equal(table.columns, [3, 8, 9])
    np.testing.assert_array_equal(table.steps, [0, 2, 2])
    np.testing.assert_array_equal(table.params[:, 0], [0, 1, 2])
    np.testing.assert_array_equal(table.returns, [0, 10, 20])
    np.testing.assert_array_equal(table.success, [True, False, True])
    np.testing.assert_array_equal(table.lengths, [1, 5, 6])
    rows = table.rows_of_steps(3, 12)
    np.testing.assert_array_equal(table.running, np.tile(RUNNING, (3, 1)))
    assert rows.shape == (3, 12) and rows[0, 3] == 0 and rows[1, 3] == -1
    np.testing.assert_array_equal(rows[:, 8], 1)
    np.testing.assert_array_equal(rows[:, 9], 2)
    none = EpisodeTable.merge([empty, empty], 4)
    assert none.params.shape == (0, 3) and (none.rows_of_steps(2, 8) == -1).all()


def test_weights_by_hand():
    advantages = torch.tensor([1.0, 2.0, 3.0, 100.0])
    # Kept are 1, 2, 3: mean 2, deviation 1; the weights' mean is 1.
    got = weigh(advantages, torch.tensor([1.0, 1.0, 2.0, 0.0]))
    torch.testing.assert_close(got, torch.tensor([-1.0, 0.0, 2.0, 0.0]))


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_kept_advantages_have_mean_0_and_deviation_1(fraction):
    generator = torch.Generator().manual_seed(0)
    advantages = 5.0 + 3.0 * torch.randn(50, 40, 1, generator=generator)
    weights = (torch.rand(50, 40, 1, generator=generator) < fraction).float()
    got = weigh(advantages, weights)
    kept = got[weights > 0]
    # Everything is divided by the fraction kept: a loss that averages over all steps is the average over the kept.
    assert float(kept.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(kept.std() * weights.mean()) == pytest.approx(1.0, abs=1e-5)
    assert not got[weights == 0].any()
    scaled = weigh(advantages, 7.0 * weights)
    torch.testing.assert_close(scaled, got, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kept", [0, 1])
def test_next_to_nothing_kept_teaches_nothing(kept):
    weights = torch.zeros(6)
    weights[:kept] = 1.0
    assert torch.equal(weigh(torch.arange(6.0), weights), torch.zeros(6))
