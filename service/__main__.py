"""`python -m service` is `drover`."""

from service.cli import main

if __name__ == "__main__":
    main()
