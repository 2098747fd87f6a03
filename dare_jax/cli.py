"""What all commands share: flags, config files, exit codes.

Exit codes: 0 done (also `--help`), 2 wrong usage, config or data, 75 stopped
by SIGTERM after saving; anything else is a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import difflib
import logging as standard_logging
import pathlib
import re
import sys
import textwrap
from typing import Any

from absl import flags
from absl import logging
from ml_collections import config_flags

from dare_jax import errors

EXIT_USAGE = 2
EXIT_STOPPED = 75


def configs_dir() -> pathlib.Path:
  """Returns the folder of the shipped configs, in a checkout or a wheel."""
  package = pathlib.Path(__file__).resolve().parent
  checkout = package.parent / 'configs'
  if (checkout / 'base.py').is_file():
    return checkout
  return package / 'configs'


def define_config() -> Any:
  """Defines `--config` and returns its holder."""
  return config_flags.DEFINE_config_file(
    'config',
    None,
    'A config file, with an argument after a colon: configs/taobao.py:'
    'model=twin,dim=64. Override any field of configs/base.py:'
    ' --config.model.top_k=50.',
    lock_config=True,
  )


def run(
  main: Callable[[], None],
  argv: Sequence[str] | None = None,
  default_config: str | None = None,
) -> None:
  """Parses the flags, runs `main`, and exits with the right code.

  Args:
    main: the command.
    argv: of the process by default.
    default_config: a shipped config to use where `--config` is not given.
  """
  argv = list(sys.argv if argv is None else argv)
  if any(arg in ('--help', '-h', '-help', '--helpfull') for arg in argv[1:]):
    _print_help(default_config)
    sys.exit(0)
  if default_config and not any(
    re.match(r'--?config(=|$)', arg) for arg in argv
  ):
    argv.insert(1, f'--config={configs_dir() / default_config}.py')
  try:
    _parse(argv)
    _log_warnings()
    main()
  except errors.UsageError as error:
    _fail(str(error))
  except errors.Stopped as error:
    print(
      f'stopped by SIGTERM: {error}; run the same command to go on',
      file=sys.stderr,
    )
    sys.exit(EXIT_STOPPED)


def _log_warnings() -> None:
  """Shows warnings of ours; what a library raises, we tell in our own words."""
  logging.use_absl_handler()
  logging.set_verbosity(logging.WARNING)
  logging.set_stderrthreshold(logging.WARNING)
  for handler in standard_logging.getLogger().handlers:
    handler.addFilter(lambda record: not _is_told(record))
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


def _is_told(record: standard_logging.LogRecord) -> bool:
  """Whether it is orbax's account of an error that it raises as well."""
  return record.name == 'asyncio' or (
    record.exc_info is not None and '/orbax/' in record.pathname
  )


def _fail(message: str) -> None:
  print(f'error: {" ".join(message.split())}', file=sys.stderr)
  sys.exit(EXIT_USAGE)


def _parse(argv: list[str]) -> None:
  argv = [argv[0], *(_find_config(arg) for arg in argv[1:])]
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
    raise errors.UsageError(_one_line(error)) from None
  if len(rest) > 1:
    raise errors.UsageError(
      f'unexpected argument {rest[1]!r}; flags start with -- . See --help.'
    )


def _find_config(arg: str) -> str:
  """Lets `--config=configs/x.py` work outside a checkout as well."""
  match = re.fullmatch(r'--?config=([^:]*)(:.*)?', arg)
  if not match:
    return arg
  path = pathlib.Path(match[1])
  shipped = configs_dir() / path.name
  if not path.is_file():
    if str(path.parent) != 'configs' or not shipped.is_file():
      raise errors.UsageError(
        f'--config={path}: no such file.{_hint(str(path), _shipped_names())}'
        f' Shipped configs: {", ".join(_shipped_names())}.'
      )
    path = shipped
  return f'--config={path}{match[2] or ""}'


def _hint(wrong: str, known: Iterable[str]) -> str:
  close = difflib.get_close_matches(wrong, list(known), n=1)
  return f' Did you mean {close[0]}?' if close else ''


def _one_line(error: Exception) -> str:
  """The part of an absl or ml_collections error that helps the user."""
  text = ' '.join(str(error.args[0] if error.args else error).split())
  if 'Error whilst parsing config file' in text:
    return text.rsplit('Error: ', 1)[-1]
  if match := re.search(r'Did you mean "(\w+)" instead of "(\w+)"', text):
    return f'unknown config field {match[2]}. Did you mean {match[1]}?'
  return f'{text} (see configs/base.py or --help)'


def _shipped_names() -> list[str]:
  return sorted(
    f'configs/{file.name}'
    for file in configs_dir().glob('*.py')
    if file.stem not in ('__init__', 'base')
  )


def _print_help(default_config: str | None) -> None:
  main = sys.modules['__main__']
  print((main.__doc__ or '').strip())
  own = flags.FLAGS.get_flags_for_module(main.__file__ or '__main__')
  shared = flags.FLAGS.get_flags_for_module(sys.modules[__name__])
  print('\nFlags:')
  for flag in sorted({*own, *shared}, key=lambda flag: flag.name):
    value = default_config if flag.name == 'config' else flag.default
    default = '' if value is None else f' (default: {value})'
    text = textwrap.wrap(f'{flag.help}{default}', 74)
    print(f'  --{flag.name}')
    print(textwrap.indent('\n'.join(text), ' ' * 6))
  print(f'\nConfigs: {", ".join(_shipped_names())}')
  print('Every field of a config, with a comment: configs/base.py')
