"""Config fields that decide which rows validate and test a model, and how.

Runs that differ in one of these could not be compared: a row is a user, a
moment, a target and its label. What a model reads of the log, such as
`data.fields` or `data.history_length`, is none of them: other columns of the
same rows leave users, items, categories and negatives as they are.
"""

from __future__ import annotations

_DECIDING = frozenset(
  (
    'seed',
    'data.name',
    'data.input',
    'data.data_dir',
    'data.max_malformed_share',
    'data.sort_by_time',
    'data.min_item_count',
    'data.split',
    'data.min_events',
    'data.min_history',
    'data.train_positions',  # leave_last: users need as many behaviors.
    'data.val_from',
    'data.test_from',
    'data.num_negatives',
    'data.group_candidates',
    'data.exclude',
    'data.columns.order',
    'data.columns.separator',
    'data.columns.user',
    'data.columns.item',
    'data.columns.time',
    'data.columns.category',
    'data.columns.label',
    'data.columns.missing',
    'data.num_users',
    'data.num_items',
    'data.num_categories',
    'data.events_per_user',
    'data.max_events',
    'data.events_sigma',
    'data.num_partners',
    'data.self_share',
    'data.recency_scale',
    'data.relevance',
    'data.item_exponent',
    'data.category_exponent',
    'data.synthetic_seed',
    'eval.drop_last',
  )
)


def decides(field: str) -> bool:
  """Returns whether a field decides the rows.

  >>> decides('data.split'), decides('data.fields'), decides('model.top_k')
  (True, False, False)

  Args:
    field: the name of a field of the config, such as `data.split`.
  """
  return field in _DECIDING
