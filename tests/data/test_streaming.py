"""Batches that stream: the right examples, in the right order, whatever is bad."""

import itertools
import re
import threading
import time

import numpy as np
import pytest

from rattn_jax.data.sampling import training_index, training_indices
from rattn_jax.data.stream import StreamOptions, evaluation_batches, training_batches
from rattn_jax.errors import DataError
from rattn_jax.parallel.mesh import ProcessShard
from tests.data.images import encode, pixels
from tests.data.test_loading import Files, files

KEYWORDS = {"size": 8, "num_classes": 99, "num_threads": 3}


def train(source, steps=range(4), *, seed=0, crop_area=None, max_bad_examples=0, **changes):
    options = StreamOptions(**{"batch_size": 6, **KEYWORDS, **changes})
    keywords = {"seed": seed, "crop_area": crop_area, "max_bad_examples": max_bad_examples}
    return list(training_batches(source, steps, options, **keywords))


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_examples_are_those_of_seed_and_step():
    batches = train(Files(files(10)))
    assert len(batches) == 4
    for step, batch in enumerate(batches):
        expected = training_indices(0, step, 6, 10)
        assert [training_index(0, 6 * step + i, 10) for i in range(6)] == list(expected)
        np.testing.assert_array_equal(batch.labels, expected)
        for image, index in zip(batch.images, expected, strict=True):
            np.testing.assert_array_equal(image, pixels(8, 8, seed=index))
        assert batch.bad_examples == ()


@pytest.mark.parametrize("crop_area", [None, (0.1, 0.6)])
def test_a_stream_can_start_at_any_step(crop_area):
    source = Files([encode(pixels(seed=i)) for i in range(10)])
    whole = train(source, range(6), crop_area=crop_area)
    assert_equal(train(source, range(4, 6), crop_area=crop_area), whole[4:])
    assert_equal(train(source, range(6), crop_area=crop_area, num_threads=1), whole)


def test_crops_differ_from_epoch_to_epoch_and_from_seed_to_seed():
    source = Files([encode(pixels(seed=0), "PNG")])
    first = train(source, range(2), crop_area=(0.1, 0.6))
    images = np.concatenate([batch.images for batch in first])
    assert len({image.tobytes() for image in images}) == 12
    other = train(source, range(1), crop_area=(0.1, 0.6), seed=1)
    assert (other[0].images != first[0].images).any()


@pytest.mark.parametrize("count", [2, 3])
def test_each_process_reads_its_own_share_of_every_batch(count):
    source = Files([encode(pixels(seed=i)) for i in range(10)])
    whole = train(source, crop_area=(0.1, 0.6))
    shares = [
        train(source, crop_area=(0.1, 0.6), share=ProcessShard(i, count)) for i in range(count)
    ]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert {len(part.labels) for part in parts} == {6 // count}
        joined = np.concatenate([part.images for part in parts])
        np.testing.assert_array_equal(joined, batch.images)


def test_shares_read_disjoint_records_that_cover_the_epoch():
    source, reads = Files(files(12)), []

    class Watched(Files):
        def __getitem__(self, position):
            reads[-1].append(position)
            return source[position]

    for index in range(3):
        reads.append([])
        train(Watched(source.files), range(2), share=ProcessShard(index, 3))
    assert sorted(itertools.chain(*reads)) == list(range(12))
    assert [len(read) for read in reads] == [4, 4, 4]


def test_a_bad_example_is_replaced_by_the_next_good_one():
    good, source = Files(files(10)), Files(files(10, bad=(3, 4, 9)))
    batches = train(source, range(5), max_bad_examples=3)
    replacement = {3: 5, 4: 5, 9: 0}
    for batch, whole in zip(batches, train(good, range(5)), strict=True):
        expected = [replacement.get(label, label) for label in whole.labels]
        np.testing.assert_array_equal(batch.labels, expected)
    names = [bad.name for batch in batches for bad in batch.bad_examples]
    assert names.count("file 9") == 3  # once an epoch
    assert set(names) == {"file 3", "file 4", "file 9"}
    assert_equal(train(source, range(2, 5), max_bad_examples=3), batches[2:])


@pytest.mark.parametrize("max_bad_examples", [2, 3, 10**9])
def test_nothing_but_bad_examples_is_an_error(max_bad_examples):
    source = Files(files(3, bad=(0, 1, 2)))
    with pytest.raises(DataError, match=r"no example of the split can be used, such as file \d \("):
        train(source, range(1), max_bad_examples=max_bad_examples)


def test_more_bad_examples_in_a_row_than_the_limit_are_an_error():
    with pytest.raises(DataError) as caught:
        train(Files(files(9, bad=range(8))), range(1), max_bad_examples=2)
    listed = r"file \d \(.*\); file \d \(.*\); file \d \(.*\)\. Repair or remove them, or raise the"
    message = f"3 training examples .*max_bad_examples=2: {listed} limit"
    assert re.fullmatch(message, str(caught.value))


def test_label_out_of_range_ends_the_stream():
    with pytest.raises(DataError, match=r"has the label 99: must lie in 0..98"):
        train(Files(files(3), labels=np.array([0, 99, 1])))


def evaluate(source, *, crop_fraction=1.0, excluded=frozenset(), **changes):
    options = StreamOptions(**{"batch_size": 4, **KEYWORDS, **changes})
    found = evaluation_batches(source, options, crop_fraction=crop_fraction, excluded=excluded)
    return list(found)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("num_examples", [1, 4, 7, 8])
def test_every_example_is_evaluated_once(num_examples, count):
    source = Files(files(num_examples))
    seen = []
    for index in range(count):
        for batch in evaluate(source, share=ProcessShard(index, count)):
            assert batch.images.shape == (4 // count, 8, 8, 3)
            seen += batch.labels[batch.mask].tolist()
            for image, label in zip(
                batch.images[batch.mask], batch.labels[batch.mask], strict=True
            ):
                np.testing.assert_array_equal(image, pixels(8, 8, seed=label))
    assert sorted(seen) == list(range(num_examples))


def test_every_process_has_as_many_batches():
    source = Files(files(5))
    assert [len(evaluate(source, share=ProcessShard(index, 4))) for index in range(4)] == [2] * 4


def test_excluded_examples_are_masked_and_counted():
    batches = evaluate(Files(files(6)), excluded=frozenset({"0.png", "5.png"}))
    seen = np.concatenate([batch.labels[batch.mask] for batch in batches])
    np.testing.assert_array_equal(seen, [1, 2, 3, 4])
    assert [batch.excluded for batch in batches] == [("0.png",), ("5.png",)]


def test_a_damaged_example_can_be_excluded():
    batches = evaluate(Files(files(7, bad=(5,))), excluded=frozenset({"5.png"}))
    seen = np.concatenate([batch.labels[batch.mask] for batch in batches])
    np.testing.assert_array_equal(seen, [0, 1, 2, 3, 4, 6])


def test_a_bad_example_is_an_error_in_evaluation():
    with pytest.raises(DataError, match="file 4 cannot be evaluated"):
        evaluate(Files(files(6, bad=(4,))))


def test_middle_of_the_image_at_another_size():
    source = Files([encode(pixels(403, 598), "PNG")])
    (batch,) = evaluate(source, batch_size=1, size=16, crop_fraction=0.5)
    (whole,) = evaluate(source, batch_size=1, size=32, crop_fraction=1.0)
    assert np.abs(batch.images[0].astype(int) - whole.images[0, 8:24, 8:24]).mean() < 1


def test_decoding_goes_on_while_the_consumer_computes():
    source, read, before = Files(files(40)), [], threading.active_count()

    class Watched(Files):
        def __getitem__(self, position):
            read.append(position)
            return source[position]

    stream = training_batches(
        Watched(source.files),
        range(5),
        StreamOptions(batch_size=8, **KEYWORDS),
        seed=0,
        crop_area=None,
        max_bad_examples=0,
    )
    next(stream)
    deadline = time.monotonic() + 20
    while len(read) < 24 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(read) >= 24, "two batches ahead"
    time.sleep(0.1)
    assert len(read) < 40, "but no more than that"
    stream.close()
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
