"""`python -m ad_service.worker` runs jobs on the device; see worker.py."""

from ad_service.worker.worker import main

if __name__ == "__main__":
    main()
