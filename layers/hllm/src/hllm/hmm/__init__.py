"""Hidden Markov models: Gaussian, categorical and autoregressive. hmmlearn's users can swap the import."""

from hllm.hmm.autoregressive import AutoregressiveHMM
from hllm.hmm.categorical import CategoricalHMM
from hllm.hmm.gaussian import GaussianHMM
from hllm.hmm.monitor import ConvergenceMonitor
from hllm.hmm.online import OnlineFilter, filter_update
from hllm.hmm.selection import Candidate, held_out, select
from hllm.hmm.smoother import FixedLagSmoother
from hllm.hmm.storage import from_dict, load, save, to_dict

__all__ = [
    "AutoregressiveHMM",
    "Candidate",
    "CategoricalHMM",
    "ConvergenceMonitor",
    "FixedLagSmoother",
    "GaussianHMM",
    "OnlineFilter",
    "filter_update",
    "from_dict",
    "held_out",
    "load",
    "save",
    "select",
    "to_dict",
]
