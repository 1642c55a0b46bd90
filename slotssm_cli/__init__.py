"""The command line: parse options, call one function of the library, print its result."""
