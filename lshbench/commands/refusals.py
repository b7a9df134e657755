"""What Hydra refuses without a word, or in a parser's: taken as it was meant, or explained in one message."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import yaml
from hydra._internal.utils import get_args_parser

from lshbench.commands.arguments import explained, near
from lshbench.config import GROUPS, LISTED, RootSchema, conf_folder, options
from lshbench.errors import UsageError

CONFIG_FOLDER_FLAGS = ("--config-dir", "-cd", "--config-path", "-cp")
HIDDEN = ("base",)
"""Folders of a group that Hydra lists among its options."""
STOPPED_AT = ("--help", "-h", "--hydra-help", "--version")
"""Flags at which the parser would end by itself."""
KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "bool": "true or false"}
"""OmegaConf's names of types, in words."""
_PATH = re.compile(r"^~|[/\\]|\.\w{1,11}$|[^\x00-\x7f]")
_OVERRIDE = re.compile(r"^(\+{0,2}[\w@/.]+)=(.+)$", re.DOTALL)


def taken(argument: str, is_read: Callable[[str], bool]) -> str:
    """Return an argument as Hydra can read it: a path with ``=``, ``[``, ``~`` or other letters is put into quotes.

    Anything else, such as a list or several values of a sweep, stays as it is.

    Args:
        argument: of the command line.
        is_read: whether Hydra can read an argument.
    """
    found = _OVERRIDE.match(argument)
    if found is None or not _PATH.search(found[2]):
        return argument
    # Values of a sweep, or quotes; but what is there by this very name is meant.
    odd = "," in found[2] or found[2][0] in "'\"[{" or found[2] != found[2].strip()
    if not _is_there(found[2]) if odd else is_read(argument):
        return argument
    # Inside quotes only the quote itself is escaped, and backslashes before it.
    value = re.sub(r'(\\*)"', r'\1\1\\"', found[2])
    value += "\\" * (len(value) - len(value.rstrip("\\")))
    quoted = f'{found[1]}="{value}"'
    return quoted if is_read(quoted) else argument


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists() or Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def explain(error: BaseException, arguments: Sequence[str]) -> str | None:
    """Return one message for an error outside any job that is not Hydra's own; None for what is no wrong use.

    Args:
        error: what was raised while composing, or while making the folder of a run.
        arguments: of the command line.
    """
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = "a configuration file" if mark is None else f"{mark.name}, line {mark.line + 1}"
        what = "; ".join(part.strip() for part in (error.context, error.problem) if part)
        hint = " (YAML is indented by blanks, not by tabs)" if "'\\t'" in what else ""
        return f"{where}: no valid YAML: {what}{hint}"
    if isinstance(error, yaml.reader.ReaderError) and isinstance(error.character, int):
        line = _text_before(Path(str(error.name)), error.position).count("\n") + 1
        return (
            f"{error.name}, line {line}: no valid YAML: it has the character {error.character:#04x}, which is no text"
        )
    if isinstance(error, UnicodeDecodeError | yaml.reader.ReaderError):
        for path, line in _undecodable(arguments):
            return f"{path}, line {line}: expected text in UTF-8; its bytes are something else"
        return None
    if isinstance(error, OSError):
        given = [
            argument for argument in arguments if argument.startswith(("output=", "hydra.run.dir=", "hydra.sweep"))
        ]
        named = f" ({given[0]})" if given and len(given[0]) < 200 else ""
        folder = str(error.filename or "the run's folder")
        folder = folder if len(folder) < 200 else f"{folder[:80]}... ({len(folder)} letters)"
        return (
            f"output: {folder} can't be made or written: {error.strerror or error}{named}; expected a folder that can "
            "be written: output=DIR"
        )
    lists = [argument for argument in arguments if re.match(r"\+?[\w/]+=\[", argument)]
    for argument in lists if isinstance(error, TypeError | AttributeError) else ():
        group = argument.lstrip("+").partition("=")[0]
        if (conf_folder() / group).is_dir():
            return f"{argument}: expected the name of an option, or names in brackets (lshbench ls {group})"
    return None


def wrong_flag(arguments: Sequence[str]) -> str | None:
    """Return a message if ``lshbench run`` has no such flag, or a flag no such value."""
    parser = get_args_parser()

    def error(message: str) -> NoReturn:
        raise UsageError(message)

    parser.error = error  # type: ignore[method-assign]
    given = [argument for argument in arguments if argument not in ("-v", "--verbose")]
    try:
        parser.parse_args([argument for argument in given if argument not in STOPPED_AT])
    except UsageError as refused:
        message = explained(str(refused), parser._option_string_actions, RootSchema.__dataclass_fields__)
        if message.startswith("unrecognized arguments:"):
            message = f"{message.partition(': ')[2]}: flags stand before or behind all keys"
        return f"{message} (lshbench run --help)"
    return None


def expected_kind(message: str, given: str) -> str | None:
    """Return what kind of value a key takes, in place of OmegaConf's message; None for any other message.

    Args:
        message: OmegaConf's.
        given: the key with its value.
    """
    found = re.search(r"could not be converted to (\w+)$|is not a valid (\w+) ", message)
    kind = KINDS.get(found[1] or found[2]) if found else None
    if kind is None:
        return None
    key, _, value = given.partition("=")
    each = f"; a run for each of them: lshbench run -m {key}={value.strip('[] ')}" if value.startswith("[") else ""
    return f"expected {kind}{each}"


def missing_option(message: str, arguments: Sequence[str]) -> str | None:
    """Return what is wrong with an option that there is not, and which was probably meant; None if all are there.

    Args:
        message: Hydra's.
        arguments: of the command line.
    """
    found = re.search(r"Could not find '([^'/@]+)/(.+?)'", message)
    if found is None or not (conf_folder() / found[1]).is_dir():
        return None
    group, name = found.groups()
    listed = message.partition("Available options in")[2].partition("Config search path")[0].splitlines()[1:]
    names = [line.strip() for line in listed if line.strip() and line.strip() not in HIDDEN]
    given = [argument for argument in arguments if re.match(rf"[+~]*{group}(@[^=]*)?=", argument)]
    key = given[0].partition("=")[0] if given else group
    meant = near(name, names)
    hint = f"did you mean {key}={meant}?" if meant else f"there are: {', '.join(names)}"
    listing = f" (lshbench ls {group})" if group in LISTED else ""
    return f"{given[0] if given else f'{group}={name}'}: there is no option {name!r}; {hint}{listing}"


def owners(key: str) -> tuple[str, list[str]]:
    """Return a key such as ``method.map_dim``, or one spelt alike, and the options of its group that have it."""
    group, _, name = key.partition(".")
    if group not in GROUPS or not name or "." in name:
        return key, []
    having = {option: _keys(conf_folder() / group / f"{option}.yaml") for option, _ in options(group)}
    meant = near(name, sorted(set().union(*having.values())))
    return f"{group}.{meant}", [option for option, keys in having.items() if meant in keys]


def _keys(path: Path) -> set[str]:
    """Return the first keys in an option's file, and in those of its folder that it is made of."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    found = {str(key) for key in content if key != "defaults"}
    for part in content.get("defaults", ()):
        if isinstance(part, str) and (base := path.parent / f"{part.partition('@')[0]}.yaml").is_file():
            found |= _keys(base)
    return found


def missing_working_folder() -> str | None:
    """Return a message if the folder that the command was started in is gone."""
    try:
        Path.cwd()
    except OSError as error:
        return f"the working folder can't be read ({error.strerror}): change to a folder that exists"
    return None


def quoting_hint(message: str, arguments: Sequence[str], is_read: Callable[[str], bool]) -> str:
    """Return Hydra's message on an argument that it can't parse, with how to write it."""
    parsed = [argument for argument in arguments if not argument.startswith("-")]
    bad = next((argument for argument in parsed if not is_read(argument)), None)
    found = _OVERRIDE.match(bad) if bad else None
    if found is None:
        return message
    first = message.split("\n")[0]
    return (
        f"{bad}: can't be read ({first}); a value with = [ ] {{ }} ~ or blanks stands in quotes: '{found[1]}=\"...\"'"
    )


def _text_before(path: Path, position: int) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:position]
    except OSError:
        return ""


def _undecodable(arguments: Sequence[str]) -> Iterator[tuple[Path, int]]:
    """Yield the YAML files below the user's configuration folders that are not UTF-8, and the lines where."""
    folders = []
    for place, argument in enumerate(arguments):
        flag, _, value = argument.partition("=")
        if flag in CONFIG_FOLDER_FLAGS:
            folders.append(value or (arguments[place + 1] if place + 1 < len(arguments) else ""))
    for folder in filter(os.path.isdir, folders):
        for path in sorted(Path(folder).rglob("*.yaml")):
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                yield path, path.read_bytes()[: error.start].count(b"\n") + 1
