"""Hamiltonian dynamics: symplectic integrators, a Langevin thermostat, ports, and what checks them.

A system is separable: H(q, p) = Σ p²/2m + V(q). ``q`` and ``p`` are arrays of one shape; the functions work element by
element, so any leading axes are independent systems (pools). ``force`` maps ``q`` to -∂V/∂q of the same shape.
"""

from .diagnostics import energy, energy_error, observed_order, reversal_error
from .langevin import Balance, baoab, port
from .symplectic import Force, Integrator, leapfrog, yoshida4, yoshida6

__all__ = [
    "Balance",
    "Force",
    "Integrator",
    "baoab",
    "energy",
    "energy_error",
    "leapfrog",
    "observed_order",
    "port",
    "reversal_error",
    "yoshida4",
    "yoshida6",
]
