"""Runs a server and writes down every line that it says: record.py LOG COMMAND ARGS...

Standard input is the server's own; the lines pass on unchanged.
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
