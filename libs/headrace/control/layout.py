"""Where servers stand: two rows share an aisle, racks make up a row. Power is limited by row, airflow by aisle (TAPAS;
patent US20260186818A1 [V])."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROWS_OF_AISLE = 2
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Layout:
    """Servers are numbered along their rows."""

    rows: int
    servers_of_row: int
    servers_of_rack: int = 4

    def __post_init__(self) -> None:
        for name in ("rows", "servers_of_row", "servers_of_rack"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not above 0")
        if self.rows % ROWS_OF_AISLE:
            raise ValueError(f"rows: {self.rows} is odd, and {ROWS_OF_AISLE} rows share an aisle")

    @property
    def servers(self) -> int:
        return self.rows * self.servers_of_row

    @property
    def aisles(self) -> int:
        return self.rows // ROWS_OF_AISLE

    @property
    def row(self) -> Numbers:
        """Of each server."""
        return np.repeat(np.arange(self.rows), self.servers_of_row)

    @property
    def aisle(self) -> Numbers:
        return self.row // ROWS_OF_AISLE

    @property
    def rack(self) -> Numbers:
        """Of each server, within its row."""
        return np.tile(np.arange(self.servers_of_row) // self.servers_of_rack, self.rows)
