"""The command line: usage and options of every command, from the parsers themselves."""

import argparse
import ast
import importlib
import os
from pathlib import Path

from headrace.cli.main import COMMANDS
from reference.words import cell, code, table

os.environ["COLUMNS"] = "100"  # of usage lines
# What a checkout has many of, and each parses its own options.
ROOMS = {"bench": "benches", "reproduce": "reproduce"}


def page(root: Path) -> str:
    parts = [
        "# Command line\n",
        table(
            ("Command", "Does"),
            [(f"[`headrace {name}`](#headrace-{name})", cell(about)) for name, about in COMMANDS.items()],
        ),
    ]
    for name, about in COMMANDS.items():
        command = importlib.import_module(f"headrace.cli.{name.replace('-', '_')}")
        parser = argparse.ArgumentParser(prog=f"headrace {name}", description=about)
        command.add_arguments(parser)
        parts.append(_described(parser, 2))
        if name in ROOMS:
            parts.append(_room(root / "loadtest" / ROOMS[name], name))
    return "\n".join(parts)


def _described(parser: argparse.ArgumentParser, level: int) -> str:
    about = parser.description or ""
    out = [f"{'#' * level} {parser.prog}\n", f"{about[:1].upper()}{about[1:]}.\n" if about else ""]
    plain, inner = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            inner += [(name, action.choices[name]) for name in action.choices]
        elif not isinstance(action, argparse._HelpAction) and action.help is not argparse.SUPPRESS:
            plain.append(action)
    if not inner:
        usage = parser.format_usage().removeprefix("usage: ").strip()
        out.append(f"```text\n{usage if len(usage) < 2000 else parser.prog + ' ...'}\n```\n")
    if plain:
        out.append(table(("Option", "Default", "Meaning"), [_option(each) for each in plain]))
    helps = {each.dest: each.help for action in parser._actions for each in getattr(action, "_choices_actions", [])}
    for name, each in inner:
        each.description = each.description or helps.get(name) or ""
        out.append(_described(each, level + 1))
    return "\n".join(out)


def _option(action: argparse.Action) -> tuple[str, str, str]:
    names = [code(name) for name in action.option_strings] or [code(action.metavar or action.dest)]
    words = [str(word) for word in action.choices or ()]
    about = (action.help or "").lstrip("; ") % {"default": action.default, "prog": "headrace"}
    allowed = f"one of {', '.join(map(code, words))}" if 0 < len(words) <= 12 else ""
    takes = code(action.metavar) if action.option_strings and isinstance(action.metavar, str) else ""
    named = f"{'<br>'.join(names)} {takes}".strip()
    return named, code(_default(action.default)), cell("; ".join(filter(None, (about, allowed))))


def _default(value: object) -> str:
    if value in (None, False, True, "", (), argparse.SUPPRESS) or value == []:
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _room(folder: Path, command: str) -> str:
    rows = []
    for path in sorted(folder.glob("*.py")):
        if "\ndef main(" in (text := path.read_text()):
            about = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
            rows.append((code(f"headrace {command} {path.stem.replace('_', '-')}"), cell(about)))
    return table(("Name", "Measures" if command == "bench" else "Runs again"), rows)
