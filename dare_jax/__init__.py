"""dare_jax: lifelong-sequence recommendation in JAX and Flax.

    from dare_jax import models, search, embeddings

Importing this package touches no device. `BUILD.md` holds the map of the code.
"""

import sys

__version__ = '0.1.0'

# Python calls itself '-m' while it looks for the module of a command. Ctrl-C
# may come while the modules of that command are being imported.
if getattr(sys, 'argv', [])[:1] == ['-m'] and any(
  argument.removeprefix('-m').startswith(f'{__name__}.')
  for argument in sys.orig_argv
):
  from dare_jax.process import signals

  signals.install(signals.leave_before_start)
