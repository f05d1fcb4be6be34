"""Vectors in fewer bytes: sizes, what comes back, and searches against brute force."""

import numpy as np
import pytest

from core.ranking.quantization import Codec, search_stored


@pytest.fixture
def vectors() -> np.ndarray:
    generator = np.random.default_rng(0)
    found = generator.normal(0, 1, (500, 20)).astype(np.float32) * np.linspace(0.1, 2, 20, dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def fitted(precision: str, vectors: np.ndarray, dimension: int = 20) -> Codec:
    return Codec.fitted(precision, dimension, cosine=True, sample=[vectors[:300], vectors[300:]])


@pytest.mark.parametrize(
    ("precision", "dtype", "width", "count"),
    [("float32", np.float32, 20, 80), ("float16", np.float16, 20, 40), ("int8", np.int8, 20, 20),
     ("binary", np.uint8, 3, 3)],
)  # fmt: skip
def test_what_is_stored(vectors, precision, dtype, width, count):
    codec = fitted(precision, vectors)
    stored = codec.encode(vectors)
    assert (stored.dtype, stored.shape) == (dtype, (500, width))
    assert codec.bytes_per_vector == stored.nbytes / 500 == count
    again = Codec.of(codec.as_dict(), cosine=True)
    np.testing.assert_array_equal(again.decode(stored), codec.decode(stored))


def test_int8_is_near_and_clips_what_it_has_not_seen(vectors):
    codec = fitted("int8", vectors)
    back = codec.decode(codec.encode(vectors))
    assert (np.abs(back - vectors) <= codec.step / 2 + 1e-6).all()
    outside = vectors[:1].copy()
    outside[0, 0] = 50.0  # plain casting would make it a negative number
    assert codec.encode(outside)[0, 0] == 127
    assert codec.decode(codec.encode(-outside))[0, 0] == pytest.approx(codec.low[0])


def test_binary_keeps_signs(vectors):
    codec = fitted("binary", vectors)
    np.testing.assert_array_equal(codec.decode(codec.encode(vectors)), np.where(vectors > 0, 1.0, -1.0))


def test_fewer_dimensions_have_length_one_again(vectors):
    cut = fitted("float32", vectors, 8).encode(vectors)
    np.testing.assert_allclose(np.linalg.norm(cut, axis=1), 1, rtol=1e-5)
    dots = Codec.fitted("float32", 8, cosine=False, sample=[])
    np.testing.assert_array_equal(dots.encode(vectors), vectors[:, :8])


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_search_is_that_of_what_is_stored(vectors, precision):
    codec = fitted(precision, vectors)
    stored = codec.encode(vectors)
    found = search_stored(codec, vectors[:40], lambda: np.array_split(stored, 7), 10)
    scores = vectors[:40] @ codec.decode(stored).T
    np.testing.assert_array_equal(found.indices, np.argsort(-scores, axis=1, kind="stable")[:, :10])
    np.testing.assert_allclose(found.scores, -np.sort(-scores, axis=1)[:, :10], atol=1e-5)


def test_binary_is_found_by_hamming_distance_and_scored_again(vectors):
    codec = fitted("binary", vectors)
    stored = codec.encode(vectors)
    bits = np.unpackbits(stored, axis=1, count=20)
    distance = (bits[:40, None] != bits[None]).sum(2)
    plain = search_stored(codec, vectors[:40], lambda: np.array_split(stored, 3), 5, rescore=1)
    np.testing.assert_array_equal(20 - 2 * np.sort(distance, axis=1)[:, :5], plain.scores)
    again = search_stored(codec, vectors[:40], lambda: np.array_split(stored, 3), 5, rescore=4)
    near = search_stored(codec, vectors[:40], lambda: [stored], 20, rescore=1).indices
    signs = codec.decode(stored)
    for query in range(40):
        scores = signs[near[query]] @ vectors[query]
        np.testing.assert_allclose(again.scores[query], -np.sort(-scores)[:5], atol=1e-5)
        assert set(again.indices[query]) <= set(near[query])


def test_more_is_asked_for_than_there_is(vectors):
    codec = fitted("binary", vectors)
    stored = codec.encode(vectors[:3])
    found = search_stored(codec, vectors[:2], lambda: [stored], 10, rescore=4)
    assert sorted(found.indices[0][:3]) == [0, 1, 2]
    assert (found.indices[:, 3:] == -1).all()
