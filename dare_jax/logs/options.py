"""Which log is prepared and how: fields of the config's section `data`."""

from __future__ import annotations

import dataclasses

import ml_collections

from dare_jax.logs.builders import synthetic


@dataclasses.dataclass(frozen=True)
class Columns:
  """The columns of a CSV or Parquet log; see `configs/base.py`."""

  order: tuple[str, ...] | None = None
  separator: str | None = None
  user: str = 'user_id'
  item: str = 'item_id'
  time: str = 'timestamp'
  category: str = 'category_id'
  fields: tuple[str, ...] = ()
  context: tuple[str, ...] = ()
  label: str | None = None
  user_fields: tuple[str, ...] = ()
  numbers: tuple[str, ...] = ()
  sets: tuple[str, ...] = ()
  set_separator: str = '|'
  missing: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class LogOptions:
  """A raw log, and where its prepared data lies; see `configs/base.py`.

  Attributes:
    name: the name of the dataset, a key of `datasets.DATASETS`.
    data_dir: folder of the prepared data.
    input: path of the raw log, or a pattern; None for a log without files.
    max_malformed_share: largest share of malformed rows, from 0 to 1, that is
      no error.
    sort_by_time: False keeps the order of the file within a user.
    min_item_count: items with fewer events become the unknown item.
    fields: further fields of a behavior, of those that the dataset offers.
    user_fields: fields of a user, of those that the dataset offers.
    columns: names of the columns, for the dataset `csv_log`.
    synthetic: the process of the dataset `synthetic_lifelong`; None for others.
  """

  name: str
  data_dir: str
  input: str | None = None
  max_malformed_share: float = 0.001
  sort_by_time: bool = True
  min_item_count: int = 1
  fields: tuple[str, ...] = ()
  user_fields: tuple[str, ...] = ()
  columns: Columns = Columns()
  synthetic: synthetic.Spec | None = None


def of_section(section: ml_collections.ConfigDict) -> LogOptions:
  """Returns the options that a config's section `data` holds.

  Raises:
    UsageError: a synthetic log with a field out of its range.
  """
  is_made = section.name == 'synthetic_lifelong'
  own = ('columns', 'fields', 'user_fields', 'synthetic')
  names = [field.name for field in dataclasses.fields(LogOptions)]
  return LogOptions(
    **{name: section[name] for name in names if name not in own},
    fields=tuple(section.fields),
    user_fields=tuple(section.user_fields),
    columns=Columns(**section.columns),
    synthetic=synthetic.Spec.from_section(section) if is_made else None,
  )
