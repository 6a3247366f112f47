"""HLLM: regimes, price dynamics, adapters and routing, on numpy alone.

The parts are imported by their names: ``hllm.hmm``, ``hllm.hamiltonian``, ``hllm.market``, ``hllm.bitdelta``,
``hllm.free_energy``, ``hllm.router``, ``hllm.trace``, ``hllm.features``. Importing the package imports none of them.
"""
