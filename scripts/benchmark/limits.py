"""What a service allows, read from its own description."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from scripts.benchmark.rows import BenchmarkError, Row


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of sides in pixels and of steps."""

    min_size: int
    max_size: int
    multiple: int
    max_steps: int

    @classmethod
    def described(cls, document: Mapping[str, Any]) -> Self:
        """Read them from an OpenAPI description.

        Raises:
            BenchmarkError: the description is not this service's.

        """
        try:
            body = document["paths"]["/generate"]["post"]["requestBody"]
            schema = body["content"]["application/json"]["schema"]
            if "$ref" in schema:
                schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            side, steps = schema["properties"]["width"], schema["properties"]["steps"]
            return cls(
                min_size=int(side["minimum"]),
                max_size=int(side["maximum"]),
                multiple=int(side["multipleOf"]),
                max_steps=int(steps["maximum"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BenchmarkError(
                f"/openapi.json does not describe POST /generate ({error}): is it this service?"
            ) from error

    def refusal(self, row: Row) -> str:
        """Return why a row is not allowed; nothing if it is."""
        for side in (row.width, row.height):
            if not self.min_size <= side <= self.max_size or side % self.multiple:
                return (
                    f"{row.name}: the service allows sides of {self.min_size} to {self.max_size} "
                    f"pixels, multiples of {self.multiple} (its MIN_SIZE and MAX_SIZE)"
                )
        if row.steps > self.max_steps:
            return f"{row.name}: the service allows {self.max_steps} steps (its MAX_STEPS)"
        return ""

    def demand(self, rows: Iterable[Row]) -> None:
        """Insist that every row is allowed.

        Raises:
            BenchmarkError: names the first that is not, the limit and the setting.

        """
        for row in rows:
            if refusal := self.refusal(row):
                raise BenchmarkError(refusal)
