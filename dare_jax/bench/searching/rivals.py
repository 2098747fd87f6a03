"""The same search by others: PyTorch and faiss, each in its own process."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

from dare_jax import errors

NAMES = ('torch', 'faiss')
# The peers' own process: no other runtime's threads, the same number of them.
_PROGRAM = """
import json, sys, time
import numpy as np
engine, users, length, dim, candidates, k, threads = json.loads(sys.argv[1])
rng = np.random.default_rng(0)
keys = rng.standard_normal((users, length, dim), dtype=np.float32)
query = rng.standard_normal((users, candidates, dim), dtype=np.float32)
calls = []
if engine == 'torch':
  import torch
  torch.set_num_threads(threads)
  torch.set_grad_enabled(False)
  q, rows = torch.from_numpy(query), torch.from_numpy(keys)
  step = max(1, (1 << 26) // (4 * length * candidates))
  def search(k_t):
    for i in range(0, users, step):
      (q[i : i + step] @ k_t[i : i + step]).topk(k)
  columns = rows.transpose(1, 2).contiguous()
  calls = [lambda: search(rows.transpose(1, 2)), lambda: search(columns)]
else:
  import faiss
  faiss.omp_set_num_threads(threads)
  indices = []
  for user in range(users):
    indices.append(faiss.IndexFlatIP(dim))
    indices[-1].add(keys[user])
  def search():
    for index, q in zip(indices, query):
      index.search(q, k)
  calls = [search]
best = float('inf')
for call in calls:
  call()
  taken, end = [], time.perf_counter() + 1.0
  while len(taken) < 3 or (time.perf_counter() < end and len(taken) < 15):
    begin = time.perf_counter()
    call()
    taken.append(time.perf_counter() - begin)
  best = min(best, float(np.median(taken)))
print(best)
"""


def check(peers: list[str]) -> None:
  """Refuses what is unknown or not installed."""
  for peer in peers:
    if peer not in NAMES:
      raise errors.UsageError(
        f'--peers={peer}: expected of {", ".join(NAMES)}.'
      )
    if importlib.util.find_spec(peer) is None:
      raise errors.UsageError(f'--peers={peer}: {peer} is not installed.')


def seconds(peer: str, *sizes: int) -> float:
  """Returns the time of a peer's search.

  Args:
    peer: one of `NAMES`.
    *sizes: numbers of users, behaviors, dimensions, candidates and behaviors
      kept.
  """
  threads = len(os.sched_getaffinity(0))
  done = subprocess.run(
    [sys.executable, '-c', _PROGRAM, json.dumps([peer, *sizes, threads])],
    check=True,
    stdout=subprocess.PIPE,
    text=True,
  )
  return float(done.stdout.split()[-1])
