"""The command line: `athlete train`, `athlete evaluate`, ... Every command imports what it needs when it runs."""
