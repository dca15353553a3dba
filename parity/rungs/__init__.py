"""The rungs of the parity ladder, one module each; `parity.cases` puts them together."""
