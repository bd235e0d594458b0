"""A live, full-screen view of containers.

reading   what is shown, read with as little work as can be
model     the state of the view and its page: pure
acting    what keys do to a container: signals, freezing, new limits
screen    the terminal: drawing and keys
guard     the process that puts the terminal back whatever happens to the screen's
"""
