"""The flag `--config`: a file, and any field of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
import pathlib
import re
from typing import Any

from absl import flags
import ml_collections
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from dare_jax import cli
from dare_jax import errors
from dare_jax.configs import base


class _FieldParser(flags.ArgumentParser):
  """Reads `None` as no value, all else as the field's type has it."""

  def __init__(self, parser: flags.ArgumentParser) -> None:
    super().__init__()
    self._parser = parser

  def parse(self, argument: Any) -> Any:
    return None if argument == 'None' else self._parser.parse(argument)

  def flag_type(self) -> str:
    return self._parser.flag_type()


class _NumberOrTextParser(flags.ArgumentParser):
  """Reads a number as such, all else as text."""

  def parse(self, argument: Any) -> Any:
    """Returns a whole number, a fraction, or the text itself."""
    for kind in (int, float):
      try:
        return kind(argument)
      except ValueError:
        pass
    return argument

  def flag_type(self) -> str:
    return 'number or text'


class _TupleParser(tuple_parser.TupleParser):
  """Reads what Python has as a tuple, and words between commas."""

  def parse(self, argument: Any) -> Any:
    """Returns the tuple that an argument spells."""
    if isinstance(argument, str) and not re.search(r'[\[({\'"]', argument):
      try:
        ast.literal_eval(argument)
      except (ValueError, SyntaxError):
        return tuple(argument.split(','))
    return super().parse(argument)


_FIELD_PARSERS: dict[type, flags.ArgumentParser] = {
  bool: flags.BooleanParser(),
  float: flags.FloatParser(),
  int: flags.IntegerParser(),
  object: _NumberOrTextParser(),
  str: flags.ArgumentParser(),
  tuple: _TupleParser(),
}


def parse(kind: type, text: str) -> Any:
  """Returns a field's value, as the command line takes it.

  >>> parse(int, '8'), parse(tuple, 'item,category'), parse(float, 'None')
  (8, ('item', 'category'), None)

  Args:
    kind: the type of the field.
    text: what is to the right of `--config.FIELD=`.

  Raises:
    TypeError, ValueError: it is not of that type.
  """
  return _FieldParser(_FIELD_PARSERS[kind]).parse(text)


class _FileParser(flags.ArgumentParser):
  """Finds a config file, and tells in one line what is wrong with it."""

  def __init__(self, parser: flags.ArgumentParser) -> None:
    super().__init__()
    self._parser = parser

  def parse(self, path: str) -> ml_collections.ConfigDict:
    """Returns the config of a file, locked; raises UsageError otherwise."""
    path = _find_config(path)
    try:
      config = self._parser.parse(path)
      found = set() if config is None else {*_fields(config)}
    except Exception as error:  # A user's config file may raise anything.
      raise errors.UsageError(
        f'--config={path}: {cli.one_line(error)}'
      ) from None
    lacking = [f for f in _fields(base.get_config()) if f not in found]
    if lacking:
      raise errors.UsageError(
        f'--config={path}: {len(lacking)} fields are missing, {lacking[0]} the'
        ' first; start from base.get_config() of dare_jax.configs, which has'
        ' them all, as configs/csv_log.py does.'
      )
    return config


def _fields(config: ml_collections.ConfigDict, path: str = '') -> Iterator[str]:
  for name, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _fields(value, f'{path}{name}.')
    else:
      yield f'{path}{name}'


def define() -> Any:
  """Defines `--config` and returns its holder."""
  for kind, parser in _FIELD_PARSERS.items():
    config_flags.register_flag_parser_for_type(kind, _FieldParser(parser))
  holder = config_flags.DEFINE_config_file(
    'config',
    None,
    'A config file, with an argument after a colon: configs/taobao.py:'
    'model=twin,dim=64. Override any field of configs/base.py:'
    ' --config.model.top_k=50.',
  )
  flag = flags.FLAGS['config']
  flag.parser = _FileParser(flag.parser)
  return holder


def _find_config(argument: str) -> str:
  """Lets `--config=configs/x.py` work outside a checkout as well."""
  name, colon, rest = argument.partition(':')
  path = pathlib.Path(name)
  shipped = cli.configs_dir() / path.name
  if not path.is_file():
    if str(path.parent) != 'configs' or not shipped.is_file():
      known = cli.shipped_names()
      raise errors.UsageError(
        f'--config={path}: no such file.{cli.hint(str(path), known)}'
        f' Shipped configs: {", ".join(known)}.'
      )
    path = shipped
  return f'{path}{colon}{rest}'
