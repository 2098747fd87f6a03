"""Narrower attention tables whose scores are the closest to the wide ones'.

A score is the sum over fields of <query, key> / sqrt(D), D being the width of
all fields together, and of the time term, scaled by its own width. The best
scores of rank k for a field are the truncated singular value decomposition of
its matrix of scores (Eckart and Young, 1936), and these are again inner
products of k-wide vectors, which are linear maps of the wide ones. The maps
follow from sums of outer products of rows alone: no matrix of scores is made.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


@jax.jit
def gram(table: jax.Array, is_row: jax.Array) -> jax.Array:
  """Returns the sum of the rows' outer products, float32 [width, width].

  Args:
    table: rows, [n, width].
    is_row: bool [n], which of them count.
  """
  rows = jnp.where(is_row[:, None], table.astype(jnp.float32), 0.0)
  return jnp.matmul(rows.T, rows, precision=jax.lax.Precision.HIGHEST)


def maps(
  targets: np.ndarray, behaviors: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns M and N with (T M)(B N)' the best approximation of T B' of a rank.

  With R = (T'T)^(1/2), S = (B'B)^(1/2) and the decomposition R S = U s V',
  these are M = S V_k s_k^(-1/2) and N = R U_k s_k^(-1/2). Of one table, T = B,
  both are its first k right singular vectors.

  Args:
    targets: T'T, [d, d].
    behaviors: B'B, [d, d].
    width: k, at most d.

  Returns:
    Two float64 [d, k].
  """
  left, right = _root(targets), _root(behaviors)
  u, values, v = np.linalg.svd(left @ right)
  values = values[:width]
  is_there = values > 1e-12 * max(values.max(initial=0.0), 1e-300)
  scale = np.where(is_there, 1 / np.sqrt(np.where(is_there, values, 1.0)), 0.0)
  return right @ v[:width].T * scale, left @ u[:, :width] * scale


def time_map(origin: np.ndarray, rows: np.ndarray, width: int) -> np.ndarray:
  """Returns the map of time vectors that keeps the target's scores exactly.

  A target's time is always the same vector: its direction is kept, and beside
  it the first singular vectors of the rest of the behaviors' vectors.

  Args:
    origin: the target's vector, [d].
    rows: the sum of outer products of the behaviors' vectors, [d, d].
    width: k, at most d.

  Returns:
    float64 [d, k], orthonormal columns.
  """
  first = origin / max(np.linalg.norm(origin), 1e-30)
  rest = np.eye(len(origin)) - np.outer(first, first)
  _, vectors = np.linalg.eigh(rest @ rows @ rest)
  columns = np.column_stack([first, rest @ vectors[:, ::-1]])
  # The columns depend on each other only after the last one that is needed.
  return np.linalg.qr(columns[:, :width])[0]


def _root(square: np.ndarray) -> np.ndarray:
  values, vectors = np.linalg.eigh(square.astype(np.float64))
  return vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T


def rescale(old_width: int, new_width: int) -> float:
  """Returns the factor of vectors that keeps <q, k> / sqrt(width) in scale."""
  return (new_width / old_width) ** 0.25
