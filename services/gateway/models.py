"""The models that this gateway speaks for, by the name that requests give. The first is the default."""

from collections.abc import Iterator, Sequence

from headrace.core.errors import ModelNotFound
from headrace.engines.constrain import Grammars
from headrace.engines.families import Family
from headrace.mesh.errors import BadSetup
from services.gateway.told import Names, names_of


class Models:
    def __init__(self, families: Sequence[Family]) -> None:
        """families: at least one. Raises BadSetup: two have one name."""
        self._families = {family.spec.name: family for family in families}
        self._names = {name: names_of(family) for name, family in self._families.items()}
        self._grammars = {name: Grammars(family) for name, family in self._families.items()}
        if len(self._families) < len(families):
            every = [family.spec.name for family in families]
            twice = next(name for name in every if every.count(name) > 1)
            raise BadSetup(f"HEADRACE_MODELS: two models are called {twice!r}")
        self.default = families[0].spec.name

    def __iter__(self) -> Iterator[Family]:
        return iter(self._families.values())

    @property
    def known(self) -> tuple[str, ...]:
        return tuple(self._families)

    def family(self, name: str) -> Family:
        """name empty: the default. Raises ModelNotFound."""
        found = self._families.get(name or self.default)
        if found is None:
            known = ", ".join(map(repr, self._families))
            raise ModelNotFound(f"no model {name[:128]!r} here; there is {known}", field="model")
        return found

    def names(self, name: str) -> Names:
        """How this model's tokens read, one by one. Raises ModelNotFound."""
        return self._names[self.family(name).spec.name]

    def grammars(self, name: str) -> Grammars:
        """What can be kept to with this model's vocabulary. Raises ModelNotFound."""
        return self._grammars[self.family(name).spec.name]
