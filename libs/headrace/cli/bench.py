"""`headrace bench NAME`: runs main(argv) of loadtest/benches/<name>.py in a checkout."""

import argparse

from headrace.cli import checkout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=checkout.names("benches"), help="; further options are the bench's own")


def run(args: argparse.Namespace) -> int:
    return checkout.run("benches", args)
