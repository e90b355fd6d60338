"""Executors, one file each: what computes units, here or on many machines.

An executor's file has

    opened(address)    a context in which there is an engine to run on; UsageError if there is none, or it is too small
    run(work, units)   yields `work(unit)` of each unit, in any order, as they are done; `work` is a frozen dataclass
                       with a field `cores`, what one process may use

and imports nothing heavy until it is called. Whoever computes a unit, and how often, its bytes are the same. An error
that concerns all units is raised as it is.
"""
