"""A model's profiles: its card, its LLM and its encoder on 1 to 8 GPUs, and the link between them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from headrace.characterize.paper import published
from headrace.core.cost import Link
from headrace.profiles import EncoderProfile, InstanceProfile, ModelCard, ProfileError, encoder, gpu, instance, model
from headrace.report.assumptions import Assumption, source_lines

DEGREES = (1, 2, 4, 8)
_CALIBRATED = "calibration: [P"  # how the source of an encoder's profile says that a published share made it

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Parts:
    card: ModelCard
    llms: Mapping[int, InstanceProfile]  # by GPUs
    encoders: Mapping[int, EncoderProfile]  # empty: it takes text alone
    link: Link
    link_name: str
    gpu: str = "a100"
    llm_file: str = ""  # a user's own, instead of the packaged profile
    tower_file: str = ""
    gpus: int = 0  # tensor parallelism where one degree is shown; 0: the card's, which is the paper's

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def degree(self) -> int:
        """The one that is shown: as asked for, or the nearest that there is."""
        wanted = self.gpus or self.card.tensor_parallel
        known = [degree for degree in self.llms if not self.encoders or degree in self.encoders]
        if not known:
            raise ProfileError(f"{self.name}: its LLM and its encoder have no tensor parallelism in common")
        return min(known, key=lambda degree: (abs(degree - wanted), degree))

    @property
    def llm(self) -> InstanceProfile:
        return self.llms[self.degree]

    @property
    def encoder(self) -> EncoderProfile:
        return self.encoders[self.degree]

    @property
    def crosses(self) -> bool:
        """Media stand beside the sequence."""
        return self.card.contract == "cross"

    @property
    def calibrated(self) -> bool:
        """Whether the paper's share of encoding went into the encoder's seconds."""
        if not self.encoders or not published(self.name).encode_share:
            return False
        return _CALIBRATED in self.encoder.source

    def assumptions(self) -> tuple[Assumption, ...]:
        found = [Assumption(f"Model {self.name}", (self.card.source,))]
        found.append(Assumption(f"Instance profile {self.llm.name}", source_lines(self.llm.source)))
        if self.encoders:
            found.append(Assumption(f"Encoder profile {self.encoder.name}", source_lines(self.encoder.source)))
        return tuple(found)


def read(name: str, gpu_name: str, *, link: str = "infiniband", gpus: int = 0, llm: str = "", tower: str = "") -> Parts:
    """llm, tower: TOML files of a user's own, instead of the packaged profiles.

    Raises:
        ProfileError: no such model, GPU, link or profile; or a profile's content is wrong.
    """
    card, links = model(name), gpu(gpu_name).links
    if link not in links:
        raise ProfileError(f"GPU {gpu_name}: no link {link!r}; it has {', '.join(links)}")
    return Parts(
        card=card,
        llms=_degrees(instance, llm or f"{gpu_name}/{name}"),
        encoders=_degrees(encoder, tower or f"{gpu_name}/{name}") if card.encoder else {},
        link=links[link],
        link_name=link,
        gpu=gpu_name,
        llm_file=llm,
        tower_file=tower,
        gpus=gpus,
    )


def _degrees(reader: Callable[[str], P], name: str) -> dict[int, P]:
    """Those that the file has; its first complaint if it has none."""
    found: dict[int, P] = {}
    complaints: list[ProfileError] = []
    for degree in DEGREES:
        try:
            found[degree] = reader(f"{name}/tp{degree}")
        except ProfileError as error:
            complaints.append(error)
    if wrong := [error for error in complaints if "no table [tp" not in str(error)]:
        raise wrong[0]
    if not found:
        raise complaints[0]
    return found
