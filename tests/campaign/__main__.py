"""Runs the fault campaign: `python -m tests.campaign --help`."""

import sys

from dare_jax.bench import command
from tests.campaign import campaign

if __name__ == '__main__':
  command.run('faults', campaign, sys.argv)
