"""The card of a GPU: its memory, its watts by phase, and the links that lead away from it."""

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.core.cost import Link, Power
from headrace.profiles.reading import Table, is_packaged, read_packaged

LINKS = ("nvlink", "infiniband", "ethernet", "pcie")


@dataclass(frozen=True, slots=True)
class GpuCard:
    name: str
    title: str
    memory_bytes: int
    memory_bytes_per_s: float
    tensor_flops_per_s: float  # dense, 16 bit
    tdp_w: float
    power: Power
    links: Mapping[str, Link]
    sources: Mapping[str, str]


def gpu(name: str) -> GpuCard:
    """A packaged card: a100, h100, a10, ...

    Raises:
        ProfileError: no such card, or its content is wrong.
    """
    top = read_packaged("gpus", name, "GPU")
    memory, compute, links = top.table("memory"), top.table("compute"), top.table("links")
    power, power_source = read_power(top.table("power"))
    card = GpuCard(
        name=name,
        title=top.text("title"),
        memory_bytes=memory.whole("bytes", least=1),
        memory_bytes_per_s=memory.number("bytes_per_s"),
        tensor_flops_per_s=compute.number("tensor_flops_per_s"),
        tdp_w=compute.number("tdp_w"),
        power=power,
        links={kind: _link(links.table(kind)) for kind in LINKS if kind in links},
        sources={
            "memory": memory.source(),
            "compute": compute.source(),
            "power": power_source,
            "links": links.source(),
        },
    )
    for table in (top, memory, compute, links):
        table.end()
    return card


def power_of(top: Table) -> tuple[str, Power, str]:
    """Of a profile: its GPU, the watts of one and their source; the file's own, or those of the GPU's card.

    A file that brings its own may be of a device that has no card: a processor, a GPU that nobody described.
    """
    name = top.text("gpu")
    if "power" in top:
        return name, *read_power(top.table("power"))
    card = gpu(name)
    return name, card.power, card.sources["power"]


def host_link(name: str, gpus: int) -> Link:
    """Between the memory of so many GPUs and their machine's: each has a PCIe of its own, and holds its share.

    A device without a card shares its memory with its machine, as far as we know: no cost.
    """
    if not is_packaged("gpus", name):
        return Link()
    each = gpu(name).links.get("pcie", Link())
    return Link(each.latency_s, each.bytes_per_s * gpus)


def read_power(table: Table) -> tuple[Power, str]:
    phases = ("idle_w", "context_w", "prefill_w", "decode_w", "encode_w")
    power, source = Power(**{phase: table.number(phase) for phase in phases}), table.source()
    table.end()
    return power, source


def _link(table: Table) -> Link:
    link = Link(table.number("latency_s"), table.number("bytes_per_s"))
    if not link.bytes_per_s:
        raise table.wrong("bytes_per_s", "must be more than 0")
    table.end()
    return link
