"""Completion in bash, zsh and fish: commands, options, and values that only this program knows.

    words of the shell ─► Cursor: command, values so far, parameter at the cursor ─► candidates ─► text for the shell

The shells' scripts are typer's (`--install-completion`), its own completion is not used: it reads the words before the
cursor with pydantic and knows nothing but choices. Each press of Tab waits for this module, so it imports no schema, no
store and no model: it reads the files themselves.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from clipbert_cli.commands.usage import typed_name
from clipbert_cli.foreign import read_text
from clipbert_cli.printable import printable

VARIABLE = "_CLIPBERT_COMPLETE"
"""The environment variable in which typer's scripts name the shell: `complete_bash`."""

Candidates = Iterable[tuple[str, str]]
"""Values and what they mean."""

MAX_YAML_BYTES = 2**20
"""The limit of a recipe that is looked into."""

_ENTRIES = 1000
"""How many entries of a folder, and how many media ids, are looked at."""


@dataclass
class Cursor:
    """The place in a command line that is being completed.

    Args:
        command: the command that the words before the cursor name.
        path: its name, such as `store show`.
        given: the values before the cursor, by option (`--run`) or metavar of the argument (`STORE`).
        plain: the words before the cursor that belong to no option.
        options_end: whether `--` is before the cursor, so that the word at the cursor is no option.
        option: the option whose value is at the cursor, None if another word is there.
        argument: the argument that a plain word at the cursor belongs to, None if there is none.
        prefix: the option before the value in one word, such as `--run=`.
        word: the word at the cursor after the prefix, as far as it is typed.
    """

    command: Any
    path: str = ""
    given: dict[str, list[str]] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)
    options_end: bool = False
    option: Any = None
    argument: Any = None
    prefix: str = ""
    word: str = ""

    def last(self, name: str) -> str | None:
        """Return the value that counts of an option or an argument."""
        values = self.given.get(name)
        return values[-1] if values else None


def complete(command: Any) -> bool:
    """Print the candidates for the shell that asks, and return whether one asks that this module knows."""
    instruction, _, shell = os.environ.get(VARIABLE, "").partition("_")
    if instruction != "complete" or shell not in _SHELLS:
        return False
    read, write = _SHELLS[shell]
    words = read()
    try:
        cursor = find_cursor(command, [_unquoted(word) for word in words[:-1]], _unquoted(words[-1]))
        # The shell would obey an escape sequence in the name of a file or an id, and take a line break for the end.
        found = [(value, printable(meaning)) for value, meaning in candidates(cursor) if value.isprintable()]
    except Exception:  # noqa: BLE001 - a traceback in the middle of a line that is being typed helps nobody
        found = []
    text = write(found, words[-1])
    if text:
        print(text)
    return True


def find_cursor(command: Any, words: Sequence[str], word: str) -> Cursor:
    """Return where the word after `words` stands; the command is the root of all."""
    cursor = Cursor(command)
    for each in words:
        if cursor.option is not None:
            cursor.given.setdefault(typed_name(cursor.option), []).append(each)
            cursor.option = None
        elif each == "--":
            cursor.options_end = True
        elif each.startswith("-") and len(each) > 1 and not cursor.options_end:
            flag, equals, value = each.partition("=")
            if option := _option(cursor.command, flag):
                cursor.given.setdefault(typed_name(option), []).extend([value] if equals else [])
                cursor.option = None if equals or option.is_flag else option
        elif inner := getattr(cursor.command, "commands", {}).get(each):
            cursor = Cursor(inner, f"{cursor.path} {each}".strip())
        else:
            cursor.plain.append(each)
    flag, equals, value = word.partition("=")
    if cursor.option is None and equals and not cursor.options_end and (option := _option(cursor.command, flag)):
        cursor.option, cursor.prefix, word = option, f"{flag}=", value
    cursor.word = word
    arguments = [each for each in cursor.command.params if each.param_type_name == "argument"]
    cursor.given |= {typed_name(argument): [each] for argument, each in zip(arguments, cursor.plain, strict=False)}
    # An argument that takes any number of words takes all that follow.
    several = [place for place, argument in enumerate(arguments) if argument.nargs == -1]
    cursor.argument = dict(enumerate(arguments)).get(min([len(cursor.plain), *several]))
    return cursor


def candidates(cursor: Cursor) -> Candidates:
    """Yield what the word at the cursor may become."""
    found: Candidates = ()
    if cursor.option is not None:
        found = _values(cursor.option, cursor)
    elif cursor.word.startswith("-") and not cursor.options_end:
        found = _options(cursor)
    elif commands := getattr(cursor.command, "commands", None):
        # A word before the cursor that names no command makes the line wrong.
        found = () if cursor.plain else ((name, command.get_short_help_str()) for name, command in commands.items())
    elif cursor.argument is not None:
        found = _values(cursor.argument, cursor)
    return ((cursor.prefix + value, meaning) for value, meaning in found if value.startswith(cursor.word))


def _option(command: Any, flag: str) -> Any:
    return next((each for each in command.params if each.param_type_name == "option" and flag in each.opts), None)


def _options(cursor: Cursor) -> Candidates:
    for option in cursor.command.params:
        if option.param_type_name == "option" and (option.multiple or typed_name(option) not in cursor.given):
            yield from ((flag, option.help or "") for flag in option.opts if flag.startswith("--"))
    yield "--help", "Show the help of the command."


def _values(parameter: Any, cursor: Cursor) -> Candidates:
    name = typed_name(parameter)
    if source := _SOURCES.get(f"{cursor.path} {name}") or _SOURCES.get(name):
        return source(cursor)
    # Older versions of typer have click's types.
    kind = getattr(parameter, "type_descriptor", None) or parameter.type
    return ((str(getattr(choice, "value", choice)), "") for choice in getattr(kind, "choices", None) or ())


# ------------------------------------------------------------------------------------------------ sources of values


def _fixed(*values: str) -> Callable[[Cursor], Candidates]:
    return lambda cursor: ((value, "") for value in values)


def _recipes(cursor: Cursor) -> Candidates:
    from clipbert_cli.recipe.shipped import shipped_names

    yield from ((name, "shipped recipe") for name in shipped_names())
    yield from ((path.name, "recipe file") for path in sorted(Path().glob("*.y*ml")))


def _folders_with(marker: str) -> Callable[[Cursor], Candidates]:
    """Return a source of the folders up to two levels below the typed one that hold an entry of this name."""

    def source(cursor: Cursor) -> Candidates:
        typed = cursor.word[: cursor.word.rfind("/") + 1]
        return ((path, "") for path in _below(Path(os.path.expanduser(typed or ".")), typed, cursor.word, marker, 2))

    return source


def _below(folder: Path, prefix: str, word: str, marker: str, levels: int) -> Iterator[str]:
    with os.scandir(folder) as scanned:
        entries = sorted((entry for entry in islice(scanned, _ENTRIES)), key=lambda entry: entry.name)
    for entry in entries:
        name = prefix + entry.name
        if (
            not (name.startswith(word) or word.startswith(f"{name}/"))
            or entry.name.startswith(".")
            or not entry.is_dir()
        ):
            continue
        if os.path.exists(os.path.join(entry, marker)):
            yield name
        elif levels:
            yield from _below(Path(entry), f"{name}/", word, marker, levels - 1)


_runs, _stores = _folders_with("recipe.yaml"), _folders_with("data.mdb")


def _checkpoints(cursor: Cursor) -> Candidates:
    folder = Path(cursor.last("--run") or cursor.last("RUN") or ".", "checkpoints").expanduser()
    steps = sorted((path.name for path in folder.glob("step_*")), key=lambda name: int(name.removeprefix("step_")))
    return ((name, "") for name in ("best", "latest", *steps))


def _splits(cursor: Cursor) -> Candidates:
    from clipbert_cli.recipe.shipped import find_recipe

    recipe, run = cursor.last("--recipe"), cursor.last("--run")
    file = find_recipe(recipe) if recipe else Path(run, "recipe.yaml").expanduser() if run else None
    # Without a recipe or a run, the names that every shipped recipe has.
    names = _split_names(file) if file else ("train", "val", "test")
    return ((name, "") for name in names)


def _split_names(file: Path, depth: int = 8) -> list[str]:
    """Return the names of the splits in a recipe file and in those that it extends, `depth` files far."""
    from clipbert_cli.recipe.shipped import find_recipe

    content = _yaml(file)
    bases = content.get("extends") or []
    names: dict[str, object] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        names |= dict.fromkeys(_split_names(file.parent / find_recipe(base), depth - 1) if depth else (), True)
    names |= (content.get("data") or {}).get("splits") or {}
    # `val: null` removes a split of a base.
    return [name for name, split in names.items() if split is not None]


def _yaml(file: Path) -> Mapping[str, Any]:
    import yaml

    content = yaml.load(read_text(file, limit=MAX_YAML_BYTES), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return content if isinstance(content, dict) else {}


def _settings(cursor: Cursor) -> Candidates:
    """Yield keys of settings, and for a whole key its values."""
    found = _settings_page()
    key, equals, _ = cursor.word.partition("=")
    matching = [name for name in found if name == key or (not equals and name.startswith(key))]
    if len(matching) > 1 and not equals:
        yield from ((name, found[name].meaning) for name in matching)
        return
    for name in matching:
        if not equals:
            # Of two candidates the shell inserts what they share, the key; one alone it would take as the whole word.
            yield f"{name}=", found[name].meaning
        yield from ((f"{name}={value}", "") for value in found[name].values)


def _keys(cursor: Cursor) -> Candidates:
    found = _settings_page()
    sections = dict.fromkeys(key.rpartition(".")[0] for key in found if "." in key)
    return (*((section, "section") for section in sections), *((key, each.meaning) for key, each in found.items()))


@dataclass(frozen=True)
class _Setting:
    meaning: str
    values: tuple[str, ...]


def _settings_page() -> dict[str, _Setting]:
    """Read the settings from docs/settings.md, which is generated from the schema: importing that takes 0.2 seconds."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "settings.md"
    page = (installed if installed.is_file() else package.parent / "docs/settings.md").read_text(encoding="utf-8")
    found = {}
    for entry in page.split("\n### `")[1:]:
        key, _, rest = entry.partition("`\n\n")
        facts = dict(re.findall(r"^\* (value|default): (.*)$", rest, flags=re.M))
        words = re.split(r", | or ", facts["value"])
        # A value that is described by a sentence or as `text` is no choice.
        choices = [word for word in words if re.fullmatch(r"\w+", word) and word != "text"]
        default = facts["default"].strip("`")
        values = choices if len(choices) == len(words) else [default] if facts["default"].startswith("`") else []
        if "NAME" not in key:
            found[key] = _Setting(rest.partition("\n")[0], tuple(values))
    return found


def _media_ids(cursor: Cursor) -> Candidates:
    import lmdb

    store = os.path.expanduser(cursor.last("STORE") or "")
    with (
        lmdb.open(store, subdir=os.path.isdir(store), readonly=True, lock=False) as environment,
        environment.begin() as transaction,
        transaction.cursor() as keys,
    ):
        found = keys.set_range(cursor.word.encode()) if cursor.word else keys.first()
        names = (key.decode("utf-8", "replace") for key in keys.iternext(values=False)) if found else ()
        # The records of a store (store/records.py) have keys that begin with this name.
        media = (name for name in names if not name.startswith("/clipbert/"))
        return [(name, "") for name in islice(media, _ENTRIES) if name.startswith(cursor.word)]


def _catalog() -> Mapping[str, Any]:
    return _yaml(Path(__file__).resolve().parents[1] / "assets/catalog.yaml")


def _assets(cursor: Cursor) -> Candidates:
    catalog = _catalog()
    for name, asset in catalog["assets"].items():
        yield name, asset["title"]
        yield from ((f"{name}/{part}", each["title"]) for part, each in asset["parts"].items())
    yield from ((name, "recipe and all it needs") for name in catalog["recipes"] if "*" not in name)


def _converters(cursor: Cursor) -> Candidates:
    parts = [part for asset in _catalog()["assets"].values() for part in asset["parts"].values()]
    return ((part["convert"], part["title"]) for part in parts if "convert" in part)


# By option or name of an argument, after the path of the command where the name means several things. Where there is
# no source and no choice, the shell completes names of files.
_SOURCES: dict[str, Callable[[Cursor], Candidates]] = {
    "--recipe": _recipes,
    "NAME|FILE": _recipes,
    "--split": _splits,
    "--set": _settings,
    "[KEY]": _keys,
    "--run": _runs,
    "RUN": _runs,
    "--checkpoint": _checkpoints,
    "--device": _fixed("cpu", "cuda"),
    "--nproc-per-node": _fixed("gpu"),
    "--format": _fixed("jsonl", "vqa-submission", "scores"),
    "STORE": _stores,
    "MEDIA_ID": _media_ids,
    "ASSET": _assets,
    "assets convert NAME": _converters,
}


# ------------------------------------------------------------------------------------------------ shells


def _unquoted(word: str) -> str:
    """Return a word as the shell passes it to a command, also if its quotes are not closed yet."""
    for closing in ("", "'", '"'):
        try:
            parts = shlex.split(word + closing)
        except ValueError:
            continue
        return parts[0] if parts else ""
    return word


def _read_bash() -> list[str]:
    """Return the words up to the cursor. Bash splits them at `=` and `:` as well, which are joined again here."""
    words: list[str] = []
    pieces = os.environ["COMP_WORDS"].split("\n")
    join = False
    for piece in [*pieces, ""][1 : int(os.environ["COMP_CWORD"]) + 1]:
        is_break = bool(piece) and not piece.strip("=:")
        if words and (is_break or join):
            words[-1] += piece
        else:
            words.append(piece)
        join = is_break
    return words or [""]


def _write_bash(found: Candidates, word: str) -> str:
    # Bash replaces what follows the last of these characters, and inserts a candidate as it is.
    kept = max(word.rfind("="), word.rfind(":")) + 1
    quoted = word[:1] in ("'", '"')
    start = len(_unquoted(word[:kept]))
    values = [value[start:] for value, _ in found]
    return "\n".join(values if quoted else [re.sub(r"([^\w@%+=:,./~-])", r"\\\1", value) for value in values])


def _read_line() -> list[str]:
    """Return the words up to the cursor of zsh and fish, which pass them as one text."""
    line = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    words = re.findall(r"(?:[^\s'\"\\]|\\.|'[^']*'?|\"(?:[^\"\\]|\\.)*\"?)+", line)[1:]
    return words if words and not line[-1:].isspace() else [*words, ""]


def _write_zsh(found: Candidates, word: str) -> str:
    items = [
        shlex.quote(value.replace("\\", "\\\\").replace(":", "\\:") + (f":{meaning}" if meaning else ""))
        for value, meaning in found
    ]
    if not items:
        return "_files"
    return f"local -a _clipbert_found; _clipbert_found=({' '.join(items)}); _describe clipbert _clipbert_found"


def _write_fish(found: Candidates, word: str) -> str:
    lines = ["\t".join(filter(None, item)) for item in found]
    if os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        # fish asks first whether there is anything; if there is not, it completes names of files.
        raise SystemExit(0 if lines else 1)
    return "\n".join(lines)


_SHELLS: dict[str, tuple[Callable[[], list[str]], Callable[[Candidates, str], str]]] = {
    "bash": (_read_bash, _write_bash),
    "zsh": (_read_line, _write_zsh),
    "fish": (_read_line, _write_fish),
}
