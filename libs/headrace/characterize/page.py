"""A Document as one HTML file that stands alone, in the style of the simulator's report."""

from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from headrace.characterize.document import Document
from headrace.report.provenance import Provenance


def html(document: Document, provenance: Provenance) -> str:
    environment = Environment(
        loader=PackageLoader("headrace.characterize", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style = resources.files("headrace.report").joinpath("page.css").read_text()
    return environment.get_template("page.html.j2").render(
        document=document, provenance=provenance, style=Markup(style)
    )
