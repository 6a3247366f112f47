"""What the router sees of a request and of the machines: text as likelihoods of domains, telemetry as standard scores.

An encoder turns texts into features, a head turns features into log-likelihoods of domains; ``TextClassifier`` is both.
``TelemetryStandardizer`` learns means and deviations online.
"""

from .classifier import TextClassifier
from .encoder import Encoder, HashingEncoder
from .logistic import LogisticHead
from .naive_bayes import NaiveBayesHead
from .rows import Rows
from .telemetry import TelemetryStandardizer

__all__ = [
    "Encoder",
    "HashingEncoder",
    "LogisticHead",
    "NaiveBayesHead",
    "Rows",
    "TelemetryStandardizer",
    "TextClassifier",
]
