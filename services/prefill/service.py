"""A prefill worker: the worker shell with the prefill stage, unless --stages says otherwise."""

from headrace.worker.process import main


def serve() -> None:
    main("prefill")
