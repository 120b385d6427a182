"""Pages of reference: signature, one line, and arguments of everything that a module offers, as
nbdev's own reader of docments finds them, and the cell of the notebook that builds it."""
import inspect
import json
import re
from dataclasses import MISSING
from enum import EnumMeta
from functools import cache, cached_property
from importlib import import_module
from types import SimpleNamespace
from typing import get_type_hints

from fastcore.docments import docments
from torch import nn

from website.names import (
    ROOT,
    between,
    cells_of,
    exported,
    floors,
    notebooks,
    subtitle_of,
    title_of,
)
from website.pages import adapt, fenced, is_hidden

EMPTY = inspect.Parameter.empty
ATTRIBUTES = property, cached_property


def words(value):
    "A type, a default or a note as one line of a table."
    if value is EMPTY or value is None: return ""
    value = bare_type(value)
    name = value.__name__ if isinstance(value, type) else str(value)
    home = r"\b(?:dppt_nb|torch|pathlib|numpy|collections\.abc|typing)\."
    return re.sub(home + r"(?:\w+\.)*", "", name)


def bare_type(value):
    "A type without what checks it: int of Annotated[int, ...], at any depth."
    if "Annotated[" not in str(value): return value
    return get_type_hints(SimpleNamespace(__annotations__={"it": value}))["it"]


def meaning(row):
    "What is said of an argument: a field's own description, or the comment beside it."
    return described(row.get("anno")) or row.get("docment")


def described(kind):
    "The description that an annotated type carries."
    notes = (getattr(note, "description", None) for note in getattr(kind, "__metadata__", ()))
    return next(filter(None, notes), None)


def marked(value):
    "A type or a default in code marks."
    text = words(value).replace("|", "\\|").replace("`", "'")
    return f"`{text}`" if text else ""


def arguments(item):
    "The table of arguments and of what comes back, where any of them is described."
    try:
        found = docments(item, full=True)
    except (TypeError, ValueError, OSError, SyntaxError):
        return ""    # made at run time, without a source
    given = {k: v for k, v in found.items() if k not in ("self", "cls") and v is not None}
    if not any(map(meaning, given.values())): return ""
    rows = [
        row_of(name, row, factories(item).get(name)) for name, row in given.items()
        if name != "return" or row.get("docment") is not None
    ]
    columns = list(zip(("argument", "type", "default", "meaning"), *rows))
    columns = [column for column in columns if any(column[1:])]    # none that is empty
    head, *lines = [f"| {' | '.join(line)} |" for line in zip(*columns)]
    return "\n".join([head, "|---" * len(columns) + "|", *lines])


def factories(item):
    "Field -> call that makes its default, of a class's fields that get a new one each."
    fields = getattr(item, "__dataclass_fields__", None) or getattr(item, "model_fields", {})
    made = {name: getattr(field, "default_factory", None) for name, field in fields.items()}
    return {name: Shown(f"{make.__name__}()") for name, make in made.items()
            if make not in (None, MISSING)}


def row_of(name, row, made=None):
    "An argument's name, type, default and meaning, marked for a table."
    default = made or row.get("default", EMPTY)
    return (
        "**returns**" if name == "return" else f"`{name}`",
        marked(row.get("anno", EMPTY)),
        "`None`" if default is None else marked(short(default)),
        words(meaning(row)).replace("|", "\\|").replace("\n", " "),
    )


def short(value, length=60):
    "A value in few letters, the same in every process."
    if value is EMPTY: return value
    if inspect.isfunction(value) or inspect.isclass(value): return value.__name__
    if name := constants().get(id(value)): return name
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value)).replace(f"{ROOT}/", "")
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text)
    return text if len(text) <= length else text[: length - 4] + " ..."


@cache
def constants():
    "Identity -> name of the package's own objects that serve as defaults, such as COCO17."
    plain = (int, float, str, bool, tuple, type(None))
    return {
        id(value): name for module in floors()
        for name, value in vars(import_module(f"dppt_nb.{module}")).items()
        if name.isupper() and not isinstance(value, plain)
    }


def signature(item, name):
    "How it is called, without the notes that stand in the table."
    if getattr(item, "__init__", None) is nn.Module.__init__: return f"{name}()"    # has none
    try:
        given = inspect.signature(item)
    except (TypeError, ValueError):
        return name
    made = factories(item)
    bare = lambda p: p.replace(annotation=EMPTY, default=EMPTY if p.default is EMPTY else Shown(
        short(made.get(p.name, p.default))
    ))
    plain = [bare(p) for p in given.parameters.values() if p.name not in ("self", "cls")]
    return f"{name}{given.replace(parameters=plain, return_annotation=EMPTY)}"


class Shown:
    "A default that is shown as it was shortened."
    def __init__(self, text): self.text = text
    def __repr__(self): return self.text


def section(name, item, level, notebook, page):
    "One name's part of the page."
    parts = [f"{'#' * level} `{name}` {{: #{name} }}"]
    said = adapt(inspect.getdoc(item) or "", notebook, page)
    if isinstance(item, ATTRIBUTES): return "\n\n".join([*parts, said])
    if option := option_of(item): return "\n\n".join([*parts, option])
    if not inspect.isclass(item) and not inspect.isroutine(item):
        return "\n\n".join([*parts, value_of(item)])
    parts += [fenced(signature(item, name), "python"), said, arguments(item)]
    return "\n\n".join(part for part in parts if part)


def option_of(item):
    "What an option of the commands says, of click's decorator that brings it; else nothing."
    if getattr(item, "__module__", "") != "click.decorators": return ""
    command = lambda: None
    item(command)
    option, = command.__click_params__
    return f"An option of commands: `{', '.join(option.opts)}`, {option.help}"


def value_of(item):
    "What a constant holds."
    kind = type(item).__name__.lstrip("_")
    article = "An" if kind[0] in "aeioAEIO" else "A"
    if help_text := getattr(item, "help", None): return f"A command: {help_text}"
    if hasattr(item, "__metadata__"):
        about = described(item)
        return f"A type with checks: {marked(item)}" + (f", {about}" if about else "")
    if isinstance(item, dict):
        keys = ", ".join(f"`{short(key)}`" for key in item)
        return f"{article} {kind} with the keys {keys}." if item else f"An empty {kind}."
    return f"{article} {kind}: `{short(item, 300)}`".replace("``", "`")


def methods(cls):
    "What a class itself defines and shows, in its own order."
    if isinstance(cls, EnumMeta): return
    for name, item in vars(cls).items():
        if name.startswith("_"): continue
        item = getattr(item, "__func__", item)
        if (inspect.isfunction(item) or isinstance(item, ATTRIBUTES)) and inspect.getdoc(item):
            yield name, item


@cache
def hidden_cells(source):
    "The cells of a notebook that its page does not show."
    cells = json.loads((ROOT / source).read_text())["cells"]
    return {cell["id"] for cell in cells if is_hidden(cell)}


def built_at(place, page):
    "A link to the cell that defines a name, or to its notebook where the page hides the cell."
    source, cell = place
    anchor = "" if cell in hidden_cells(source) else f"#cell-{cell}"
    return f"[Where it is built]({between(page, notebooks()[source])}{anchor})"


def page_of(module):
    "The page of reference of a module, as Markdown."
    page, code = f"api/{module}.md", import_module(f"dppt_nb.{module}")
    places = cells_of(module)
    notebook = next((path for path, _ in places.values()), None)
    offered = exported(module)
    anchor = f"module-{module}" if module in offered else module    # the name has the shorter one
    parts = [f"# {module} {{: #{anchor} }}"]
    if not offered: parts.append(adapt(code.__doc__ or "", f"dppt_nb/{module}.py", page))
    if notebook:
        parts += [
            f"> {adapt(subtitle_of(ROOT / notebook), notebook, page)}",
            f"Written in [{title_of(ROOT / notebook)}]({between(page, notebooks()[notebook])}); "
            f"`from dppt_nb.{module} import ...`",
        ]
    for name in offered:
        item = getattr(code, name)
        where = built_at(places[name], page) if name in places else ""
        parts += [section(name, item, 2, notebook, page), where]
        if inspect.isclass(item):
            parts += [section(f"{name}.{m}", f, 3, notebook, page) for m, f in methods(item)]
    return "\n\n".join(part for part in parts if part) + "\n"
