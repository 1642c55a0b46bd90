"""`python -m slotssm` is the command line."""

from slotssm_cli.main import main

if __name__ == "__main__":
    main()
