"""What people look at: the machine and its containers as data, text and pictures.

Rule: a view reads, shows, and changes nothing. What it could not read it shows as unknown; it never guesses.
"""
