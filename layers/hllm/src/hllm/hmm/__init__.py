"""Hidden Markov models: Gaussian emissions, filtering online. hmmlearn's users can swap the import."""

from hllm.hmm.gaussian import GaussianHMM
from hllm.hmm.monitor import ConvergenceMonitor
from hllm.hmm.online import OnlineFilter, filter_update

__all__ = ["ConvergenceMonitor", "GaussianHMM", "OnlineFilter", "filter_update"]
