"""How to write what each converter reads: one module a converter, of its name."""
