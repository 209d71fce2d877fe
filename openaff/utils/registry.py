"""Names to builders: one small table for fusions, one for backbones, one for data sets."""

import re

from .errors import UserError, suggest


class Registry:
    """A table of builders by name.

    Parameters
    ----------
    kind : str
        What the names stand for, for error messages ("fusion", "data set").
    form : str, optional
        Regular expression that every key must match.
    """

    def __init__(self, kind, form=".+"):
        self.kind = kind
        self._form = form
        self._entries = {}
        self._keys = []

    def register(self, key, *aliases):
        """Decorator that enters its object as ``key`` and ``aliases``; a name is taken once."""
        if not re.fullmatch(self._form, key):
            raise UserError(f"{key!r} is no key of a {self.kind}: it must match {self._form}")

        def add(entry):
            for name in (key,) + aliases:
                if name in self._entries:
                    raise ValueError(f"{self.kind} {name!r} is registered already")
            self._entries.update(dict.fromkeys((key,) + aliases, entry))
            self._keys.append(key)
            return entry

        return add

    def __getitem__(self, name):
        try:
            return self._entries[name]
        except KeyError:
            raise UserError(
                "unknown {} {!r}{} (known: {})".format(
                    self.kind, name, suggest(name, self._entries), ", ".join(self._keys)
                )
            ) from None

    def __contains__(self, name):
        return name in self._entries

    def __iter__(self):
        """The keys, without the aliases."""
        return iter(self._keys)
