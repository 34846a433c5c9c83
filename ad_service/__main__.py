"""`python -m ad_service` is `ad-service`."""

import sys

from ad_service.cli import main

if __name__ == "__main__":
    sys.exit(main())
