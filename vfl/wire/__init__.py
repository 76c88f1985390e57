"""Messages and how they travel: codec, line, the two drivers, links, handshake, ledger."""
