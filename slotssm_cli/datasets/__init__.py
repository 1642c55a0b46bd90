"""Commands that make, convert, describe and check data sets."""
