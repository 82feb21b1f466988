"""The limits of the server: what one client, one request and all requests together may take."""

import os

from seq2serve.components.pusher.server_files import BATCH_SIZES, MAX_REQUEST_ROWS

MIB = 2**20

# A request.
MAX_BODY_BYTES = 32 * MIB  # as sent, and after decompression
MAX_BATCH_ROWS = BATCH_SIZES[-1]  # the largest batch that the graph runs
MAX_ROWS = MAX_REQUEST_ROWS
MAX_REQUEST_BYTES = 128 * MIB  # body, parsed values and outputs together
VALUE_BYTES = 64  # estimated memory of one parsed JSON value or one string

# All requests together. A request beyond these limits is refused, and the client may try again.
MAX_REQUESTS = 256
MAX_TOTAL_BYTES = 512 * MIB
WORKERS = max(8, os.cpu_count() or 1)  # threads that run the graph; each runs one batch at a time
TEXT_WORKERS = 4  # threads that parse requests and write responses
RUN_SECONDS = 120  # for one batch; a single row can be a text of any number of sentences
TRIM_BYTES = 4 * MIB  # after a request of this size, free memory is returned to the system

# Connections, in seconds.
MAX_CONNECTIONS = 512
HEADER_SECONDS = 10  # from the first byte of a request, or from connecting, to the end of its headers
BODY_SECONDS = 30
IDLE_SECONDS = 60  # between two requests
WRITE_SECONDS = 60  # for a client to read a response
GRACE_SECONDS = 8  # for requests in progress when the server stops; `docker stop` kills after 10
