"""The losses of a training, for a process that sees the CPU alone."""

from __future__ import annotations

import json
import sys

from dare_jax.device_check import stand_in


def main() -> None:
  """Prints the losses of `parity.losses`, called with the numbers given."""
  stand_in.for_annotations()
  from dare_jax.device_check import parity

  print(json.dumps(parity.losses(*json.loads(sys.argv[1]))))


if __name__ == '__main__':
  main()
