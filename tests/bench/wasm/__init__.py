"""Benchmarks of the WASM sandbox: see docs/benchmarks.md."""
