"""How a fit went: the log-likelihoods of its iterations and what stopped it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ConvergenceMonitor:
    """The facts of one Baum-Welch run. ``history`` holds ln P(X) before each M-step, in nats."""

    tol: float
    n_iter: int
    history: list[float] = field(default_factory=list)

    @property
    def iter(self) -> int:
        """Iterations that were made."""
        return len(self.history)

    @property
    def settled(self) -> bool:
        """Whether the last iteration gained less than ``tol`` nats."""
        return len(self.history) >= 2 and self.history[-1] - self.history[-2] < self.tol

    @property
    def converged(self) -> bool:
        """Whether the run is at its end: by ``tol``, or by ``n_iter`` (hmmlearn counts both; ``settled`` tells)."""
        return self.iter >= self.n_iter or self.settled
