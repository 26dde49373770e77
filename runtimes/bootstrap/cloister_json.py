"""How a Python function's response becomes JSON."""

import json
import os
import sys


class Encoder:
    """Writes responses as AWS's runtimes do: decimals as numbers, named tuples as objects, bytes
    as text, and from Python 3.12 on characters as themselves."""

    plain = frozenset((str, int, float, bool, type(None)))

    def __init__(self):
        self.json = json.JSONEncoder(default=self.default, ensure_ascii=sys.version_info < (3, 12))
        self.mark = None
        self.decimals = []

    def encode(self, value):
        self.decimals = []
        try:
            if self.has_named_tuple(value):
                value = self.without_named_tuples(value)
        except RecursionError:
            pass  # the encoder finds the circle, too, and has the usual words for it
        text = self.json.encode(value)
        if self.decimals:
            # The encoder cannot be told to write a number as given, so each decimal went through
            # it as a string that nobody can guess, and is put in its place now.
            pieces = text.split('"' + self.mark)
            for i in range(1, len(pieces)):
                index, _, rest = pieces[i].partition('"')
                pieces[i] = self.decimals[int(index)] + rest
            text = "".join(pieces)
        try:
            return text.encode()
        except UnicodeEncodeError:  # half a surrogate pair: only an escape can carry it
            return json.dumps(json.loads(text)).encode()

    def default(self, value):
        decimal = sys.modules.get("decimal")
        if decimal is not None and isinstance(value, decimal.Decimal):
            if self.mark is None:
                self.mark = os.urandom(16).hex()
            self.decimals.append("NaN" if value.is_nan() else str(value))
            return self.mark + str(len(self.decimals) - 1)
        if isinstance(value, bytes):
            return value.decode()
        raise TypeError("Object of type %s is not JSON serializable" % type(value).__name__)

    def has_named_tuple(self, value):
        if type(value) in self.plain:
            return False
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return True
        if isinstance(value, dict):
            value = value.values()
        elif not isinstance(value, (list, tuple)):
            return False
        if self.plain.issuperset(map(type, value)):
            return False
        return any(map(self.has_named_tuple, value))

    def without_named_tuples(self, value):
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            value = value._asdict()
        if isinstance(value, dict):
            return {k: self.without_named_tuples(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.without_named_tuples(v) for v in value]
        return value
