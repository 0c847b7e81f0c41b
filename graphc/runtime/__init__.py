"""Running compiled programs: loading object code, the native driver, the threads."""
