"""Active inference in discrete state spaces: what is the case, what to do next, and what to learn from it.

The model is that of pymdp, as lists of arrays: ``A[m]`` of shape (O_m, S_1, …, S_F) is P(outcome of modality m |
states of all factors), ``B[f]`` of shape (S_f, S_f, U_f) is P(next state | state, action), ``C[m]`` of shape (O_m,) or
(O_m, H) are log preferences, up to a constant, ``D[f]`` of shape (S_f,) is the prior. Arrays may be nested lists. All
that is not a probability is in nats.

Sources: Friston et al., "Active inference: a process theory", Neural Computation 29 (2017); Da Costa et al., "Active
inference on discrete state-spaces: a synthesis", J. Math. Psychology 99 (2020); Heins et al., "pymdp", JOSS 7 (2022).
"""

from hllm.free_energy.dirichlet import (
    digamma,
    expected_parameters,
    learn_likelihood,
    learn_prior,
    learn_transitions,
    parameter_gain,
)
from hllm.free_energy.expected import MAX_POLICIES, Planner, expected_free_energy
from hllm.free_energy.inference import infer_states, predict_states, variational_free_energy
from hllm.free_energy.plans import ExpectedFreeEnergy

__all__ = [
    "MAX_POLICIES",
    "ExpectedFreeEnergy",
    "Planner",
    "digamma",
    "expected_free_energy",
    "expected_parameters",
    "infer_states",
    "learn_likelihood",
    "learn_prior",
    "learn_transitions",
    "parameter_gain",
    "predict_states",
    "variational_free_energy",
]
