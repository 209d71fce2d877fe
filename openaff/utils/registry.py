"""Tables of things by name: fusions, networks, data sets, tasks, optimisers."""

from .errors import UserError, suggest


class Registry:
    """A table of entries by name.

    Parameters
    ----------
    kind : str
        What the entries are, for error messages: "fusion", "data set".
    plain : bool
        Whether keys must be letters and digits alone, because other names are made of them.
    """

    def __init__(self, kind, plain=False):
        self.kind = kind
        self._plain = plain
        self._entries = {}
        self._keys = []

    def register(self, key, *aliases):
        """Decorator that registers an object as ``key`` and ``aliases``; names must be new."""
        if self._plain and not (key.isascii() and key.isalnum()):
            raise UserError(f"a {self.kind}'s key is letters and digits alone, not {key!r}")

        def add(entry):
            for name in (key,) + aliases:
                if name in self._entries:
                    raise ValueError(f"{self.kind} {name!r} is already registered")
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
