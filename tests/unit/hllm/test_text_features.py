"""The hashing encoder against a plain one, and heads against scikit-learn's on the same counts."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB

from hllm.errors import FitFailed, InvalidInput, NotFitted
from hllm.features import HashingEncoder, LogisticHead, NaiveBayesHead, Rows, TextClassifier
from hllm.features.rows import rows

FULL = 2**64


def mix(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % FULL
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % FULL
    return x ^ (x >> 31)


TABLE = [mix(((b + 1) * 0x9E3779B97F4A7C15 + 0x243F6A8885A308D3) % FULL) for b in range(256)]
BASE = 0x9E3779B97F4A7C55


def span(data, kind):
    return mix((sum(TABLE[b] * pow(BASE, i, FULL) for i, b in enumerate(data)) + kind) % FULL)


def plain(text, features, words, chars):
    """The definition, in Python's integers: a dictionary from column to count."""
    parts, word = [], b""
    for byte in text.lower().encode() + b" ":
        if byte >= 128 or chr(byte).isalnum() or byte == 95:
            word += bytes([byte])
        else:
            parts += [word] if word else []
            word = b""
    hashes = []
    if words:
        single = [span(part, 0x13198A2E03707344) for part in parts]
        for n in range(words[0], words[1] + 1):
            for i in range(len(single) - n + 1):
                gram = single[i]
                for following in single[i + 1 : i + n]:
                    gram = mix((gram * BASE + following) % FULL)
                hashes.append(gram)
    if chars:
        for n in range(chars[0], chars[1] + 1):
            for part in parts:
                padded = part if n == 1 else b" " + part + b" "
                hashes += [span(padded[i : i + n], 0xA4093822299F31D0) for i in range(len(padded) - n + 1)]
    counts = {}
    for value in hashes:
        column = value * features // FULL
        counts[column] = counts.get(column, 0) + 1
    return counts


def as_dicts(found):
    return [
        dict(zip(found.columns[a:b].tolist(), found.values[a:b].tolist(), strict=True))
        for a, b in zip(found.starts[:-1], found.starts[1:], strict=True)
    ]


# Beyond ASCII: letters, whose case is folded; the encoder's own treatment of punctuation is tested by itself.
alphabet = st.sampled_from("aAbZz019_ -.,;()\n\tßÉéλΣ中Ā")


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(alphabet, max_size=40), max_size=5),
    words=st.sampled_from([None, (1, 1), (1, 2), (2, 4)]),
    chars=st.sampled_from([None, (1, 3), (2, 2), (3, 6)]),
    bits=st.sampled_from([1, 8, 15, 24]),
)
def test_the_encoder_counts_as_the_definition_does(texts, words, chars, bits):
    if words is None and chars is None:
        words = (1, 2)
    found = HashingEncoder(2**bits, words=words, chars=chars)(texts)
    assert found.shape == (len(texts), 2**bits)
    assert as_dicts(found) == [plain(text, 2**bits, words, chars) for text in texts]
    for a, b in zip(found.starts[:-1], found.starts[1:], strict=True):
        assert (np.diff(found.columns[a:b]) > 0).all()


PINNED = [[23402, 364775, 612364], [951591, 964694, 968037]]


def test_columns_are_the_same_everywhere():
    # From the definition above, written down: on another platform or Python they must not change.
    found = HashingEncoder(2**20)(["Hello, world", "naïve Σ"])
    assert sorted(plain("Hello, world", 2**20, (1, 2), None)) == PINNED[0]
    assert [sorted(row) for row in as_dicts(found)] == PINNED


def test_texts_do_not_touch_each_other():
    encoder = HashingEncoder(2**12, words=(1, 3), chars=(2, 4))
    texts = ["one two three", "", "   ", "four", "(five) six-seven", "x"]
    together = as_dicts(encoder(texts))
    assert together == [as_dicts(encoder([text]))[0] for text in texts]
    assert together[1] == together[2] == {}
    assert len(encoder([])) == 0


def test_case_and_punctuation_do_not_count():
    encoder = HashingEncoder()
    a, b, c = as_dicts(encoder(["What\u2019s \u201cnew\u201d\u2026 HERE?", "what s new here", "what s new  there"]))
    assert a == b
    assert b != c


def test_a_lone_surrogate_is_no_error():
    assert len(HashingEncoder()(["bad \ud800 text"])) == 1


def test_binary_counts_once():
    encoder = HashingEncoder(binary=True, words=(1, 1))
    assert set(encoder(["a a a b"]).values.tolist()) == {1.0}


def test_hashes_spread_evenly():
    # 20,000 different words over 1,024 columns: chi-square of 1,023 degrees has mean 1,023 and deviation 45.
    found = HashingEncoder(2**10, words=(1, 1))([" ".join(f"word{i}" for i in range(20_000))])
    expected = 20_000 / 1024
    counts = found.dense()[0]
    assert counts.sum() == 20_000
    assert abs(((counts - expected) ** 2 / expected).sum() - 1023) < 5 * 45


sparse_counts = st.integers(0, 2**31).map(
    lambda seed: np.random.default_rng(seed).poisson(0.7, (30, 12)).astype(np.float64)
)


def sparse(dense):
    made = csr_matrix(dense)
    return Rows(
        made.indptr.astype(np.int64), made.indices.astype(np.int64), made.data.astype(np.float64), dense.shape[1]
    )


@settings(max_examples=20, deadline=None)
@given(x=sparse_counts)
def test_products_of_rows_are_numpys(x):
    x[3] = x[-1] = 0  # empty rows
    weights = np.random.default_rng(0).normal(size=(12, 4))
    residual = np.random.default_rng(1).normal(size=(30, 4))
    np.testing.assert_allclose(sparse(x).times(weights), x @ weights, atol=1e-12)
    np.testing.assert_allclose(rows(sparse(x)).transposed_times(residual), x.T @ residual, atol=1e-12)
    np.testing.assert_array_equal(sparse(x).dense(), x)


@settings(max_examples=20, deadline=None)
@given(x=sparse_counts, alpha=st.floats(1e-3, 3), classes=st.integers(1, 5))
def test_naive_bayes_is_scikit_learns(x, alpha, classes):
    labels = np.arange(30) % classes
    theirs = MultinomialNB(alpha=alpha).fit(x, labels)
    for given_x in (x, sparse(x)):
        ours = NaiveBayesHead(alpha).fit(given_x, labels)
        np.testing.assert_allclose(ours.feature_log_prob_, theirs.feature_log_prob_, rtol=1e-12)
        np.testing.assert_allclose(ours.class_log_prior_, theirs.class_log_prior_, rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(ours.feature_count_, theirs.feature_count_)
        np.testing.assert_allclose(ours.log_posterior(given_x), theirs.predict_log_proba(x), rtol=1e-9, atol=1e-10)
        assert ours.predict(given_x) == theirs.predict(x).tolist()
        # scikit-learn's joint likelihood less the prior.
        np.testing.assert_allclose(
            ours.log_likelihood(given_x),
            theirs.predict_joint_log_proba(x) - theirs.class_log_prior_,
            rtol=1e-10,
            atol=1e-10,
        )


def test_naive_bayes_learns_in_parts():
    x = np.random.default_rng(3).poisson(1.0, (40, 9)).astype(float)
    labels = ["b", "a", "c", "a"] * 10
    whole = NaiveBayesHead().fit(x, labels)
    parts = NaiveBayesHead().fit(x[:8], labels[:8])
    parts.partial_fit(x[8:9], labels[8:9]).partial_fit(sparse(x[9:]), labels[9:])
    assert parts.classes_ == ["a", "b", "c"]
    np.testing.assert_array_equal(parts.feature_count_, whole.feature_count_)
    np.testing.assert_allclose(parts.feature_log_prob_, whole.feature_log_prob_)
    np.testing.assert_allclose(parts.class_log_prior_, whole.class_log_prior_)


@pytest.mark.parametrize("classes", [3, 5])
@pytest.mark.parametrize("penalty", [0.1, 1.0, 30.0])
def test_the_logistic_head_is_scikit_learns(classes, penalty):
    rng = np.random.default_rng(7)
    x = rng.normal(size=(200, 6))
    labels = (x @ rng.normal(size=(6, classes)) + rng.gumbel(size=(200, classes)) * 2).argmax(axis=1)
    theirs = LogisticRegression(C=penalty, tol=1e-9, max_iter=5000).fit(x, labels)
    ours = LogisticHead(penalty, tol=1e-9).fit(x, labels)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_ - theirs.intercept_.mean(), atol=2e-5)
    np.testing.assert_allclose(ours.log_posterior(x), theirs.predict_log_proba(x), atol=5e-5)
    # The optimum's own condition, which needs no peer: the gradient is zero.
    p, wanted = np.exp(ours.log_posterior(x)), np.eye(classes)[labels]
    np.testing.assert_allclose(penalty * (p - wanted).T @ x + ours.coef_, 0, atol=1e-5)
    np.testing.assert_allclose((p - wanted).sum(axis=0), 0, atol=1e-5)


def test_two_classes_are_scikit_learns_at_half_its_penalty():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(120, 4))
    labels = np.where(x[:, 0] + rng.normal(size=120) > 0.3, "yes", "no")
    theirs = LogisticRegression(C=2.0, tol=1e-9, max_iter=5000).fit(x, labels)
    ours = LogisticHead(1.0, tol=1e-9).fit(x, labels)
    np.testing.assert_allclose(np.exp(ours.log_posterior(x)), theirs.predict_proba(x), atol=1e-5)
    # Likelihoods are posteriors without the prior.
    prior = np.log([np.mean(labels == "no"), np.mean(labels == "yes")])
    np.testing.assert_allclose(ours.log_likelihood(x) + prior, ours.log_posterior(x), atol=1e-12)


def test_the_logistic_head_takes_sparse_and_separable_rows():
    x = np.random.default_rng(1).poisson(0.3, (60, 300)).astype(float)
    labels = np.arange(60) % 3
    dense, thin = LogisticHead().fit(x, labels), LogisticHead().fit(sparse(x), labels)
    np.testing.assert_allclose(dense.coef_, thin.coef_, atol=1e-5)
    assert thin.predict(sparse(x)) == labels.tolist()


TEXTS = [
    "the court and the judge",
    "heal the patient",
    "the judge ruled",
    "patient and doctor",
    "court law",
    "a doctor",
]
LABELS = ["law", "med", "law", "med", "law", "med"]


@pytest.mark.parametrize("head", [NaiveBayesHead(), LogisticHead()], ids=["nb", "logistic"])
def test_a_classifier_learns_saves_and_loads(head):
    made = TextClassifier(HashingEncoder(2**12), head).fit(TEXTS, LABELS)
    assert made.domains == ("law", "med")
    assert made.predict(["the court judge", "patient of a doctor"]) == ["law", "med"]
    likelihood = made.log_likelihood([*TEXTS, "zzz", ""])
    assert likelihood.shape == (8, 2)
    np.testing.assert_array_equal(likelihood.max(axis=1), 0)
    np.testing.assert_allclose(made.posterior(TEXTS).sum(axis=1), 1)
    again = TextClassifier.from_dict(json.loads(json.dumps(made.to_dict())))
    np.testing.assert_array_equal(again.log_likelihood(TEXTS), made.log_likelihood(TEXTS))
    assert again.domains == made.domains
    assert again.to_dict() == made.to_dict()


def test_tempering_scales_nats():
    made = TextClassifier().fit(TEXTS, LABELS)
    assert TextClassifier(head=LogisticHead()).temper == 1.0
    full = TextClassifier(temper=1.0).fit(TEXTS, LABELS)
    np.testing.assert_allclose(made.log_likelihood(TEXTS), 0.25 * full.log_likelihood(TEXTS))
    # ln P(text|law)/P(text|med) by hand: both are the smoothed counts of two new words, seen once in one class.
    one = TextClassifier(HashingEncoder(2**12, words=(1, 1)), temper=1.0).fit(["alpha", "beta"], ["a", "b"])
    np.testing.assert_allclose(one.log_likelihood(["alpha"]), [[0.0, -math.log(2)]], atol=1e-12)
    np.testing.assert_allclose(one.log_likelihood([""]), 0.0, atol=0)


class Lengths:
    """An encoder of one's own: dense, and two wide."""

    def __call__(self, texts):
        return np.array([[len(text), text.count("e")] for text in texts], dtype=float)

    def to_dict(self):
        return {"kind": "lengths"}


def test_any_encoder_will_do():
    made = TextClassifier(Lengths(), LogisticHead()).fit(["e", "eee", "eeee", "xxxx", "x", "xxx"], [1, 1, 1, 0, 0, 0])
    assert made.predict(["eeeee", "xxxxx"]) == [1, 0]
    saved = json.loads(json.dumps(made.to_dict()))
    again = TextClassifier.from_dict(saved, encoder=Lengths())
    np.testing.assert_array_equal(again.log_likelihood(["ex"]), made.log_likelihood(["ex"]))
    with pytest.raises(InvalidInput, match="the classifier learnt with"):
        TextClassifier.from_dict(saved, encoder=HashingEncoder())
    with pytest.raises(InvalidInput, match=r"no hllm\.features\.hashing"):
        TextClassifier.from_dict(saved)


SAVED = TextClassifier(HashingEncoder(4)).fit(TEXTS, LABELS).to_dict()


def changed(**head):
    return SAVED | {"head": SAVED["head"] | head}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HashingEncoder(1000), "power of two"),
        (lambda: HashingEncoder(2**25), "power of two"),
        (lambda: HashingEncoder(1.5), "whole number"),
        (lambda: HashingEncoder(words=None), "both None"),
        (lambda: HashingEncoder(words=(2, 1)), "ascending"),
        (lambda: HashingEncoder(words=(0, 1)), "must be 1 or more"),
        (lambda: HashingEncoder(words=3), "the least and the greatest"),
        (lambda: HashingEncoder()("text"), "one str"),
        (lambda: HashingEncoder()([b"text"]), "bytes; str is expected"),
        (lambda: NaiveBayesHead(0.0), "alpha is 0.0"),
        (lambda: NaiveBayesHead().fit([[1.0, -1.0]], ["a"]), "negative"),
        (lambda: NaiveBayesHead().fit([[1.0, math.nan]], ["a"]), "NaN"),
        (lambda: NaiveBayesHead().fit([1.0], ["a"]), "shape"),
        (lambda: LogisticHead().fit([[1e31], [0.0]], ["a", "b"]), "scale them"),
        (lambda: NaiveBayesHead().fit([[1.0]], ["a", "b"]), "2 labels for 1 rows"),
        (lambda: NaiveBayesHead().fit([[1.0], [2.0]], ["a", 1]), "all as str"),
        (lambda: NaiveBayesHead().fit([[1.0], [2.0]], [0.5, 1.0]), "all as str"),
        (lambda: NaiveBayesHead().fit(np.zeros((0, 3)), []), "no rows"),
        (lambda: NaiveBayesHead().fit([[1.0]], ["a"]).partial_fit([[1.0]], ["b"]), "are new"),
        (lambda: NaiveBayesHead().fit([[1.0]], ["a"]).predict([[1.0, 2.0]]), "fitted with 1"),
        (lambda: LogisticHead(C=-1), "C is -1"),
        (lambda: LogisticHead(max_iter=0), "max_iter is 0"),
        (lambda: LogisticHead().fit([[1.0], [2.0]], ["a", "a"]), "two classes"),
        (lambda: TextClassifier(temper=0.0), "temper is 0.0"),
        (lambda: TextClassifier(temper=1.5), "at most 1"),
        (lambda: TextClassifier.from_dict({}), "no hllm.features.text"),
        (lambda: TextClassifier.from_dict(SAVED | {"head": {"kind": "x"}}), "of kind 'x'"),
        (lambda: TextClassifier.from_dict(changed(classes=["b", "a"])), "no ascending list"),
        (lambda: TextClassifier.from_dict(changed(width=-1)), "width is -1"),
        (lambda: TextClassifier.from_dict(changed(width=8)), "no packed array"),
        (lambda: TextClassifier.from_dict(changed(feature_count={"shape": [2, 4], "zlib": "AAAA"})), "unpack"),
        (lambda: TextClassifier.from_dict(changed(feature_count={"shape": [2, 4], "zlib": 5})), "unpack"),
        (
            lambda: TextClassifier.from_dict(changed(feature_count=SAVED["head"]["class_count"] | {"shape": [2, 4]})),
            "16 bytes; 64 are expected",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()


def test_what_is_not_fitted_says_so():
    for call in (
        lambda: NaiveBayesHead().predict([[1.0]]),
        lambda: NaiveBayesHead().partial_fit([[1.0]], ["a"]),
        lambda: NaiveBayesHead().to_dict(),
        lambda: LogisticHead().predict([[1.0]]),
        lambda: LogisticHead().to_dict(),
        lambda: TextClassifier().log_likelihood(["a"]),
        lambda: TextClassifier().domains,
    ):
        with pytest.raises(NotFitted, match="call fit first"):
            call()
    x = np.random.default_rng(0).normal(size=(50, 3))
    with pytest.raises(FitFailed, match="were not enough"):
        LogisticHead(max_iter=1, tol=1e-12).fit(x, [0, 1] * 25)
