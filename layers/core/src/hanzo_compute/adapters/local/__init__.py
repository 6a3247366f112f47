"""Adapters of one machine: SQLite behind one writer process, blobs as files, the system's clock."""
