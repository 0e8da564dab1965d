"""`python -m kits_ml`: what the MLproject's entry points run."""

from kits_ml.cli import main

if __name__ == "__main__":
    main()
