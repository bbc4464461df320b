"""`python -m clipbert_cli`, and what the `clipbert` command starts."""

from clipbert_cli.commands.app import main

if __name__ == "__main__":
    main()
