"""The engine as the platform uses it: pure functions, and the only package that imports hllm.

The engine is imported inside the functions that need it: numpy takes a tenth of a second to load, which is not for
handlers that neither plan nor place.
"""
