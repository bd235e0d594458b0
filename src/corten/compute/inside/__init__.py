"""What runs inside a container: the zygote that forks, and the process that calls.

Rule 1: nothing but the standard library of Python 3.8 and cloudpickle: it also runs under the Python of an image, where
        Corten is not installed. It imports nothing of the rest of Corten (the import contract holds that).
Rule 2: it decides nothing: what a fork does to enter a container comes as a list of calls, made by `compute.entry`.
"""
