"""`python -m graphc`: the same as the command `graphc`."""
from graphc.cli import main

raise SystemExit(main())
