"""BitDelta: a fine-tune as its base and one bit per weight.

``compress(base, tuned)`` gives a ``Delta``, ``merge(base, delta)`` the fine-tune again, ``report(delta)`` sizes and
errors. ``Adapters`` holds several deltas over one base, ``AdapterChoice`` says which one the regime asks for.
"""

from hllm.bitdelta.adapters import AdapterChoice, Adapters
from hllm.bitdelta.delta import Delta, Entry
from hllm.bitdelta.distil import distil_scales
from hllm.bitdelta.matrix import MatrixDelta, apply, compress_matrix, merge_matrix, with_residual
from hllm.bitdelta.model import Options, check_base, compress, merge, merge_file
from hllm.bitdelta.report import Report, report
from hllm.bitdelta.tensors import Tensor, digest_of

__all__ = [
    "AdapterChoice",
    "Adapters",
    "Delta",
    "Entry",
    "MatrixDelta",
    "Options",
    "Report",
    "Tensor",
    "apply",
    "check_base",
    "compress",
    "compress_matrix",
    "digest_of",
    "distil_scales",
    "merge",
    "merge_file",
    "merge_matrix",
    "report",
    "with_residual",
]
