"""`corten-oci`: an OCI runtime with runc's command line. Commands: one module each, imported only when called."""
