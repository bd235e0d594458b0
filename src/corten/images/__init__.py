"""Where root file systems come from: the host, directories, archives."""
