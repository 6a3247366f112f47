"""Hidden Markov models: Gaussian, categorical and autoregressive. hmmlearn's users can swap the import."""

from hllm.hmm.autoregressive import AutoregressiveHMM
from hllm.hmm.categorical import CategoricalHMM
from hllm.hmm.gaussian import GaussianHMM
from hllm.hmm.monitor import ConvergenceMonitor
from hllm.hmm.online import OnlineFilter, filter_update

__all__ = ["AutoregressiveHMM", "CategoricalHMM", "ConvergenceMonitor", "GaussianHMM", "OnlineFilter", "filter_update"]
