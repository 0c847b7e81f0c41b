"""Passes: functions from graph to graph. `pipeline` is the list; `manager` runs it."""
