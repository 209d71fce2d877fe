"""What a check found."""

from dataclasses import dataclass

OK, WARNING, ERROR = "ok", "warning", "error"  # error: training cannot run


@dataclass(frozen=True)
class Finding:
    subject: str
    status: str  # OK, WARNING or ERROR
    text: str  # what there is; otherwise what is wrong, and what to do
