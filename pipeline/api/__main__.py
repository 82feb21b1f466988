"""`python -m seq2serve`: the command line."""

from seq2serve.pipeline.commands.app import main

if __name__ == "__main__":
    main()
