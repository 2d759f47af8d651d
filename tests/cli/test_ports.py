"""Ports of meshes that are started at the same time."""

import socket
from itertools import chain

from headrace.cli.ports import Ports, is_free


def test_meshes_started_at_once_take_none_of_each_others_ports() -> None:
    """None of them listens yet, so that all of them are free."""
    meshes = [Ports() for _ in range(20)]
    taken = list(chain.from_iterable([[mesh.take() for _ in range(30)] for mesh in meshes]))
    assert len(set(taken)) == len(taken)


def test_a_preferred_port_is_taken_where_it_is_free() -> None:
    ports = Ports()
    with socket.socket() as neighbour:
        neighbour.bind(("127.0.0.1", 0))
        neighbour.listen()
        held = neighbour.getsockname()[1]
        assert ports.take(held) != held
    wanted = Ports().take()
    assert is_free(wanted)
    assert ports.take(wanted) == wanted
    assert ports.take(wanted) != wanted


def test_a_full_block_leaves_the_others() -> None:
    ports = Ports()
    assert len({ports.take() for _ in range(200)}) == 200
