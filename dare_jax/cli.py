"""What all commands share: flags, config files, exit codes.

Exit codes: 0 done (also `--help`), 2 wrong usage, config or data, 75 stopped
by SIGTERM or Ctrl-C after saving, so that the same command goes on. Where there
is nothing to go on with: 130 after Ctrl-C, 143 after SIGTERM; a second Ctrl-C
ends any command at once, with 130. Anything else is a bug.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import difflib
import logging as standard_logging
import os
import pathlib
import re
import signal
import sys
import textwrap
from typing import Any

from absl import flags
from absl import logging
import ml_collections
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from dare_jax import errors
from dare_jax import library_logs
from dare_jax import signals
from dare_jax.configs import base

EXIT_USAGE = 2
EXIT_STOPPED = 75


def configs_dir() -> pathlib.Path:
  """Returns the folder of the shipped configs, in a checkout or a wheel."""
  package = pathlib.Path(__file__).resolve().parent
  checkout = package.parent / 'configs'
  if (checkout / 'base.py').is_file():
    return checkout
  return package / 'configs'


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


class _FileParser(flags.ArgumentParser):
  """Finds a config file, and tells in one line what is wrong with it."""

  def __init__(self, parser: flags.ArgumentParser) -> None:
    super().__init__()
    self._parser = parser

  def parse(self, path: str) -> ml_collections.ConfigDict:
    path = _find_config(path)
    try:
      config = self._parser.parse(path)
      found = set() if config is None else {*_fields(config)}
    except Exception as error:  # Whatever a file of the user's raises.
      raise errors.UsageError(f'--config={path}: {_one_line(error)}') from None
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


def define_config() -> Any:
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


def run(
  main: Callable[[], None],
  argv: Sequence[str] | None = None,
  default_config: str | None = None,
  about: str | None = None,
) -> None:
  """Parses the flags, runs `main`, and exits with the right code.

  Args:
    main: the command.
    argv: of the process by default.
    default_config: a shipped config to use where `--config` is not given.
    about: what `--help` says; what the module that was started says by default.
  """
  argv = list(sys.argv if argv is None else argv)
  if any(arg in ('--help', '-h', '-help', '--helpfull') for arg in argv[1:]):
    try:
      _print_help(default_config, about)
      sys.stdout.flush()
    except BrokenPipeError:  # Who reads has seen enough, as `head` does.
      # Python flushes once more when it ends, which must not fail again.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
  if default_config and not any(
    re.match(r'--?config(=|$)', arg) for arg in argv
  ):
    argv.insert(1, f'--config=configs/{default_config}.py')
  try:
    signals.install()
    _parse(argv)
    _log_warnings()
    main()
    signals.install(signals.let_end)
  except errors.UsageError as error:
    _fail(str(error))
  except errors.Stopped as error:
    signals.install(signals.let_end)
    print(f'stopped {error}; run the same command to go on', file=sys.stderr)
    sys.exit(EXIT_STOPPED)
  except errors.Interrupted as error:
    name = signal.Signals(error.number).name
    signals.leave(
      f'stopped by {name}: what was not finished is given up',
      128 + error.number,
    )


def _log_warnings() -> None:
  """Shows warnings of ours; what a library raises, we tell in our own words."""
  logging.use_absl_handler()
  logging.set_verbosity(logging.WARNING)
  logging.set_stderrthreshold(logging.WARNING)
  for handler in standard_logging.getLogger().handlers:
    handler.addFilter(library_logs.is_to_be_shown)
  show, show_unraisable = sys.excepthook, sys.unraisablehook
  # Tensorstore reports what came after the first failure to nobody.
  is_late = lambda error: str(error) == 'Event loop is closed'

  def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if not is_late(error):
      show(kind, error, trace)

  def unraisable(found: Any) -> None:
    if not is_late(found.exc_value):
      show_unraisable(found)

  sys.excepthook, sys.unraisablehook = hook, unraisable


def _fail(message: str) -> None:
  print(f'error: {" ".join(message.split())}', file=sys.stderr)
  sys.exit(EXIT_USAGE)


def _parse(argv: list[str]) -> None:
  try:
    rest = flags.FLAGS(argv)
  except flags.UnrecognizedFlagError as error:
    raise errors.UsageError(
      f'unknown flag --{error.flagname}.{_hint(error.flagname, flags.FLAGS)}'
      ' See --help.'
    ) from None
  except (
    flags.Error,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
  ) as error:
    if isinstance(error.__context__, errors.UsageError):
      raise error.__context__ from None
    raise errors.UsageError(
      f'{_one_line(error)} (see configs/base.py or --help)'
    ) from None
  if len(rest) > 1:
    raise errors.UsageError(
      f'unexpected argument {rest[1]!r}; flags start with -- . See --help.'
    )


def _find_config(argument: str) -> str:
  """Lets `--config=configs/x.py` work outside a checkout as well."""
  name, colon, rest = argument.partition(':')
  path = pathlib.Path(name)
  shipped = configs_dir() / path.name
  if not path.is_file():
    if str(path.parent) != 'configs' or not shipped.is_file():
      raise errors.UsageError(
        f'--config={path}: no such file.{_hint(str(path), _shipped_names())}'
        f' Shipped configs: {", ".join(_shipped_names())}.'
      )
    path = shipped
  return f'{path}{colon}{rest}'


def _hint(wrong: str, known: Iterable[str]) -> str:
  close = difflib.get_close_matches(wrong, list(known), n=1)
  return f' Did you mean {close[0]}?' if close else ''


def _one_line(error: Exception) -> str:
  """The part of an error of a flag or a config file that helps the user."""
  text = ' '.join(str(error).split())
  if 'Error whilst parsing config file' in text:
    return text.rsplit('Error: ', 1)[-1]
  if match := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', text):
    return f'unknown config field {match[2]}. Did you mean {match[1]}?'
  text = text.split(' Other fields present:')[0].strip('\'"')
  is_field = isinstance(error, (AttributeError, KeyError)) and ' ' not in text
  return f'unknown config field {text}' if is_field else text


def _shipped_names() -> list[str]:
  return sorted(
    f'configs/{file.name}'
    for file in configs_dir().glob('*.py')
    if file.stem not in ('__init__', 'base')
  )


def _print_help(default_config: str | None, about: str | None) -> None:
  main = sys.modules['__main__']
  print((about or main.__doc__ or '').strip())
  found = {*flags.FLAGS.get_flags_for_module(main.__file__ or '__main__')}
  for module, defined in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith(f'{__package__}.'):
      found.update(defined)
  if found:
    print('\nFlags:')
  for flag in sorted(found, key=lambda flag: flag.name):
    value = default_config if flag.name == 'config' else flag.default
    if isinstance(value, list):
      value = ','.join(value)
    default = '' if value is None else f' (default: {value})'
    text = textwrap.wrap(f'{flag.help}{default}', 74)
    print(f'  --{flag.name}')
    print(textwrap.indent('\n'.join(text), ' ' * 6))
  print(f'\nConfigs: {", ".join(_shipped_names())}')
  print('Every field of a config, with a comment: configs/base.py')
