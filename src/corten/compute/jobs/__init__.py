"""`corten map`: one command for many inputs, each in a fresh container.

words: the command of an input, names of its files     state: what is to be done next (pure)
account: what became of each input, on disk            runner: containers, signals, output
"""
