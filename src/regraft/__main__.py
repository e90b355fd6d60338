"""`python -m regraft`."""

from regraft.cli import main

raise SystemExit(main())
