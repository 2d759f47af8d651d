"""A decode worker: the worker shell with the decode stage, unless --stages says otherwise."""

from headrace.worker.process import main


def serve() -> None:
    main("decode")
