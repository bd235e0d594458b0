"""Commands: thin, one module each, imported only when called."""
