"""Entry point of `python -m slotssm`: the command line."""

from slotssm_cli.main import main

if __name__ == "__main__":
    main()
