"""What all commands share: flags, help, exit codes.

Exit codes: 0 done (also `--help`), 2 wrong usage, config or data, 75 stopped
by SIGTERM or Ctrl-C after saving, so that the same command goes on. Where there
is nothing to go on with: 130 after Ctrl-C, 143 after SIGTERM; a second Ctrl-C
ends any command at once, with 130. Anything else is a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
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

from dare_jax import errors
from dare_jax.process import library_logs
from dare_jax.process import signals

EXIT_USAGE = 2
EXIT_STOPPED = 75


def configs_dir() -> pathlib.Path:
  """Returns the folder of the shipped configs, in a checkout or a wheel."""
  package = pathlib.Path(__file__).resolve().parent
  checkout = package.parent / 'configs'
  if (checkout / 'base.py').is_file():
    return checkout
  return package / 'configs'


def without(arguments: Sequence[str], names: Iterable[str]) -> list[str]:
  """Returns a command's arguments but for the flags of the given names.

  >>> without(['--seeds', '2', '--config=x.py', '-base=a'], ['seeds', 'base'])
  ['--config=x.py']
  """
  kept = []
  left = iter(arguments)
  for argument in left:
    match = re.fullmatch(f'--?({"|".join(names)})(=.*)?', argument, re.S)
    if match is None:
      kept.append(argument)
    elif match[2] is None:
      next(left, None)
  return kept


def config_first(arguments: Iterable[str]) -> list[str]:
  """Returns arguments with `--config` before all fields of a config.

  >>> config_first(['x', '--config.seed=2', '--config', 'y.py'])
  ['x', '--config', 'y.py', '--config.seed=2']
  """
  given = list(arguments)
  is_field = [re.match(r'--?(no)?config\.', each) is not None for each in given]
  is_file = [re.match(r'--?config(=|$)', each) is not None for each in given]
  if not (any(is_field) and any(is_file)):
    return given
  field, file = is_field.index(True), is_file.index(True)
  end = file + (1 if '=' in given[file] else 2)
  if field > file:
    return given
  return [*given[:field], *given[file:end], *given[field:file], *given[end:]]


def run(
  main: Callable[[], None],
  argv: Sequence[str] | None = None,
  default_config: str | None = None,
  about: str | None = None,
) -> None:
  """Parses the flags, runs `main`, and exits with the right code.

  Args:
    main: the function that does the work of the command.
    argv: the command line; None: that of the process.
    default_config: a shipped config to use where `--config` is not given.
    about: what `--help` says; what the module that was started says by default.
  """
  argv = config_first(sys.argv if argv is None else argv)
  sys.argv[:] = config_first(sys.argv)  # There it is read by ml_collections.
  if any(arg in ('--help', '-h', '-help', '--helpfull') for arg in argv[1:]):
    try:
      _print_help(default_config, about)
      sys.stdout.flush()
    except BrokenPipeError:  # The reader has closed the pipe, as `head` does.
      # Python flushes stdout again when it exits, which must not fail.
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
  # Tensorstore raises errors that follow the first one where none catches them.
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
      f'unknown flag --{error.flagname}.{hint(error.flagname, flags.FLAGS)}'
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
      f'{one_line(error)} (see configs/base.py or --help)'
    ) from None
  if len(rest) > 1:
    raise errors.UsageError(
      f'unexpected argument {rest[1]!r}; flags start with -- . See --help.'
    )


def hint(wrong: str, known: Iterable[str]) -> str:
  """Returns a sentence on what may have been meant, or nothing."""
  close = difflib.get_close_matches(wrong, list(known), n=1)
  return f' Did you mean {close[0]}?' if close else ''


def one_line(error: Exception) -> str:
  """The part of an error of a flag or a config file that helps the user."""
  text = ' '.join(str(error).split())
  if 'Error whilst parsing config file' in text:
    return text.rsplit('Error: ', 1)[-1]
  if match := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', text):
    return f'unknown config field {match[2]}. Did you mean {match[1]}?'
  if not isinstance(error, (AttributeError, KeyError)):
    return text
  # These put their message in quotes, again each time that one wraps another.
  text = text.split(' Other fields present:')[0].strip('\'"')
  return text if ' ' in text else f'unknown config field {text}'


def shipped_names() -> list[str]:
  """Returns the configs that come with the package."""
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
  print(f'\nConfigs: {", ".join(shipped_names())}')
  print('Every field of a config, with a comment: configs/base.py')
