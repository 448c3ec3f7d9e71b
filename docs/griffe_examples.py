"""Show an `Example:` of a docstring as code, as doctest reads it."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace('Example:\n', 'Examples:\n')
