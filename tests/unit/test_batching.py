"""Which rows meet in a batch, and which texts are encoded together."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from core.engine.batching import Packing, TrainingBatches, plan_epoch, plan_micro_batches

KEYS = st.lists(st.tuples(st.integers(0, 30), st.integers(100, 130)), min_size=2, max_size=60)


def rows_of(batches):
    return [[ref.row for ref in batch] for batch in batches]


@given(keys=KEYS, batch_size=st.integers(2, 16), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_no_text_stands_twice_in_a_batch_and_no_row_comes_twice(keys, batch_size, seed, epoch):
    batches = plan_epoch(keys, batch_size, seed, epoch)
    rows = [row for batch in batches for row in batch]
    assert len(rows) == len(set(rows))
    for batch in batches:
        texts = [key for row in batch for key in keys[row]]
        assert len(texts) == len(set(texts))
        assert 2 <= len(batch) <= batch_size


def test_every_row_comes_when_all_are_distinct():
    keys = [(index, 1000 + index) for index in range(103)]
    for epoch in range(3):
        rows = [row for batch in plan_epoch(keys, 10, 7, epoch) for row in batch]
        assert sorted(rows) == list(range(103))


def test_a_single_row_with_negatives_of_its_own_is_worth_a_batch():
    assert plan_epoch([(1, 2, 3)], 8, 0, 0) == [[0]]
    assert plan_epoch([(1, 2)], 8, 0, 0) == []


def test_epochs_differ_and_the_same_seed_repeats():
    keys = [(index, 1000 + index) for index in range(64)]
    sequence = rows_of(TrainingBatches(keys, 8, seed=3, epochs=3))
    assert len(sequence) == 24
    assert sequence[:8] != sequence[8:16] != sequence[16:]
    assert sequence == rows_of(TrainingBatches(keys, 8, seed=3, epochs=3))
    assert sequence != rows_of(TrainingBatches(keys, 8, seed=4, epochs=3))


def test_going_on_in_a_later_epoch_means_skipping_in_the_same_sequence():
    keys = [(index, 1000 + index // 2) for index in range(50)]
    whole = list(TrainingBatches(keys, 8, seed=1, epochs=4))
    again = iter(TrainingBatches(keys, 8, seed=1, epochs=4))
    for _ in range(17):
        next(again)
    assert list(again) == whole[17:]


def cut(lengths, packing):
    return [range(len(lengths))[group] for group in plan_micro_batches(lengths, packing)]


def cost(groups, lengths, packing):
    return sum(
        len(group) * packing.padded(max(lengths[index] for index in group)) + packing.overhead
        for group in groups
    )


@given(
    lengths=st.lists(st.integers(1, 300), max_size=200),
    packing=st.builds(
        Packing,
        token_budget=st.integers(64, 4096),
        multiple=st.sampled_from([1, 8]),
        overhead=st.sampled_from([0, 64, 8192]),
        width=st.sampled_from([None, 300]),
    ),
)
def test_micro_batches_hold_every_text_once_within_the_budget(lengths, packing):
    lengths.sort(reverse=True)
    groups = cut(lengths, packing)
    assert [index for group in groups for index in group] == list(range(len(lengths)))
    for group in groups:
        padded = packing.padded(max(lengths[index] for index in group))
        assert len(group) == 1 or len(group) * padded <= packing.token_budget


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    packing=st.builds(Packing, token_budget=st.integers(40, 160), overhead=st.sampled_from([0, 5, 30])),
)
def test_no_other_cut_costs_less(lengths, packing):
    lengths.sort(reverse=True)
    found = cost(cut(lengths, packing), lengths, packing)
    for cuts in itertools.product([False, True], repeat=len(lengths) - 1):
        groups = [[0]]
        for index, here in enumerate(cuts, 1):
            groups.append([index]) if here else groups[-1].append(index)
        fits = all(
            len(group) == 1 or len(group) * packing.padded(lengths[group[0]]) <= packing.token_budget
            for group in groups
        )
        assert not fits or found <= cost(groups, lengths, packing)


def test_fixed_padding_is_the_width_whatever_the_texts_are():
    packing = Packing(64, width=30, multiple=8)
    assert packing.padded(3) == packing.padded(30) == 32
    assert max(len(group) for group in cut([30, 5, 3], packing)) == 2


def several(**options):
    """Three datasets of 80, 16 and 8 rows: 10, 2 and 1 batches of 8."""
    keys = [(2 * row, 2 * row + 1) for row in range(104)]
    return TrainingBatches(keys, 8, seed=3, epochs=2, sizes=[80, 16, 8], **options)


def dataset_of(batch):
    found = {0 if ref.row < 80 else 1 if ref.row < 96 else 2 for ref in batch}
    assert len(found) == 1, "a batch of two datasets"
    return found.pop()


def test_several_datasets_in_proportion_each_batch_of_one():
    batches = several()
    assert batches.counts == [10, 2, 1]
    sequence = list(batches)
    assert len(sequence) == 26
    for epoch in (sequence[:13], sequence[13:]):
        assert sorted(ref.row for batch in epoch for ref in batch) == list(range(104))
        drawn = [dataset_of(batch) for batch in epoch]
        assert sorted(drawn) == [0] * 10 + [1] * 2 + [2]
        assert drawn != sorted(drawn)
    assert sequence == list(several())


def test_weights_and_temperature_change_the_shares():
    batches = several(weights=[1, 1, 2])
    assert batches.counts == [3, 3, 7]
    drawn = [dataset_of(batch) for batch in batches]
    assert [drawn.count(dataset) for dataset in range(3)] == [6, 6, 14]
    # The small one has a single batch, which comes again and again.
    small = [sorted(ref.row for ref in batch) for batch in batches if dataset_of(batch) == 2]
    assert all(batch == list(range(96, 104)) for batch in small)
    assert several(temperature=100.0).counts == [5, 4, 4]
    assert sum(several(temperature=2.0).counts) == 13


def test_going_on_in_the_middle_of_several_datasets_is_skipping():
    whole = list(several(weights=[1, 1, 2]))
    again = iter(several(weights=[1, 1, 2]))
    for _ in range(17):
        next(again)
    assert list(again) == whole[17:]


def test_a_dataset_without_a_batch_has_no_share():
    keys = [(1, 2)] + [(2 * row + 10, 2 * row + 11) for row in range(16)]
    batches = TrainingBatches(keys, 8, seed=0, epochs=1, sizes=[1, 16], weights=[5, 1])
    assert batches.counts == [0, 2]
    assert [min(batch) > 0 for batch in rows_of(batches)] == [True, True]


@given(
    batch=st.integers(0, 25),
    factors=st.tuples(*[st.sampled_from([0.0, 0.5, 1.0])] * 3).filter(any),
    skip=st.integers(0, 25),
)
def test_a_change_of_shares_is_a_part_of_the_sequence(batch, factors, skip):
    plain = list(several())
    changed = several()
    changed.reweigh(batch, factors)
    sequence = list(changed)
    assert len(sequence) == len(plain)
    assert sequence[:batch] == plain[:batch]
    after = {dataset_of(rows) for rows in sequence[batch:]}
    assert after <= {index for index, factor in enumerate(factors) if factor}
    again = several()
    again.reweigh(batch, factors)
    assert list(again)[skip:] == sequence[skip:]


def test_a_change_while_the_sequence_is_taken():
    late, early = several(), several()
    taken = []
    for rows in late:
        taken.append(rows)
        if len(taken) == 5:
            late.reweigh(8, [0.0, 1.0, 1.0])
    early.reweigh(8, [0.0, 1.0, 1.0])
    assert taken == list(early)
    assert all(dataset_of(rows) for rows in taken[8:])
    assert not all(dataset_of(rows) for rows in taken[:8])


def test_half_the_share_is_about_half_the_batches():
    batches = several(weights=[1, 1, 1])
    batches.limit(300)
    batches.reweigh(0, [0.5, 1.0, 1.0])
    counts = [0, 0, 0]
    for rows in batches:
        counts[dataset_of(rows)] += 1
    assert counts[0] < 0.7 * counts[1]
    assert counts[0] > 0.3 * counts[2]


def test_nothing_is_padded_beyond_the_context():
    packing = Packing(16_384, multiple=8, longest=77)
    assert (packing.padded(70), packing.padded(77)) == (72, 77)
