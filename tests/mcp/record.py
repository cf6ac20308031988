"""Runs a server and records every line of its output: record.py LOG COMMAND ARGS...

The server reads our standard input. The lines pass on unchanged.
"""

import signal
import subprocess
import sys

log_file, *command = sys.argv[1:]
server = subprocess.Popen(command, stdout=subprocess.PIPE)
signal.signal(signal.SIGTERM, lambda *_: server.terminate())
with open(log_file, "wb") as log:
    for line in server.stdout:
        log.write(line)
        log.flush()
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
sys.exit(server.wait())
