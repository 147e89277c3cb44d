"""The run-time type checker of the test runs: beartype with PEP 484's numeric tower (an int is a float)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
