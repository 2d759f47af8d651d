"""`headrace certs DIR`: certificates, passwords, NATS permissions and API keys for a trial, in one directory."""

import argparse
from pathlib import Path

from headrace.cli import credentials
from headrace.cli.view import Console

_FILES = (
    ("ca.crt, ca.key", "the authority; keep ca.key away from the mesh"),
    ("member.crt, member.key", "services, NATS and Redis: HEADRACE_TLS_CERT, HEADRACE_TLS_KEY"),
    ("client.crt, client.key", "operators, Prometheus; and API clients under HEADRACE_TLS_CLIENTS=all"),
    ("nats-users.conf", "for nats-server's configuration: one user a role, and what it may say and hear"),
    ("nats-<role>.creds", "HEADRACE_NATS_CREDS_FILE of that role's services"),
    ("redis.acl, redis.password", "the server's aclfile; HEADRACE_REDIS_PASSWORD_FILE"),
    ("keys.toml", "HEADRACE_API_KEYS_FILE; `headrace keys --file` changes it"),
    ("trial.key, operator.key", "API keys: asking; and everything"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--host", action="append", default=[], help="a further name or address of the machines")
    parser.add_argument("--days", type=int, default=credentials.DAYS, help="until certificates expire")


def run(args: argparse.Namespace) -> int:
    console = Console()
    try:
        credentials.prepare(args.directory, args.host, args.days)
    except OSError as error:
        console.error(f"{error.filename}: {error.strerror}")
        return 1
    console.table(str(args.directory), ("file", "for"), [list(row) for row in _FILES])
    return 0
