"""Files into records: formats, compression, archives, folders."""
