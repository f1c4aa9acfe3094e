"""What both servers stand on: requests read within limits, errors, a listener, a drained end."""
