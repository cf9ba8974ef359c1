"""``python -m raregrade``, and ``torchrun … -m raregrade train …`` for several processes."""

from raregrade.cli.main import main

if __name__ == "__main__":
    main()
