"""Hot loops, one folder per operation: ``api.py`` validates and dispatches, ``impl/`` computes.

All refuse what does not fit: ValueError for other shapes than documented, numbers out of range and unknown names of
implementations, TypeError for other dtypes, memory orders, kinds of matrices and for what a named implementation does
not take, ImportError for one whose package is missing. An implementation that is named is used or refused, never
replaced; ``auto`` is ``numba`` where nothing else is said.
"""

from musegnn.kernels.compile_cache import ensure_cache

ensure_cache()  # before the first kernel is imported
