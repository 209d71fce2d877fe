"""What a check found."""

from dataclasses import dataclass

OK, WARNING, ERROR = "ok", "warning", "error"  # error: training cannot run


@dataclass(frozen=True)
class Finding:
    subject: str
    status: str  # OK, WARNING or ERROR
    text: str  # what was found, or what is wrong and how to fix it
