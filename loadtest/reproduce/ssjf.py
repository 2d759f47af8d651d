"""What SSJF (arXiv 2404.08509) gains, as published and fairly: the figures of `headrace bench ssjf` beside the paper's.

Nothing is computed here that the bench does not compute; this lays it out, and says what of the gains survives.
"""

import sys

from headrace.characterize.document import Document
from headrace.report.provenance import plain
from loadtest.benches import ssjf as bench
from loadtest.benches.report import say
from loadtest.benches.ssjf_lengths import FILE, Lengths, released, tabled
from loadtest.reproduce import echo, ssjf_ours, ssjf_sections
from loadtest.reproduce.running import Found, Options, run

ABOUT = (
    "Speculative shortest job first: answers' lengths are predicted by a small model, and the shortest is served first."
    " The paper's simulator rebuilt with its settings, then the same orders in a steady state in which every policy is"
    " treated alike, then on a modelled GPU where sequences slow one another down and memory is limited."
)


def measure(options: Options) -> Found:
    found = bench.measure(lengths_at(options), quick=options.quick)
    sections = ssjf_sections.all_of(found)
    if "ours" in found:
        sections = (*sections[:-1], ssjf_ours.section(found["ours"], found), sections[-1])
    if options.live:
        heard = echo.ssjf()
        sections, found["live"] = (*sections, echo.section("ssjf", heard)), [each.data() for each in heard]
    document = Document("SSJF, reproduced", ABOUT, sections, data=plain(found))
    return Found(document, seeds=tuple(range(bench.QUICK_SEEDS if options.quick else bench.SEEDS)))


def lengths_at(options: Options) -> Lengths:
    path = options.data / FILE
    if path.is_file():
        return released(path)
    say(f"no released predictions at {path}: drawing from the table of the five-class predictor instead")
    return tabled()


def main(argv: list[str] | None = None) -> int:
    return run("ssjf", sys.argv[1:] if argv is None else argv, measure)


if __name__ == "__main__":
    sys.exit(main())
