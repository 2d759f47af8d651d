"""`headrace reproduce NAME`: runs main(argv) of loadtest/reproduce/<name>.py in a checkout."""

import argparse

from headrace.cli import checkout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=checkout.names("reproduce"), help="; --quick, --out FOLDER, --json and more")


def run(args: argparse.Namespace) -> int:
    return checkout.run("reproduce", args)
