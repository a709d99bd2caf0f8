"""What bench/peers is made of: a module for each family of peers, and the rows, inputs, rounds and tables.

A peer is a subclass of Peer that registry.py lists. It loads nothing before missing() is called, so that
every peer is optional.
"""

import dataclasses
import typing


@dataclasses.dataclass
class Prepared:
    """One way of running a row: a callable for each copy of the inputs, and what its results mean."""

    calls: list
    """callables without arguments, one for each copy of the inputs, which they do not change"""
    result: typing.Callable
    """makes an array in the row's own shape (see data.py) of what a call returned"""


class Peer:
    name = ""
    """heads the peer's column"""
    install = ""
    """how to get it: part of a sentence"""
    follows_isa = True
    """whether it can be kept to AVX2 (environment.AVX2, or by itself)"""
    types = ("f32",)
    """types of weights, keys and values that it is asked for"""

    def missing(self):
        """None where the peer can run here, otherwise why not. Loads the peer."""
        raise NotImplementedError

    def version(self):
        """Version and what else names the peer that runs (asked where it is not missing)."""
        raise NotImplementedError

    def set_threads(self, n):
        """The number of threads from here on."""
        raise NotImplementedError

    def prepare(self, case):
        """The ways in which the peer can run a case: {name: Prepared}; empty where it cannot."""
        raise NotImplementedError
