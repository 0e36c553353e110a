"""Types of single values of the chart."""

from typing import Annotated

from pydantic import Field

from deployments.settings import PositiveInt

# Parts of Kubernetes objects. The API server checks them.
Fragment = dict[str, object]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
NoName = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Percent = Annotated[int, Field(ge=1, le=100)]
Share = Annotated[float, Field(gt=0, lt=100)]
Seconds = PositiveInt
Count = Annotated[int, Field(ge=0)]
Variables = dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str]
