"""A server asked whatever its OpenAPI description allows, and what it does not.

    pip install schemathesis
    python -m tests.server.fuzz [--requests=10000] [--bundle=BUNDLE]

Schemathesis draws requests from `/openapi.json`, sound ones and broken ones,
with another seed each turn until there were so many. Statuses, content types
and bodies of all answers have to be as documented, and none a 5xx.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from tests.server import double
from tests.server import process

_CHECKS = (
  'not_a_server_error,status_code_conformance,content_type_conformance,'
  'response_headers_conformance,response_schema_conformance'
)
_COUNTED = re.compile(
  r'^dare_requests_total\{code="(\d+)",route="(\w+)"\} ([0-9.e+]+)$', re.M
)


def program() -> str | None:
  """Returns the path of schemathesis, None if it is not installed."""
  beside = pathlib.Path(sys.executable).parent / 'schemathesis'
  return str(beside) if beside.exists() else shutil.which('schemathesis')


def counts(server: process.Server) -> collections.Counter[str]:
  """Returns how often a server has answered with each status."""
  found: collections.Counter[str] = collections.Counter()
  text = server.client.get('/metrics').text
  for code, route, count in _COUNTED.findall(text):
    if route not in ('metrics', 'openapi'):
      found[code] += int(float(count))
  return found


def run(
  server: process.Server, folder: pathlib.Path, requests: int, examples: int
) -> int:
  """Asks a server; returns in how many turns, each of another seed.

  Args:
    server: what is asked.
    folder: takes what schemathesis leaves behind.
    requests: at least.
    examples: of each route in a turn.

  Raises:
    AssertionError: an answer that is not as documented.
  """
  found = program()
  assert found is not None, 'pip install schemathesis'
  turns = 0
  while counts(server).total() < requests:
    turns += 1
    done = subprocess.run(
      [
        *(found, 'run', f'{server.url}/openapi.json', '--no-color'),
        *('--checks', _CHECKS, '--phases', 'examples,coverage,fuzzing'),
        *('--max-examples', str(examples), '--seed', str(turns)),
        *('--generation-database', 'none', '--warnings', 'off'),
        '--suppress-health-check=all',
      ],
      check=False,
      cwd=folder,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
  return turns


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument('--requests', type=int, default=10_000)
  parser.add_argument('--bundle', help='a real one; else its double is served')
  parser.add_argument('--examples', type=int, default=100, help='of each route')
  args = parser.parse_args()
  if program() is None:
    sys.exit('schemathesis is not installed: pip install schemathesis')
  with tempfile.TemporaryDirectory() as name:
    bundle, module = args.bundle, process.REAL
    if bundle is None:
      bundle = double.write(pathlib.Path(name) / 'bundle')
      module = process.DOUBLE
    with process.Server(bundle, '--nolog_requests', module=module) as server:
      turns = run(server, pathlib.Path(name), args.requests, args.examples)
      found = counts(server)
  told = ', '.join(f'{n:,} of {code}' for code, n in sorted(found.items()))
  print(
    f'{found.total():,} requests in {turns} turns, all as documented: {told}'
  )
  assert not [code for code in found if code.startswith('5')], found


if __name__ == '__main__':
  main()
