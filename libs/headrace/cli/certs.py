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
    ("sentinel.acl, redis-replica.password", "of Sentinels; what they and replicas say to a server"),
    ("keys.toml", "HEADRACE_API_KEYS_FILE; `headrace keys --file` changes it"),
    ("trial.key, operator.key", "API keys: asking; and everything"),
)

_LEAF = (("nats-leaf.conf", "in the place of nats-users.conf: the doors hear this cell's status"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--host", action="append", default=[], help="a further name or address of the machines")
    parser.add_argument("--cell", default="", help="its name to doors that many cells share (docs/cells.md)")
    parser.add_argument("--doors", action="append", default=[], metavar="URL", help="tls://CELL:PASSWORD@host:7422")
    parser.add_argument(
        "--behind", action="append", default=[], metavar="CELL", help="make the doors' own files instead"
    )
    parser.add_argument("--days", type=int, default=credentials.DAYS, help="until certificates expire")


def run(args: argparse.Namespace) -> int:
    console = Console()
    if bool(args.cell) != bool(args.doors) or (args.cell and args.behind):
        console.error("--cell and --doors belong together, and --behind stands alone")
        return 2
    try:
        if args.behind:
            credentials.prepare_doors(args.directory, args.behind, args.host, args.days)
            return 0
        credentials.prepare(args.directory, args.host, args.days, (args.cell, args.doors) if args.cell else None)
    except OSError as error:
        console.error(f"{error.filename}: {error.strerror}")
        return 1
    console.table(str(args.directory), ("file", "for"), [list(row) for row in (*_FILES, *(_LEAF if args.cell else ()))])
    return 0
