"""The command line: arguments, main, doctor."""
