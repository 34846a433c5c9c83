"""`python -m ad_service.worker` is the process that owns a device; see worker.py."""

from ad_service.worker.worker import main

if __name__ == "__main__":
    main()
